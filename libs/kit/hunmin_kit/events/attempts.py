"""Deliveries that are being tried, and dead letters: those that no try brought to an end.

A try is counted before it is made, so that one that takes the process with it is counted too. A dead letter stays whole
in the schema of its consumer until it is tried again and handled; `….dead` tells everyone else of it.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from hunmin_contracts.events import DEAD, MAX_EVENT_BYTES
from sqlalchemy import ColumnElement, and_, delete, func, null, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_kit.data.database import Database
from hunmin_kit.events.bus import Batch, Delivery
from hunmin_kit.events.lease import Lease, kept
from hunmin_kit.events.outbox import Outbox
from hunmin_kit.events.record import Record
from hunmin_kit.events.tables import ATTEMPTS
from hunmin_kit.events.timing import Timing

LOST_PROCESS = "The process ended while it handled this event, again and again."
# The end of a process does not undo what was committed so; and for the end of a server no event is to blame.
_SURVIVES_PROCESS = text("SET LOCAL synchronous_commit = off")
_SHOWN_ERROR = 1000  # characters, in a header of the copy
_LETTERS_AT_ONCE = 20


class Attempts:
    """The statements on the deliveries of one consumer."""

    def __init__(self, database: Database, outbox: Outbox, consumer: str) -> None:
        self._database = database
        self._outbox = outbox
        self._consumer = consumer

    async def begin(self, deliveries: Sequence[Delivery]) -> set[str]:
        """Count the first try of those that were not tried before, all at once; return their places.

        One that was is counted by itself, right before it is tried again: whatever ended the process then, it was not
        what stood behind it.
        """
        rows = [{"consumer": self._consumer, "place": delivery.place, "attempts": 1} for delivery in deliveries]
        begun = insert(ATTEMPTS).values(rows).on_conflict_do_nothing().returning(ATTEMPTS.c.place)
        async with self._database.session() as session:
            await session.execute(_SURVIVES_PROCESS)
            return set(await session.scalars(begun))

    async def count(self, delivery: Delivery) -> int | None:
        """Return which try of the delivery this is, or None if it is dead."""
        statement = insert(ATTEMPTS).values(consumer=self._consumer, place=delivery.place, attempts=1)
        statement = statement.on_conflict_do_update(
            index_elements=["consumer", "place"],
            set_={"attempts": ATTEMPTS.c.attempts + 1},
            where=ATTEMPTS.c.died_at.is_(None),
        )
        async with self._database.session() as session:
            await session.execute(_SURVIVES_PROCESS)
            attempts: int | None = await session.scalar(statement.returning(ATTEMPTS.c.attempts))
        return attempts

    async def give_back(self, delivery: Delivery) -> None:
        """Take back the try that was counted: that it did not end is no fault of the event's."""
        fewer = update(ATTEMPTS).where(self._is(delivery), ATTEMPTS.c.died_at.is_(None))
        async with self._database.session() as session:
            await session.execute(fewer.values(attempts=ATTEMPTS.c.attempts - 1))

    async def note(self, delivery: Delivery, error: str) -> None:
        """Note why the last try failed."""
        async with self._database.session() as session:
            await session.execute(update(ATTEMPTS).where(self._is(delivery)).values(error=error))

    async def settle(self, session: AsyncSession, delivery: Delivery) -> None:
        """Forget the delivery in this transaction, in which it has its effect, or had it before."""
        await session.execute(delete(ATTEMPTS).where(self._is(delivery)))

    async def bury(self, delivery: Delivery, error: str | None) -> str:
        """Make it a dead letter, and tell of that; return why.

        `error` None: what was noted, or the process's end; then the try that is counted is one too many, and not made.
        """
        record = delivery.record
        why = func.coalesce(error, ATTEMPTS.c.error, LOST_PROCESS)
        buried = update(ATTEMPTS).where(self._is(delivery)).values(
            error=why,
            attempts=ATTEMPTS.c.attempts - (1 if error is None else 0),
            topic=record.topic,
            key=record.key,
            headers=dict(record.headers),
            content=record.content,
            died_at=func.clock_timestamp(),
            redriven_at=null(),
        )  # fmt: skip
        async with self._database.session() as session:
            row = (await session.execute(buried.returning(ATTEMPTS.c.error, ATTEMPTS.c.attempts))).one()
            await self._outbox.put(session, self._copy(record, row.error, attempts=row.attempts))
        return str(row.error)

    def _copy(self, record: Record, error: str, *, attempts: int) -> Record:
        """Return what `….dead` gets: the record, and why it died; without its content if no bus carries that."""
        told = {"dead-consumer": self._consumer, "dead-error": error[:_SHOWN_ERROR], "dead-attempts": str(attempts)}
        if record.size <= MAX_EVENT_BYTES:
            return Record(record.topic + DEAD, record.key, record.content, {**record.headers, **told})
        return Record(record.topic + DEAD, record.key, b"", {**told, "dead-bytes": str(record.size)})

    def _is(self, delivery: Delivery) -> ColumnElement[bool]:
        return and_(ATTEMPTS.c.consumer == self._consumer, ATTEMPTS.c.place == delivery.place)


