"""A request whose gateway was lost is settled by another, by what generation told of its calls."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hunmin_contracts.events import USAGE, UsageMetered
from hunmin_gateway.keys.authentication import authenticate
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.service import SERVICE
from hunmin_gateway.usage.ledger import UsageLedger
from hunmin_gateway.usage.lost import LostExchanges
from hunmin_kit.data import Database
from hunmin_kit.data.migrations import Chain
from hunmin_kit.events import Events, Subscription
from hunmin_kit.events.direct import DirectBus
from hunmin_kit.events.timing import Timing
from hunmin_kit.observe.metrics import Metrics
from hunmin_kit.observe.tracing import tracer_provider
from hunmin_kit.run.errors import StartError
from hunmin_kit.testing import running
from hunmin_kit.testing.postgres import fresh_database
from opentelemetry.trace import NoOpTracer, format_trace_id
from sqlalchemy import text

LOST_AFTER_S = 0.3
TRACER = tracer_provider("test").get_tracer("test")
WITHIN_S = 20


def metered(usage_id: str = "use_1", **fields: Any) -> UsageMetered:
    told = {
        "usage_id": usage_id,
        "request_id": "req_1",
        "account_id": "acct_1",
        "key_id": "key_1",
        "endpoint": "/v1/completions",
        "model": "team/parrot",
        "started_at": datetime.now(UTC) - timedelta(seconds=2),
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "backward_tokens": 0,
        "outcome": "succeeded",
        "error_code": None,
    }
    return UsageMetered(**told | fields)


@dataclass
class Two:
    """Generation, which tells, and a gateway, which hears."""

    generation: Database
    gateway: Database
    told: Events
    lost: LostExchanges

    async def tell(self, *calls: UsageMetered) -> None:
        async with self.generation.session() as session:
            for call in calls:
                await self.told.tell(session, USAGE, call, key=call.usage_id)

    async def fetch(self, statement: str, **values: Any) -> list[Any]:
        async with self.gateway.session() as session:
            return list((await session.execute(text(statement), values)).all())

    async def until(self, statement: str, rows: int) -> None:
        deadline = time.monotonic() + WITHIN_S
        while len(found := await self.fetch(statement)) != rows:
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.02)


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    async with fresh_database() as url:
        await Chain("generation", "hunmin_generation.migrations").upgrade(url)
        await Chain("gateway", "hunmin_gateway.migrations").upgrade(url)
        timing, metrics = Timing(poll_s=0.05, look_s=0.05), Metrics().events
        databases = [Database(url, schema=name, tracer=NoOpTracer()) for name in ("generation", "gateway")]
        told, heard = (
            Events(one, DirectBus(one, timing=timing), timing=timing, tracer=TRACER, metrics=metrics)
            for one in databases
        )
        lost = LostExchanges(databases[1], UsageLedger(databases[1]), lost_after_s=LOST_AFTER_S, every_s=0.1)
        async with told.running(), heard.running(Subscription("lost-exchanges", USAGE, lost.note)):
            yield Two(*databases, told, lost)
        for database in databases:
            await database.close()


async def test_exchange_that_nobody_settled_is_settled_with_the_sum_of_its_calls(two: Two) -> None:
    await two.tell(metered(), metered(prompt_tokens=1, completion_tokens=2), metered("use_2", backward_tokens=9))
    await two.until("SELECT 1 FROM metered_calls", 3)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    assert await two.lost.settle() == 2
    rows = await two.fetch(
        "SELECT id, request_id, account_id, key_id, model, endpoint, prompt_tokens, completion_tokens, "
        "backward_tokens, status, error_code, duration_s FROM usage ORDER BY id"
    )
    assert [tuple(row[:11]) for row in rows] == [
        ("use_1", "req_1", "acct_1", "key_1", "team/parrot", "/v1/completions", 6, 9, 0, "succeeded", None),
        ("use_2", "req_1", "acct_1", "key_1", "team/parrot", "/v1/completions", 5, 7, 9, "succeeded", None),
    ]
    assert all(2 <= row[11] < 60 for row in rows)
    assert await two.lost.settle() == 0
    assert await two.fetch("SELECT 1 FROM metered_calls") == []


async def test_exchange_is_of_the_trace_of_its_calls(two: Two) -> None:
    with TRACER.start_as_current_span("request") as span:
        await two.tell(metered())
    await two.tell(metered("use_2"))
    await two.until("SELECT 1 FROM metered_calls", 2)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    assert await two.lost.settle() == 2
    ((first,), (second,)) = await two.fetch("SELECT trace_id FROM usage ORDER BY id")
    assert first == format_trace_id(span.get_span_context().trace_id)
    assert second != first  # nobody's: the consumer's own


async def test_exchange_is_of_the_project_of_its_key(two: Two) -> None:
    async with two.gateway.session() as session:
        key, _ = await KeyRing(session, pepper=b"pepper").create("account", "test")
    principal = await authenticate(two.gateway.quick, key, pepper=b"pepper")
    await two.tell(metered(account_id=principal.account_id, key_id=principal.key_id), metered("use_2"))
    await two.until("SELECT 1 FROM metered_calls", 2)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    assert await two.lost.settle() == 2
    found = await two.fetch("SELECT project_id FROM usage ORDER BY id")
    assert found == [(principal.project_id,), (None,)]  # the other's key is gone


async def test_exchange_that_may_still_run_is_left_to_its_gateway(two: Two) -> None:
    await two.tell(metered(started_at=datetime.now(UTC) + timedelta(seconds=600)))
    await two.until("SELECT 1 FROM metered_calls", 1)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    assert await two.lost.settle() == 0
    assert await two.fetch("SELECT 1 FROM usage") == []


async def settled(two: Two, status: str) -> None:
    """Let a gateway have settled an exchange of 11 tokens. Of a cut one it holds the rest of 30."""
    await two.fetch(
        "INSERT INTO usage (id, request_id, account_id, key_id, model, endpoint, prompt_tokens, completion_tokens, "
        "status, started_at, duration_s, trace_id) "
        "VALUES ('use_1', 'r', 'a', 'k', 'm', 'e', 5, 6, :status, now(), 1, 't') RETURNING 1",
        status=status,
    )
    if status == "cancelled":
        await two.fetch(
            "INSERT INTO quota_reservations (usage_id, limit_id, name, begins_at, amount, expires_at) "
            "VALUES ('use_1', 'limit_1', 'tokens_per_month', '2026-11-01', 19, now()) RETURNING 1"
        )
    await two.fetch(
        "INSERT INTO quota_counters (limit_id, begins_at, used, reserved) "
        "VALUES ('limit_1', '2026-11-01', 11, :reserved) RETURNING 1",
        reserved=19 if status == "cancelled" else 0,
    )


async def test_exchange_that_its_gateway_settled_is_not_settled_again(two: Two) -> None:
    await settled(two, "succeeded")
    await two.tell(metered())
    await two.until("SELECT 1 FROM metered_calls", 1)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    assert await two.lost.settle() == 0
    assert await two.fetch("SELECT completion_tokens FROM usage") == [(6,)]
    assert await two.fetch("SELECT 1 FROM metered_calls") == []


async def test_what_the_engine_computed_before_it_knew_of_a_cut_is_added_once(two: Two) -> None:
    await settled(two, "cancelled")
    await two.tell(metered(completion_tokens=9, outcome="cancelled"))
    await two.until("SELECT 1 FROM metered_calls", 1)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    await asyncio.gather(*(two.lost.settle() for _ in range(3)))
    rows = "SELECT id, corrects, request_id, prompt_tokens, completion_tokens, status, trace_id FROM usage ORDER BY id"
    assert await two.fetch(rows) == [
        ("use_1", None, "r", 5, 6, "cancelled", "t"),
        ("use_1_c", "use_1", "r", 0, 3, "cancelled", "t"),
    ]
    assert await two.fetch("SELECT used, reserved FROM quota_counters") == [(14, 0)]
    assert await two.fetch("SELECT 1 FROM metered_calls") == []


async def test_cut_exchange_of_which_the_engine_tells_the_same_needs_no_correction(two: Two) -> None:
    await settled(two, "cancelled")
    await two.tell(metered(prompt_tokens=2, completion_tokens=2), metered(prompt_tokens=3, completion_tokens=4))
    await two.until("SELECT 1 FROM metered_calls", 2)
    assert await two.lost.settle() == 0  # the last of its calls may be yet to come
    await two.until("SELECT 1 FROM metered_calls", 2)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    assert await two.lost.settle() == 0
    assert await two.fetch("SELECT id FROM usage") == [("use_1",)]
    assert await two.fetch("SELECT used, reserved FROM quota_counters") == [(11, 0)]
    assert await two.fetch("SELECT 1 FROM metered_calls") == []


async def test_cut_exchange_is_corrected_as_soon_as_all_of_its_calls_are_told_of(two: Two, monkeypatch) -> None:
    monkeypatch.setattr(two.lost, "_quiet_s", 3600)
    await settled(two, "cancelled")
    await two.tell(metered(prompt_tokens=2, completion_tokens=4, calls=2))
    await two.until("SELECT 1 FROM metered_calls", 1)
    await two.lost.settle()
    assert await two.fetch("SELECT used, reserved FROM quota_counters") == [(11, 19)]
    await two.tell(metered(prompt_tokens=3, completion_tokens=4, calls=2))
    await two.until("SELECT 1 FROM metered_calls", 2)
    await two.lost.settle()
    assert await two.fetch("SELECT used, reserved FROM quota_counters") == [(13, 0)]
    assert await two.fetch("SELECT 1 FROM metered_calls") == []


async def test_cut_exchange_is_corrected_once_though_its_calls_are_told_of_far_apart(two: Two) -> None:
    await settled(two, "cancelled")
    await two.tell(metered(prompt_tokens=2, completion_tokens=4, calls=3))
    await two.until("SELECT 1 FROM metered_calls", 1)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    await two.lost.settle()
    await two.tell(metered(prompt_tokens=3, completion_tokens=4, calls=3))  # the third was not accepted
    await two.until("SELECT 1 FROM metered_calls", 2)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    await two.lost.settle()
    assert await two.fetch("SELECT sum(prompt_tokens), sum(completion_tokens) FROM usage") == [(5, 8)]
    assert await two.fetch("SELECT used, reserved FROM quota_counters") == [(13, 0)]
    assert await two.fetch("SELECT 1 FROM metered_calls") == []


async def test_cut_exchange_of_which_a_call_is_never_told_of_keeps_what_its_gateway_knew(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hunmin_gateway.usage.lost._MISSING_S", 0.0)
    await settled(two, "cancelled")
    await two.tell(metered(prompt_tokens=2, completion_tokens=4, calls=2))
    await two.until("SELECT 1 FROM metered_calls", 1)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    await two.lost.settle()
    assert await two.fetch("SELECT id FROM usage") == [("use_1",)]
    assert await two.fetch("SELECT used, reserved FROM quota_counters") == [(11, 0)]


@pytest.mark.parametrize(
    ("outcomes", "row"),
    [
        (("succeeded", "cancelled"), (10, 14, "cancelled", None)),
        (("cancelled", "failed"), (0, 0, "failed", "overloaded")),
        (("succeeded", "failed"), (0, 0, "failed", "overloaded")),
    ],
)
async def test_exchange_ended_as_the_worst_of_its_calls(two: Two, outcomes: tuple[str, str], row: tuple) -> None:
    code = {"failed": "overloaded"}
    await two.tell(*(metered(outcome=outcome, error_code=code.get(outcome)) for outcome in outcomes))
    await two.until("SELECT 1 FROM metered_calls", 2)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    await two.lost.settle()
    assert await two.fetch("SELECT prompt_tokens, completion_tokens, status, error_code FROM usage") == [row]


async def test_line_of_a_batch_counts_half_also_then(two: Two) -> None:
    async with two.gateway.session() as session:
        await session.execute(
            text("INSERT INTO quota_counters (limit_id, begins_at, used, reserved) VALUES ('quota_1', 'epoch', 0, 6)")
        )
        await session.execute(
            text(
                "INSERT INTO quota_reservations (usage_id, limit_id, name, begins_at, amount, expires_at) "
                "VALUES ('use_1', 'quota_1', 'tokens_per_month', 'epoch', 6, now() + interval '1 day')"
            )
        )
    await two.tell(metered(prompt_tokens=4, completion_tokens=7, batch_id="batch_1"))
    await two.until("SELECT 1 FROM metered_calls", 1)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    assert await two.lost.settle() == 1
    assert await two.fetch("SELECT prompt_tokens + completion_tokens, batch_id FROM usage") == [(11, "batch_1")]
    assert await two.fetch("SELECT used, reserved FROM quota_counters") == [(6, 0)]


async def test_code_of_a_newer_release_is_an_internal_error(two: Two) -> None:
    await two.tell(metered(outcome="failed", error_code="from_the_future"))
    await two.until("SELECT 1 FROM metered_calls", 1)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    await two.lost.settle()
    assert await two.fetch("SELECT error_code FROM usage") == [("internal",)]


async def test_all_that_are_lost_are_settled_in_one_turn(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hunmin_gateway.usage.lost._AT_ONCE", 2)
    await two.tell(*(metered(f"use_{number}", request_id=f"req_{number}") for number in range(5)))
    await two.until("SELECT 1 FROM metered_calls", 5)
    await asyncio.sleep(LOST_AFTER_S + 0.1)
    assert await two.lost.settle() == 5
    assert len(await two.fetch("SELECT id FROM usage")) == 5


async def test_lost_exchanges_are_settled_again_and_again(two: Two) -> None:
    async with two.lost.settled():
        await two.tell(metered())
        await two.until("SELECT 1 FROM usage", 1)


async def test_a_gateway_that_would_take_running_requests_for_lost_does_not_start(neighbours) -> None:
    env = {"HUNMIN_GATEWAY_LOST_AFTER_S": "900", "HUNMIN_STREAM_DEADLINE_S": "1800"}
    with pytest.raises(StartError, match=r"HUNMIN_GATEWAY_LOST_AFTER_S is 900, .* 1800 s"):
        async with running(SERVICE, *neighbours, env=env):
            pass
