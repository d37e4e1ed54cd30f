"""What each call used is told by an event, however the call ends."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import USAGE, Envelope, UsageMetered
from hunmin_contracts.generation import (
    EMBED,
    GENERATE,
    SCORE,
    ChunkEvent,
    EmbedRequest,
    GenerateRequest,
    PromptEvent,
    ScoreRequest,
    UsageEvent,
)
from hunmin_contracts.gradients import GRADIENTS, GradientRequest, GradientResult
from hunmin_contracts.ids import RequestId
from hunmin_contracts.usage import CallOrigin
from hunmin_generation.service import SERVICE
from hunmin_generation.usage import UsageEvents
from hunmin_kit.data import Database
from hunmin_kit.testing import Running, running
from hunmin_kit.web import request_context
from hunmin_modeling.testing import save_tiny_checkpoint
from hunmin_text.training import Method, train
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

WITHIN_S = 20
ORIGIN = CallOrigin(usage_id="use_1", key_id="key_1", endpoint="/v1/completions", started_at=datetime.now(UTC))
CALL: dict[str, Any] = {"account_id": "acct_1", "model": "one", "origin": ORIGIN}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("one")
    tokenizer = train(Method.BYTE, ["영화는 정말 재미있었습니다"] * 9, vocab_size=290)
    # No end token: every few dozen tokens that a model draws that learnt nothing one would come.
    save_tiny_checkpoint(made, "gpt2", vocab_size=290, context_length=400, eos_token_id=None)
    tokenizer.backend.save(str(made / "tokenizer.json"))
    (made / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return made


@pytest.fixture
async def service(folder: Path) -> AsyncIterator[Running]:
    env = {"HUNMIN_GENERATION_MODELS": json.dumps({"one": str(folder)}), "HUNMIN_GENERATION_THREADS": "1"}
    async with running(SERVICE, env=env) as services:
        yield services


async def told(service: Running) -> list[Envelope[UsageMetered]]:
    async with service.platform("generation").database().session() as session:
        rows = await session.execute(text("SELECT key, content FROM event_outbox ORDER BY number"))
        events = [(row.key, USAGE.envelope.model_validate_json(row.content)) for row in rows]
    assert all(key == event.subject == event.data.usage_id for key, event in events)
    return [event for _, event in events]


async def one_told(service: Running) -> UsageMetered:
    """Wait for the one event that there is to be."""
    deadline = time.monotonic() + WITHIN_S
    while not await told(service):
        assert time.monotonic() < deadline, "no event was told"
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    (event,) = await told(service)
    assert event.source == "hunmin/generation"
    return event.data


async def test_completions_are_told_with_what_the_engine_counted(service: Running) -> None:
    request = GenerateRequest(**CALL, prompt="이 영화는", max_tokens=7, n=2)
    with request_context(RequestId("req_one")):
        async with service.client("generation").stream(GENERATE, request) as stream:
            events = [event.root async for event in stream]
    assert isinstance(events[-1], UsageEvent)
    usage = await one_told(service)
    assert (usage.prompt_tokens, usage.completion_tokens) == (events[-1].prompt_tokens, events[-1].completion_tokens)
    assert usage.completion_tokens > 0
    assert (usage.request_id, usage.account_id, usage.model) == ("req_one", "acct_1", "one")
    assert (usage.key_id, usage.endpoint, usage.started_at) == ("key_1", "/v1/completions", ORIGIN.started_at)
    assert (usage.outcome, usage.error_code) == ("succeeded", None)


async def test_stream_whose_caller_left_is_told_with_what_was_generated(service: Running) -> None:
    request = GenerateRequest(**CALL, prompt="이 영화는", max_tokens=380)
    seen = 0
    async with service.client("generation").stream(GENERATE, request) as stream:
        async for event in stream:
            if isinstance(event.root, ChunkEvent):
                seen = event.root.completion_tokens
            if seen >= 3:
                break
    usage = await one_told(service)
    assert usage.outcome == "cancelled"
    assert seen <= usage.completion_tokens < 380
    assert usage.prompt_tokens > 0


async def test_call_that_is_refused_is_not_told(service: Running) -> None:
    with pytest.raises(HunminError):
        async with service.client("generation").stream(GENERATE, GenerateRequest(**CALL, prompt="가" * 500)):
            pass
    with pytest.raises(HunminError):
        await service.client("generation").call(SCORE, ScoreRequest(**CALL, prompt="", continuations=["가"]))
    await asyncio.sleep(0.2)
    assert await told(service) == []


async def test_call_without_an_origin_is_not_told(service: Running) -> None:
    request = GenerateRequest(account_id="acct_1", model="one", prompt="이", max_tokens=2)
    async with service.client("generation").stream(GENERATE, request) as stream:
        assert isinstance((await anext(aiter(stream))).root, PromptEvent)
        async for _ in stream:
            pass
    await asyncio.sleep(0.2)
    assert await told(service) == []


class UnheardDatabase:
    """A database that is lost as it has committed for the first time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_lost = True

    async def run(self, work: Callable[[AsyncSession], Awaitable[None]]) -> None:
        await self._database.run(work)
        if self._is_lost:
            self._is_lost = False
            raise HunminError(ErrorCode.UNAVAILABLE, "The database cannot be reached.")


async def test_call_that_is_told_again_is_the_same_event(service: Running) -> None:
    platform = service.platform("generation")
    usage = UsageEvents(platform.events(), UnheardDatabase(platform.database()))  # type: ignore[arg-type]
    with request_context(RequestId("req_1")):
        async with usage.metered(GenerateRequest(**CALL, prompt="이")) as meter:
            meter.record(prompt_tokens=1)
    await usage.finish()
    first, second = await told(service)
    assert first.id == second.id


async def test_call_that_is_cut_before_it_was_accepted_is_told_of_as_one_of_its_exchange(service: Running) -> None:
    platform = service.platform("generation")
    usage = UsageEvents(platform.events(), platform.database())
    request = GenerateRequest(**CALL | {"origin": ORIGIN.model_copy(update={"calls": 3})}, prompt="이")
    with request_context(RequestId("req_1")), pytest.raises(asyncio.CancelledError):
        async with usage.metered(request):
            raise asyncio.CancelledError
    await usage.finish()
    event = await one_told(service)
    assert (event.outcome, event.prompt_tokens, event.completion_tokens, event.calls) == ("cancelled", 0, 0, 3)


async def test_scores_are_told(service: Running) -> None:
    request = ScoreRequest(**CALL, prompt="이 영화는", continuations=["정말", "재미"])
    response = await service.client("generation").call(SCORE, request)
    usage = await one_told(service)
    assert usage.prompt_tokens == response.prompt_tokens + response.continuation_tokens


async def test_embeddings_are_told(service: Running) -> None:
    response = await service.client("generation").call(EMBED, EmbedRequest(**CALL, inputs=["이 영화는", "정말"]))
    usage = await one_told(service)
    assert usage.prompt_tokens == sum(embedding.tokens for embedding in response.embeddings) > 0


async def test_gradients_are_told_in_backward_tokens(service: Running) -> None:
    request = GradientRequest(**CALL, examples=[{"tokens": [5, 6, 7], "target": [8]}], gradient_format="none")
    async with service.client("generation").stream(GRADIENTS, request) as stream:
        events = [event.root async for event in stream]
    assert isinstance(events[-1], GradientResult)
    usage = await one_told(service)
    assert usage.backward_tokens == events[-1].response.usage.backward_tokens > 0
    assert usage.prompt_tokens == events[-1].response.usage.prompt_tokens
