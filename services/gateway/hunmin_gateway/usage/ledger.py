"""The ledger in PostgreSQL: a row per request, written to the end whatever happens to the request."""

import asyncio
from dataclasses import asdict, dataclass
from datetime import datetime

import structlog
from hunmin_contracts.ids import AccountId, ProjectId
from hunmin_kit.data import Database, LastingWrites
from hunmin_kit.data.writing import PATIENCE_S
from sqlalchemy import literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.tables import Usage
from hunmin_gateway.usage.record import UsageRecord
from hunmin_gateway.usage.settling import SETTLE, settling

_log = structlog.get_logger()


class UsageLedger:
    """Writes rows, each exactly once, also while the database restarts, and settles what quotas hold for them.

    `finish` it before the service stops.
    """

    def __init__(self, database: Database, *, patience_s: float = PATIENCE_S) -> None:
        self._writes = LastingWrites(database, patience_s=patience_s)

    async def settle(self, record: UsageRecord) -> None:
        """Write the row and settle it in one transaction, to the end also if the caller is cancelled meanwhile."""
        writing = self._writes.start(
            lambda session: session.execute(SETTLE, settling(record)),
            on_loss=lambda error: _log.error("usage.row.lost", row=asdict(record), exc_info=error),
        )
        await asyncio.shield(writing)

    async def finish(self) -> None:
        """Wait for the rows that are still being written."""
        await self._writes.finish()


@dataclass(frozen=True)
class Position:
    """A place in an account's rows: right after the row of that time and id."""

    started_at: datetime
    id: str


async def usage_page(
    session: AsyncSession,
    account_id: AccountId,
    *,
    project_id: ProjectId | None,
    limit: int,
    after: Position | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Usage]:
    """Return at most `limit` rows, newest first, started in `[since, until)`, below `after`.

    They are of one project of the account, or with None of all of it.
    """
    query = select(Usage).where(Usage.account_id == account_id)
    if project_id is not None:
        query = query.where(Usage.project_id == project_id)
    if since is not None:
        query = query.where(Usage.started_at >= since)
    if until is not None:
        query = query.where(Usage.started_at < until)
    if after is not None:
        query = query.where(tuple_(Usage.started_at, Usage.id) < tuple_(literal(after.started_at), literal(after.id)))
    rows = await session.scalars(query.order_by(Usage.started_at.desc(), Usage.id.desc()).limit(limit))
    return list(rows)
