"""The outbox of a schema: events written in the transaction of the change that they tell, read in the order of commits.

A row is given out only when every transaction that began before its own is over: numbers alone are taken before the
commit, and a reader that goes by them passes over rows that come later with a lower one.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import MAX_EVENT_BYTES
from sqlalchemy import BigInteger, bindparam, column, delete, event, func, insert, or_, select, text, update, values
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from hunmin_kit.data.database import Database
from hunmin_kit.events.lease import Lease
from hunmin_kit.events.record import Record
from hunmin_kit.events.tables import OUTBOX, in_seconds

CHANNEL = "hunmin_events"  # notifies of rows that got their sequence; the payload is their schema
_COUNTED = 100_000  # rows: more are as bad, and counting takes time
_CLEANED_AT_ONCE = 1000  # rows a statement deletes, so that none takes long


@dataclass(frozen=True)
class Waiting:
    """A row that is to be relayed."""

    number: int
    record: Record


@dataclass(frozen=True)
class Backlog:
    """How many rows wait to be relayed, of the first 100,000, and how long the oldest does."""

    rows: int
    oldest_s: float


class Outbox:
    """The statements on one schema's outbox."""

    def __init__(self, database: Database) -> None:
        self.schema = database.schema
        self._database = database
        self._written = asyncio.Event()

    async def put(self, session: AsyncSession, record: Record) -> None:
        """Write `record` in this transaction; it is relayed once that is committed, and never if it is not."""
        if len(record.content) > MAX_EVENT_BYTES:
            raise HunminError(
                ErrorCode.TOO_LARGE,
                f"An event of {record.topic} has {len(record.content):,} bytes, and {MAX_EVENT_BYTES:,} are carried. "
                "Put what is large into the blob store, and its key into the event.",
            )
        row = {"topic": record.topic, "key": record.key, "headers": dict(record.headers), "content": record.content}
        await session.execute(insert(OUTBOX).values(**row))
        # No NOTIFY: all transactions that notify commit one after the other. A relay elsewhere finds it by polling.
        event.listen(session.sync_session, "after_commit", self._on_commit, once=True)

    async def written(self, *, within_s: float) -> None:
        """Wait until this process has written something since the last call, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._written.wait()
        self._written.clear()

    async def waiting(self, limit: int) -> list[Waiting]:
        """Return the first rows that are not relayed, in the order of commits."""
        # Every transaction before its own is over; or it is of another server, from where the database was restored.
        is_due = or_(
            OUTBOX.c.transaction < func.pg_snapshot_xmin(func.pg_current_snapshot()),
            OUTBOX.c.transaction >= func.pg_snapshot_xmax(func.pg_current_snapshot()),
        )
        first = select(OUTBOX.c.number, OUTBOX.c.topic, OUTBOX.c.key, OUTBOX.c.content, OUTBOX.c.headers)
        first = first.where(OUTBOX.c.sequence.is_(None), is_due).order_by(OUTBOX.c.transaction, OUTBOX.c.number)
        async with self._database.session() as session:
            rows = (await session.execute(first.limit(limit))).all()
        return [Waiting(row.number, Record(row.topic, row.key, row.content, row.headers)) for row in rows]

    async def mark(self, rows: Sequence[Waiting], lease: Lease, *, keep: bool) -> None:
        """Note that these rows are relayed, in this order: forget them, or `keep` them for those who read them here.

        Raises LeaseLost, and then leaves them as they are.
        """
        numbers = [row.number for row in rows]
        async with self._database.session() as session:
            await lease.check(session)  # and so one at a time: who sees a sequence sees all that are lower
            if not keep:
                await session.execute(delete(OUTBOX).where(OUTBOX.c.number.in_(numbers)))
                return
            drawn = text("SELECT nextval('event_outbox_sequence') FROM generate_series(1, :rows)")
            sequences = sorted(await session.scalars(drawn, {"rows": len(numbers)}))
            marks = values(column("number", BigInteger), column("sequence", BigInteger), name="marks")
            marks = marks.data(list(zip(numbers, sequences, strict=True)))
            marked = update(OUTBOX).where(OUTBOX.c.number == marks.c.number)
            await session.execute(marked.values(sequence=marks.c.sequence, relayed_at=func.clock_timestamp()))
            await session.execute(select(func.pg_notify(CHANNEL, self.schema)))

    async def clean(self, *, keep_s: float) -> None:
        """Delete the rows that were relayed so long ago."""
        old = select(OUTBOX.c.number).where(OUTBOX.c.sequence.is_not(None), OUTBOX.c.relayed_at < in_seconds(-keep_s))
        old = old.order_by(OUTBOX.c.sequence).limit(bindparam("limit", _CLEANED_AT_ONCE))
        deleted = delete(OUTBOX).where(OUTBOX.c.number.in_(old.scalar_subquery())).returning(OUTBOX.c.number)
        is_done = False
        while not is_done:
            async with self._database.session() as session:
                is_done = len((await session.scalars(deleted)).all()) < _CLEANED_AT_ONCE

    async def backlog(self) -> Backlog:
        """Return what waits to be relayed."""
        first = select(OUTBOX.c.written_at).where(OUTBOX.c.sequence.is_(None))
        first = first.order_by(OUTBOX.c.transaction, OUTBOX.c.number).limit(_COUNTED)
        waiting = first.subquery()
        age = func.extract("epoch", func.clock_timestamp() - func.min(waiting.c.written_at))
        async with self._database.session() as session:
            rows, oldest_s = (
                await session.execute(select(func.count(), func.coalesce(age, 0)).select_from(waiting))
            ).one()
        return Backlog(rows, float(oldest_s))

    def _on_commit(self, _session: Session) -> None:
        self._written.set()
