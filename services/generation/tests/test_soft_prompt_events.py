"""What others are told of soft prompts, and what every replica does when it hears of one that is deleted."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import SOFT_PROMPT, SoftPromptChanged
from hunmin_contracts.generation import GENERATE, GenerateRequest
from hunmin_contracts.soft_prompts import (
    DELETE,
    IMPORT,
    PROMOTE,
    DeleteRequest,
    ImportRequest,
    PromoteRequest,
    SoftPromptInfo,
)
from hunmin_contracts.storage import STORAGE, StorageRequest
from hunmin_generation.service import SERVICE
from hunmin_kit.testing import Running, running
from hunmin_kit.testing.postgres import fresh_database
from hunmin_modeling.testing import save_tiny_checkpoint
from hunmin_text.training import Method, train
from safetensors.torch import save
from sqlalchemy import text

ACCOUNT = "acct_1"
WITHIN_S = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("one")
    tokenizer = train(Method.BYTE, ["영화는 정말 재미있었습니다"] * 9, vocab_size=290)
    save_tiny_checkpoint(made, "gpt2", vocab_size=290, context_length=400)
    tokenizer.backend.save(str(made / "tokenizer.json"))
    (made / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return made


@pytest.fixture
async def replicas(folder: Path, tmp_path: Path) -> AsyncIterator[list[Running]]:
    """Two processes of the service, as far as one test can have them."""
    async with fresh_database() as url:
        env = {
            "HUNMIN_DATABASE_URL": url,
            "HUNMIN_HOME": str(tmp_path),
            "HUNMIN_GENERATION_MODELS": json.dumps({"one": str(folder)}),
            "HUNMIN_GENERATION_THREADS": "1",
        }
        async with running(SERVICE, env=env) as one, running(SERVICE, env=env) as other:
            yield [one, other]


def file(d_model: int, seed: int) -> bytes:
    rows = torch.randn(3, d_model, generator=torch.Generator().manual_seed(seed))
    return save({"prompt_embeddings": rows})


async def keep(service: Running, seed: int = 0, **fields: Any) -> SoftPromptInfo:
    async def sent() -> AsyncIterator[bytes]:
        yield file(32, seed)

    request = ImportRequest(**{"account_id": ACCOUNT, "name": "review", "model": "one"} | fields)
    return await service.client("generation").upload(IMPORT, request, sent())


async def told(service: Running) -> list[SoftPromptChanged]:
    async with service.platform("generation").database().session() as session:
        rows = await session.execute(text("SELECT topic, key, content FROM event_outbox ORDER BY number"))
        found = [(row.key, SOFT_PROMPT.envelope.model_validate_json(row.content)) for row in rows]
    assert all(key == event.subject == f"{event.data.account_id}/{event.data.name}" for key, event in found)
    return [event.data for _, event in found]


async def generate(service: Running, reference: str) -> None:
    request = GenerateRequest(account_id=ACCOUNT, model=reference, prompt="영화", max_tokens=1)
    async with service.client("generation").stream(GENERATE, request) as events:
        async for _ in events:
            pass


async def residents(service: Running) -> int:
    """Return how many soft prompts a replica holds."""
    lines = (await service.http("generation").get("/metrics")).text.splitlines()
    return round(
        float(next(line.split()[1] for line in lines if line.startswith("hunmin_generation_soft_prompts_resident")))
    )


async def test_each_change_is_told_with_it(replicas: list[Running]) -> None:
    one, other = replicas
    first, second = await keep(one), await keep(other, seed=1)
    client = one.client("generation")
    await client.call(PROMOTE, PromoteRequest(account_id=ACCOUNT, reference="review@2"))
    with pytest.raises(HunminError):
        await client.call(DELETE, DeleteRequest(account_id=ACCOUNT, reference="review@2"))
    await client.call(DELETE, DeleteRequest(account_id=ACCOUNT, reference="review@1"))
    changes = await told(one)
    assert [(each.soft_prompt_id, each.version, each.change) for each in changes] == [
        (first.id, 1, "imported"),
        (second.id, 2, "imported"),
        (second.id, 2, "promoted"),
        (first.id, 1, "deleted"),
    ]
    assert {(each.account_id, each.name, each.model) for each in changes} == {(ACCOUNT, "review", "one")}


async def test_one_that_is_deleted_leaves_the_memory_of_every_replica(replicas: list[Running]) -> None:
    one, other = replicas
    await keep(one)
    for replica in replicas:
        await generate(replica, "review")
        assert await residents(replica) > 0
    await one.client("generation").call(DELETE, DeleteRequest(account_id=ACCOUNT, reference="review"))
    assert await residents(one) == 0
    deadline = time.monotonic() + WITHIN_S
    while await residents(other):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_storage_is_what_the_account_s_files_take_and_bounds_an_import(replicas: list[Running]) -> None:
    one, _ = replicas
    info = await keep(one)
    client = one.client("generation")
    assert (await client.call(STORAGE, StorageRequest(account_id=ACCOUNT))).stored_bytes == info.size_bytes
    assert (await client.call(STORAGE, StorageRequest(account_id="acct_2"))).stored_bytes == 0
    with pytest.raises(HunminError) as refused:
        await keep(one, seed=1, max_stored_bytes=info.size_bytes - 1)
    assert refused.value.code is ErrorCode.QUOTA_EXCEEDED
    assert (await keep(one, seed=1, max_stored_bytes=info.size_bytes)).version == 2
    assert (await client.call(STORAGE, StorageRequest(account_id=ACCOUNT))).stored_bytes == 2 * info.size_bytes
