"""The ledger in PostgreSQL: a row per request, written to the end whatever happens to the request."""

import asyncio
from dataclasses import asdict
from datetime import datetime

import structlog
from hunmin_contracts.ids import UsageId
from hunmin_kit.data import Database, LastingWrites
from hunmin_kit.data.writing import PATIENCE_S
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.paging import Part, paged
from hunmin_gateway.tables import Usage
from hunmin_gateway.tenancy.reach import Reach
from hunmin_gateway.usage.record import UsageRecord
from hunmin_gateway.usage.settling import RELEASE, SETTLE, settling

_log = structlog.get_logger()


class UsageLedger:
    """Writes rows, each exactly once, also while the database restarts, and settles what quotas hold for them.

    `finish` it before the service stops.
    """

    def __init__(self, database: Database, *, patience_s: float = PATIENCE_S) -> None:
        self._statements = database.quick
        self._writes = LastingWrites(patience_s=patience_s)

    async def settle(self, record: UsageRecord) -> None:
        """Write the row and settle it in one transaction, to the end also if the caller is cancelled meanwhile."""
        writing = self._writes.start(
            lambda: self._statements.fetch(SETTLE, settling(record)),
            on_loss=lambda error: _log.error("usage.row.lost", row=asdict(record), exc_info=error),
        )
        await asyncio.shield(writing)

    async def release(self, usage_id: UsageId) -> None:
        """Give back what is still held for a request that was cut: its row has all that the engine computed."""
        await self._statements.fetch(RELEASE, {"holder": usage_id})

    async def finish(self) -> None:
        """Wait for the rows that are still being written."""
        await self._writes.finish()


async def usage_page(
    session: AsyncSession,
    reach: Reach,
    part: Part,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Usage]:
    """Return rows within reach, newest first, started in `[since, until)`; one more than the part has."""
    query = select(Usage).where(reach.of(Usage))
    if since is not None:
        query = query.where(Usage.started_at >= since)
    if until is not None:
        query = query.where(Usage.started_at < until)
    rows = await session.scalars(paged(query, part, by=(Usage.started_at.expression, Usage.id.expression)))
    return list(rows)
