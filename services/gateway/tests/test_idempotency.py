"""A request that is sent twice with one `Idempotency-Key` is made once, and costs once."""

import asyncio
import json
import time
import uuid
from typing import Any

import httpx
import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, ProjectId
from hunmin_gateway.idempotency.keys import Claim, IdempotencyKeys, StoredAnswer
from sqlalchemy import text

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"
WITHIN_S = 10


def body(prompt: str = "가나다", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, "max_tokens": 3} | fields


@pytest.fixture
def key() -> str:
    return str(uuid.uuid4())


async def post(studio, path: str, key: str, **sent: Any) -> httpx.Response:
    return await studio.http.post(path, headers={"Idempotency-Key": key}, **sent)


async def execute(studio, statement: str, **values: Any) -> Any:
    async with studio.parts.database.session() as session:
        return await session.execute(text(statement), values)


def assert_replayed(first: httpx.Response, second: httpx.Response) -> None:
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]


class TestReplay:
    async def test_of_an_answer_costs_nothing(self, studio, key):
        first = await post(studio, "/v1/completions", key, json=body())
        second = await post(studio, "/v1/completions", key, json=body())
        assert first.status_code == 200
        assert_replayed(first, second)
        assert len(studio.parrot.requests) == len(await studio.usage()) == 1

    async def test_by_the_official_client(self, studio, key):
        asked = body() | {"extra_headers": {"Idempotency-Key": key}}
        first, second = [await studio.client.completions.create(**asked) for _ in range(2)]
        assert first == second
        assert len(studio.parrot.requests) == 1

    async def test_of_a_stream_is_all_of_it_at_once(self, studio, key):
        first = await post(studio, "/v1/completions", key, json=body(stream=True))
        second = await post(studio, "/v1/completions", key, json=body(stream=True))
        assert_replayed(first, second)
        assert second.text.endswith("data: [DONE]\n\n")
        assert len(await studio.usage()) == 1

    @pytest.mark.parametrize(
        ("path", "sent"),
        [
            ("/v1/embeddings", {"model": MODEL, "input": "가나"}),
            ("/generate", {"inputs": "가나", "parameters": {"max_new_tokens": 2}}),
            ("/studio/v1/score", {"model": MODEL, "prompt": "가", "continuations": ["나"]}),
            ("/studio/v1/gradients", {"model": MODEL, "examples": [{"template": None, "target": "가"}]}),
        ],
    )
    async def test_in_other_dialects(self, studio, key, path: str, sent: dict[str, Any]):
        first = await post(studio, path, key, json=sent)
        assert first.status_code == 200
        assert_replayed(first, await post(studio, path, key, json=sent))
        assert len(await studio.usage()) == 1

    async def test_of_a_file_whatever_its_boundary(self, studio, key):
        def form(content: bytes) -> dict[str, Any]:
            return {"data": {"purpose": "batch"}, "files": {"file": ("in.jsonl", content)}}

        first = await post(studio, "/v1/files", key, **form(b"{}\n"))
        assert first.status_code == 200
        assert_replayed(first, await post(studio, "/v1/files", key, **form(b"{}\n")))
        assert (await post(studio, "/v1/files", key, **form(b"[]\n"))).status_code == 422
        content = await studio.http.get(f"/v1/files/{first.json()['id']}/content")
        assert content.content == b"{}\n"

    async def test_of_a_file_however_its_media_type_is_written(self, studio, key):
        def form(boundary: str, media_type: str) -> dict[str, Any]:
            parts = [("purpose", "", "batch"), ("file", '; filename="a.jsonl"', "no")]
            lines = [
                f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{text}\r\n'
                for name, more, text in parts
            ]
            content = "".join(lines) + f"--{boundary}--\r\n"
            headers = {"Content-Type": f"{media_type}; boundary={boundary}", "Idempotency-Key": key}
            return {"content": content, "headers": headers}

        first = await studio.http.post("/v1/files", **form("b0", "Multipart/Form-Data"))
        second = await studio.http.post("/v1/files", **form("b1", "multipart/form-data"))
        assert first.status_code == 200, first.text
        assert_replayed(first, second)

    async def test_of_a_refusal_that_would_come_again(self, studio, key):
        first = await post(studio, "/v1/completions", key, json=body(surprise=1))
        assert first.status_code == 400
        assert_replayed(first, await post(studio, "/v1/completions", key, json=body(surprise=1)))

    async def test_ends_after_a_day(self, studio, key):
        await post(studio, "/v1/completions", key, json=body())
        (kept,) = await execute(studio, "SELECT expires_at - now() FROM idempotency_keys WHERE key = :key", key=key)
        assert 86_000 < kept[0].total_seconds() <= 86_400
        await execute(studio, "UPDATE idempotency_keys SET expires_at = now() WHERE key = :key", key=key)
        second = await post(studio, "/v1/completions", key, json=body("다른"))
        assert "idempotent-replayed" not in second.headers
        assert len(studio.parrot.requests) == 2

    async def test_is_not_of_reading(self, studio, key):
        for _ in range(2):
            response = await studio.http.get("/v1/models", headers={"Idempotency-Key": key})
            assert "idempotent-replayed" not in response.headers


