"""Ways to reach a thing that take several requests: those before the last make what is the caller's own."""

import json
import secrets
from typing import Any

import httpx
from isolation_probes import Try
from isolation_things import ROWS, filled

Outcome = tuple[int, str]  # the status and the body

_BATCHES = "/studio/v1/batches"
_PARAMETERS = '{"max_tokens": 1}'


def over_own_dataset(path: str, body: dict[str, Any]) -> Try:
    """Return what posts a body with `{id}` in it, over a dataset of the caller's own.

    That is `{dataset}` of the path and the body, and `{file}` of the body.
    """

    async def run(client: httpx.AsyncClient, thing_id: str) -> Outcome:
        form, file = {"name": f"own-{secrets.token_hex(4)}"}, ("rows.jsonl", ROWS.encode())
        made = await client.post("/studio/v1/datasets", data=form, files={"file": file})
        dataset = made.json()["id"] if made.is_success else "none"
        ids = {"id": thing_id, "dataset": dataset, "file": "file-" + dataset.removeprefix("ds_")}
        answer = await client.post(path.format(dataset=dataset), json=filled(body, ids))
        await client.delete(f"/studio/v1/datasets/{dataset}")  # or a page of the list has no room for others
        return answer.status_code, answer.text

    return run


async def over_own_table(client: httpx.AsyncClient, model: str) -> Outcome:
    """Ask that model about a row of the caller's own."""
    form = {"template": "{text}", "model": model, "parameters": _PARAMETERS}
    made = await client.post(_BATCHES, data=form, files={"file": ("rows.csv", "text\n이 영화는\n")})
    return await _outcome(client, made)


async def in_own_line(client: httpx.AsyncClient, model: str) -> Outcome:
    """Make a batch of a line that asks that model."""
    body = {"model": model, "prompt": "이 영화는", "max_tokens": 1}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": body}
    sent = await client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", json.dumps(line))})
    file_id = sent.json()["id"] if sent.is_success else "none"
    plan = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "24h"}
    return await _outcome(client, await client.post("/v1/batches", json=plan))


async def _outcome(client: httpx.AsyncClient, made: httpx.Response) -> Outcome:
    """Return what came of the one request of a batch."""
    if not made.is_success:
        return made.status_code, made.text
    path = f"{_BATCHES}/{made.json()['id']}"
    async with client.stream("GET", f"{path}/events") as events:
        await events.aread()  # until it has ended
    batch = (await client.get(path)).json()
    kept = await client.get(f"/v1/files/{batch['error_file_id'] or batch['output_file_id']}/content")
    (line,) = map(json.loads, kept.text.splitlines())
    return line["response"]["status_code"], json.dumps(line["response"]["body"], ensure_ascii=False)
