"""What a call would use at most, told before: equal to what the call then meters, refused where the call is refused."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from hunmin_contracts.errors import HunminError
from hunmin_contracts.generation import (
    EMBED,
    GENERATE,
    MEASURE,
    MEASURE_EMBED,
    MEASURE_SCORE,
    SCORE,
    ChunkEvent,
    EmbedRequest,
    GenerateRequest,
    PromptEvent,
    ScoreRequest,
    UsageEvent,
)
from hunmin_contracts.gradients import GRADIENTS, MEASURE_GRADIENTS, GradientRequest, GradientResult
from hunmin_contracts.soft_prompts import IMPORT, PROMOTE, ImportRequest, Manifest, PromoteRequest
from hunmin_generation.service import SERVICE
from hunmin_kit.testing import Running, running
from hunmin_modeling.soft_prompt import write_file
from hunmin_modeling.testing import save_tiny_checkpoint
from hunmin_text.training import Method, train

pytestmark = pytest.mark.asyncio(loop_scope="module")

ACCOUNT = "acct_1"
CONTEXT = 120
ROWS = torch.randn(3, 32, generator=torch.Generator().manual_seed(1)) * 0.4
TEMPLATE = "<|VIRTUAL_PROMPT_0|>리뷰: {review}\n<|VIRTUAL_PROMPT_1|>감정:"
SOFT_PROMPT = write_file(ROWS, Manifest(template=TEMPLATE, slots=[2, 1]))
CHAT = [{"role": "system", "content": "짧게."}, {"role": "user", "content": "재미있어?"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A tiny model, and the soft prompt `review` in three versions, of which the second is promoted."""
    folder: Path = tmp_path_factory.mktemp("model")
    save_tiny_checkpoint(folder, "gpt2", vocab_size=290, context_length=CONTEXT)
    tokenizer = train(Method.BYTE, ["영화는 정말 재미있었습니다"] * 9, vocab_size=290)
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    env = {
        "HUNMIN_GENERATION_MODELS": json.dumps({"one": str(folder)}),
        "HUNMIN_GENERATION_THREADS": "1",
        "HUNMIN_GENERATION_GRADIENT_THREADS": "1",
        "HUNMIN_GENERATION_MAX_GRADIENT_TOKENS": "100",
        "HUNMIN_GENERATION_MAX_PROMPT_CHARACTERS": "500",
        "HUNMIN_GENERATION_MAX_RUNNING": "4",
        "HUNMIN_GENERATION_MAX_QUEUE": "4",
    }
    async with running(SERVICE, env=env) as services:
        for _ in range(3):
            request = ImportRequest(account_id=ACCOUNT, name="review", model="one")
            await services.client("generation").upload(IMPORT, request, _sent(SOFT_PROMPT))
        await services.client("generation").call(PROMOTE, PromoteRequest(account_id=ACCOUNT, reference="review@2"))
        yield services


async def _sent(file: bytes) -> AsyncIterator[bytes]:
    yield file


async def computed(service: Running) -> str:
    """Return the line of /metrics that counts the prompt tokens that the engine was given."""
    page = (await service.http("generation").get("/metrics")).text
    return next(line for line in page.splitlines() if line.startswith("vllm:prompt_tokens_total{"))


PROMPTS = [
    {"prompt": "이 영화는 "},
    {"prompt": [5, 6, 7]},
    {"prompt": CHAT},
    {"prompt": "정말", "echo": True, "logprobs": 1, "n": 2},
    {"prompt": "정말", "max_tokens": 0, "echo": True},
    {"prompt": "정말", "max_tokens": None, "n": 3},
    {"model": "review", "prompt": "정말"},
    {"model": "review@1", "prompt": {"review": "재미있었습니다"}, "max_tokens": None},
]


