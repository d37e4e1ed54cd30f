"""Batches by the official client: files in, requests made without anyone who waits, files out."""

import asyncio
import json
import time
from typing import Any

import openai
import pytest
import pytest_asyncio
from hunmin_contracts.quotas import LimitName
from hunmin_gateway.batches.batch import MAX_FILE_BYTES
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.quotas.limits import Limits
from sqlalchemy import text

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"
WITHIN_S = 30
ENDED = ("completed", "failed", "expired", "cancelled")


def line(number: int, body: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a request of five tokens: two of its prompt, three to follow."""
    asked = {"model": MODEL, "prompt": "가나", "max_tokens": 3} if body is None else body
    return {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/completions", "body": asked} | fields


def jsonl(*lines: Any) -> bytes:
    return b"".join(
        (one if isinstance(one, bytes) else json.dumps(one, ensure_ascii=False).encode()) + b"\n" for one in lines
    )


async def start(studio, *lines: Any, endpoint: str = "/v1/completions", **fields: Any):
    """Upload the lines, and make a batch of them."""
    file = await studio.client.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch")
    return await studio.client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **fields
    )


async def until(studio, batch_id: str, *statuses: str):
    """Return the batch once it has one of the statuses."""
    deadline = time.monotonic() + WITHIN_S
    while (batch := await studio.client.batches.retrieve(batch_id)).status not in statuses:
        assert time.monotonic() < deadline, batch.to_json()
        assert batch.status not in ENDED, batch.to_json()
        await asyncio.sleep(0.05)
    return batch


async def read(studio, file_id: str | None) -> list[dict[str, Any]]:
    content = await studio.client.files.content(file_id)
    return [json.loads(one) for one in content.text.splitlines()]


async def run(studio, *lines: Any, **fields: Any):
    batch = await start(studio, *lines, **fields)
    return await until(studio, batch.id, *ENDED)


async def limit(studio, name: LimitName, value: int) -> None:
    async with studio.parts.database.session() as session:
        account = await session.scalar(text("SELECT name FROM accounts WHERE id = :id"), {"id": studio.account_id})
        await Limits(session).set(account, name, value)


async def quota(studio, name: LimitName) -> dict[str, Any]:
    listed = (await studio.http.get("/studio/v1/quotas")).json()["data"]
    return next(one for one in listed if one["name"] == name)


@pytest_asyncio.fixture(loop_scope="session")
async def stranger(studio, tls):
    """The client of another account."""
    async with studio.parts.database.session() as session:
        key, _ = await KeyRing(session, pepper=studio.parts.pepper).create(f"account {new_key()}", "test")
    http = openai.DefaultAsyncHttpxClient(verify=tls)
    async with openai.AsyncOpenAI(base_url=f"{studio.url}/v1", api_key=key, max_retries=0, http_client=http) as client:
        yield client


class TestRun:
    async def test_every_line_is_answered_as_the_request_would_be(self, studio):
        asked = {"model": MODEL, "prompt": "가나다", "max_tokens": 4}
        alone = await studio.client.completions.create(**asked)
        made = await start(studio, *(line(n, asked) for n in range(20)), metadata={"night": "1"})
        assert (made.status, made.request_counts.total, made.metadata) == ("validating", 0, {"night": "1"})
        batch = await until(studio, made.id, *ENDED)
        assert (batch.status, batch.error_file_id, batch.errors) == ("completed", None, None)
        assert batch.request_counts.to_dict() == {"total": 20, "completed": 20, "failed": 0}
        assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
        assert batch.expires_at == batch.created_at + 24 * 3600
        answers = await read(studio, batch.output_file_id)
        assert [one["custom_id"] for one in answers] == [f"line-{n}" for n in range(20)]
        assert len({one["id"] for one in answers}) == 20
        for one in answers:
            response = one["response"]
            assert (response["status_code"], one["error"]) == (200, None)
            assert response["body"]["choices"] == [choice.to_dict() for choice in alone.choices]
            assert response["body"]["id"] == "cmpl-" + response["request_id"].removeprefix("req_")

    async def test_chats_and_embeddings(self, studio):
        messages = [{"role": "user", "content": "안녕"}]
        chat = line(1, {"model": MODEL, "messages": messages, "max_tokens": 3}, url="/v1/chat/completions")
        batch = await run(studio, chat, endpoint="/v1/chat/completions")
        (answer,) = await read(studio, batch.output_file_id)
        assert answer["response"]["body"]["choices"][0]["message"]["content"] == "use"
        inputs = line(1, {"model": MODEL, "input": ["가", "나다"]}, url="/v1/embeddings")
        batch = await run(studio, inputs, endpoint="/v1/embeddings")
        (answer,) = await read(studio, batch.output_file_id)
        assert [one["embedding"] for one in answer["response"]["body"]["data"]] == [[1.0], [1.0]]

    async def test_lines_that_fail_are_in_a_file_of_their_own(self, studio):
        unknown = {"model": "nobody", "prompt": "가", "max_tokens": 1}
        crash = {"model": MODEL, "prompt": "!crash", "max_tokens": 1}
        long = {"model": MODEL, "prompt": "가" * 90, "max_tokens": 1}
        batch = await run(studio, line(1), line(2, unknown), line(3, crash), line(4, long), line(5))
        assert batch.status == "completed"
        assert batch.request_counts.to_dict() == {"total": 5, "completed": 2, "failed": 3}
        assert [one["custom_id"] for one in await read(studio, batch.output_file_id)] == ["line-1", "line-5"]
        errors = await read(studio, batch.error_file_id)
        assert [one["custom_id"] for one in errors] == ["line-2", "line-3", "line-4"]
        assert [one["response"]["status_code"] for one in errors] == [404, 500, 400]
        codes = [one["response"]["body"]["error"]["code"] for one in errors]
        assert codes == ["model_not_found", "internal", "context_length_exceeded"]

    async def test_the_engine_knows_that_nobody_waits(self, studio):
        await run(studio, line(1))
        await studio.client.completions.create(model=MODEL, prompt="가", max_tokens=1)
        assert [request.priority for request in studio.parrot.requests] == ["batch", "interactive"]

    async def test_an_engine_that_is_full_is_asked_again(self, studio):
        studio.parrot.refusals = 3
        batch = await run(studio, line(1))
        assert batch.request_counts.completed == 1
        assert studio.parrot.refusals == 0

    async def test_more_lines_than_are_read_at_a_time(self, studio, monkeypatch):
        monkeypatch.setattr("hunmin_gateway.batches.reading._CHUNK_LINES", 7)
        monkeypatch.setattr("hunmin_gateway.batches.results._PAGE", 7)
        batch = await run(studio, *(line(n, {"model": MODEL, "prompt": "", "max_tokens": 1}) for n in range(40)))
        assert batch.request_counts.completed == 40
        answers = await read(studio, batch.output_file_id)
        assert [one["custom_id"] for one in answers] == [f"line-{n}" for n in range(40)]
        assert len([one for one in studio.parrot.requests if one.account_id == studio.account_id]) == 40
        async with studio.parts.database.session() as session:
            left = text("SELECT count(*) FROM batch_lines WHERE batch_id = :id")
            assert await session.scalar(left, {"id": batch.id}) == 0

    async def test_a_key_that_is_revoked_meanwhile_stops_nothing_that_it_began(self, studio):
        slow = {"model": MODEL, "prompt": "!slow", "max_tokens": 100}
        batch = await start(studio, line(1, slow))
        await until(studio, batch.id, "in_progress")
        async with studio.parts.database.session() as session:
            ring = KeyRing(session, pepper=studio.parts.pepper)
            name = await session.scalar(text("SELECT name FROM accounts WHERE id = :id"), {"id": studio.account_id})
            other, _ = await ring.create(name, "other")
            await ring.revoke(await session.scalar(text("SELECT key_id FROM batches WHERE id = :id"), {"id": batch.id}))
        studio.client.api_key = other
        assert (await until(studio, batch.id, *ENDED)).request_counts.completed == 1


class TestWhatIsWrong:
    async def test_is_told_line_by_line(self, studio):
        batch = await run(
            studio,
            line(1),
            b"{no json",
            b"",
            line(1),
            line(5, method="GET"),
            line(6, url="/v1/embeddings"),
            line(7, {"model": MODEL, "prompt": "가", "max_tokens": -1}),
            line(8, {"model": MODEL, "prompt": "가", "stream": True}),
            line(9, {"model": MODEL, "prompt": "가", "surprise": 1}),
            line(10, surprise=1),
            b'{"custom_id": "\\ud800"}',
            line(12, {"model": MODEL, "prompt": "가", "tools": [{}]}),
            b"[1]",
        )
        assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
        found = [(one.line, one.code, one.param) for one in batch.errors.data]
        assert found == [
            (2, "invalid_json_line", None),
            (4, "duplicate_custom_id", "custom_id"),
            (5, "invalid_value", "method"),
            (6, "mismatched_endpoint", "url"),
            (7, "invalid_value", "body.max_tokens"),
            (8, "invalid_value", "body.stream"),
            (9, "unknown_parameter", "body.surprise"),
            (10, "unknown_parameter", "surprise"),
            (11, "invalid_json_line", None),
            (12, "unknown_parameter", "body.tools"),
            (13, "invalid_request", None),
        ]
        assert batch.request_counts.total == 0
        assert studio.parrot.requests == []

    async def test_of_an_empty_file(self, studio):
        batch = await run(studio, b"", b" ")
        assert [(one.line, one.code) for one in batch.errors.data] == [(None, "empty_file")]

    async def test_of_too_many_lines_only_the_first_are_told(self, studio):
        batch = await run(studio, *[b"no"] * 150)
        assert [one.line for one in batch.errors.data] == [*range(1, 101)]

    async def test_a_file_that_is_gone_by_then(self, studio):
        file = await studio.client.files.create(file=("in.jsonl", jsonl(line(1))), purpose="batch")
        await studio.parts.blobs.delete(f"files/{file.id}")
        made = await studio.client.batches.create(
            input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
        )
        batch = await until(studio, made.id, *ENDED)
        assert [(one.line, one.code) for one in batch.errors.data] == [(None, "file_not_found")]

    @pytest.mark.parametrize(
        ("changed", "param"),
        [
            ({"input_file_id": "file-batch-000000000000000000000000"}, "input_file_id"),
            ({"endpoint": "/v1/moderations"}, "endpoint"),
            ({"completion_window": "1h"}, "completion_window"),
            ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
            ({"metadata": {"k": "v" * 513}}, "metadata.k"),
            ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after"),
        ],
    )
    async def test_request_is_refused_by_its_parameter(self, studio, changed: dict[str, Any], param: str):
        file = await studio.client.files.create(file=("in.jsonl", jsonl(line(1))), purpose="batch")
        asked = {"input_file_id": file.id, "endpoint": "/v1/completions", "completion_window": "24h"} | changed
        with pytest.raises(openai.BadRequestError) as refused:
            await studio.client.batches.create(**asked)
        assert refused.value.param == param

    async def test_output_of_a_batch_is_no_input_of_one(self, studio):
        batch = await run(studio, line(1))
        with pytest.raises(openai.BadRequestError, match="purpose batch"):
            await studio.client.batches.create(
                input_file_id=batch.output_file_id, endpoint="/v1/completions", completion_window="24h"
            )


class TestFiles:
    async def test_are_kept_listed_and_deleted(self, studio):
        content = jsonl(line(1))
        file = await studio.client.files.create(file=("밤.jsonl", content), purpose="batch")
        assert (file.filename, file.bytes, file.purpose, file.status) == (
            "밤.jsonl",
            len(content),
            "batch",
            "processed",
        )
        assert await studio.client.files.retrieve(file.id) == file
        assert (await studio.client.files.content(file.id)).content == content
        assert [one.id async for one in studio.client.files.list(purpose="batch")] == [file.id]
        assert file.id in [one.id async for one in studio.client.files.list()]
        assert (await studio.client.files.delete(file.id)).deleted
        for call in (studio.client.files.retrieve, studio.client.files.content, studio.client.files.delete):
            with pytest.raises(openai.NotFoundError):
                await call(file.id)
        assert not await studio.parts.blobs.exists(f"files/{file.id}")

    async def test_that_is_too_large_or_empty_is_refused(self, studio, monkeypatch):
        with pytest.raises(openai.BadRequestError, match="empty"):
            await studio.client.files.create(file=("in.jsonl", b""), purpose="batch")
        monkeypatch.setattr("hunmin_gateway.openai.files.MAX_FILE_BYTES", 10)
        with pytest.raises(openai.APIStatusError, match="at most 10 bytes") as refused:
            await studio.client.files.create(file=("in.jsonl", b"x" * 11), purpose="batch")
        assert refused.value.status_code == 413
        assert MAX_FILE_BYTES == 200_000_000


class TestList:
    async def test_is_paged_newest_first(self, studio):
        made = [(await run(studio, line(n))).id for n in range(3)]
        page = await studio.client.batches.list(limit=2)
        assert ([one.id for one in page.data], page.has_more) == (made[:0:-1], True)
        assert [one.id async for one in studio.client.batches.list(limit=2)] == made[::-1]
        with pytest.raises(openai.BadRequestError, match="after"):
            await studio.client.batches.list(after="batch_0")

    async def test_of_others_is_nothing_seen(self, studio, stranger):
        batch = await run(studio, line(1))
        assert (await stranger.batches.list()).data == []
        calls = (
            stranger.batches.retrieve(batch.id),
            stranger.batches.cancel(batch.id),
            stranger.files.retrieve(batch.output_file_id),
            stranger.files.content(batch.output_file_id),
            stranger.files.delete(batch.output_file_id),
        )
        for call in calls:
            with pytest.raises(openai.NotFoundError):
                await call
        with pytest.raises(openai.BadRequestError):
            await stranger.batches.create(
                input_file_id=batch.input_file_id, endpoint="/v1/completions", completion_window="24h"
            )
        assert len(await read(studio, batch.output_file_id)) == 1


class TestCancel:
    async def test_stops_what_runs_and_keeps_what_is_there(self, studio):
        quick = [line(n) for n in range(3)]
        slow = [line(n, {"model": MODEL, "prompt": "!slow", "max_tokens": 5000}) for n in range(3, 20)]
        made = await start(studio, *quick, *slow)
        deadline = time.monotonic() + WITHIN_S
        while (await studio.client.batches.retrieve(made.id)).request_counts.completed < 3 or not studio.parrot.running:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        began = time.monotonic()
        assert (await studio.client.batches.cancel(made.id)).status == "cancelling"
        batch = await until(studio, made.id, "cancelled")
        assert time.monotonic() - began < 5
        assert batch.cancelling_at <= batch.cancelled_at
        assert studio.parrot.running == 0
        assert [one["custom_id"] for one in await read(studio, batch.output_file_id)] == [f"line-{n}" for n in range(3)]
        errors = await read(studio, batch.error_file_id)
        assert {(one["response"], one["error"]["code"]) for one in errors} == {(None, "batch_cancelled")}
        assert [one["custom_id"] for one in errors] == [f"line-{n}" for n in range(3, 20)]
        rows = await studio.usage(limit="200")
        assert {row["status"] for row in rows} == {"succeeded", "cancelled"}
        for row in rows:
            metered = studio.parrot.metered[row["request_id"]]
            if row["status"] == "succeeded":
                assert row["prompt_tokens"] + row["completion_tokens"] == metered
            else:  # what was on its way when it was cut
                assert 5 < row["prompt_tokens"] + row["completion_tokens"] <= metered
        assert (await studio.client.batches.cancel(made.id)).status == "cancelled"  # twice is no error

    async def test_of_what_has_ended_is_refused(self, studio):
        batch = await run(studio, line(1))
        with pytest.raises(openai.ConflictError):
            await studio.client.batches.cancel(batch.id)


class TestExpiry:
    async def test_ends_it_with_what_is_there(self, studio):
        slow = {"model": MODEL, "prompt": "!slow", "max_tokens": 5000}
        made = await start(studio, line(1), line(2, slow))
        deadline = time.monotonic() + WITHIN_S
        while (await studio.client.batches.retrieve(made.id)).request_counts.completed < 1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        async with studio.parts.database.session() as session:
            await session.execute(text("UPDATE batches SET expires_at = now() WHERE id = :id"), {"id": made.id})
        batch = await until(studio, made.id, "expired")
        assert batch.expired_at is not None
        assert [one["custom_id"] for one in await read(studio, batch.output_file_id)] == ["line-1"]
        (late,) = await read(studio, batch.error_file_id)
        assert (late["custom_id"], late["error"]["code"]) == ("line-2", "batch_expired")


class TestQuota:
    async def test_counts_half_rounded_up_and_the_ledger_all(self, studio):
        await limit(studio, LimitName.TOKENS_PER_MONTH, 1000)
        await limit(studio, LimitName.REQUESTS_PER_MINUTE, 1000)
        batch = await run(studio, line(1), line(2), line(3))
        rows = await studio.usage()
        assert [(row["prompt_tokens"], row["completion_tokens"], row["batch_id"]) for row in rows] == [
            (2, 3, batch.id)
        ] * 3
        month = await quota(studio, LimitName.TOKENS_PER_MONTH)
        assert (month["used"], month["reserved"]) == (9, 0)  # three halves of five
        assert (await quota(studio, LimitName.REQUESTS_PER_MINUTE))["used"] == 3
        await studio.client.completions.create(model=MODEL, prompt="가나", max_tokens=3)
        assert (await quota(studio, LimitName.TOKENS_PER_MONTH))["used"] == 14
        (row, *_) = await studio.usage()
        assert row["batch_id"] is None
        (total,) = (await studio.http.get("/studio/v1/usage/summary", params={"by": "model"})).json()["data"]
        assert (total["batch_tokens"], total["quota_tokens"]) == (15, 14)
        assert total["prompt_tokens"] + total["completion_tokens"] == 20

    async def test_that_is_full_is_waited_for(self, studio):
        await limit(studio, LimitName.TOKENS_PER_MONTH, 6)
        made = await start(studio, line(1), line(2), line(3))
        deadline = time.monotonic() + WITHIN_S
        while (batch := await studio.client.batches.retrieve(made.id)).request_counts.completed < 2:
            assert time.monotonic() < deadline, batch
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        batch = await studio.client.batches.retrieve(made.id)
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("in_progress", 2, 0)
        await limit(studio, LimitName.TOKENS_PER_MONTH, 100)
        async with studio.parts.database.session() as session:  # or it would ask again in a minute
            await session.execute(text("UPDATE batches SET due_at = now() WHERE id = :id"), {"id": made.id})
        batch = await until(studio, made.id, *ENDED)
        assert batch.request_counts.completed == 3
        assert (await quota(studio, LimitName.TOKENS_PER_MONTH))["used"] == 9

    async def test_that_can_never_have_room_fails_the_line(self, studio):
        await limit(studio, LimitName.TOKENS_PER_MINUTE, 3)
        batch = await run(studio, line(1), line(2, {"model": MODEL, "prompt": "가나", "max_tokens": 20}))
        assert batch.request_counts.to_dict() == {"total": 2, "completed": 1, "failed": 1}
        (error,) = await read(studio, batch.error_file_id)
        assert error["response"]["status_code"] == 429
