"""The relay by itself: on a bus that fails, under leases that are lost, after a restore."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import Topic
from hunmin_kit.events.bus import Reader
from hunmin_kit.events.lease import Lease, LeaseLost, kept
from hunmin_kit.events.record import Record, record_of
from hunmin_kit.events.relay import Relay
from hunmin_kit.testing.postgres import fresh_database
from kit_sample.events import QUICK, Noted, Process, migrate
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from sqlalchemy import text

from .conftest import eventually, seeded

TOPIC = Topic("hunmin.alpha.note.v1", Noted)


class FailingBus:
    """Keeps what arrives. Of `failures` tries it takes a part, as Kafka may: of a key none before what precedes it."""

    reads_outboxes = False

    def __init__(self, failures: int, rng: random.Random) -> None:
        self.arrived: list[Record] = []
        self._failures = failures
        self._rng = rng

    async def publish(self, records: Sequence[Record]) -> None:
        if self._failures:
            self._failures -= 1
            self.arrived += records[: self._rng.randint(0, len(records))]
            raise HunminError(ErrorCode.UNAVAILABLE, "The broker is away. Wait.")
        self.arrived += records

    def reader(self, consumer: str, topic: str) -> AbstractAsyncContextManager[Reader]:
        raise AssertionError("nothing reads here")

    async def close(self) -> None: ...


@pytest.fixture
async def alpha() -> AsyncIterator[Process]:
    async with fresh_database() as url:
        await migrate(url)
        process = Process(url, "alpha", TOPIC, None)
        yield process
        await process.database.close()


def relay_of(
    process: Process, bus: FailingBus, *, lease_s: float = QUICK.lease_s, provider: TracerProvider | None = None
) -> tuple[Relay, Lease]:
    lease = Lease(process.database, "relay", lease_s=lease_s)
    timing = replace(QUICK, lease_s=lease_s)
    relay = Relay(
        process.events.outbox,
        bus,
        lease,
        timing=timing,
        tracer=(provider or TracerProvider()).get_tracer("test"),
        metrics=process.metrics.events,
    )
    return relay, lease


async def relayed(relay: Relay) -> int:
    """Relay some, as soon as nothing on the server holds them back: other tests have transactions there too."""
    count: int = await eventually(relay.relay_some)
    return count


def values(bus: FailingBus) -> list[int]:
    """Return the values in the order in which they arrived first."""
    arrived = [TOPIC.envelope.model_validate_json(record.content).data.value for record in bus.arrived]
    return list(dict.fromkeys(arrived))


@pytest.mark.parametrize("seed", range(5))
async def test_bus_that_was_away_gets_everything_in_order(alpha: Process, seed: int) -> None:
    bus = FailingBus(3, seeded(seed))
    relay, _ = relay_of(alpha, bus)
    for value in range(10):
        await alpha.tell("key", value)
    running = asyncio.create_task(relay.run())
    await alpha.tell("key", 10)

    async def is_empty() -> bool:
        return (await alpha.events.outbox.backlog()).rows == 0

    await eventually(is_empty)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert values(bus) == list(range(11))
    assert await alpha.fetch("SELECT 1 FROM event_outbox") == []  # a broker keeps them now
    assert await alpha.fetch("SELECT 1 FROM event_leases") == []  # the next relay need not wait


async def test_sending_is_told_in_the_trace_of_the_event_and_of_no_event_without_one(alpha: Process) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    bus = FailingBus(1, seeded(0))
    relay, lease = relay_of(alpha, bus, provider=provider)
    assert await lease.take()
    with provider.get_tracer("test").start_as_current_span("request") as request:
        await alpha.tell("key", 1)
    await alpha.tell("key", 2)
    with pytest.raises(HunminError):
        await relayed(relay)
    assert await relayed(relay) == 2
    (sent,) = [span for span in exporter.get_finished_spans() if span.name != "request"]
    assert (sent.name, sent.kind) == (f"send {TOPIC.name}", SpanKind.PRODUCER)
    assert sent.context.trace_id == request.get_span_context().trace_id
    assert sent.parent.span_id == request.get_span_context().span_id


async def test_one_relay_works_and_another_takes_over_when_it_is_gone(alpha: Process) -> None:
    bus = FailingBus(0, seeded(0))
    first, lease = relay_of(alpha, bus, lease_s=0.5)
    second, other = relay_of(alpha, bus, lease_s=0.5)
    assert await lease.take()
    assert not await other.take()
    await alpha.tell("key", 1)
    assert await relayed(first) == 1
    await alpha.tell("key", 2)
    running = asyncio.create_task(second.run())  # the first never asks again, as if it were killed
    await eventually(lambda: asyncio.sleep(0, result=values(bus) == [1, 2]))
    await alpha.tell("key", 3)
    await eventually(lambda: asyncio.sleep(0, result=values(bus) == [1, 2, 3]))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_relay_that_slept_through_its_lease_marks_nothing(alpha: Process) -> None:
    bus = FailingBus(0, seeded(0))
    first, lease = relay_of(alpha, bus, lease_s=0.1)
    second, other = relay_of(alpha, bus)
    assert await lease.take()
    await alpha.tell("key", 1)
    await asyncio.sleep(0.2)
    assert await other.take()
    with pytest.raises(LeaseLost):
        await relayed(first)
    assert not lease.is_held
    assert await relayed(second) == 1
    assert values(bus) == [1]


async def test_lease_that_is_kept_outlives_its_time(alpha: Process) -> None:
    mine, other = (Lease(alpha.database, "relay", lease_s=0.3) for _ in range(2))
    assert await mine.take()
    async with kept([mine], lease_s=0.3):
        await asyncio.sleep(0.8)
        assert not await other.take()
    assert await other.take()


async def test_events_of_a_restored_database_are_relayed(alpha: Process) -> None:
    """Its transactions have numbers that the server it was restored to reaches after a long time, if ever."""
    bus = FailingBus(0, seeded(0))
    relay, lease = relay_of(alpha, bus)
    await lease.take()
    await alpha.tell("key", 1)
    await alpha.fetch("UPDATE event_outbox SET transaction = '5000000000' RETURNING 1")
    assert await relayed(relay) == 1
    assert values(bus) == [1]


@pytest.mark.parametrize("seed", range(10))
async def test_every_interleaving_of_transactions_is_relayed_in_their_order(alpha: Process, seed: int) -> None:
    """Transactions begin, write and end in a random order, while a relay looks in between."""
    rng = seeded(seed)
    bus = FailingBus(0, rng)
    relay, lease = relay_of(alpha, bus)
    await lease.take()
    connections = [await alpha.database._engine.connect() for _ in range(4)]
    begun: list[list[int]] = []  # values by transaction, in the order in which they began
    running: dict[int, list[int]] = {}
    for value in range(40):
        number = rng.randrange(len(connections))
        connection = connections[number]
        if number not in running:
            await connection.execute(text("SELECT pg_current_xact_id()"))
            begun.append([])
            running[number] = begun[-1]
        row = {"content": record(value)}
        await connection.execute(INSERT, row)
        running[number].append(value)
        if rng.random() < 0.4:
            if rng.random() < 0.2:
                await connection.rollback()
                running[number].clear()
            else:
                await connection.commit()
            del running[number]
        if rng.random() < 0.5:
            await relay.relay_some()
    for number in running:
        await connections[number].commit()
    for connection in connections:
        await connection.close()
    committed = [value for transaction in begun for value in transaction]
    async with asyncio.timeout(60):  # other tests' transactions on the same server hold it back too
        while len(values(bus)) < len(committed):
            await relay.relay_some()
            await asyncio.sleep(0.01)
    assert not await relay.relay_some()
    assert values(bus) == committed


INSERT = text(
    "INSERT INTO event_outbox (topic, key, headers, content) VALUES ('hunmin.alpha.note.v1', 'key', '{}', :content)"
)


def record(value: int) -> bytes:
    return record_of(TOPIC, Noted(value=value), key="key", source="hunmin/alpha").content
