"""Gradients over the service's HTTP: equal to local autograd, refused where they cannot be, never in decode's way."""

import asyncio
import base64
import gc
import json
import os
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
import torch.nn.functional as F
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import GENERATE, ChunkEvent, GenerateRequest, Sampling
from hunmin_contracts.gradients import GRADIENTS, GradientProgress, GradientRequest, GradientResponse, GradientResult
from hunmin_contracts.soft_prompts import IMPORT, ImportRequest, Manifest
from hunmin_generation.gradients import batch
from hunmin_generation.gradients.answer import write_answer
from hunmin_generation.gradients.worker import GradientWorker
from hunmin_generation.service import SERVICE
from hunmin_kit.testing import Running, running
from hunmin_modeling.checkpoint import load_checkpoint
from hunmin_modeling.gradient import Example, Gradients, Wanted
from hunmin_modeling.soft_prompt import write_file
from hunmin_modeling.testing import save_tiny_checkpoint
from hunmin_text.artefact import load
from hunmin_text.prompt_template import encode_template
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.training import Method, train
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor
from transformers import AutoModelForCausalLM

D_MODEL, VOCABULARY, N_VIRTUAL, CONTEXT = 32, 290, 5, 200
TEMPLATE = "<|VIRTUAL_PROMPT_0|>리뷰: {review}\n<|VIRTUAL_PROMPT_1|>감정:"
SLOTS = [2, 3]
RELATIVE = 1e-5
ROWS = torch.randn(N_VIRTUAL, D_MODEL, generator=torch.Generator().manual_seed(1)) * 0.4
REVIEWS = {"재미있었습니다": " 긍정", "정말": " 부정", "영화는 영화는 영화는": " 긍정적인 편"}

pytestmark = pytest.mark.asyncio(loop_scope="module")
torch.set_num_threads(1)  # tiny products, and a machine that may be busy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of byte-level tokens."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny_checkpoint(folder, "llama", vocab_size=VOCABULARY, context_length=CONTEXT)
    tokenizer = train(Method.BYTE, ["영화는 정말 재미있었습니다"] * 9, vocab_size=VOCABULARY)
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load(folder)


