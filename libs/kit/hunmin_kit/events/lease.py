"""Leases: of several processes that could do something, one does; if it dies, another takes over.

A claim has a token of its own, checked in the transaction of what is done under it. All times are the database's.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager

import structlog
from hunmin_contracts.errors import HunminError
from opentelemetry.instrumentation.utils import suppress_instrumentation
from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_kit.data.database import Database
from hunmin_kit.events.tables import LEASES, in_seconds

_RENEWALS = 3  # in the time of a lease: one may fail
_log = structlog.get_logger()


class LeaseLost(Exception):
    """Someone else holds it by now, and does what was to be done under it."""


class Lease:
    """The lease `name` of a schema, taken for `lease_s` at a time."""

    def __init__(self, database: Database, name: str, *, lease_s: float) -> None:
        self.name = name
        self.lease_s = lease_s
        self._database = database
        self._token: str | None = None

    @property
    def is_held(self) -> bool:
        """Whether it was ours when we last asked."""
        return self._token is not None

    async def take(self) -> bool:
        """Take it, or hold it for another `lease_s`; tell whether it is ours."""
        token = self._token or secrets.token_hex(16)
        held = {"token": token, "expires_at": in_seconds(self.lease_s)}
        is_free = or_(LEASES.c.token == token, LEASES.c.expires_at < func.clock_timestamp())
        statement = insert(LEASES).values(name=self.name, **held)
        statement = statement.on_conflict_do_update(index_elements=["name"], set_=held, where=is_free)
        async with self._database.session() as session:
            taken = await session.scalar(statement.returning(LEASES.c.token))
        self._token = taken
        return self.is_held

    async def check(self, session: AsyncSession) -> None:
        """Raise LeaseLost unless it is ours; then nobody takes it before this transaction ends."""
        ours = and_(LEASES.c.name == self.name, LEASES.c.token == self._token)
        if await session.scalar(select(LEASES.c.name).where(ours).with_for_update()) is None:
            self._token = None
            raise LeaseLost(self.name)

    async def release(self) -> None:
        """Let another take it at once. While the database is away it just runs out."""
        token, self._token = self._token, None
        if token is not None:
            with contextlib.suppress(HunminError):
                async with self._database.session() as session:
                    await session.execute(delete(LEASES).where(LEASES.c.name == self.name, LEASES.c.token == token))


@asynccontextmanager
async def kept(leases: Collection[Lease], *, lease_s: float) -> AsyncGenerator[None, None]:
    """Renew those of `leases` that are held, as long as the block lasts; then release them."""
    renewing = asyncio.create_task(_renew(leases, lease_s / _RENEWALS))
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])
        for lease in leases:
            await lease.release()


async def _renew(leases: Collection[Lease], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        for lease in leases:
            if lease.is_held:
                try:
                    with suppress_instrumentation():
                        await lease.take()
                except HunminError as error:
                    _log.warning("events.lease.not_renewed", lease=lease.name, error=error.code)
