"""What an account owns: how it is made, by which names others may try to reach it, and how its owner reads it."""

import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx
import torch
from safetensors.torch import save

TEMPLATE = {"prompt": "<|VIRTUAL_PROMPT_0|>{prompt}", "answer": "{completion}"}
ROWS = "".join(f'{{"prompt": "{number}번째 영화는 ", "completion": "{number % 2}"}}\n' for number in range(80))
D_MODEL = 256  # of the starter
MODEL = "starter"
LIMIT = 987_654_321  # tokens a month of the owner, who uses far less


@dataclass(frozen=True)
class Thing:
    """`ids` are its names by kind; `reads` are the paths at which its owner sees all of it."""

    ids: dict[str, str]
    reads: tuple[str, ...]


Make = Callable[[httpx.AsyncClient], Awaitable[Thing]]


def nobodys(thing_id: str) -> str:
    """Return an id of the same form that nobody has."""
    prefix, mark, digits = thing_id.rpartition("_" if "_" in thing_id else "-")
    if mark and len(digits) == 24:
        return prefix + mark + secrets.token_hex(12)
    name, at, version = thing_id.partition("@")
    return f"{name[:-8]}{secrets.token_hex(4)}{at}{version}"


async def make_dataset(owner: httpx.AsyncClient) -> Thing:
    """A dataset, which is a file too."""
    name = f"rows-{secrets.token_hex(4)}"
    sent = await owner.post("/studio/v1/datasets", data={"name": name}, files={"file": ("rows.jsonl", ROWS.encode())})
    assert sent.status_code == 201, sent.text
    dataset_id = sent.json()["id"]
    ids = {"id": dataset_id, "reference": f"{name}@1", "name": name, "file": "file-" + dataset_id.removeprefix("ds_")}
    path = f"/studio/v1/datasets/{dataset_id}"
    return Thing(ids, (path, f"{path}/rows", f"/v1/files/{ids['file']}/content", "/v1/files"))


async def make_job(owner: httpx.AsyncClient) -> Thing:
    """A job that waits, and the same by the names of other dialects."""
    dataset = await make_dataset(owner)
    name = f"tuned-{secrets.token_hex(4)}"
    body = {"name": name, "model": MODEL, "dataset": dataset.ids["id"], "template": TEMPLATE}
    made = await owner.post("/studio/v1/tuning/jobs", json=body)
    assert made.status_code == 201, made.text
    job_id = made.json()["id"]
    ids = {"id": job_id, "ftjob": "ftjob-" + job_id.removeprefix("job_")}
    return Thing(ids, (f"/studio/v1/tuning/jobs/{job_id}", f"/v1/fine_tuning/jobs/{ids['ftjob']}/events"))


def soft_prompt_file() -> bytes:
    """Return a soft prompt for the starter."""
    return save({"prompt_embeddings": torch.full((2, D_MODEL), 0.01)})


async def make_soft_prompt(owner: httpx.AsyncClient) -> Thing:
    """A soft prompt, which is a model too."""
    name = f"mood-{secrets.token_hex(4)}"
    files = {"file": ("mood.safetensors", soft_prompt_file())}
    sent = await owner.post("/studio/v1/soft-prompts", data={"name": name, "model": MODEL}, files=files)
    assert sent.status_code == 201, sent.text
    path = f"/studio/v1/soft-prompts/{name}@1"
    ids = {"reference": f"{name}@1", "name": name, "id": sent.json()["id"]}
    return Thing(ids, (path, f"{path}/file", f"/v1/models/{name}@1"))


async def make_call(owner: httpx.AsyncClient) -> Thing:
    """A metered call, which leaves a row of usage."""
    request_id = f"iso-{secrets.token_hex(8)}"
    body = {"model": MODEL, "prompt": "이 영화는", "max_tokens": 1}
    made = await owner.post("/v1/completions", json=body, headers={"x-request-id": request_id})
    assert made.status_code == 200, made.text
    rows = (await owner.get("/studio/v1/usage")).json()["data"]
    [row] = [row for row in rows if row["request_id"] == request_id]
    return Thing({"request": request_id, "key": row["key_id"]}, ())


async def find_limit(owner: httpx.AsyncClient) -> Thing:
    """The limit that the fixture has set, as an operator does."""
    return Thing({"value": str(LIMIT)}, ())


async def seen(owner: httpx.AsyncClient, thing: Thing) -> list[tuple[int, bytes]]:
    """Return what its owner reads of it."""
    answers = [await owner.get(path) for path in thing.reads]
    assert all(answer.status_code == 200 for answer in answers), json.dumps([answer.text for answer in answers])
    return [(answer.status_code, answer.content) for answer in answers]