class TestRefusal:
    @pytest.mark.parametrize(
        ("path", "sent"),
        [
            ("/v1/completions", body("다른")),
            ("/v1/completions?a=1", body()),
            ("/v1/embeddings", {"model": MODEL, "input": "가"}),
        ],
    )
    async def test_of_another_request_with_the_key(self, studio, key, path: str, sent: dict[str, Any]):
        await post(studio, "/v1/completions", key, json=body())
        second = await post(studio, path, key, json=sent)
        assert (second.status_code, second.json()["error"]["code"]) == (422, "idempotency_key_reused")
        assert len(studio.parrot.requests) == 1

    @pytest.mark.parametrize("wrong", ["", "가".encode(), b"x" * 256, b"a\tb"])
    async def test_of_a_key_that_is_none(self, studio, wrong: str | bytes):
        response = await studio.http.post("/v1/completions", headers={"Idempotency-Key": wrong}, json=body())
        assert (response.status_code, response.json()["error"]["param"]) == (400, "Idempotency-Key")

    async def test_of_an_answer_that_was_too_large_to_keep(self, studio, key, monkeypatch):
        monkeypatch.setattr("hunmin_gateway.idempotency.recorder.MAX_BODY_BYTES", 10)
        assert (await post(studio, "/v1/completions", key, json=body())).status_code == 200
        second = await post(studio, "/v1/completions", key, json=body())
        assert second.status_code == 409
        assert "cannot be replayed" in second.json()["error"]["message"]
        assert "retry-after" not in second.headers
        assert len(studio.parrot.requests) == 1

    async def test_of_an_answer_with_a_secret_which_is_kept_nowhere(self, studio, key):
        asked = {"name": "second"}
        made = await post(studio, "/studio/v1/keys", key, json=asked)
        assert made.status_code == 201, made.text
        again = await post(studio, "/studio/v1/keys", key, json=asked)
        assert (again.status_code, "holds a secret" in again.json()["detail"]) == (409, True), again.text
        rotate = f"/studio/v1/keys/{made.json()['info']['id']}/rotate"
        assert (await post(studio, rotate, f"{key}-2", json={})).status_code == 201
        assert (await post(studio, rotate, f"{key}-2", json={})).status_code == 409
        kept = await execute(studio, "SELECT body FROM idempotency_keys WHERE key LIKE :key", key=f"{key}%")
        assert kept.scalars().all() == [None, None]


class TestRaces:
    async def test_of_twenty_one_is_made(self, studio, key):
        slow = body("!slow", max_tokens=30)
        responses = await asyncio.gather(*(post(studio, "/v1/completions", key, json=slow) for _ in range(20)))
        assert len(studio.parrot.requests) == len(await studio.usage()) == 1
        made = [one for one in responses if one.status_code == 200]
        assert len({one.content for one in made}) == 1
        assert sum("idempotent-replayed" not in one.headers for one in made) == 1
        refused = [one for one in responses if one.status_code != 200]
        assert {(one.status_code, one.headers["retry-after"]) for one in refused} == {(409, "1")}
        assert len(made) + len(refused) == 20
        assert_replayed(
            next(one for one in made if "idempotent-replayed" not in one.headers),
            await post(studio, "/v1/completions", key, json=slow),
        )


