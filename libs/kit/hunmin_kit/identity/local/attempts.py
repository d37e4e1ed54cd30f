"""Failed logins, counted by address: after some, each next must wait longer. The only statements on `local_attempts`.

An address that nobody has is counted in the same way, so that its answer tells nothing.
"""

import hashlib

from hunmin_contracts.errors import ErrorCode, HunminError
from sqlalchemy import Interval, case, cast, delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert

from hunmin_kit.data import Database
from hunmin_kit.identity.local.tables import ATTEMPTS

FREE = 5  # failures that cost no time
LONGEST_LOCK_S = 60  # a stranger who fails on purpose keeps the owner out no longer
FORGET_AFTER_S = 86400
_TIDY_ROWS = 100
_SECOND = cast(literal("1 second"), Interval)


class Attempts:
    """Each is written down before the password is looked at: parallel guesses are counted like others."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, email: str) -> None:
        """Count an attempt as failed until it is known better; OVERLOADED if the address has to wait."""
        now, table = func.clock_timestamp(), ATTEMPTS.c
        start = insert(ATTEMPTS).values(digest=_digest(email), failures=1, locked_until=now, last_at=now)
        # The lock doubles with each failure from the sixth on: 2 s, 4 s, 8 s, …
        lock_s = func.least(LONGEST_LOCK_S, func.power(2, func.least(table.failures - FREE + 1, 30)))
        is_old = table.last_at < now - FORGET_AFTER_S * _SECOND
        counted = start.on_conflict_do_update(
            index_elements=[table.digest],
            set_={
                "failures": case((is_old, 1), else_=table.failures + 1),
                "locked_until": case(((table.failures < FREE) | is_old, now), else_=now + lock_s * _SECOND),
                "last_at": now,
            },
            where=table.locked_until <= now,
        ).returning(table.failures)
        async with self._database.session() as session:
            if await session.scalar(counted) is None:
                left_s = func.extract("epoch", table.locked_until - now)
                wait_s = await session.scalar(select(left_s).where(table.digest == _digest(email)))
                raise _locked(max(1, int(wait_s or 0) + 1))
            old = select(table.digest).where(is_old).limit(_TIDY_ROWS).with_for_update(skip_locked=True)
            await session.execute(delete(ATTEMPTS).where(table.digest.in_(old)))

    async def forgive(self, email: str) -> None:
        """Forget the failures of an address whose owner has come."""
        async with self._database.session() as session:
            await session.execute(delete(ATTEMPTS).where(ATTEMPTS.c.digest == _digest(email)))


def _digest(email: str) -> bytes:
    return hashlib.sha256(email.encode()).digest()


def _locked(wait_s: int) -> HunminError:
    return HunminError(
        ErrorCode.OVERLOADED,
        f"Too many logins with this address have failed. Wait {wait_s} s and try again.",
        retry_after_s=wait_s,
    )