def environment(folder: Path, **settings: object) -> dict[str, str]:
    given = {"models": json.dumps({"one": str(folder)}), "threads": 1, "gradient_threads": 1} | settings
    return {f"HUNMIN_GENERATION_{name.upper()}": str(value) for name, value in given.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(folder: Path) -> AsyncIterator[Running]:
    async with running(SERVICE, env=environment(folder, max_gradient_tokens=150)) as services:
        yield services


def file_of(rows: Tensor = ROWS, manifest: Manifest | None = None) -> bytes:
    return write_file(rows, manifest or Manifest())


@dataclass(frozen=True)
class Asked:
    """A request, and the file that goes with it."""

    request: GradientRequest
    soft_prompt: bytes | None

    async def file(self) -> AsyncIterator[bytes]:
        yield self.soft_prompt or b""


def asked(*examples: dict[str, Any], soft_prompt: bytes | None = file_of(), **fields: Any) -> Asked:
    given = {"account_id": "acct_1", "model": "one", "slots": SLOTS, "has_soft_prompt": soft_prompt is not None}
    written = [
        {"template": TEMPLATE, "fields": {"review": review}, "target": target} for review, target in REVIEWS.items()
    ]
    return Asked(GradientRequest(**given | {"examples": list(examples) or written} | fields), soft_prompt)


async def computed(service: Running, asking: Asked) -> GradientResponse:
    """Return the answer; the counts must grow to the answer's own."""
    counts = []
    async with service.client("generation").stream(GRADIENTS, asking.request, asking.file()) as events:
        async for event in events:
            if isinstance(event.root, GradientProgress):
                counts.append(event.root.usage.backward_tokens)
            else:
                assert isinstance(event.root, GradientResult)
                response = event.root.response
    assert counts == sorted(set(counts))
    assert counts[-1] == response.usage.backward_tokens
    return response


async def refused(service: Running, asking: Asked) -> HunminError:
    with pytest.raises(HunminError) as error:
        await computed(service, asking)
    return error.value


def gradient_of(response: GradientResponse) -> Tensor:
    assert response.gradient is not None
    return load_tensors(base64.b64decode(response.gradient))["gradient"]


def local(
    folder: Path, prompts: list[list[int]], targets: list[list[int]], *, weights: list[float] | None = None
) -> tuple[float, Tensor]:
    """Return loss and gradient as a developer's own autograd computes them."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").requires_grad_(False)
    embedding, rows = model.get_input_embeddings().weight, ROWS.clone().requires_grad_()
    loss = torch.zeros(())
    for prompt, target, weight in zip(prompts, targets, weights or [1.0] * len(prompts), strict=True):
        embedded = torch.stack([rows[-1 - t] if t < 0 else embedding[t] for t in [*prompt, *target]])
        logits = model(inputs_embeds=embedded[None]).logits[0, len(prompt) - 1 : -1]
        loss = loss + weight * F.cross_entropy(logits, torch.tensor(target), reduction="sum")
    loss = loss / sum(map(len, targets))
    loss.backward()
    return loss.item(), rows.grad


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).norm()) <= RELATIVE * float(expected.norm())


async def metric(service: Running, name: str) -> float:
    page = (await service.http("generation").get("/metrics")).text
    line = next(
        line for line in page.splitlines() if line.startswith(f'hunmin_generation_gradient_{name}{{model_name="one"}}')
    )
    return float(line.split()[-1])


class TestGradients:
    async def test_equal_local_autograd(self, service: Running, folder: Path, tokenizer: Tokenizer) -> None:
        prompts = [encode_template(TEMPLATE, {"review": review}, SLOTS, tokenizer) for review in REVIEWS]
        targets = [tokenizer.encode(target) for target in REVIEWS.values()]
        loss, gradient = local(folder, prompts, targets)
        response = await computed(service, asked())
        assert response.loss == pytest.approx(loss, rel=RELATIVE)
        assert_close(gradient_of(response), gradient)
        assert [[token.id for token in example.target] for example in response.examples] == targets
        whole = sum(token.logprob for example in response.examples for token in example.target)
        assert -whole / sum(map(len, targets)) == pytest.approx(loss, rel=RELATIVE)
        assert response.usage.prompt_tokens == sum(map(len, prompts))
        assert response.usage.backward_tokens == sum(len(p) + len(t) - 1 for p, t in zip(prompts, targets, strict=True))

    async def test_of_token_ids_with_repeated_rows_and_weights(self, service: Running, folder: Path) -> None:
        prompts, targets, weights = [[-1, 7, -1, -5, 9], [4, 5, -2]], [[8, 9], [10]], [2.0, 0.5]
        _, gradient = local(folder, prompts, targets, weights=weights)
        examples = [
            {"tokens": prompt, "target": target, "weight": weight}
            for prompt, target, weight in zip(prompts, targets, weights, strict=True)
        ]
        assert_close(gradient_of(await computed(service, asked(*examples))), gradient)
        summed = await computed(service, asked(*examples, reduction="sum", gradient_format="json"))
        assert summed.gradient is None
        assert_close(torch.tensor(summed.gradient_rows), gradient * 3)

    async def test_of_a_named_soft_prompt_use_its_template(self, service: Running) -> None:
        request = ImportRequest(account_id="acct_1", name="review", model="one", template=TEMPLATE, slots=SLOTS)

        async def file() -> AsyncIterator[bytes]:
            yield write_file(ROWS, Manifest())

        await service.client("generation").upload(IMPORT, request, file())
        examples = [{"fields": {"review": review}, "target": target} for review, target in REVIEWS.items()]
        named = await computed(service, asked(*examples, model="review@1", soft_prompt=None, slots=None))
        inline = await computed(service, asked())
        assert_close(gradient_of(named), gradient_of(inline))
        moved = await computed(service, asked(*examples, model="review", soft_prompt=file_of(ROWS * 1.1), slots=None))
        assert not torch.allclose(gradient_of(moved), gradient_of(named))
        foreign = asked(*examples, model="review", soft_prompt=None, slots=None, account_id="acct_2")
        assert (await refused(service, foreign)).code == ErrorCode.MODEL_NOT_FOUND

    async def test_use_the_template_of_the_file_that_is_sent(self, service: Running) -> None:
        examples = [{"fields": {"review": review}, "target": target} for review, target in REVIEWS.items()]
        file = file_of(manifest=Manifest(template=TEMPLATE, slots=SLOTS))
        found = await computed(service, asked(*examples, soft_prompt=file, slots=None))
        assert_close(gradient_of(found), gradient_of(await computed(service, asked())))

    async def test_saliency_and_candidates_need_no_soft_prompt(self, service: Running, tokenizer: Tokenizer) -> None:
        example = {"template": "{review} 감정:", "fields": {"review": "정말 재미"}, "target": " 긍정"}
        candidates = {"positions": [0, 2], "top_k": 3}
        plain = asked(example, soft_prompt=None, slots=None, saliency=True, candidates=candidates)
        response = await computed(service, plain)
        assert (response.gradient, response.gradient_rows) == (None, None)
        salient = response.examples[0].saliency
        assert salient is not None
        assert [token.id for token in salient] == tokenizer.encode("정말 재미 감정:")
        assert any(token.saliency for token in salient)
        assert response.candidates is not None
        assert [len(found) for found in response.candidates] == [3, 3]
        for found in response.candidates:
            assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
            assert all(c.text == tokenizer.token_text(c.id) for c in found)

    async def test_give_virtual_tokens_no_text(self, service: Running) -> None:
        response = await computed(service, asked({"tokens": [-1, 40], "target": [41]}, saliency=True))
        salient = response.examples[0].saliency
        assert salient is not None
        assert [(token.id, token.text is None) for token in salient] == [(-1, True), (40, False)]


def broken(field: str, value: Any) -> Asked:
    """A request that is right but for one field, at the top or of the first example."""
    example: dict[str, Any] = {"template": TEMPLATE, "fields": {"review": "정말"}, "target": " 긍정"}
    if field in ("tokens", "target", "template", "fields"):
        example = {"tokens": value, "target": [1]} if field == "tokens" else example | {field: value}
        return asked(example)
    return asked(example, **{field: value})


def with_nan() -> bytes:
    rows = ROWS.clone()
    rows[1, 2] = torch.nan
    return save({"prompt_embeddings": rows})


class TestRefused:
    @pytest.mark.parametrize(
        ("field", "value", "param", "words"),
        [
            ("soft_prompt", b"", "soft_prompt", "too short"),
            ("soft_prompt", b"PK" + bytes(80), "soft_prompt", "zip"),
            ("soft_prompt", file_of()[:-9], "soft_prompt", "cut off"),
            ("soft_prompt", with_nan(), "soft_prompt", "NaN"),
            ("soft_prompt", file_of(ROWS[:, :16]), "soft_prompt", "16 wide"),
            ("soft_prompt", file_of(manifest=Manifest(model_digest="ab" * 32)), "soft_prompt", "was made for"),
            ("soft_prompt", None, "slots", "no soft prompt"),
            ("slots", [2, 2], "slots", "4 rows"),
            ("slots", [5], "examples.0.template", "slots"),
            ("template", "{review} <|VIRTUAL_PROMPT_7|>", "examples.0.template", "examples.0"),
            ("fields", {"reviews": "정말"}, "examples.0.fields", "'review'"),
            ("tokens", [1, VOCABULARY], "examples.0.tokens", "vocabulary"),
            ("tokens", [-1 - N_VIRTUAL], "examples.0.tokens", "row 5"),
            ("target", [VOCABULARY], "examples.0.target", "vocabulary"),
            ("tokens", [3] * 150, "examples.0", "150 tokens"),
            ("candidates", {"positions": [0, 50]}, "candidates.positions.1", "position 50"),
        ],
    )
    async def test_with_the_parameter(self, service: Running, field: str, value: Any, param: str, words: str) -> None:
        error = await refused(service, broken(field, value))
        assert 400 <= error.status < 500
        assert error.details["param"] == param
        assert words in error.message

    async def test_too_long_names_both_lengths(self, service: Running) -> None:
        error = await refused(service, asked({"tokens": [3] * 148, "target": [4, 5, 6]}))
        assert (error.code, error.status) == (ErrorCode.PROMPT_TOO_LONG, 400)
        assert "148 tokens" in error.message
        assert "target 3" in error.message
        assert "150" in error.message

    async def test_a_gradient_too_large_for_json(self, service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batch, "MAX_JSON_NUMBERS", N_VIRTUAL * D_MODEL - 1)
        error = await refused(service, asked(gradient_format="json"))
        assert error.details["param"] == "gradient_format"
        assert (await computed(service, asked())).gradient is not None

    async def test_an_unknown_model(self, service: Running) -> None:
        assert (await refused(service, asked(model="none"))).code == ErrorCode.MODEL_NOT_FOUND

    async def test_too_many_characters(self, folder: Path) -> None:
        async with running(SERVICE, env=environment(folder, max_prompt_characters=50)) as service:
            error = await refused(service, asked())
            # What a template comes to counts, before it is put together.
            repeated = asked(examples=[{"template": "{a}" * 30, "fields": {"a": "가나"}, "target": "x"}])
            multiplied = await refused(service, repeated)
        assert (error.code, error.details["param"]) == (ErrorCode.TOO_LARGE, "examples")
        assert (multiplied.code, "61 characters" in multiplied.message) == (ErrorCode.TOO_LARGE, True)

    async def test_more_than_the_queue_holds(self, folder: Path) -> None:
        full = environment(folder, max_gradient_queue=1, max_gradient_tokens=100)
        async with running(SERVICE, env=full) as service:
            batch = long_batch(128)
            body = batch.request.model_dump_json().encode() + b"\n" + file_of()
            client = service.http("generation")
            replies = await asyncio.gather(*(client.post("/v1/gradients", content=body) for _ in range(4)))
            assert {reply.status_code for reply in replies} == {200, 429}
            turned_away = [reply for reply in replies if reply.status_code == 429]
            assert all(int(reply.headers["retry-after"]) >= 1 for reply in turned_away)

    async def test_numbers_that_have_run_over(self, folder: Path) -> None:
        found = Gradients(load_checkpoint(folder), [Example([-1], [2])], ROWS, Wanted(), max_tokens=9)
        found.rows[0, 0] = torch.inf
        with pytest.raises(HunminError, match="not finite") as error:
            write_answer(asked().request, found, None)
        assert error.value.status == 400


def long_batch(examples: int = 256) -> Asked:
    """Seconds of work, in as many micro-batches."""
    return asked(*[{"tokens": [-1, *[3] * 80], "target": [4]}] * examples)


class TestClientLeaves:
    async def test_its_batch_ends_within_a_second(self, folder: Path) -> None:
        async with running(SERVICE, env=environment(folder, max_gradient_tokens=100)) as service:
            batch = long_batch()
            async with service.client("generation").stream(GRADIENTS, batch.request, batch.file()) as events:
                async for _ in events:
                    break
            left_at = time.monotonic()
            while await metric(service, "request_cancelled_total") < 1:
                await asyncio.sleep(0.01)
                assert time.monotonic() - left_at < 5
            assert await metric(service, "tokens_total") < 100 * 81
            assert (await computed(service, asked())).loss > 0  # the worker goes on


class HeldBatch:
    """Looks like a batch of one micro-batch, which is computed as soon as the gate opens."""

    def __init__(self) -> None:
        self.has_begun, self.gate = threading.Event(), threading.Event()
        self.prompt_tokens = self.tokens = 1

    def run(self, pause: Callable[[], None]) -> Iterator[None]:
        self.has_begun.set()
        self.gate.wait(20)
        pause()
        yield


class TestWaiting:
    async def test_who_leaves_while_waiting_takes_the_batch_along(self) -> None:
        worker = GradientWorker(threads=1, max_queue=2)
        worker.start()

        async def compute(batch: HeldBatch) -> int:
            return len([usage async for usage in worker.compute(batch)])

        long, last = HeldBatch(), HeldBatch()
        last.gate.set()
        try:
            computing = asyncio.create_task(compute(long))
            await asyncio.to_thread(long.has_begun.wait, 20)
            left: list[weakref.ref[HeldBatch]] = []
            for _ in range(20):  # many more than may wait
                batch = HeldBatch()
                left.append(weakref.ref(batch))
                task = asyncio.create_task(compute(batch))
                del batch
                await asyncio.sleep(0)
                assert worker.waiting == 1
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                del task
                assert worker.waiting == 0
            await asyncio.sleep(0)  # the loop lets go of the last task
            gc.collect()
            assert [reference for reference in left if reference() is not None] == []
            assert worker.cancelled == len(left)
            waiting = asyncio.create_task(compute(last))
            await asyncio.sleep(0)
            assert worker.waiting == 1
            long.gate.set()
            assert await asyncio.gather(computing, waiting) == [1, 1]
        finally:
            long.gate.set()
            await worker.close()
        assert worker.finished == 2


class TestOperation:
    async def test_metrics_count_what_was_done(self, service: Running) -> None:
        tokens, batches = await metric(service, "tokens_total"), await metric(service, "request_success_total")
        response = await computed(service, asked())
        assert await metric(service, "tokens_total") == tokens + response.usage.backward_tokens
        assert await metric(service, "request_success_total") == batches + 1
        assert (await service.http("generation").get("/readyz")).status_code == 200

    async def test_what_still_runs_at_the_end_gets_an_error(self, folder: Path) -> None:
        async with running(SERVICE, env=environment(folder, max_gradient_tokens=100)) as service:
            task = asyncio.create_task(computed(service, long_batch()))
            async with asyncio.timeout(20):
                while await metric(service, "tokens_total") < 1:  # noqa: ASYNC110  # seen from outside only
                    await asyncio.sleep(0.01)
        with pytest.raises(HunminError) as ended:
            await task
        assert ended.value.code == ErrorCode.UNAVAILABLE

    async def test_decoding_goes_on_beside_it_and_says_the_same(self, service: Running) -> None:
        request = GenerateRequest(
            account_id="acct_1", model="one", prompt="정말", max_tokens=60, sampling=Sampling(temperature=0)
        )

        async def text() -> str:
            async with service.client("generation").stream(GENERATE, request) as events:
                return "".join([e.root.text async for e in events if isinstance(e.root, ChunkEvent)])

        alone = await text()
        computing = asyncio.create_task(computed(service, asked(*[{"tokens": [-1, *[3] * 40], "target": [4]}] * 40)))
        assert [await text() for _ in range(3)] == [alone] * 3
        await computing

    async def test_every_thread_of_the_worker_has_the_least_priority(self, folder: Path) -> None:
        if sys.platform != "linux":
            pytest.skip("only Linux gives a thread a policy of its own")

        def threads() -> dict[int, int]:
            return {int(name): os.sched_getscheduler(int(name)) for name in os.listdir("/proc/self/task")}

        async with running(SERVICE, env=environment(folder, gradient_threads=3)) as service:
            before = threads()
            await computed(service, asked(*[{"tokens": [-1, *[3] * 120], "target": [4]}] * 4))
            after = threads()
        assert sum(policy == os.SCHED_IDLE for policy in before.values()) >= 1  # the worker
        made = {thread: policy for thread, policy in after.items() if thread not in before}
        assert sum(policy == os.SCHED_IDLE for policy in made.values()) >= 2  # those of its parallel regions
