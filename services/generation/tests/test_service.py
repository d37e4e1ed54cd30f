"""The service over HTTP, with two tiny models: streams, refusals, clients that leave, metrics."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import (
    GENERATE,
    MODELS,
    ChunkEvent,
    GenerateRequest,
    PromptEvent,
    Sampling,
    UsageEvent,
)
from hunmin_contracts.schema import Empty
from hunmin_generation.service import SERVICE
from hunmin_kit.run.errors import StartError
from hunmin_kit.testing import Running, running
from hunmin_modeling.testing import save_tiny_checkpoint
from hunmin_text.artefact import load
from hunmin_text.training import Method, train

PROMPT = "이 영화는 "
VARIED = Sampling(temperature=1.5, seed=3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models of byte-level tokens and 400 of them at most."""
    tokenizer = train(Method.BYTE, ["영화는 정말 재미있었습니다"] * 9, vocab_size=290)
    folders = {}
    for name, model_type in (("one", "gpt2"), ("two", "llama")):
        folders[name] = tmp_path_factory.mktemp(name)
        save_tiny_checkpoint(folders[name], model_type, vocab_size=290, context_length=400)
        tokenizer.backend.save(str(folders[name] / "tokenizer.json"))
        (folders[name] / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folders


def environment(folders: dict[str, Path], **settings: object) -> dict[str, str]:
    given: dict[str, object] = {
        "models": json.dumps({name: str(folder) for name, folder in folders.items()}),
        "threads": 1,
        "block_size": 8,
        "max_prompt_characters": 5000,
    }
    return {f"HUNMIN_GENERATION_{name.upper()}": str(value) for name, value in (given | settings).items()}


@pytest.fixture
async def service(folders: dict[str, Path]) -> AsyncIterator[Running]:
    async with running(SERVICE, env=environment(folders)) as services:
        yield services


def asked(**fields: Any) -> GenerateRequest:
    return GenerateRequest(
        **{"account_id": "acct_1", "model": "one", "prompt": PROMPT, "max_tokens": 12, "sampling": VARIED} | fields
    )


async def events(service: Running, request: GenerateRequest) -> list[PromptEvent | ChunkEvent | UsageEvent]:
    async with service.client("generation").stream(GENERATE, request) as stream:
        return [event.root async for event in stream]


async def text(service: Running, request: GenerateRequest) -> str:
    return "".join(event.text for event in await events(service, request) if isinstance(event, ChunkEvent))


async def refused(service: Running, request: GenerateRequest) -> HunminError:
    with pytest.raises(HunminError) as error:
        await events(service, request)
    return error.value


async def metric(service: Running, name: str, model: str = "one") -> float:
    page = (await service.http("generation").get("/metrics")).text
    line = next(line for line in page.splitlines() if line.startswith(f'{name}{{model_name="{model}"}}'))
    return float(line.split()[-1])


class TestGenerate:
    async def test_a_text_prompt_streams_events(self, service: Running, folders: dict[str, Path]) -> None:
        first, *chunks, last = await events(service, asked())
        prompt = load(folders["one"]).encode(PROMPT)
        assert first == PromptEvent(prompt_tokens=len(prompt))
        assert all(isinstance(chunk, ChunkEvent) for chunk in chunks)
        assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]
        assert last == UsageEvent(prompt_tokens=len(prompt), completion_tokens=12)

    async def test_token_ids_are_the_same_prompt_as_their_text(
        self, service: Running, folders: dict[str, Path]
    ) -> None:
        ids = load(folders["one"]).encode(PROMPT)
        assert await text(service, asked(prompt=ids)) == await text(service, asked())

    async def test_messages_are_rendered_as_questions_and_answers(self, service: Running) -> None:
        messages = [{"role": "user", "content": "재미있어?"}]
        found = await events(service, asked(prompt=messages, echo=True))
        assert isinstance(found[0], PromptEvent)
        assert found[0].text == "질문: 재미있어?\n답변:"

    async def test_each_model_answers_for_itself(self, service: Running) -> None:
        assert await text(service, asked(model="one")) != await text(service, asked(model="two"))

    async def test_characters_of_several_tokens_arrive_whole(self, service: Running) -> None:
        found = await events(service, asked(max_tokens=200))
        chunks = [event for event in found if isinstance(event, ChunkEvent)]
        assert len(chunks) > 1
        whole = "".join(chunk.text for chunk in chunks)
        counted = asked(max_tokens=200, logprobs=0)
        tokens = [
            token for event in await events(service, counted) if isinstance(event, ChunkEvent) for token in event.tokens
        ]
        assert bytes(byte for token in tokens for byte in token.bytes).decode("utf-8", "replace") == whole

    async def test_eight_concurrent_streams_equal_each_alone(self, service: Running) -> None:
        requests = [
            asked(prompt=f"{'영화' * i} 이야기", sampling=Sampling(temperature=0), max_tokens=60) for i in range(8)
        ]
        alone = [await text(service, request) for request in requests]
        assert await asyncio.gather(*(text(service, request) for request in requests)) == alone

    async def test_models_are_listed_with_their_digest(self, service: Running) -> None:
        listed = (await service.client("generation").call(MODELS, Empty())).models
        assert [(model.name, model.architecture, model.context_length) for model in listed] == [
            ("one", "GPT2LMHeadModel", 400),
            ("two", "LlamaForCausalLM", 400),
        ]
        assert len({model.digest for model in listed}) == 2


