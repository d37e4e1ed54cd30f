"""What every bus promises: what was committed is delivered, in order, and has its effect once."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import MAX_EVENT_BYTES, Envelope
from hunmin_kit.events import Subscription
from kit_sample.events import QUICK, Noted, Process, note
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from .conftest import Backbone, eventually


def notes(process: Process, name: str = "notes") -> Subscription[Noted]:
    return Subscription(name, process.topic, note(name))


async def has_effects(process: Process, count: int, consumer: str = "notes") -> bool:
    return len(await process.effects(consumer)) >= count


async def test_event_arrives_as_it_was_told(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    seen: list[Envelope[Noted]] = []

    async def see(session: AsyncSession, event: Envelope[Noted]) -> None:
        seen.append(event)

    async with alpha.events.running(), beta.events.running(Subscription("sight", beta.topic, see)):
        await alpha.tell("한글", 7)
        await eventually(lambda: asyncio.sleep(0, result=seen))
    (event,) = seen
    assert (event.subject, event.data.value) == ("한글", 7)
    assert (event.type, event.source, event.specversion) == (beta.topic.name, "hunmin/alpha", "1.0")
    assert event.id.startswith("evt_")


async def test_what_is_rolled_back_is_never_told(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    async with alpha.events.running(), beta.events.running(notes(beta)):
        with contextlib.suppress(ZeroDivisionError):
            async with alpha.database.session() as session:
                await alpha.events.tell(session, alpha.topic, Noted(value=1), key="a")
                raise ZeroDivisionError
        await alpha.tell("a", 2)
        await eventually(lambda: has_effects(beta, 1))
        await asyncio.sleep(0.2)
    assert await beta.effects() == [("a", 2)]


async def test_events_of_a_key_keep_their_order(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    keys = [f"key {number}" for number in range(5)]
    async with alpha.events.running(), beta.events.running(notes(beta)):
        for value in range(0, 60, 3):
            await asyncio.gather(*(alpha.tell(key, value, value + 1, value + 2) for key in keys))
        await eventually(lambda: has_effects(beta, 300))
    for key in keys:
        assert [value for subject, value in await beta.effects() if subject == key] == list(range(60))


async def test_open_transaction_holds_back_what_comes_after_it_and_loses_nothing(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    async with alpha.events.running(), beta.events.running(notes(beta)):
        async with alpha.database.session() as session:
            await alpha.events.tell(session, alpha.topic, Noted(value=1), key="slow")
            await session.flush()
            await alpha.tell("quick", 2)
            await asyncio.sleep(0.3)
            assert await beta.effects() == []
        await eventually(lambda: has_effects(beta, 2))
    assert sorted(await beta.effects()) == [("quick", 2), ("slow", 1)]


async def test_order_is_that_of_transactions_and_not_of_numbers(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    async with alpha.database.session() as first:
        await first.execute(text("SELECT pg_current_xact_id()"))  # begins before, and writes after
        await alpha.tell("key", 2)
        await alpha.events.tell(first, alpha.topic, Noted(value=1), key="key")
    async with alpha.events.running(), beta.events.running(notes(beta)):
        await eventually(lambda: has_effects(beta, 2))
    assert await beta.effects() == [("key", 1), ("key", 2)]


async def test_consumer_that_comes_later_gets_what_was_told_before(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    async with alpha.events.running():
        await alpha.tell("a", 1, 2)
        await eventually(lambda: is_relayed(alpha))
    async with beta.events.running(notes(beta)):
        await eventually(lambda: has_effects(beta, 2))
    assert await beta.effects() == [("a", 1), ("a", 2)]


async def is_relayed(process: Process) -> bool:
    return (await process.events.outbox.backlog()).rows == 0


async def test_each_consumer_gets_every_event_once(backbone: Backbone) -> None:
    alpha, beta, another = backbone.alpha(), backbone.beta(), backbone.beta()
    subscriptions = [notes(beta, "notes"), notes(beta, "others")]
    async with (
        alpha.events.running(),
        beta.events.running(*subscriptions),
        another.events.running(*subscriptions),  # the same consumers in a second process
    ):
        for value in range(20):
            await alpha.tell(f"key {value % 4}", value)
        for name in ("notes", "others"):
            await eventually(lambda name=name: has_effects(beta, 20, name))
        await asyncio.sleep(0.2)
    for name in ("notes", "others"):
        assert sorted(value for _, value in await beta.effects(name)) == list(range(20))


async def test_same_event_twice_on_the_bus_has_one_effect(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()
    await alpha.tell("a", 1)
    await alpha.fetch(
        "INSERT INTO event_outbox (topic, key, headers, content) "
        "SELECT topic, key, headers, content FROM event_outbox RETURNING number"
    )
    async with alpha.events.running(), beta.events.running(notes(beta)):
        await alpha.tell("a", 2)
        await eventually(lambda: has_effects(beta, 2))
    assert await beta.effects() == [("a", 1), ("a", 2)]
    assert beta.metrics.registry.get_sample_value(
        "hunmin_events_deliveries_total", {"consumer": "beta.notes", "outcome": "repeated"}
    )


async def test_one_trace_leads_from_the_teller_to_the_effect(backbone: Backbone) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    alpha, beta = backbone.alpha(), backbone.beta(provider=provider)
    with provider.get_tracer("test").start_as_current_span("request") as request:
        await alpha.tell("a", 1)
    async with alpha.events.running(), beta.events.running(notes(beta)):
        await eventually(lambda: has_effects(beta, 1))

    async def ended() -> Any:
        return [span for span in exporter.get_finished_spans() if span.name == f"process {beta.topic.name}"]

    (process,) = await eventually(ended)
    assert process.parent.span_id == request.get_span_context().span_id
    assert process.context.trace_id == request.get_span_context().trace_id
    inserts = [span for span in exporter.get_finished_spans() if span.name == "INSERT" and span.parent]
    assert process.context.span_id in {span.parent.span_id for span in inserts}


async def test_metrics_tell_what_waits_and_how_far_behind_consumers_are(backbone: Backbone) -> None:
    alpha, beta = backbone.alpha(), backbone.beta()

    def sample(process: Process, name: str, **labels: str) -> float | None:
        return process.metrics.registry.get_sample_value(f"hunmin_events_{name}", labels)

    async def told() -> bool:
        return (sample(beta, "consumer_lag", consumer="beta.notes") or 0) > 0

    async def caught_up() -> bool:
        return sample(beta, "consumer_lag", consumer="beta.notes") == 0 and await has_effects(beta, 1)

    slow = beta.again(timing=replace(QUICK, handler_s=5.0))
    gate = asyncio.Event()

    async def wait(session: AsyncSession, event: Envelope[Noted]) -> None:
        await gate.wait()
        await note()(session, event)

    async with alpha.events.running(), slow.events.running(Subscription("notes", slow.topic, wait)):
        await alpha.tell("a", 1, 2, 3)
        await eventually(told)
        gate.set()
        await eventually(caught_up)
        await eventually(lambda: asyncio.sleep(0, result=sample(alpha, "outbox_rows", schema="alpha") == 0))
    assert sample(alpha, "relayed_total", schema="alpha", topic=alpha.topic.name) == 3
    assert sample(slow, "deliveries_total", consumer="beta.notes", outcome="handled") == 3


async def test_event_too_large_to_carry_is_refused_where_it_is_told(backbone: Backbone) -> None:
    alpha = backbone.alpha()
    with pytest.raises(HunminError) as refused:
        await alpha.put("a", b"x" * (MAX_EVENT_BYTES + 1))
    assert refused.value.code == ErrorCode.TOO_LARGE
    with pytest.raises(Exception, match="ck_event_outbox_size"):  # nor does it get in another way
        await alpha.fetch(
            "INSERT INTO event_outbox (topic, key, headers, content) "
            "VALUES ('t', 'k', '{}', convert_to(repeat('x', 1000001), 'UTF8')) RETURNING 1"
        )