class RedrivenLetters:
    """A Reader of the dead letters that are to be tried again. One process at a time reads those of a consumer."""

    def __init__(self, database: Database, consumer: str, lease: Lease) -> None:
        self._database = database
        self._consumer = consumer
        self._lease = lease

    async def read(self) -> Sequence[Batch]:
        """Return the first of them."""
        if not self._lease.is_held and not await self._lease.take():
            return []
        wanted = select(ATTEMPTS).where(ATTEMPTS.c.consumer == self._consumer, ATTEMPTS.c.redriven_at.is_not(None))
        async with self._database.session() as session:
            rows = (await session.execute(wanted.order_by(ATTEMPTS.c.number).limit(_LETTERS_AT_ONCE))).all()
        letters = [Delivery(row.place, Record(row.topic, row.key, row.content, row.headers)) for row in rows]
        return [Batch("redriven", letters)] if letters else []

    async def finish(self, batch: Batch, handled: int) -> None:
        """Do nothing: whoever settled or buried a letter took it out of them."""

    async def lag(self) -> int | None:
        """Return how many there are."""
        waiting = select(func.count()).select_from(ATTEMPTS)
        waiting = waiting.where(ATTEMPTS.c.consumer == self._consumer, ATTEMPTS.c.redriven_at.is_not(None))
        async with self._database.session() as session:
            return int(await session.scalar(waiting) or 0)


@asynccontextmanager
async def redriven_letters(
    database: Database, consumer: str, *, timing: Timing
) -> AsyncGenerator[RedrivenLetters, None]:
    """Read them as long as the block lasts."""
    lease = Lease(database, f"redriven/{consumer}", lease_s=timing.lease_s)
    async with kept([lease], lease_s=timing.lease_s):
        yield RedrivenLetters(database, consumer, lease)


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter, for an operator. `number` names it within its schema."""

    number: int
    consumer: str
    topic: str
    key: str
    attempts: int
    error: str
    size: int
    died_at: datetime


async def dead_letters(session: AsyncSession, *, limit: int, topic: str | None = None) -> list[DeadLetter]:
    """Return the first dead letters of a schema, oldest first."""
    columns = [ATTEMPTS.c[name] for name in ("number", "consumer", "topic", "key", "attempts", "error", "died_at")]
    wanted = select(*columns, func.octet_length(ATTEMPTS.c.content).label("size")).where(_is_wanted(topic, None))
    rows = await session.execute(wanted.order_by(ATTEMPTS.c.number).limit(limit))
    return [DeadLetter(**row._mapping) for row in rows]


async def count_dead(session: AsyncSession, consumer: str) -> int:
    """Return how many dead letters that consumer has."""
    wanted = select(func.count()).where(ATTEMPTS.c.consumer == consumer, ATTEMPTS.c.died_at.is_not(None))
    return int(await session.scalar(wanted) or 0)


async def redrive(session: AsyncSession, *, topic: str | None = None, numbers: Sequence[int] | None = None) -> int:
    """Have dead letters tried again, by the consumer that they are of, as if for the first time; return how many."""
    redriven = update(ATTEMPTS).where(_is_wanted(topic, numbers)).values(
        attempts=0, died_at=null(), redriven_at=func.clock_timestamp()
    )  # fmt: skip
    return len((await session.scalars(redriven.returning(ATTEMPTS.c.number))).all())


def _is_wanted(topic: str | None, numbers: Sequence[int] | None) -> ColumnElement[bool]:
    wanted: list[ColumnElement[bool]] = [ATTEMPTS.c.died_at.is_not(None)]
    if topic is not None:
        wanted.append(ATTEMPTS.c.topic == topic)
    if numbers is not None:
        wanted.append(ATTEMPTS.c.number.in_(numbers))
    return and_(*wanted)
