"""The limit of what an account keeps: datasets with their rows, soft prompts, files.

What is kept is known to the services that keep it, and they are asked. What uploads that run may come to is reserved
here. An upload reserves first and asks then, so that of two at once at least one sees the other.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId
from hunmin_contracts.quotas import ANY, LimitName, Quota
from hunmin_contracts.storage import STORAGE, StorageRequest
from hunmin_kit.data import Database
from hunmin_kit.web import Client

from hunmin_gateway.files.store import Files
from hunmin_gateway.principal import Principal
from hunmin_gateway.quotas.amounts import Amounts
from hunmin_gateway.quotas.holdings import Holdings
from hunmin_gateway.quotas.limits import Limits
from hunmin_gateway.quotas.quotas import Quotas

# What is kept of most files is smaller than so many times the file: with it go a dataset's rows, each with the names of
# its columns. One that needs more is sent again, with the room that it turned out to need.
_LIKELY_TIMES = 4
_LIKELY_BYTES = 2**16
_TRIES = 3  # while other uploads begin and end
_RETRY_S = 1

ResultT = TypeVar("ResultT")
Store = Callable[[AccountId], Awaitable[int]]  # says how many bytes it keeps of an account


def store_of(service: Client) -> Store:
    """Return what a service keeps."""

    async def stored_bytes(account_id: AccountId) -> int:
        return (await service.call(STORAGE, StorageRequest(account_id=account_id))).stored_bytes

    return stored_bytes


def files_of(database: Database) -> Store:
    """Return what the gateway itself keeps: the files of batches."""

    async def stored_bytes(account_id: AccountId) -> int:
        async with database.session() as session:
            return await Files(session).stored_bytes(account_id)

    return stored_bytes


@dataclass(frozen=True)
class Standing:
    """The limit of an account, what it keeps, and what its running uploads may come to beside that."""

    value: int
    stored: int
    reserved: int

    @property
    def left(self) -> int:
        """What another upload may come to."""
        return max(0, self.value - self.stored - self.reserved)


class Storage:
    """Lets uploads in for one gateway. Several share a database and the stores, and never let in too much."""

    def __init__(self, database: Database, quotas: Quotas, holdings: Holdings, stores: Sequence[Store]) -> None:
        self._database = database
        self._quotas = quotas
        self._holdings = holdings
        self._stores = stores

    async def standing(self, principal: Principal) -> Standing | None:
        """Return how the caller's limit stands; None if there is none."""
        if not principal.has_limits:
            return None
        async with self._database.session() as session:
            listed = await Limits(session).list(principal.account_id)
        for quota in (one.quota for one in listed):
            if quota.name is LimitName.STORAGE_BYTES:
                stored = await self.stored_bytes(principal.account_id)
                return Standing(quota.value, stored, quota.reserved)
        return None

    async def stored_bytes(self, account_id: AccountId) -> int:
        """Return what an account keeps."""
        return sum(await asyncio.gather(*(store(account_id) for store in self._stores)))

    async def shown(self, account_id: AccountId, quotas: Sequence[Quota]) -> list[Quota]:
        """Return the account's limits, those of storage with what is kept."""
        if all(quota.name is not LimitName.STORAGE_BYTES for quota in quotas):
            return list(quotas)
        stored = await self.stored_bytes(account_id)
        return [with_stored(quota, stored) if quota.name is LimitName.STORAGE_BYTES else quota for quota in quotas]

    async def keep(self, principal: Principal, size: int, send: Callable[[int | None], Awaitable[ResultT]]) -> ResultT:
        """Return what `send` does with an upload of that size, which is told how many bytes may be kept of it.

        QUOTA_EXCEEDED where the account's limit has no room for it. None: there is no limit.
        """
        likely = _LIKELY_TIMES * size + _LIKELY_BYTES
        try:
            async with self._room(principal, at_least=size, at_most=likely) as room:
                return await send(room)
        except HunminError as error:
            needed = error.details.get("requested")
            if "room" not in error.details or not isinstance(needed, int) or needed <= likely:
                raise
        async with self._room(principal, at_least=needed, at_most=needed) as room:
            return await send(room)

    @asynccontextmanager
    async def _room(self, principal: Principal, *, at_least: int, at_most: int) -> AsyncIterator[int | None]:
        """Hold from `at_least` to `at_most` bytes while the block lasts, as many as there are; None: without limit."""
        tries = _TRIES
        while True:
            standing = await self.standing(principal)
            if standing is None:
                yield None
                return
            if standing.left < at_least or not tries:
                raise refused(standing, at_least)
            tries -= 1
            async with AsyncExitStack() as stack:
                amount = min(standing.left, at_most)
                holder = await self._taken(principal, amount, stack)
                if holder is None:
                    continue
                try:
                    yield amount
                except HunminError as error:
                    await self._holdings.fail(holder, error)
                    raise
                await self._holdings.give_back(holder)
            return

    async def _taken(self, principal: Principal, amount: int, stack: AsyncExitStack) -> str | None:
        """Reserve the amount until the stack unwinds, and return what holds it; None if others were faster."""
        holder = f"upload_{secrets.token_hex(12)}"
        holding = self._quotas.held(
            Amounts(stored_bytes=amount), account_id=principal.account_id, model=ANY, purpose=ANY, holder=holder
        )
        try:
            states = await stack.enter_async_context(holding)
        except HunminError as error:
            if error.code is not ErrorCode.QUOTA_EXCEEDED:
                raise
            return None
        try:
            stored = await self.stored_bytes(principal.account_id)  # after it is reserved, or two could miss each other
        except HunminError:
            await self._holdings.give_back(holder)
            raise
        if all(stored + state.reserved <= state.value for state in states):
            return holder
        await self._holdings.give_back(holder)
        return None


def refused(standing: Standing, size: int) -> HunminError:
    """Return the error that an upload of that size is answered with."""
    fits_later = size <= standing.value - standing.stored
    details = {"retry_after_s": _RETRY_S} if fits_later else {}
    return HunminError(
        ErrorCode.QUOTA_EXCEEDED,
        f"Your account's limit {LimitName.STORAGE_BYTES} is {standing.value:,}: {standing.stored:,} are kept, "
        f"{standing.reserved:,} reserved for running uploads, and this one takes {size:,} at least. Delete datasets, "
        "files or soft prompts that you need no more, or ask the operator for a higher limit.",
        limit=LimitName.STORAGE_BYTES,
        model=ANY,
        purpose=ANY,
        value=standing.value,
        used=standing.stored,
        reserved=standing.reserved,
        requested=size,
        resets_at=None,
        **details,
    )


def with_stored(quota: Quota, stored: int) -> Quota:
    """Return a limit of storage with what is kept."""
    return quota.model_copy(update={"used": stored, "remaining": max(0, quota.value - stored - quota.reserved)})