class TestRefused:
    async def test_an_unknown_model(self, service: Running) -> None:
        error = await refused(service, asked(model="none"))
        assert (error.code, error.status) == (ErrorCode.MODEL_NOT_FOUND, 404)
        assert "one, two" in error.message

    async def test_a_prompt_too_long_names_both_lengths(self, service: Running) -> None:
        error = await refused(service, asked(prompt=[5] * 390))
        assert (error.code, error.status) == (ErrorCode.PROMPT_TOO_LONG, 400)
        assert "390 tokens" in error.message
        assert "400 tokens" in error.message

    async def test_a_prompt_of_too_many_characters(self, service: Running) -> None:
        assert (await refused(service, asked(prompt="가" * 5001))).code == ErrorCode.TOO_LARGE

    @pytest.mark.parametrize("prompt", ["", [], [290]])
    async def test_a_prompt_that_is_none(self, service: Running, prompt: str | list[int]) -> None:
        assert (await refused(service, asked(prompt=prompt))).code == ErrorCode.INVALID_PARAMETER

    async def test_more_than_the_queue_holds(self, folders: dict[str, Path]) -> None:
        full = environment(folders, max_running=1, max_queue=1)
        async with running(SERVICE, env=full) as service, asyncio.TaskGroup() as group:
            endless = asked(max_tokens=390)
            first = [group.create_task(events(service, endless)) for _ in range(2)]
            async with asyncio.timeout(5):
                while await metric(service, "vllm:num_requests_waiting") < 1:  # noqa: ASYNC110  # seen from outside only
                    await asyncio.sleep(0.01)
            reply = await service.http("generation").post("/v1/generate", json=endless.model_dump())
            assert reply.status_code == 429
            assert int(reply.headers["retry-after"]) >= 1
            for task in first:
                task.cancel()


class TestClientLeaves:
    async def test_its_sequence_is_freed_within_a_second(self, service: Running) -> None:
        async with service.client("generation").stream(GENERATE, asked(max_tokens=390)) as stream:
            async for event in stream:
                if isinstance(event.root, ChunkEvent):
                    break
        left_at = time.monotonic()
        while await metric(service, "hunmin_generation_request_cancelled_total") < 1:
            await asyncio.sleep(0.01)
            assert time.monotonic() - left_at < 1
        assert await metric(service, "vllm:num_requests_running") == 0
        assert await metric(service, "vllm:kv_cache_usage_perc") == 0


