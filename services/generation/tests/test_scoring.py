"""Scores and embeddings over HTTP: equal to what transformers computes, shared, bounded, refused with a reason."""

import json
import math
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import EMBED, SCORE, EmbedRequest, Sampling, ScoreRequest
from hunmin_contracts.ids import AccountId
from hunmin_generation.engine.engine import Engine
from hunmin_generation.engine.request import EngineRequest
from hunmin_generation.engine.sequence import Sequence, Status
from hunmin_generation.service import SERVICE
from hunmin_kit.testing import Running, running
from hunmin_modeling.soft_prompt import SoftPromptRows
from hunmin_modeling.testing import save_tiny_checkpoint, tiny_model
from hunmin_text.artefact import load
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.training import Method, train

ACCOUNT = AccountId("acct_1")
SHAPE = {"vocab_size": 290, "context_length": 400}
MODEL_TYPES = ["gpt2", "llama"]
BUDGET = 8  # tokens of a step


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    tokenizer = train(Method.BYTE, ["영화는 정말 재미있었습니다"] * 9, vocab_size=290)
    folders = {}
    for model_type in MODEL_TYPES:
        folders[model_type] = tmp_path_factory.mktemp(model_type)
        save_tiny_checkpoint(folders[model_type], model_type, **SHAPE)
        tokenizer.backend.save(str(folders[model_type] / "tokenizer.json"))
        (folders[model_type] / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folders


@pytest.fixture(scope="module")
def tokenizer(folders: dict[str, Path]) -> Tokenizer:
    return load(folders["gpt2"])


@pytest.fixture
async def service(folders: dict[str, Path]) -> AsyncIterator[Running]:
    env = {
        "HUNMIN_GENERATION_MODELS": json.dumps({name: str(folder) for name, folder in folders.items()}),
        "HUNMIN_GENERATION_THREADS": "1",
        "HUNMIN_GENERATION_BLOCK_SIZE": "8",
        "HUNMIN_GENERATION_MAX_BATCH_TOKENS": str(BUDGET),
        "HUNMIN_GENERATION_MAX_RUNNING": "8",
        "HUNMIN_GENERATION_MAX_QUEUE": "30",
    }
    async with running(SERVICE, env=env) as services:
        yield services


async def scores(service: Running, **fields: Any) -> Any:
    request = {"account_id": ACCOUNT, "model": "gpt2", "prompt": "이 영화는"} | fields
    return await service.client("generation").call(SCORE, ScoreRequest(**request))


async def embeddings(service: Running, **fields: Any) -> list[Any]:
    request = {"account_id": ACCOUNT, "model": "gpt2"} | fields
    return (await service.client("generation").call(EMBED, EmbedRequest(**request))).embeddings


class TestScores:
    @pytest.mark.parametrize("model_type", MODEL_TYPES)
    async def test_are_the_model_s_own(self, service, tokenizer, model_type: str) -> None:
        prompt, answers = "이 영화는 정말", [" 재미있었습니다", " 재미", "없다"]
        found = await scores(service, model=model_type, prompt=prompt, continuations=answers)
        ids = tokenizer.prefix_ids + tokenizer.encode(prompt)
        model = tiny_model(model_type, **SHAPE)
        for answer, score in zip(answers, found.scores, strict=True):
            following = tokenizer.encode(answer)
            with torch.no_grad():
                logprobs = model(torch.tensor([ids + following])).logits[0].log_softmax(-1)
            expected = [logprobs[len(ids) - 1 + i, token].item() for i, token in enumerate(following)]
            assert [token.logprob for token in score.tokens] == pytest.approx(expected, abs=1e-4)
            assert [token.id for token in score.tokens] == following
            assert score.logprob == pytest.approx(sum(expected), abs=1e-3)
            assert score.mean_logprob == pytest.approx(sum(expected) / len(expected), abs=1e-4)
        assert found.prompt_tokens == len(ids)
        assert found.continuation_tokens == sum(len(tokenizer.encode(answer)) for answer in answers)

    async def test_take_token_ids(self, service, tokenizer) -> None:
        text = await scores(service, continuations=[" 정말"])
        prompt = tokenizer.prefix_ids + tokenizer.encode("이 영화는")
        assert await scores(service, prompt=prompt, continuations=[tokenizer.encode(" 정말")]) == text

    async def test_the_prompt_is_computed_once_for_all(self, service) -> None:
        await scores(service, prompt="정말 " * 20, continuations=[" 재미"] * 60)
        metrics = (await service.http("generation").get("/metrics")).text
        name = 'vllm:prompt_tokens_total{model_name="gpt2"}'
        computed = next(line for line in metrics.splitlines() if line.startswith(name))
        one = await scores(service, prompt="정말 " * 20, continuations=[" 재미"])
        assert float(computed.split()[-1]) < 2 * one.prompt_tokens + 60 * (one.continuation_tokens + 8)

    @pytest.mark.parametrize(
        ("fields", "code", "param"),
        [
            ({"prompt": [], "continuations": ["a"]}, ErrorCode.INVALID_PARAMETER, "prompt"),
            ({"prompt": [9999], "continuations": ["a"]}, ErrorCode.INVALID_PARAMETER, "prompt"),
            ({"continuations": [[9999]]}, ErrorCode.INVALID_PARAMETER, "continuations.0"),
            ({"continuations": ["a", "긴 " * 400]}, ErrorCode.PROMPT_TOO_LONG, "continuations.1"),
            ({"model": "none", "continuations": ["a"]}, ErrorCode.MODEL_NOT_FOUND, "model"),
        ],
    )
    async def test_what_cannot_be_scored_is_refused(
        self, service, fields: dict[str, Any], code: ErrorCode, param: str
    ) -> None:
        with pytest.raises(HunminError) as refused:
            await scores(service, **fields)
        assert (refused.value.code, refused.value.details["param"]) == (code, param)
        assert "max_tokens" not in refused.value.message


class TestEmbeddings:
    @pytest.mark.parametrize("model_type", MODEL_TYPES)
    async def test_are_the_mean_of_the_last_hidden_states(self, service, tokenizer, model_type: str) -> None:
        texts = ["이 영화는 정말", "재미있었습니다 " * 30]
        found = await embeddings(service, model=model_type, inputs=texts)
        model = tiny_model(model_type, **SHAPE)
        assert found[1].tokens > 3 * BUDGET  # in several chunks
        for text, embedding in zip(texts, found, strict=True):
            ids = tokenizer.prefix_ids + tokenizer.encode(text)
            with torch.no_grad():
                mean = model.base_model(torch.tensor([ids])).last_hidden_state[0].mean(0)
            assert embedding.tokens == len(ids)
            assert embedding.vector == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
            assert math.hypot(*embedding.vector) == pytest.approx(1)

    async def test_more_inputs_than_the_queue_holds(self, service) -> None:
        inputs = [f"영화 {number}" for number in range(100)]
        found = await embeddings(service, inputs=inputs)
        assert found[7] == (await embeddings(service, inputs=[inputs[7]]))[0]

    async def test_one_that_is_too_long_names_both_lengths(self, service) -> None:
        with pytest.raises(HunminError, match="takes 400 tokens") as refused:
            await embeddings(service, inputs=["가", "긴 " * 400])
        assert (refused.value.code, refused.value.details["param"]) == (ErrorCode.PROMPT_TOO_LONG, "inputs.1")
        assert "max_tokens" not in refused.value.message


class TestTogether:
    """Scores, embeddings and completions in the same steps of one engine, with and without a soft prompt."""

    KINDS = ("score", "embedding", "completion")

    def requests(self) -> list[EngineRequest]:
        rng = random.Random(5)  # noqa: S311  # prompts, not secrets
        rows = torch.randn(3, 32, generator=torch.Generator().manual_seed(2)) * 0.4
        found = []
        for number in range(12):
            kind, soft_prompt = self.KINDS[number % 3], SoftPromptRows("sp_1", rows) if number % 2 else None
            length = 8 if kind == "completion" else 24
            prompt = [*([-1, -2, -3] if soft_prompt else []), *(rng.randrange(97) for _ in range(length))]
            fields = {
                "score": {"score_from": len(prompt) - 12, "logprobs": 0, "max_tokens": 0},
                "embedding": {"embed": True, "max_tokens": 0},
                "completion": {"logprobs": 0, "max_tokens": 24, "ignore_end": True},
            }[kind]
            found.append(EngineRequest(prompt, sampling=Sampling(temperature=0), soft_prompt=soft_prompt, **fields))
        return found

    def run(self, engine: Engine, requests: list[EngineRequest], rng: random.Random) -> tuple[list[Any], set[str]]:
        """Run requests that arrive at random steps; return what came of each, and the kinds that were preempted."""
        sinks: list[list[Any]] = [[] for _ in requests]
        sequences: dict[Sequence, str] = {}
        arriving, preempted = list(range(len(requests))), set()
        rng.shuffle(arriving)
        while arriving or not engine.is_idle:
            for _ in range(rng.choice([0, 1, 3])):
                if arriving:
                    number = arriving.pop()
                    (completion,) = engine.add(requests[number], sinks[number].append).completions
                    sequences[completion.sequence] = self.KINDS[number % 3]
            before = {sequence for sequence in sequences if sequence.status is Status.RUNNING}
            engine.step()
            preempted |= {sequences[sequence] for sequence in before if sequence.status is Status.WAITING}
        return [self.outcome(events) for events in sinks], preempted

    def outcome(self, events: list[Any]) -> tuple[str, list[float]]:
        """The text, and the numbers: of an embedding, of scored tokens of prompt and completion."""
        tokens = [token for event in events if event.type in ("prompt", "chunk") for token in event.tokens]
        hidden = [number for event in events if event.type == "hidden" for number in event.mean]
        text = "".join(event.text for event in events if event.type == "chunk")
        return text, hidden or [token.logprob for token in tokens]

    @pytest.mark.parametrize("prefix_cache", [True, False])
    @pytest.mark.parametrize("model_type", MODEL_TYPES)
    def test_each_is_what_it_is_alone(self, new_engine, model_type: str, prefix_cache: bool) -> None:
        requests, kinds = self.requests(), set()
        alone = [self.run(new_engine(model_type), [one], random.Random(0))[0][0] for one in requests]  # noqa: S311
        for seed in range(16):
            if kinds == set(self.KINDS):
                break
            engine = new_engine(model_type, blocks=16, max_batch_tokens=4, max_running=4, prefix_cache=prefix_cache)
            together, preempted = self.run(engine, requests, random.Random(seed))  # noqa: S311
            kinds |= preempted
            for (text, numbers), (expected_text, expected) in zip(together, alone, strict=True):
                assert text == expected_text
                assert len(expected) >= 12
                assert numbers == pytest.approx(expected, abs=1e-4)
            assert engine.scheduler.blocks.free == 16
        assert kinds == set(self.KINDS)
