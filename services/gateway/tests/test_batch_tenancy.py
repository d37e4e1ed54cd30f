"""Batches and their files belong to a project; those of an account that is suspended wait."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hunmin_gateway.batches.store import Batches
from hunmin_gateway.keys.authentication import authenticate
from hunmin_gateway.keys.ring import KeyRing
from sqlalchemy import text

pytestmark = pytest.mark.asyncio(loop_scope="session")

LINE = {
    "custom_id": "1",
    "method": "POST",
    "url": "/v1/completions",
    "body": {"model": "team/parrot", "prompt": "가나", "max_tokens": 3},
}
WITHIN_S = 30


async def upload(http: httpx.AsyncClient) -> str:
    sent = await http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", json.dumps(LINE))})
    return str(sent.json()["id"])


async def create(http: httpx.AsyncClient, file_id: str, **headers: str) -> httpx.Response:
    asked = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "24h"}
    return await http.post("/v1/batches", json=asked, headers=headers)


async def until(fetch: Any, status: str) -> Any:
    deadline = time.monotonic() + WITHIN_S
    while (found := await fetch())[0] != status:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)
    return found


@pytest_asyncio.fixture(loop_scope="session")
async def projects(studio, tls):
    """Clients of two projects of the account, neither account-wide."""
    keys = []
    async with studio.parts.database.session() as session:
        ring = KeyRing(session, pepper=studio.parts.pepper)
        account = await session.scalar(text("SELECT name FROM accounts WHERE id = :id"), {"id": studio.account_id})
        for number in range(2):
            key, key_id = await ring.create(account, f"project {number}")
            keys.append(key)
        await session.execute(
            text("INSERT INTO projects (id, account_id, name, is_default) VALUES (:project, :account, 'other', false)"),
            {"project": f"proj_{key_id}", "account": studio.account_id},
        )
        await session.execute(
            text("UPDATE api_keys SET project_id = :project WHERE id = :id"),
            {"project": f"proj_{key_id}", "id": key_id},
        )
    async with (
        httpx.AsyncClient(
            base_url=studio.url, headers={"Authorization": f"Bearer {keys[0]}"}, timeout=10, verify=tls
        ) as one,
        httpx.AsyncClient(
            base_url=studio.url, headers={"Authorization": f"Bearer {keys[1]}"}, timeout=10, verify=tls
        ) as other,
    ):
        yield one, other


class TestProjects:
    async def test_do_not_see_each_other_s(self, studio, projects):
        one, other = projects
        file_id = await upload(one)
        batch = (await create(one, file_id)).json()
        assert (await create(other, file_id)).json()["error"]["param"] == "input_file_id"
        for method, path in (
            ("GET", f"/v1/files/{file_id}"),
            ("GET", f"/v1/files/{file_id}/content"),
            ("DELETE", f"/v1/files/{file_id}"),
            ("GET", f"/v1/batches/{batch['id']}"),
            ("POST", f"/v1/batches/{batch['id']}/cancel"),
            ("GET", f"/studio/v1/batches/{batch['id']}"),
            ("POST", f"/studio/v1/batches/{batch['id']}/cancel"),
            ("GET", f"/studio/v1/batches/{batch['id']}/results.csv"),
            ("GET", f"/studio/v1/batches/{batch['id']}/events"),
        ):
            assert (await other.request(method, path)).status_code == 404, path
        assert (await other.get("/v1/batches")).json()["data"] == []
        assert (await other.get("/v1/files?purpose=batch")).json()["data"] == []
        assert [found["id"] for found in (await one.get("/v1/batches")).json()["data"]] == [batch["id"]]
        # An account-wide key sees all of them.
        assert (await studio.http.get(f"/v1/batches/{batch['id']}")).status_code == 200
        assert (await studio.http.get(f"/v1/files/{file_id}")).status_code == 200

    async def test_have_idempotency_keys_of_their_own(self, projects):
        one, other = projects
        key = {"Idempotency-Key": "the same"}
        first = await create(one, await upload(one), **key)
        second = await create(other, await upload(other), **key)
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.json()["id"] != second.json()["id"]

    async def test_pay_for_their_lines(self, studio, projects):
        _, other = projects
        batch = (await create(other, await upload(other))).json()

        async def status() -> tuple[str, dict[str, Any]]:
            found = (await other.get(f"/v1/batches/{batch['id']}")).json()
            return found["status"], found

        await until(status, "completed")
        (row,) = (await other.get("/studio/v1/usage")).json()["data"]
        assert row["batch_id"] == batch["id"]


async def test_batch_of_a_suspended_account_waits(studio):
    file_id = await upload(studio.http)
    database, account = studio.parts.database, {"id": studio.account_id}
    principal = await authenticate(database.quick, studio.key, pepper=studio.parts.pepper)
    async with database.session() as session:
        batch = await Batches(session, studio.parts.events).add(
            principal, endpoint="/v1/completions", input_file_id=file_id, attributes={}
        )
        await session.execute(text("UPDATE accounts SET suspended_at = now() WHERE id = :id"), account)

    async def status() -> tuple[str, int]:
        async with database.session() as session:
            query = text("SELECT status, completed FROM batches WHERE id = :id")
            return tuple((await session.execute(query, {"id": batch.id})).one())

    await until(status, "in_progress")
    await asyncio.sleep(1)
    assert await status() == ("in_progress", 0)
    assert [asked for asked in studio.parrot.requests if asked.account_id == studio.account_id] == []
    async with database.session() as session:
        await session.execute(text("UPDATE accounts SET suspended_at = NULL WHERE id = :id"), account)
    assert await until(status, "completed") == ("completed", 1)
