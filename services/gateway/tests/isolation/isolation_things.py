"""What an account owns: how it is made, by which names others may try to reach it, and how its owner reads it.

Who may read it is the owner of the account; of what is above all accounts, an operator.
"""

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import torch
from hunmin_contracts.ids import new_user_id
from safetensors.torch import save

TEMPLATE = {"prompt": "<|VIRTUAL_PROMPT_0|>{prompt}", "answer": "{completion}"}
ROWS = "".join(f'{{"prompt": "{number}번째 영화는 ", "completion": "{number % 2}"}}\n' for number in range(80))
D_MODEL = 256  # of the starter
MODEL = "starter"
LIMIT = 987_654_321  # tokens a month of the owner, who uses far less
USER_ID, USER_EMAIL = new_user_id(), f"{secrets.token_hex(8)}@example.com"  # somebody who has logged in once


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
    return Thing(ids, (path, f"{path}/rows", f"/v1/files/{ids['file']}/content", "/v1/files?purpose=fine-tune"))


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


async def find_task(owner: httpx.AsyncClient) -> Thing:
    """The job that the fixture has let succeed: it has results, and a model."""
    jobs = (await owner.get("/studio/v1/tuning/jobs", params={"state": "succeeded"})).json()["data"]
    [job_id] = [job["id"] for job in jobs]
    results = "file-results-" + job_id.removeprefix("job_")
    return Thing(
        {"id": job_id, "results": results}, (f"/studio/v1/tuning/jobs/{job_id}", f"/v1/files/{results}/content")
    )


async def make_requests(owner: httpx.AsyncClient) -> Thing:
    """A file of requests, for a batch."""
    line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"model": MODEL, "prompt": "이"}}
    files = {"file": (f"requests-{secrets.token_hex(4)}.jsonl", json.dumps(line).encode())}
    sent = await owner.post("/v1/files", data={"purpose": "batch"}, files=files)
    assert sent.status_code == 200, sent.text
    path = f"/v1/files/{sent.json()['id']}"
    return Thing({"file": sent.json()["id"]}, (path, f"{path}/content"))


async def make_batch(owner: httpx.AsyncClient) -> Thing:
    """A batch that has ended: its files are written."""
    form = {"template": "{text}", "model": MODEL, "parameters": '{"max_tokens": 1}'}
    sent = await owner.post("/studio/v1/batches", data=form, files={"file": ("rows.csv", "text\n이 영화는\n")})
    assert sent.status_code == 201, sent.text
    path = f"/studio/v1/batches/{sent.json()['id']}"
    async with owner.stream("GET", f"{path}/events") as events:
        await events.aread()  # until it has ended
    batch = (await owner.get(path)).json()
    assert batch["status"] == "completed", batch
    ids = {"id": batch["id"], "input": batch["input_file_id"], "output": batch["output_file_id"]}
    reads = (path, f"{path}/results.csv", f"/v1/batches/{ids['id']}", f"/v1/files/{ids['output']}/content")
    return Thing(ids, reads)


async def find_account(owner: httpx.AsyncClient) -> Thing:
    """The account itself."""
    account = (await owner.get("/studio/v1/account")).json()
    return Thing({"id": account["id"], "name": account["name"]}, ("/studio/v1/account",))


async def make_project(owner: httpx.AsyncClient) -> Thing:
    """A project."""
    made = await owner.post("/studio/v1/projects", json={"name": f"project {secrets.token_hex(4)}"})
    assert made.status_code == 201, made.text
    project = made.json()
    return Thing({"id": project["id"], "name": project["name"]}, (f"/studio/v1/projects/{project['id']}",))


async def make_member(owner: httpx.AsyncClient) -> Thing:
    """Somebody who is invited to the account by an email."""
    return await _member(owner, {"email": f"{secrets.token_hex(4)}@example.com"})


async def make_user_member(owner: httpx.AsyncClient) -> Thing:
    """Somebody who is in a project, and has logged in: others know them too."""
    project = await make_project(owner)
    return await _member(owner, {"user_id": USER_ID, "project_id": project.ids["id"]})


async def _member(owner: httpx.AsyncClient, who: dict[str, str]) -> Thing:
    made = await owner.post("/studio/v1/members", json={"role": "developer"} | who)
    assert made.status_code == 201, made.text
    member = made.json()
    return Thing(
        {"id": member["id"], "email": member["email"], "user": USER_ID}, (f"/studio/v1/members/{member['id']}",)
    )


async def make_key(owner: httpx.AsyncClient) -> Thing:
    """A key of the owner's project."""
    made = await owner.post("/studio/v1/keys", json={"name": f"key {secrets.token_hex(4)}", "scopes": ["read"]})
    assert made.status_code == 201, made.text
    info = made.json()["info"]
    ids = {"id": info["id"], "name": info["name"], "maker": info["created_by"]}
    return Thing(ids, (f"/studio/v1/keys/{info['id']}",))


async def make_account(operator: httpx.AsyncClient) -> Thing:
    """An account, as operators make them."""
    made = await operator.post("/studio/v1/operator/accounts", json={"name": f"account {secrets.token_hex(4)}"})
    assert made.status_code == 201, made.text
    path = f"/studio/v1/operator/accounts/{made.json()['id']}"
    maker = (await operator.get("/studio/v1/me")).json()["key_id"]
    ids = {"id": made.json()["id"], "name": made.json()["name"], "maker": maker}
    return Thing(ids, (path, f"{path}/limits"))


async def make_account_limit(operator: httpx.AsyncClient) -> Thing:
    """A limit of an account."""
    account = await make_account(operator)
    path = f"/studio/v1/operator/accounts/{account.ids['id']}/limits"
    made = await operator.put(path, json={"name": "requests_per_minute", "value": 9})
    assert made.status_code == 200, made.text
    return Thing({"id": made.json()["id"], "account": account.ids["id"]}, (path,))


async def find_user(operator: httpx.AsyncClient) -> Thing:
    """The user that the fixture has made."""
    return Thing({"id": USER_ID, "email": USER_EMAIL}, (f"/studio/v1/operator/users/{USER_ID}",))


# What other projects of the account do not see either. Datasets, jobs, soft prompts, limits are the account's.
IN_PROJECT = (make_call, make_requests, make_batch, make_project, make_member, make_user_member, make_key)


def filled(value: Any, ids: Mapping[str, str]) -> Any:
    """Put the ids where their kinds stand, as `{id}`; `{new}` is a text that came never before."""
    text = json.dumps(value)
    for kind, thing_id in (ids | {"new": f"new {secrets.token_hex(8)}"}).items():
        text = text.replace(f"{{{kind}}}", thing_id)
    return json.loads(text)


async def seen(owner: httpx.AsyncClient, thing: Thing) -> list[tuple[int, bytes]]:
    """Return what is read of it by who may."""
    answers = [await owner.get(path) for path in thing.reads]
    assert all(answer.status_code == 200 for answer in answers), json.dumps([answer.text for answer in answers])
    return [(answer.status_code, answer.content) for answer in answers]
