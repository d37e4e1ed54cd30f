"""Two services that talk in events, `alpha` tells and `beta` hears, as processes that can be killed."""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass, field, replace
from typing import Any

from hunmin_contracts.errors import HunminError
from hunmin_contracts.events import Envelope, EventModel, Topic
from hunmin_kit.data import Database
from hunmin_kit.data.migrations import Chain
from hunmin_kit.events import Events, Subscription
from hunmin_kit.events.bus import Bus
from hunmin_kit.events.direct import DirectBus
from hunmin_kit.events.record import Record
from hunmin_kit.events.timing import Timing
from hunmin_kit.observe.metrics import Metrics
from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

CHAIN = "kit_sample.event_migrations"
QUICK = Timing(
    poll_s=0.05,
    look_s=0.05,
    lease_s=1.0,
    retry_s=0.02,
    max_retry_s=0.1,
    handler_s=2.0,
    batch_s=5.0,
    max_attempts=3,
    sample_s=0.25,
)


class Noted(EventModel):
    """A sample event."""

    value: int
    act: str = "note"  # what the handler does


async def migrate(url: str) -> None:
    for schema in ("alpha", "beta"):
        await Chain(schema, CHAIN).upgrade(url)


@dataclass
class Process:
    """One service in a process of its own, as far as one test can have several."""

    url: str
    schema: str
    topic: Topic[Noted]
    servers: str | None  # of Kafka; None: the direct bus
    timing: Timing = QUICK
    provider: TracerProvider = field(default_factory=TracerProvider)
    metrics: Metrics = field(default_factory=Metrics)
    opened: list[Database] = field(default_factory=list)  # to be closed by whoever opened the first

    def __post_init__(self) -> None:
        tracer = self.provider.get_tracer("test")
        self.database = Database(self.url, schema=self.schema, tracer=tracer, pool_size=5)
        self.opened.append(self.database)
        self.events = Events(self.database, self.bus(), timing=self.timing, tracer=tracer, metrics=self.metrics.events)

    def again(self, **changed: Any) -> "Process":
        """Return another process of the same service."""
        return replace(self, **changed)

    def bus(self) -> Bus:
        if self.servers is None:
            return DirectBus(self.database, timing=self.timing)
        from hunmin_kit.events.kafka_bus import Cluster, KafkaBus

        return KafkaBus(Cluster(servers=self.servers))

    async def tell(self, key: str, *values: int, act: str = "note") -> None:
        """Tell these in one transaction."""
        async with self.database.session() as session:
            for value in values:
                await self.events.tell(session, self.topic, Noted(value=value, act=act), key=key)

    async def put(self, key: str, content: bytes) -> None:
        """Put what is no event into the outbox."""
        async with self.database.session() as session:
            await self.events.outbox.put(session, Record(self.topic.name, key, content))

    async def effects(self, consumer: str = "notes") -> list[tuple[str, int]]:
        """Return the effects in their order, as (subject, value)."""
        statement = text("SELECT subject, value FROM effects WHERE consumer = :consumer ORDER BY number")
        async with self.database.session() as session:
            return [(row.subject, row.value) for row in await session.execute(statement, {"consumer": consumer})]

    async def fetch(self, statement: str) -> list[Any]:
        async with self.database.session() as session:
            return list((await session.execute(text(statement))).all())


def note(consumer: str = "notes") -> Any:
    """Return a handler that does what the event says."""

    async def handle(session: AsyncSession, event: Envelope[Noted]) -> None:
        row = {"consumer": consumer, "subject": event.subject, "value": event.data.value}
        await session.execute(
            text("INSERT INTO effects (consumer, subject, value) VALUES (:consumer, :subject, :value)"), row
        )
        match event.data.act:
            case "fail":
                raise RuntimeError("비밀 text of an event")
            case "away":
                raise HunminError("unavailable", "What this needs is away. Try again.")
            case "hang":
                await asyncio.sleep(60)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)

    return handle


async def main(url: str, topic: str, servers: str) -> None:
    """Be both services until killed."""
    alpha = Process(url, "alpha", Topic(topic, Noted), servers or None)
    beta = Process(url, "beta", Topic(topic, Noted), servers or None)
    async with alpha.events.running(), beta.events.running(Subscription("notes", beta.topic, note())):
        sys.stdout.write("running\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
