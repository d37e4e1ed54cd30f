"""Adapters on their way through the studio: PEFT's folder goes in, generates what PEFT generates, and comes out again.

Margins are those of test_truth: prompts are taken on which the two best tokens are never close.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import peft
import pytest
import pytest_asyncio
import torch
from hunmin import AsyncClient, InvalidRequestError
from hunmin_contracts.generation import GENERATE, ChunkEvent, GenerateRequest, Sampling
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.service import SERVICE as GATEWAY
from hunmin_gateway.tables import ApiKey
from hunmin_generation.engine.scheduler import Scheduler, Work
from hunmin_generation.service import SERVICE as GENERATION
from hunmin_kit.testing import Running, running
from hunmin_kit.testing.http import AppTransport
from hunmin_modeling.testing import save_tiny_checkpoint, tiny_model
from hunmin_text.training import Method, train
from hunmin_tokenizer.service import SERVICE as TOKENIZER
from safetensors.torch import load_file
from sqlalchemy import select

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # transformers' own renaming, which PEFT has not followed yet
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    # its generate hands them in; PEFT counts positions anew, from the first virtual token
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]

FAMILIES = ["gpt2", "llama"]  # positions that are learned, and that turn; test_truth has them all
ADAPTERS, ROWS, LENGTH, VOCABULARY = 8, 4, 12, 290
BLOCK_SIZE = 4
KV_BYTES = {"ample": 2**24, "small": 30 * BLOCK_SIZE * 512}  # the small pool: 30 blocks of GPT-2's, 60 of Llama's
CLOSE = 5e-4
ENCODER = {"task_type": "CAUSAL_LM", "num_virtual_tokens": ROWS, "encoder_hidden_size": 16, "encoder_dropout": 0.0}


@dataclass(frozen=True)
class Adapter:
    """A folder that PEFT has written, and what PEFT completes two prompts with."""

    folder: Path
    expected: dict[tuple[int, ...], list[int]]


def config(number: int) -> peft.PeftConfig:
    """Prompt tuning, and p-tuning with each of PEFT's encoders, in turn."""
    if number % 3 == 0:
        return peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=ROWS)
    return peft.PromptEncoderConfig(encoder_reparameterization_type=["LSTM", "MLP"][number % 3 - 1], **ENCODER)


def completed(model: Any, prompt: tuple[int, ...]) -> list[int] | None:
    """What transformers or PEFT completes greedily, up to an end token; None if two tokens are close somewhere."""
    found = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=LENGTH,
        do_sample=False,
        use_cache=False,  # with it PEFT 0.21 on transformers 5 leaves its own forward pass after some tokens
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.cat(found.logits).topk(2).values
    ids = found.sequences[0, -LENGTH:].tolist()
    is_clear = (best[:, 0] - best[:, 1]).min() > CLOSE
    return (ids[: ids.index(0)] if 0 in ids else ids) if is_clear else None


def two_completed(model: Any, seed: int) -> dict[tuple[int, ...], list[int]]:
    rng = random.Random(seed)  # noqa: S311  # prompts, not secrets
    drawn = (tuple(rng.randrange(1, VOCABULARY) for _ in range(4)) for _ in range(40))
    clear = ((prompt, ids) for prompt in drawn if (ids := completed(model, prompt)) is not None)
    return dict([next(clear), next(clear)])


