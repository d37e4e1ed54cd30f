"""Claims of batches and lines as a worker makes them. All statements of statements.py that need no event are here."""

from collections.abc import Collection

from hunmin_contracts.ids import BatchId
from hunmin_kit.data import Database
from opentelemetry.instrumentation.utils import suppress_instrumentation
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.batches.batch import ClaimedBatch, ClaimedLine
from hunmin_gateway.batches.patience import Wait
from hunmin_gateway.batches.statements import (
    CLAIM_BATCH,
    CLAIM_LINES,
    RELEASE_BATCH,
    RELEASE_LINE,
    RENEW_BATCH,
    RENEW_LINES,
    WANTED_LINES,
)
from hunmin_gateway.batches.states import Status
from hunmin_gateway.batches.store import principal_of


class Claims:
    """Each in a transaction of its own. Looking for work leaves no trace: it is done every second."""

    def __init__(self, database: Database, *, lease_s: float) -> None:
        self._database = database
        self._lease_s = lease_s

    async def lines(self, room: int) -> list[ClaimedLine]:
        """Claim at most so many lines."""
        with suppress_instrumentation():
            async with self._database.session() as session:
                rows = (await session.execute(CLAIM_LINES, {"room": room, "lease_s": self._lease_s})).all()
        return [
            ClaimedLine(
                batch_id=BatchId(row.batch_id),
                number=row.number,
                claim=row.claim,
                endpoint=row.endpoint,
                body=row.body,
                attempts=row.attempts,
                principal=principal_of(row, BatchId(row.batch_id)),
            )
            for row in rows
        ]

    async def renew_lines(self, claims: Collection[str]) -> None:
        """Hold them for another lease."""
        with suppress_instrumentation():
            async with self._database.session() as session:
                await session.execute(RENEW_LINES, {"claims": [*claims], "lease_s": self._lease_s})

    async def wanted_lines(self, claims: Collection[str]) -> set[str]:
        """Return those that hold, of batches that still run."""
        with suppress_instrumentation():
            async with self._database.session() as session:
                return set((await session.scalars(WANTED_LINES, {"claims": [*claims]})).all())

    async def release_line(self, session: AsyncSession, line: ClaimedLine, wait: Wait) -> None:
        """Let it be claimed again after that wait, in the session that is given; twice does no harm."""
        values = {"batch_id": line.batch_id, "number": line.number, "claim": line.claim}
        waits = {"delay_s": wait.delay_s, "pause_s": wait.pause_s, "is_free": wait.is_free}
        await session.execute(RELEASE_LINE, values | waits)

    async def batch(self) -> ClaimedBatch | None:
        """Claim a batch that is to be validated, or to be ended; None if there is none."""
        with suppress_instrumentation():
            async with self._database.session() as session:
                row = (await session.execute(CLAIM_BATCH, {"lease_s": self._lease_s})).mappings().one_or_none()
        return None if row is None else ClaimedBatch(**{**row, "status": Status(row["status"])})

    async def renew_batch(self, held: ClaimedBatch) -> None:
        """Hold it for another lease."""
        values = {"batch_id": held.id, "claim": held.claim, "lease_s": self._lease_s}
        with suppress_instrumentation():
            async with self._database.session() as session:
                await session.execute(RENEW_BATCH, values)

    async def release_batch(self, held: ClaimedBatch, *, delay_s: float) -> None:
        """Let it be claimed again after that time."""
        values = {"batch_id": held.id, "claim": held.claim, "delay_s": delay_s}
        async with self._database.session() as session:
            await session.execute(RELEASE_BATCH, values)
