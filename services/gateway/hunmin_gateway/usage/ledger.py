"""The ledger in PostgreSQL: a row per request, written to the end whatever happens to the request. The only statements
on `usage`."""

import asyncio
from dataclasses import asdict, dataclass
from datetime import datetime

from hunmin_contracts.ids import AccountId
from hunmin_kit.data import Database
from sqlalchemy import insert, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.tables import Usage
from hunmin_gateway.usage.record import UsageRecord


class UsageLedger:
    """Writes rows; an async context, so that a stopping service leaves none unwritten."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unwritten: set[asyncio.Task[None]] = set()

    async def settle(self, record: UsageRecord) -> None:
        """Write the row in its own transaction; if the caller is cancelled meanwhile, it is written all the same."""
        writing = asyncio.create_task(self._write(record))
        self._unwritten.add(writing)
        writing.add_done_callback(self._unwritten.discard)
        await asyncio.shield(writing)

    async def finish(self) -> None:
        """Wait for the rows that are still being written."""
        await asyncio.gather(*self._unwritten, return_exceptions=True)

    async def _write(self, record: UsageRecord) -> None:
        async with self._database.session() as session:
            await session.execute(insert(Usage).values(**asdict(record)))


@dataclass(frozen=True)
class Position:
    """A place in an account's rows: right after the row of that time and id."""

    started_at: datetime
    id: int


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