def trained(model_type: str, number: int, folder: Path) -> Adapter:
    """Train a few steps with PEFT, and save as PEFT does."""
    base = tiny_model(model_type, vocab_size=VOCABULARY)
    torch.manual_seed(number)
    model = peft.get_peft_model(base, config(number))
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    ids = torch.tensor([[5, 17, 3, 42 + number]])
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
    model.save_pretrained(folder)
    return Adapter(folder, two_completed(model, number))


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The adapters of a model type, trained once."""
    place = tmp_path_factory.mktemp("adapters")

    @cache
    def of(model_type: str) -> list[Adapter]:
        return [trained(model_type, number, place / model_type / str(number)) for number in range(ADAPTERS)]

    return of


@dataclass(frozen=True)
class Studio:
    """Every service, and a client of the gateway with a key of that account."""

    up: Running
    client: AsyncClient
    account_id: str

    async def generated(self, model: str, prompt: tuple[int, ...]) -> list[int]:
        request = GenerateRequest(
            account_id=self.account_id,
            model=model,
            prompt=[*prompt],
            max_tokens=LENGTH,
            logprobs=0,
            sampling=Sampling(temperature=0),
        )
        async with self.up.client("generation").stream(GENERATE, request) as events:
            chunks = [event.root async for event in events if isinstance(event.root, ChunkEvent)]
        return [token.id for chunk in chunks for token in chunk.tokens]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def studio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Studio]:
    """A studio with a model of each type, and the pool that the parameter names."""
    place, key = tmp_path_factory.mktemp("models"), new_key()
    learnt = train(Method.BYTE, ["영화는 정말 재미있었습니다"] * 9, vocab_size=VOCABULARY)
    for model_type in FAMILIES:
        save_tiny_checkpoint(place / model_type, model_type, vocab_size=VOCABULARY)
        learnt.backend.save(str(place / model_type / "tokenizer.json"))
        (place / model_type / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    models = json.dumps({model_type: str(place / model_type) for model_type in FAMILIES})
    env = {
        "HUNMIN_GATEWAY_BOOTSTRAP_KEY": key,
        "HUNMIN_GENERATION_MODELS": models,
        "HUNMIN_GENERATION_THREADS": "1",
        "HUNMIN_GENERATION_BLOCK_SIZE": str(BLOCK_SIZE),
        "HUNMIN_GENERATION_KV_BYTES": str(KV_BYTES[request.param]),
        "HUNMIN_TOKENIZER_MODELS": models,
    }
    async with running(GATEWAY, GENERATION, TOKENIZER, env=env) as up:
        async with up.platform("gateway").database().session() as session:
            account_id = (await session.scalars(select(ApiKey.account_id))).one()
        transport = AppTransport(lambda: up.app("gateway"))
        async with AsyncClient(base_url=up.url("gateway"), api_key=key, transport=transport) as client:
            yield Studio(up, client, account_id)


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize(("studio", "is_ample"), [("ample", True), ("small", False)], indirect=["studio"])
async def test_eight_adapters_and_none_at_once_generate_what_peft_generates(
    studio: Studio, adapters: Any, monkeypatch: pytest.MonkeyPatch, model_type: str, is_ample: bool
) -> None:
    asked: list[tuple[str, tuple[int, ...], list[int]]] = []
    plain = two_completed(tiny_model(model_type, vocab_size=VOCABULARY), 99)
    for number, adapter in enumerate(adapters(model_type)):
        name = f"{model_type}-{number}"
        info = await studio.client.soft_prompts.upload(adapter.folder, name=name, model=model_type)
        assert info.manifest.provenance["peft_type"] == ("PROMPT_TUNING" if number % 3 == 0 else "P_TUNING")
        asked += [(name, prompt, ids) for prompt, ids in adapter.expected.items()]
    asked += [(model_type, prompt, ids) for prompt, ids in plain.items()]
    asked = asked[::2] + asked[1::2]  # one of each first
    schedule, schedulers, roots = Scheduler.schedule, set[Scheduler](), [0]

    def schedule_when_all_are_there(scheduler: Scheduler) -> list[Work]:
        if scheduler not in schedulers and len(scheduler.waiting) < len(asked):
            time.sleep(0.001)  # the engine's thread asks again
            return []
        schedulers.add(scheduler)
        works = schedule(scheduler)
        roots.append(len({work.sequence.root for work in works}))
        return works

    monkeypatch.setattr(Scheduler, "schedule", schedule_when_all_are_there)
    found = await asyncio.gather(*(studio.generated(name, prompt) for name, prompt, _ in asked))
    assert found == [ids for _, _, ids in asked]
    (scheduler,) = schedulers
    assert (scheduler.preemptions == 0) is is_ample
    assert max(roots) > (ADAPTERS if is_ample else ADAPTERS // 2)  # in one step


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("studio", ["ample"], indirect=True)
async def test_what_comes_out_generates_the_same_in_peft(
    studio: Studio, adapters: Any, tmp_path: Path, model_type: str
) -> None:
    for number, adapter in enumerate(adapters(model_type)):
        name = f"{model_type}-out-{number}"
        await studio.client.soft_prompts.upload(adapter.folder, name=name, model=model_type)
        folder = await studio.client.soft_prompts.export_peft(name, tmp_path / name)
        model = peft.PeftModel.from_pretrained(tiny_model(model_type, vocab_size=VOCABULARY), folder)
        for prompt, ids in adapter.expected.items():
            assert completed(model, prompt) == ids
        weights = [
            load_file(path / "adapter_model.safetensors")["prompt_embeddings"] for path in (folder, adapter.folder)
        ]
        assert torch.equal(*weights)
        assert torch.equal(model.get_prompt_embedding_to_save("default"), weights[0])


@pytest.mark.parametrize("studio", ["ample"], indirect=True)
async def test_another_kind_of_adapter_is_refused(studio: Studio, tmp_path: Path) -> None:
    lora = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    peft.get_peft_model(tiny_model("llama"), lora).save_pretrained(tmp_path)
    with pytest.raises(InvalidRequestError, match="peft_type"):
        await studio.client.soft_prompts.upload(tmp_path, name="lora", model="llama")
