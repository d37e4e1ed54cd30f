"""The bus without a broker: consumers read the outbox of the service whose topic it is, in the same database.

What the relay gave a sequence is the log, and kept as long as a broker would. A consumer's position is in its own
schema, where a lease says which process reads.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from hunmin_contracts.errors import ErrorCode, HunminError
from sqlalchemy import ColumnElement, MetaData, and_, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_kit.data.database import Database
from hunmin_kit.events.bus import Batch, Delivery
from hunmin_kit.events.lease import Lease, kept
from hunmin_kit.events.notices import Notices, notices
from hunmin_kit.events.outbox import CHANNEL
from hunmin_kit.events.record import Record
from hunmin_kit.events.tables import OUTBOX, POSITIONS
from hunmin_kit.events.timing import Timing

_NO_TABLE = ("42P01", "3F000")  # undefined_table, invalid_schema_name
_RECORDS_AT_ONCE = 100  # of at most 1 MB each, all of them in memory
_COUNTED_LAG = 100_000  # rows: a lag beyond is as bad, and counting takes time


class DirectBus:
    """The bus of one service, whose schema is `database`."""

    def __init__(self, database: Database, *, timing: Timing) -> None:
        self._database = database
        self._timing = timing

    @property
    def reads_outboxes(self) -> bool:
        """They are all there is."""
        return True

    async def publish(self, records: Sequence[Record]) -> None:
        """Do nothing: what is in the outbox is where it is read."""

    @asynccontextmanager
    async def reader(self, consumer: str, topic: str) -> AsyncGenerator["DirectReader", None]:
        """Read the outbox of the topic's service."""
        source = _source_of(topic)
        lease = Lease(self._database, f"{consumer}/{topic}", lease_s=self._timing.lease_s)
        async with (
            notices(self._database, CHANNEL, payload=source) as heard,
            kept([lease], lease_s=self._timing.lease_s),
        ):
            yield DirectReader(self._database, source, consumer, topic, lease, heard, self._timing)

    @asynccontextmanager
    async def listener(self, topic: str) -> AsyncGenerator["DirectListener", None]:
        """Read what is behind the end of the outbox, without a position that is kept."""
        source = _source_of(topic)
        async with notices(self._database, CHANNEL, payload=source) as heard:
            yield DirectListener(self._database, source, topic, heard, self._timing)

    async def close(self) -> None:
        """Do nothing: the connections are the database's."""


class DirectReader:
    """Reads one topic, in a single lane."""

    def __init__(
        self,
        database: Database,
        source: str,
        consumer: str,
        topic: str,
        lease: Lease,
        heard: Notices,
        timing: Timing,
    ) -> None:
        self._database = database
        self._outbox = OUTBOX.to_metadata(MetaData(), schema=source)
        self._source = source
        self._consumer = consumer
        self._topic = topic
        self._lease = lease
        self._heard = heard
        self._timing = timing

    async def read(self) -> Sequence[Batch]:
        """Return what is behind the position; wait for it a while."""
        if not self._lease.is_held and not await self._lease.take():
            await self._heard.wait(within_s=self._timing.look_s)
            return []
        deliveries = await self._read()
        if not deliveries:
            await self._heard.wait(within_s=self._timing.look_s)
            return []
        return [Batch(self._topic, deliveries)]

    async def finish(self, batch: Batch, handled: int) -> None:
        """Move the position; LeaseLost if another process does so."""
        sequence = _sequence(batch.deliveries[handled - 1])
        moved = insert(POSITIONS).values(consumer=self._consumer, topic=self._topic, sequence=sequence)
        moved = moved.on_conflict_do_update(index_elements=["consumer", "topic"], set_={"sequence": sequence})
        async with self._database.session() as session:
            await self._lease.check(session)
            await session.execute(moved)

    async def lag(self) -> int | None:
        """Return how many are behind the position."""
        behind = select(self._outbox.c.number).where(self._outbox.c.topic == self._topic)
        behind = behind.where(self._outbox.c.sequence > self._position()).limit(_COUNTED_LAG)
        async with _reading(self._database, self._source, who=self._consumer) as session:
            return int(await session.scalar(select(func.count()).select_from(behind.subquery())) or 0)

    async def _read(self) -> list[Delivery]:
        outbox = self._outbox.c
        columns = (outbox.sequence, outbox.topic, outbox.key, outbox.content, outbox.headers)
        first = select(*columns).where(outbox.topic == self._topic, outbox.sequence > self._position())
        async with _reading(self._database, self._source, who=self._consumer) as session:
            rows = (await session.execute(first.order_by(outbox.sequence).limit(_RECORDS_AT_ONCE))).all()
        return [
            Delivery(f"{self._source}/{row.sequence}", Record(row.topic, row.key, row.content, row.headers))
            for row in rows
        ]

    def _position(self) -> ColumnElement[int]:
        mine = and_(POSITIONS.c.consumer == self._consumer, POSITIONS.c.topic == self._topic)
        return func.coalesce(select(POSITIONS.c.sequence).where(mine).scalar_subquery(), 0)


class DirectListener:
    """Hears one topic."""

    def __init__(self, database: Database, source: str, topic: str, heard: Notices, timing: Timing) -> None:
        self._database = database
        self._outbox = OUTBOX.to_metadata(MetaData(), schema=source)
        self._source = source
        self._topic = topic
        self._heard = heard
        self._timing = timing
        self._last: int | None = None  # the sequence of what was heard last; None: it has not begun

    async def hear(self) -> Sequence[Record]:
        """Return what is behind that; wait for it a while."""
        outbox = self._outbox.c
        async with _reading(self._database, self._source, who="a process") as session:
            if self._last is None:
                end = select(func.coalesce(func.max(outbox.sequence), 0)).where(outbox.topic == self._topic)
                self._last = int(await session.scalar(end) or 0)
                return []
            columns = (outbox.sequence, outbox.topic, outbox.key, outbox.content, outbox.headers)
            behind = select(*columns).where(outbox.topic == self._topic, outbox.sequence > self._last)
            rows = (await session.execute(behind.order_by(outbox.sequence).limit(_RECORDS_AT_ONCE))).all()
        if not rows:
            await self._heard.wait(within_s=self._timing.look_s)
            return []
        self._last = int(rows[-1].sequence)
        return [Record(row.topic, row.key, row.content, row.headers) for row in rows]


@asynccontextmanager
async def _reading(database: Database, source: str, *, who: str) -> AsyncGenerator[AsyncSession, None]:
    try:
        async with database.session() as session:
            yield session
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) not in _NO_TABLE:
            raise
        raise HunminError(
            ErrorCode.UNAVAILABLE,
            f"The schema {source} has no events yet, of which {who} reads. Run `hunmin migrate`.",
        ) from error


def _source_of(topic: str) -> str:
    """Return the schema of the service whose topic it is."""
    return topic.split(".")[1].replace("-", "_")


def _sequence(delivery: Delivery) -> int:
    return int(delivery.place.rpartition("/")[2])
