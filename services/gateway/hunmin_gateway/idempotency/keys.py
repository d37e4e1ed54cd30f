"""The keys that requests came with, and the answers that they got. The only statements on `idempotency_keys`.

A key is claimed by a token for as long as a lease, which is renewed while the request runs: that of a gateway that
died is free again soon. All times are the database's.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, ProjectId
from hunmin_kit.background import in_background
from hunmin_kit.data import Database, LastingWrites
from sqlalchemy import ColumnElement, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.tables import IdempotencyKey

KEEP = "24 hours"
LEASE_S = 60.0
_TURNS = 3  # in which a lease is renewed before it runs out
_TIDIED_AT_ONCE = 1000
_RETRY_S = 1  # nobody knows when a running request ends; most do soon
_NOW = func.statement_timestamp()
_Owner = tuple[AccountId, ProjectId]
_log = structlog.get_logger()


@dataclass(frozen=True)
class StoredAnswer:
    """What a request was answered."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class Claim:
    """A key of which this request is the first."""

    token: str


class IdempotencyKeys:
    """Keys of every project, as one gateway handles them. `finish` it before the service stops."""

    def __init__(self, database: Database, *, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._lease_s = lease_s
        self._running: set[str] = set()
        self._writes = LastingWrites()

    async def claim(
        self, account_id: AccountId, project_id: ProjectId, key: str, fingerprint: str
    ) -> Claim | StoredAnswer:
        """Return the answer that the key has, or a claim on it, which is to be kept or released.

        CONFLICT while another request has it, or if its answer could not be kept; IDEMPOTENCY_KEY_REUSED if that
        was another request than this one, which is told by its fingerprint.
        """
        owner = (account_id, project_id)
        while True:
            token = secrets.token_hex(16)
            async with self._database.session() as session:
                is_ours = await self._take(session, owner, key, fingerprint, token)
                known = None if is_ours else await _known(session, owner, key)
            if is_ours:
                self._running.add(token)
                return Claim(token)
            if known is not None:  # or it was released just now
                return _answer(known, fingerprint)

    async def keep(self, claim: Claim, answer: StoredAnswer | None) -> None:
        """Keep the answer for 24 hours, to the end also if the caller is cancelled; None: it cannot be kept."""
        values: dict[str, Any] = {"status": 0}
        if answer is not None:
            headers = [[name, value] for name, value in answer.headers]
            values = {"status": answer.status, "headers": headers, "body": answer.body}
        keeping = update(IdempotencyKey).where(IdempotencyKey.claim == claim.token)
        await self._write(claim, keeping.values(**values, expires_at=_NOW + text(f"interval '{KEEP}'")))

    async def release(self, claim: Claim) -> None:
        """Forget the key: its request may be made again."""
        await self._write(claim, delete(IdempotencyKey).where(IdempotencyKey.claim == claim.token))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew leases and forget old keys, as long as the context is open."""
        try:
            async with in_background(self._keep()):
                yield
        finally:
            await self._writes.finish()

    async def renew(self) -> None:
        """Put off when the claims of what runs here run out."""
        if self._running:
            ours = IdempotencyKey.claim.in_(sorted(self._running)) & IdempotencyKey.status.is_(None)
            async with self._database.session() as session:
                await session.execute(update(IdempotencyKey).where(ours).values(expires_at=self._lease()))

    async def tidy(self) -> None:
        """Delete what nobody may ask for any more."""
        old = select(IdempotencyKey.claim).where(IdempotencyKey.expires_at < _NOW).limit(_TIDIED_AT_ONCE)
        async with self._database.session() as session:
            locked = old.with_for_update(skip_locked=True)
            await session.execute(delete(IdempotencyKey).where(IdempotencyKey.claim.in_(locked)))

    async def _take(self, session: AsyncSession, owner: _Owner, key: str, fingerprint: str, token: str) -> bool:
        ours = {"fingerprint": fingerprint, "claim": token, "expires_at": self._lease()}
        account_id, project_id = owner
        taking = insert(IdempotencyKey).values(account_id=account_id, project_id=project_id, key=key, **ours)
        taken = await session.scalar(
            taking.on_conflict_do_update(
                index_elements=[IdempotencyKey.account_id, IdempotencyKey.project_id, IdempotencyKey.key],
                set_=ours | {"status": None, "headers": None, "body": None},
                where=IdempotencyKey.expires_at <= _NOW,
            ).returning(IdempotencyKey.claim)
        )
        return taken is not None

    async def _write(self, claim: Claim, statement: Any) -> None:
        def lost(error: HunminError) -> None:
            _log.error("idempotency.answer.lost", exc_info=error)

        self._running.discard(claim.token)
        writing = self._writes.start(
            lambda: self._database.run(lambda session: session.execute(statement)), on_loss=lost
        )
        await asyncio.gather(asyncio.shield(writing), return_exceptions=True)  # the answer does not depend on it

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / _TURNS)
            try:
                await self.renew()
                await self.tidy()
            except Exception as error:  # the consumer's edge: the next turn tries again, and leases last for several
                _log.error("idempotency.keeping.failed", exc_info=error)

    def _lease(self) -> ColumnElement[Any]:
        return _NOW + func.make_interval(0, 0, 0, 0, 0, 0, self._lease_s)


async def _known(session: AsyncSession, owner: _Owner, key: str) -> IdempotencyKey | None:
    account_id, project_id = owner
    query = select(IdempotencyKey).where(
        IdempotencyKey.account_id == account_id,
        IdempotencyKey.project_id == project_id,
        IdempotencyKey.key == key,
        IdempotencyKey.expires_at > _NOW,
    )
    return (await session.scalars(query)).one_or_none()


def _answer(known: IdempotencyKey, fingerprint: str) -> StoredAnswer:
    if known.fingerprint != fingerprint:
        raise HunminError(
            ErrorCode.IDEMPOTENCY_KEY_REUSED,
            "The Idempotency-Key came with another request before. Send every request with a key of its own, and the "
            "same request, to the same path, with the same body, when you try again.",
            param="Idempotency-Key",
        )
    if known.status is None:
        raise HunminError(
            ErrorCode.CONFLICT,
            "The request with this Idempotency-Key is still running. Send it again when it has ended.",
            retry_after_s=_RETRY_S,
        )
    if known.body is None:
        raise HunminError(
            ErrorCode.CONFLICT,
            "The request with this Idempotency-Key was made. Its answer was too large to be kept, or holds a secret, "
            "and cannot be replayed. To make it again send it with another key.",
        )
    return StoredAnswer(known.status, [(name, value) for name, value in known.headers or []], known.body)
