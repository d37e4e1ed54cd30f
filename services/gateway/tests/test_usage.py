"""The ledger as its account sees it: exact however a request ends, and listed page by page."""

import asyncio
import secrets
import time
from datetime import UTC, datetime
from urllib.parse import quote

import openai
import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.usage import Outcome
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.usage.ledger import UsageLedger
from hunmin_gateway.usage.record import UsageRecord
from sqlalchemy import text

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"
WITHIN_S = 5  # a row is there at once on an idle machine


async def row_of(studio, status: str) -> dict:
    """Return the newest row once it has that status."""
    deadline = time.monotonic() + WITHIN_S
    while not (rows := await studio.usage(limit="1")) or rows[0]["status"] != status:
        assert time.monotonic() < deadline, rows
        await asyncio.sleep(0.02)
    return rows[0]


class TestOrigins:
    async def test_of_calls_are_the_row_that_they_are_settled_with(self, studio):
        await studio.client.completions.create(model=MODEL, prompt=["가나", "다"], max_tokens=3)
        gradients = {"model": MODEL, "examples": [{"template": None, "target": "가"}]}
        assert (await studio.http.post("/studio/v1/gradients", json=gradients)).status_code == 200
        query = text(
            "SELECT id, key_id, endpoint, started_at FROM usage WHERE account_id = :account ORDER BY started_at"
        )
        async with studio.parts.database.session() as session:
            first, second = await session.execute(query, {"account": studio.account_id})
        told = [
            (origin.usage_id, origin.key_id, origin.endpoint, origin.started_at) for origin in studio.parrot.origins
        ]
        assert told == [tuple(first), tuple(first), tuple(second)]


class TestTraces:
    @pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "stream"])
    async def test_of_rows_are_their_callers(self, studio, is_streamed):
        trace_id = secrets.token_hex(16)
        headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
        body = {"model": MODEL, "prompt": "가나", "max_tokens": 3, "stream": is_streamed}
        assert (await studio.http.post("/v1/completions", json=body, headers=headers)).status_code == 200
        assert (await row_of(studio, "succeeded"))["trace_id"] == trace_id

    async def test_of_rows_are_their_own_where_the_caller_has_none(self, studio):
        for _ in range(2):
            await studio.client.completions.create(model=MODEL, prompt="가", max_tokens=1)
        first, second = await studio.usage()
        assert len(first["trace_id"]) == 32
        assert first["trace_id"] != second["trace_id"]