class TestFailure:
    async def test_for_want_of_room_is_made_again(self, studio, key):
        studio.parrot.refusals = 1
        assert (await post(studio, "/v1/completions", key, json=body())).status_code == 429
        second = await post(studio, "/v1/completions", key, json=body())
        assert (second.status_code, "idempotent-replayed" in second.headers) == (200, False)

    async def test_of_the_service_is_made_again(self, studio, key):
        for _ in range(2):
            response = await post(studio, "/v1/completions", key, json=body("!crash"))
            assert (response.status_code, "idempotent-replayed" in response.headers) == (500, False)
        assert len(studio.parrot.requests) == 2

    async def test_within_a_stream_is_made_again(self, studio, key):
        for _ in range(2):
            response = await post(studio, "/v1/completions", key, json=body("!break", max_tokens=5, stream=True))
            assert (response.status_code, "idempotent-replayed" in response.headers) == (200, False)
            assert "error" in json.loads(response.text.strip().rpartition("data: ")[2])
        assert len(studio.parrot.requests) == 2

    async def test_of_a_client_that_left_is_made_again(self, studio, key):
        asked = body("!slow", max_tokens=40, stream=True)
        headers = {"Idempotency-Key": key}
        async with studio.http.stream("POST", "/v1/completions", headers=headers, json=asked) as response:
            await anext(response.aiter_bytes())
        deadline = time.monotonic() + WITHIN_S
        while (second := await post(studio, "/v1/completions", key, json=asked)).status_code == 409:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert (second.status_code, "idempotent-replayed" in second.headers) == (200, False)
        assert second.text.endswith("data: [DONE]\n\n")

    async def test_of_a_gateway_that_died_frees_the_key_with_its_lease(self, studio, key):
        owner = (AccountId(studio.account_id), ProjectId("proj_1"))
        dead = IdempotencyKeys(studio.parts.database, lease_s=1)
        assert isinstance(await dead.claim(*owner, key, "one"), Claim)
        heir = IdempotencyKeys(studio.parts.database)
        with pytest.raises(HunminError, match="still running"):
            await heir.claim(*owner, key, "one")
        await execute(studio, "UPDATE idempotency_keys SET expires_at = now() WHERE key = :key", key=key)
        claim = await heir.claim(*owner, key, "one")
        assert isinstance(claim, Claim)
        await heir.keep(claim, StoredAnswer(200, [], b"mine"))
        assert await dead.claim(*owner, key, "one") == StoredAnswer(200, [], b"mine")

    async def test_lease_of_what_runs_is_renewed_and_what_is_old_forgotten(self, studio, key):
        owner = (AccountId(studio.account_id), ProjectId("proj_1"))
        keys = IdempotencyKeys(studio.parts.database, lease_s=5)
        claim = await keys.claim(*owner, key, "one")
        before = "UPDATE idempotency_keys SET expires_at = now() - interval '1 second' WHERE key = :key"
        await execute(studio, before, key=key)
        await keys.renew()
        await keys.tidy()
        with pytest.raises(HunminError) as refused:
            await keys.claim(*owner, key, "one")
        assert refused.value.code is ErrorCode.CONFLICT
        await keys.release(claim)
        await keys.claim(*owner, key, "other")
        await keys.release(claim)  # not ours any more: it stays
        assert (await execute(studio, "SELECT 1 FROM idempotency_keys WHERE key = :key", key=key)).all()
        await execute(studio, before, key=key)
        await IdempotencyKeys(studio.parts.database).tidy()
        assert not (await execute(studio, "SELECT 1 FROM idempotency_keys WHERE key = :key", key=key)).all()


async def test_what_creates_is_created_once(studio, key):
    file = await studio.client.files.create(file=("in.jsonl", b"no\n"), purpose="batch")
    asked = {"input_file_id": file.id, "endpoint": "/v1/completions", "completion_window": "24h"}
    first = await post(studio, "/v1/batches", key, json=asked)
    second = await post(studio, "/v1/batches", key, json=asked)
    assert_replayed(first, second)
    assert len((await studio.client.batches.list()).data) == 1
