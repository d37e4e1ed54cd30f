"""What becomes of amounts that are held for something longer than a request: for a job, or for an upload.

They are reservations as any (quotas/statements.py), under the id of what holds them, and no usage ever settles them.
To give one back is also how a request that was cut ends whose row has nothing to correct (usage/settling.py).
"""

import asyncio

import structlog
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.data import Database, LastingWrites
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

# After these nobody knows whether what was asked of another service has been done.
_UNKNOWN = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED, ErrorCode.INTERNAL})
_log = structlog.get_logger()

# Holds it until it is given back. What a sweep gave back is taken again, though others may have got it by then.
_KEEP = text("""
WITH held AS (
    SELECT usage_id, limit_id, begins_at, amount, swept_at IS NOT NULL AS is_swept FROM quota_reservations
    WHERE usage_id = :holder
    FOR UPDATE
), kept AS (
    UPDATE quota_reservations AS kept SET expires_at = 'infinity', swept_at = NULL
    FROM held WHERE kept.usage_id = held.usage_id AND kept.limit_id = held.limit_id
), taken AS (
    SELECT counter.limit_id, counter.begins_at, held.amount
    FROM held
    JOIN quota_counters AS counter ON counter.limit_id = held.limit_id AND counter.begins_at = held.begins_at
    WHERE held.is_swept
    ORDER BY counter.limit_id, counter.begins_at
    FOR UPDATE OF counter
)
UPDATE quota_counters AS counter SET reserved = counter.reserved + taken.amount
FROM taken WHERE counter.limit_id = taken.limit_id AND counter.begins_at = taken.begins_at
""")

# Gives it back, once: who comes a second time finds nothing, and what was swept is given back already.
GIVE_BACK = text("""
WITH held AS (
    SELECT usage_id, limit_id, begins_at, CASE WHEN swept_at IS NULL THEN amount ELSE 0 END AS amount
    FROM quota_reservations WHERE usage_id = :holder
    FOR UPDATE
), deleted AS (
    DELETE FROM quota_reservations AS gone USING held
    WHERE gone.usage_id = held.usage_id AND gone.limit_id = held.limit_id
), freed AS (
    SELECT counter.limit_id, counter.begins_at, held.amount
    FROM held
    JOIN quota_counters AS counter ON counter.limit_id = held.limit_id AND counter.begins_at = held.begins_at
    ORDER BY counter.limit_id, counter.begins_at
    FOR UPDATE OF counter
)
UPDATE quota_counters AS counter SET reserved = counter.reserved - freed.amount
FROM freed WHERE counter.limit_id = freed.limit_id AND counter.begins_at = freed.begins_at
""")


class Holdings:
    """Writes to the end, also while the database restarts and whoever asked is cancelled. `finish` it at last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writes = LastingWrites()

    async def keep(self, holder: str) -> None:
        """Hold until it is given back: what holds it is there, and its lease ends no more."""
        await self._write(_KEEP, holder)

    async def give_back(self, holder: str) -> None:
        """Hold it no more."""
        await self._write(GIVE_BACK, holder)

    async def fail(self, holder: str, error: HunminError) -> None:
        """Give it back if what should hold it is not there; if nobody knows, its lease will."""
        if error.code not in _UNKNOWN:
            await self.give_back(holder)

    async def finish(self) -> None:
        """Wait for what is still being written."""
        await self._writes.finish()

    async def _write(self, statement: TextClause, holder: str) -> None:
        async def write() -> None:
            async with self._database.session() as session:
                await session.execute(statement, {"holder": holder})

        writing = self._writes.start(
            write, on_loss=lambda error: _log.error("quota.holding.lost", holder=holder, exc_info=error)
        )
        await asyncio.shield(writing)


async def told_to_be_there(session: AsyncSession, holder: str) -> None:
    """Hold it until it is given back, in this transaction."""
    await session.execute(_KEEP, {"holder": holder})


async def told_to_be_gone(session: AsyncSession, holder: str) -> None:
    """Hold it no more, in this transaction."""
    await session.execute(GIVE_BACK, {"holder": holder})