class TestCounts:
    async def test_of_a_whole_answer(self, studio):
        completion = await studio.client.completions.create(model=MODEL, prompt=["가나", "다"], n=2, max_tokens=3)
        (row,) = await studio.usage()
        assert (row["prompt_tokens"], row["completion_tokens"], row["status"]) == (3, 12, "succeeded")
        assert (row["model"], row["endpoint"], row["error_code"]) == (MODEL, "/v1/completions", None)
        assert row["request_id"].removeprefix("req_") == completion.id.removeprefix("cmpl-")
        assert completion.usage.total_tokens == 15

    async def test_of_a_stream_are_there_when_its_end_is(self, studio):
        messages = [{"role": "user", "content": "안녕"}]
        stream = await studio.client.chat.completions.create(model=MODEL, messages=messages, max_tokens=5, stream=True)
        async for _ in stream:
            pass
        (row,) = await studio.usage()
        assert (row["prompt_tokens"], row["completion_tokens"], row["status"]) == (8, 5, "succeeded")
        assert row["endpoint"] == "/v1/chat/completions"

    async def test_of_a_stream_that_its_client_leaves_are_what_was_generated(self, studio):
        stream = await studio.client.completions.create(model=MODEL, prompt="!slow", max_tokens=10_000, stream=True)
        for _ in range(5):
            await anext(stream)
        left_at = time.monotonic()
        await stream.close()
        while studio.parrot.running:
            assert time.monotonic() < left_at + 1, "the sequence still runs 1 s after its client left"
            await asyncio.sleep(0.01)
        row = await row_of(studio, "cancelled")
        assert row["prompt_tokens"] == 5
        # What the engine had generated but not yet sent when the stream was cut is at most a few tokens.
        assert 5 <= row["completion_tokens"] <= studio.parrot.generated <= row["completion_tokens"] + 10

    async def test_of_a_whole_answer_that_its_client_leaves(self, studio):
        body = {"model": MODEL, "prompt": ["!slow", "!slow"], "max_tokens": 10_000}
        asking = asyncio.create_task(studio.http.post("/v1/completions", json=body))
        while studio.parrot.generated < 4:  # noqa: ASYNC110  # the parrot counts, it does not signal
            await asyncio.sleep(0.01)
        asking.cancel()
        row = await row_of(studio, "cancelled")
        assert studio.parrot.running == 0
        assert row["prompt_tokens"] == 10
        assert 2 <= row["completion_tokens"] <= studio.parrot.generated

    @pytest.mark.parametrize(
        ("prompt", "error"),
        [
            ("!break", "unavailable"),
            ("!overloaded", "overloaded"),
            ("!crash", "internal"),
            ("가" * 70, "prompt_too_long"),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    async def test_of_a_failed_request_are_nothing(self, studio, prompt, error, stream):
        with pytest.raises(openai.APIError):
            async for _ in await studio.client.completions.create(model=MODEL, prompt=prompt, stream=stream):
                pass
        row = await row_of(studio, "failed")
        assert (row["prompt_tokens"], row["completion_tokens"], row["error_code"]) == (0, 0, error)

    async def test_of_requests_refused_before_the_model_are_no_rows(self, studio):
        await studio.http.post("/v1/completions", json={"model": MODEL, "typo": 1})
        await studio.http.post("/v1/completions", json={}, headers={"Authorization": "Bearer hm_wrong"})
        assert await studio.usage() == []

    async def test_hold_no_session_while_streaming(self, studio):
        streams = [
            await studio.client.completions.create(model=MODEL, prompt="!slow", max_tokens=10_000, stream=True)
            for _ in range(3)
        ]
        held = text("""
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND state LIKE 'idle in%'
                  AND xact_start < clock_timestamp() - interval '1 s'
        """)  # what handles events in between has short ones
        await asyncio.sleep(1.2)
        async with studio.parts.database.session() as session:
            busy = await session.scalar(held)
        for stream in streams:
            await stream.close()
        assert busy == 0


class TestList:
    async def test_is_paged_newest_first_without_gap_or_repeat(self, studio):
        for tokens in range(1, 6):
            await studio.client.completions.create(model=MODEL, prompt="가", max_tokens=tokens)
        seen, cursor = [], None
        while True:
            query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
            page = (await studio.http.get("/studio/v1/usage", params=query)).json()
            seen += [row["completion_tokens"] for row in page["data"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            assert quote(cursor, safe=":") == cursor  # as curl sends it
        assert seen == [5, 4, 3, 2, 1]

    async def test_is_filtered_by_time(self, studio):
        for _ in range(3):
            await studio.client.completions.create(model=MODEL, prompt="가")
        newest, middle, oldest = [row["started_at"] for row in await studio.usage()]
        assert [row["started_at"] for row in await studio.usage(since=middle)] == [newest, middle]
        assert [row["started_at"] for row in await studio.usage(until=middle)] == [oldest]
        assert [row["started_at"] for row in await studio.usage(since=middle, until=newest)] == [middle]
        for local in ("2026-01-01T09:00:00+09:00", "2026-01-01T09:00:00 09:00", "2026-01-01T09:00:00.5 09:00"):
            assert len(await studio.usage(since=local)) == 3  # a plus in a URL is a space

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ({"cursor": "x"}, "cursor"),
            ({"cursor": "2026-01-01T00:00:00_1"}, "cursor"),
            ({"cursor": "0001-01-01T00:00:00+14:00_1"}, "cursor"),
            ({"limit": "0"}, "limit"),
            ({"since": "0001-01-01T00:00:00+14:00"}, "since"),
            ({"until": "9999-12-31T23:59:59-14:00"}, "until"),
            ({"since": "yesterday"}, "since"),
            ({"since": "2026-01-01T00:00:00"}, "since"),
            ({"typo": "1"}, "typo"),
        ],
    )
    async def test_refuses_what_it_does_not_know(self, studio, query, param):
        response = await studio.http.get("/studio/v1/usage", params=query)
        problem = response.json()
        assert (response.status_code, problem["details"]["param"]) == (400, param)
        assert "Value error" not in problem["detail"]
        assert response.headers["content-type"] == "application/problem+json"

    async def test_shows_an_account_its_own_rows_alone(self, studio):
        async with studio.parts.database.session() as session:
            other, _ = await KeyRing(session, pepper=studio.parts.pepper).create("another", "test")
        await studio.client.completions.create(model=MODEL, prompt="가")
        assert len(await studio.usage()) == 1
        response = await studio.http.get("/studio/v1/usage", headers={"Authorization": f"Bearer {other}"})
        assert response.json() == {"data": [], "next_cursor": None}


class TestLedger:
    def record(self, studio, **fields) -> UsageRecord:
        principal = {
            "account_id": studio.account_id,
            "project_id": None,
            "key_id": "key_1",
            "request_id": "req_1",
            "model": MODEL,
        }
        counts = {"prompt_tokens": 1, "completion_tokens": 1, "backward_tokens": 1}
        counts |= {"duration_s": 0.1, "started_at": datetime.now(UTC)}
        end = {"id": f"use_{time.monotonic_ns()}", "endpoint": "/", "status": Outcome.SUCCEEDED, "error_code": None}
        return UsageRecord(**principal | counts | end | fields)

    async def test_writes_a_row_once_however_often_it_is_told(self, studio):
        ledger, record = UsageLedger(studio.parts.database), self.record(studio)
        await ledger.settle(record)
        await ledger.settle(record)
        assert len(await studio.usage()) == 1

    async def test_writes_the_row_of_a_caller_that_is_cancelled(self, studio):
        ledger = UsageLedger(studio.parts.database)
        settling = asyncio.create_task(ledger.settle(self.record(studio)))
        await asyncio.sleep(0)
        settling.cancel()
        await asyncio.gather(settling, return_exceptions=True)
        await ledger.finish()
        assert len(await studio.usage()) == 1

    async def test_waits_for_a_database_that_restarts(self, studio):
        database = RestartingDatabase(studio.parts.database, failures=2)
        await UsageLedger(database).settle(self.record(studio))
        assert len(await studio.usage()) == 1

    async def test_gives_up_with_the_error(self, studio):
        database = RestartingDatabase(studio.parts.database, failures=100)
        with pytest.raises(HunminError, match="cannot be reached"):
            await UsageLedger(database, patience_s=0).settle(self.record(studio))


class RestartingDatabase:
    """A database that cannot be reached the first few times."""

    def __init__(self, database, *, failures: int) -> None:
        self._database = database
        self._failures = failures

    @property
    def quick(self):
        return self

    async def fetch(self, statement, values):
        self._failures -= 1
        if self._failures >= 0:
            raise HunminError(ErrorCode.UNAVAILABLE, "The database cannot be reached.")
        return await self._database.quick.fetch(statement, values)
