"""Quotas as a step of the pipeline: reserved before a call, settled with its usage (usage/settling.py).

What a gateway runs here has a lease that it renews; what a dead one has reserved is given back when that runs out.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import structlog
from hunmin_contracts.ids import AccountId
from hunmin_contracts.quotas import LimitName
from hunmin_kit.background import in_background
from hunmin_kit.data import Database, NullRefused
from hunmin_kit.web import Client

from hunmin_gateway.exchange import Exchange
from hunmin_gateway.quotas.amounts import KINDS, Amounts
from hunmin_gateway.quotas.headers import tell
from hunmin_gateway.quotas.measuring import measure
from hunmin_gateway.quotas.state import Asked, LimitState, rate_limit_headers, refusal
from hunmin_gateway.quotas.statements import RENEW, RESERVE, SWEEP, TIDY_COUNTERS, TIDY_RESERVATIONS

# Longer than the ledger waits for a database that restarts, or what still runs would be given back when it is there.
LEASE_S = 60.0
_TURNS = 3  # in which a lease is renewed before it runs out
ResultT = TypeVar("ResultT")
_log = structlog.get_logger()


class Quotas:
    """Reserves for one gateway. Several share a database, and no limit is ever exceeded between them."""

    def __init__(self, database: Database, generation: Client, *, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._generation = generation
        self._lease_s = lease_s
        self._running: set[str] = set()

    @asynccontextmanager
    async def reserved(self, exchange: Exchange[Any]) -> AsyncIterator[None]:
        """Hold what the exchange may use as long as the context is open; QUOTA_EXCEEDED if a limit has no room for it.

        Whoever opens it settles the exchange afterwards, however it ends, also if it could not be opened.
        """
        try:
            if exchange.principal.has_limits:
                await self._reserve(exchange)
            yield
        finally:
            self._running.discard(exchange.id)

    @asynccontextmanager
    async def held(
        self, amounts: Amounts, *, account_id: AccountId, model: str, purpose: str, holder: str
    ) -> AsyncIterator[list[LimitState]]:
        """Hold the amounts, of what is no exchange, under the id `holder`; say how their limits stand with them.

        Its lease is renewed as long as the context is open. Whoever opens it says afterwards what becomes of it
        (quotas/holdings.py), or lets the lease run out.
        """
        self._running.add(holder)
        taking = self._take(amounts.reserved(), account_id=account_id, model=model, purpose=purpose, holder=holder)
        try:
            yield await _to_its_end(taking)
        finally:
            self._running.discard(holder)

    def kept(self) -> AbstractAsyncContextManager[None]:
        """Renew leases and sweep, as long as the context is open."""
        return in_background(self._keep())

    async def renew(self) -> None:
        """Put off when the leases of what runs here run out, in one statement."""
        if self._running:
            async with self._database.session() as session:
                await session.execute(RENEW, {"usage_ids": sorted(self._running), "lease_s": self._lease_s})

    async def sweep(self) -> int:
        """Give back what is reserved for calls whose lease has run out; return how many they were."""
        async with self._database.session() as session:
            swept: int = (await session.execute(SWEEP)).scalar_one()
        if swept:
            _log.warning("quota.calls.swept", count=swept)
        return swept

    async def tidy(self) -> None:
        """Delete what no call will ask for any more."""
        async with self._database.session() as session:
            await session.execute(TIDY_COUNTERS)
            await session.execute(TIDY_RESERVATIONS)

    async def _reserve(self, exchange: Exchange[Any]) -> None:
        amounts, model = await measure(exchange, self._generation)
        if exchange.principal.batch_id is not None:
            amounts = amounts.halved()
        self._running.add(exchange.id)
        taking = self._take(
            amounts.reserved(),
            account_id=exchange.principal.account_id,
            model=model,
            purpose=exchange.purpose,
            holder=exchange.id,
        )
        tell(rate_limit_headers(await _to_its_end(taking)))
        exchange.note_reserved(model)

    async def _take(
        self, amounts: Mapping[LimitName, int], *, account_id: AccountId, model: str, purpose: str, holder: str
    ) -> list[LimitState]:
        """Reserve the amounts, all of them or none."""
        wanted = {
            "names": [*amounts],
            "amounts": [*amounts.values()],
            "spans": [KINDS[name].span for name in amounts],
            "account_id": account_id,
            "model": model,
            "purpose": purpose,
            "usage_id": holder,
            "lease_s": self._lease_s,
        }
        while True:
            try:
                rows = await self._database.quick.fetch(RESERVE, wanted)
            except NullRefused:  # a limit's last room went to another call at this very moment
                continue
            states = [_state(row) for row in rows]
            if all(row["is_taken"] for row in rows):
                return states
            tell(rate_limit_headers(states))
            asked = [Asked(state, row["amount"]) for state, row in zip(states, rows, strict=True)]
            raise refusal([one for one in asked if not one.has_room])

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / _TURNS)
            try:
                await self.renew()
                await self.sweep()
                await self.tidy()
            except Exception as error:  # the consumer's edge: the next turn tries again, and leases last for several
                _log.error("quota.keeping.failed", exc_info=error)


def _state(row: Mapping[str, Any]) -> LimitState:
    return LimitState(
        name=LimitName(row["name"]),
        model=row["model"],
        purpose=row["purpose"],
        value=row["value"],
        used=row["used"],
        reserved=row["reserved"],
        resets_at=row["ends_at"],
        read_at=row["read_at"],
    )


async def _to_its_end(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Await `work`. If the caller is cancelled meanwhile it is finished first: what may be reserved must be known."""
    working = asyncio.create_task(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.gather(working, return_exceptions=True)
        raise
