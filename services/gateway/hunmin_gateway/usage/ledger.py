"""The ledger in PostgreSQL: a row per request, written to the end whatever happens to the request."""

import asyncio
import time
from dataclasses import asdict, dataclass
from datetime import datetime

import structlog
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId
from hunmin_kit.data import Database
from sqlalchemy import literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.tables import Usage
from hunmin_gateway.usage.record import UsageRecord
from hunmin_gateway.usage.settling import SETTLE, settling

PATIENCE_S = 30.0  # for a database that restarts; clients wait as long for the end of their answers
_RETRY_S = 0.5
_log = structlog.get_logger()


class UsageLedger:
    """Writes rows, each exactly once, also while the database restarts, and settles what quotas hold for them.

    `finish` it before the service stops.
    """

    def __init__(self, database: Database, *, patience_s: float = PATIENCE_S) -> None:
        self._database = database
        self._patience_s = patience_s
        self._unwritten: set[asyncio.Task[None]] = set()

    async def settle(self, record: UsageRecord) -> None:
        """Write the row and settle it in one transaction, to the end also if the caller is cancelled meanwhile."""
        writing = asyncio.create_task(self._write(record))
        self._unwritten.add(writing)
        writing.add_done_callback(self._unwritten.discard)
        await asyncio.shield(writing)

    async def finish(self) -> None:
        """Wait for the rows that are still being written."""
        await asyncio.gather(*self._unwritten, return_exceptions=True)

    async def _write(self, record: UsageRecord) -> None:
        give_up_at = time.monotonic() + self._patience_s
        while True:
            try:
                async with self._database.session() as session:
                    # A connection that broke while committing may have committed: trying again must not settle twice.
                    await session.execute(SETTLE, settling(record))
                return
            except HunminError as error:
                if error.code is not ErrorCode.UNAVAILABLE or time.monotonic() > give_up_at:
                    _log.error("usage.row.lost", row=asdict(record), exc_info=error)
                    raise
            await asyncio.sleep(_RETRY_S)


@dataclass(frozen=True)
class Position:
    """A place in an account's rows: right after the row of that time and id."""

    started_at: datetime
    id: str


async def usage_page(
    session: AsyncSession,
    account_id: AccountId,
    *,
    limit: int,
    after: Position | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Usage]:
    """Return at most `limit` rows of the account, newest first, started in `[since, until)`, below `after`."""
    query = select(Usage).where(Usage.account_id == account_id)
    if since is not None:
        query = query.where(Usage.started_at >= since)
    if until is not None:
        query = query.where(Usage.started_at < until)
    if after is not None:
        query = query.where(tuple_(Usage.started_at, Usage.id) < tuple_(literal(after.started_at), literal(after.id)))
    rows = await session.scalars(query.order_by(Usage.started_at.desc(), Usage.id.desc()).limit(limit))
    return list(rows)