class TestCompletions:
    @pytest.mark.parametrize("fields", PROMPTS)
    async def test_use_no_more_and_their_prompt_exactly(self, service: Running, fields: dict[str, Any]) -> None:
        request = GenerateRequest(**{"account_id": ACCOUNT, "model": "one", "max_tokens": 9} | fields)
        client = service.client("generation")
        before = await computed(service)
        measured = await client.call(MEASURE, request)
        assert await computed(service) == before
        async with client.stream(GENERATE, request) as stream:
            events = [event.root async for event in stream]
        assert isinstance(events[0], PromptEvent)
        assert isinstance(events[-1], UsageEvent)
        assert measured.prompt_tokens == events[0].prompt_tokens == events[-1].prompt_tokens
        left = CONTEXT - measured.prompt_tokens
        assert measured.max_tokens == (left if request.max_tokens is None else request.max_tokens)
        assert events[-1].completion_tokens <= request.n * measured.max_tokens
        for chunk in (event for event in events if isinstance(event, ChunkEvent)):
            assert chunk.completion_tokens <= measured.max_tokens
            assert chunk.finish_reason != "length" or chunk.completion_tokens == measured.max_tokens

    @pytest.mark.parametrize(("model", "reference"), [("one", "one"), ("review", "review@2"), ("review@3", "review@3")])
    async def test_are_told_what_serves_them(self, service: Running, model: str, reference: str) -> None:
        request = GenerateRequest(account_id=ACCOUNT, model=model, prompt="정말")
        measured = await service.client("generation").call(MEASURE, request)
        assert (measured.model, measured.reference) == ("one", reference)

    @pytest.mark.parametrize(
        "fields",
        [
            {"model": "none"},
            {"model": "review@4"},
            {"prompt": []},
            {"prompt": [400]},
            {"prompt": "가" * 501},
            {"prompt": [5] * 115},
            {"prompt": {"review": "가"}},
            {"model": "review", "prompt": {"other": "가"}},
            {"n": 9},
        ],
    )
    async def test_are_refused_as_they_would_be(self, service: Running, fields: dict[str, Any]) -> None:
        given = {"account_id": ACCOUNT, "model": "one", "prompt": "정말", "max_tokens": 9}
        request = GenerateRequest(**given | fields)
        client = service.client("generation")
        with pytest.raises(HunminError) as measuring:
            await client.call(MEASURE, request)
        with pytest.raises(HunminError) as generating:
            async with client.stream(GENERATE, request):
                pass
        told, met = measuring.value, generating.value
        assert (told.code, told.message, told.details) == (met.code, met.message, met.details)


class TestScores:
    @pytest.mark.parametrize(
        "fields", [{}, {"model": "review", "prompt": {"review": "정말"}}, {"prompt": [5, 6], "continuations": [[7]]}]
    )
    async def test_use_what_was_measured(self, service: Running, fields: dict[str, Any]) -> None:
        given = {"account_id": ACCOUNT, "model": "one", "prompt": "이 영화는", "continuations": [" 정말", " 재미"]}
        request = ScoreRequest(**given | fields)
        measured = await service.client("generation").call(MEASURE_SCORE, request)
        scored = await service.client("generation").call(SCORE, request)
        assert measured.prompt_tokens == scored.prompt_tokens + scored.continuation_tokens
        assert measured.max_tokens == measured.backward_tokens == 0

    @pytest.mark.parametrize(
        "fields", [{"prompt": ""}, {"continuations": [[5] * 119]}, {"continuations": [[5], [400]]}]
    )
    async def test_are_refused_as_they_would_be(self, service: Running, fields: dict[str, Any]) -> None:
        given = {"account_id": ACCOUNT, "model": "one", "prompt": "이 영화는", "continuations": [" 정말"]}
        errors = []
        for endpoint in (MEASURE_SCORE, SCORE):
            with pytest.raises(HunminError) as refused:
                await service.client("generation").call(endpoint, ScoreRequest(**given | fields))
            errors.append((refused.value.code, refused.value.message, refused.value.details))
        assert errors[0] == errors[1]


class TestEmbeddings:
    async def test_use_what_was_measured(self, service: Running) -> None:
        request = EmbedRequest(account_id=ACCOUNT, model="one", inputs=["이 영화는", "정말", [5, 6]])
        measured = await service.client("generation").call(MEASURE_EMBED, request)
        embedded = await service.client("generation").call(EMBED, request)
        assert measured.prompt_tokens == sum(one.tokens for one in embedded.embeddings)

    async def test_are_refused_as_they_would_be(self, service: Running) -> None:
        request = EmbedRequest(account_id=ACCOUNT, model="one", inputs=["정말", [5] * 121])
        for endpoint in (MEASURE_EMBED, EMBED):
            with pytest.raises(HunminError, match=r"inputs\.1"):
                await service.client("generation").call(endpoint, request)


class TestGradients:
    @pytest.mark.parametrize("examples", [1, 5])
    async def test_use_what_was_measured(self, service: Running, examples: int) -> None:
        written = [{"fields": {"review": "정말 " * number}, "target": " 긍정"} for number in range(examples)]
        request = GradientRequest(account_id=ACCOUNT, model="review", examples=written)
        measured = await service.client("generation").upload(MEASURE_GRADIENTS, request, _sent(b""))
        assert (measured.model, measured.reference) == ("one", "review@2")
        async with service.client("generation").stream(GRADIENTS, request) as stream:
            last = [event.root async for event in stream][-1]
        assert isinstance(last, GradientResult)
        usage = last.response.usage
        assert (measured.prompt_tokens, measured.backward_tokens) == (usage.prompt_tokens, usage.backward_tokens)

    async def test_are_refused_as_they_would_be(self, service: Running) -> None:
        request = GradientRequest(
            account_id=ACCOUNT, model="one", examples=[{"tokens": [-1], "target": [5]}, {"tokens": [5], "target": [5]}]
        )
        client = service.client("generation")
        with pytest.raises(HunminError, match=r"examples\.0") as measuring:
            await client.upload(MEASURE_GRADIENTS, request, _sent(b""))
        with pytest.raises(HunminError) as computing:
            async with client.stream(GRADIENTS, request):
                pass
        assert measuring.value.message == computing.value.message