class TestOperation:
    async def test_metrics_count_what_was_done(self, service: Running) -> None:
        usage = (await events(service, asked(model="two")))[-1]
        assert isinstance(usage, UsageEvent)
        assert await metric(service, "vllm:generation_tokens_total", "two") == usage.completion_tokens
        assert await metric(service, "vllm:prompt_tokens_total", "two") == usage.prompt_tokens
        assert await metric(service, "vllm:time_to_first_token_seconds_count", "two") == 1
        assert await metric(service, "vllm:request_success_total", "one") == 0

    async def test_metrics_tell_of_the_prefix_cache(self, service: Running, folders: dict[str, Path]) -> None:
        prompt = load(folders["one"]).encode(PROMPT * 9)
        for _ in range(3):
            await events(service, asked(prompt=prompt, max_tokens=1))
        assert await metric(service, "vllm:prefix_cache_queries_total") == 3 * len(prompt)
        assert await metric(service, "vllm:prefix_cache_hits_total") == 2 * ((len(prompt) - 1) // 8 * 8)

    async def test_metrics_tell_of_preemptions(self, folders: dict[str, Path]) -> None:
        small = environment(folders, kv_bytes=512 * 32)  # 512 bytes a token of "one": room for 32
        async with running(SERVICE, env=small) as service:
            await asyncio.gather(*(events(service, asked(prompt=[1, 2, number], max_tokens=25)) for number in range(2)))
            assert await metric(service, "vllm:num_preemptions_total") >= 1

    async def test_it_is_ready_when_its_engines_run(self, service: Running) -> None:
        http: httpx.AsyncClient = service.http("generation")
        assert (await http.get("/readyz")).status_code == 200

    async def test_what_still_runs_at_the_end_gets_an_error(self, folders: dict[str, Path]) -> None:
        async with running(SERVICE, env=environment(folders)) as service:
            task = asyncio.create_task(events(service, asked(max_tokens=390)))
            async with asyncio.timeout(5):
                while await metric(service, "vllm:num_requests_running") < 1:  # noqa: ASYNC110  # seen from outside only
                    await asyncio.sleep(0.005)
        with pytest.raises(HunminError) as ended:
            await task
        assert ended.value.code == ErrorCode.UNAVAILABLE

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"models": json.dumps({"starter": "/nowhere"})}, "/nowhere"),
            ({"max_running": 9, "max_batch_tokens": 8}, "max_running exceeds max_batch_tokens"),
            ({"kv_bytes": 10}, "kv_bytes"),
        ],
    )
    async def test_settings_that_cannot_work_stop_the_start(
        self, folders: dict[str, Path], settings: dict[str, object], reason: str
    ) -> None:
        with pytest.raises(StartError, match=reason):
            async with running(SERVICE, env=environment(folders, **settings)):
                pass


@pytest.mark.parametrize(("priority", "is_first"), [("interactive", True), ("batch", False)])
async def test_what_somebody_waits_for_goes_before_a_batch(
    folders: dict[str, Path], priority: Any, is_first: bool
) -> None:
    ended: list[str] = []
    has_begun = asyncio.Event()
    async with running(SERVICE, env=environment(folders, max_running=1)) as services:
        client = services.client("generation")

        async def generate(name: str, **fields: Any) -> None:
            request = GenerateRequest(account_id="acct_1", model="one", prompt=PROMPT, sampling=VARIED, **fields)
            async with client.stream(GENERATE, request) as stream:
                async for _ in stream:
                    has_begun.set()
            ended.append(name)

        batch = asyncio.create_task(generate("batch", n=16, max_tokens=40, priority="batch"))
        await has_begun.wait()
        await generate("one", max_tokens=2, priority=priority)
        await batch
    assert (ended[0] == "one") is is_first
