"""Sessions of browsers. The only statements on `sessions`.

A session is a random secret in a cookie; the row is found by its digest. Each statement has a transaction of its own,
since the provider is asked between them.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hunmin_kit.data import Database
from hunmin_kit.identity import EndedSessions, Identity, Login
from sqlalchemy import delete, func, insert, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.login.seal import Seal
from hunmin_gateway.tables import LoginSession

LAST_USED_RESOLUTION = timedelta(minutes=1)
RENEW_AHEAD = timedelta(seconds=30)  # so that nobody waits for it
RENEWAL_LEASE = timedelta(seconds=20)  # longer than a provider may take
OVERLAP = timedelta(seconds=10)  # of an id that was replaced: requests of the same page are on their way with it
_LEEWAY = timedelta(seconds=10)  # between the provider's clock and ours
_TIDY_ROWS = 100


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session that is valid now. Its claims are `due` shortly before they are to be checked anew, at `stale`."""

    digest: bytes
    csrf: str
    login: Login
    begun_at: datetime
    expires_at: datetime
    is_due: bool
    is_stale: bool


class Sessions:
    """The table."""

    def __init__(self, database: Database, seal: Seal, *, idle: timedelta, lifetime: timedelta) -> None:
        self._database = database
        self._seal = seal
        self._idle = idle
        self.lifetime = lifetime

    async def begin(self, login: Login, *, replacing: str | None) -> tuple[str, Session]:
        """Begin a session under a new secret, which is returned this once; the one it replaces is over."""
        secret, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        async with self._database.session() as session:
            old = select(LoginSession.digest).where(self._is_over()).limit(_TIDY_ROWS).with_for_update(skip_locked=True)
            await session.execute(delete(LoginSession).where(LoginSession.digest.in_(old)))
            if replacing is not None:
                await session.execute(delete(LoginSession).where(LoginSession.digest == digest(replacing)))
            values = self._claims(login) | {
                "digest": digest(secret),
                "csrf": csrf,
                "expires_at": func.now() + literal(self.lifetime),
            }
            await session.execute(insert(LoginSession).values(**values))
        begun = await self.find(secret)
        if begun is None:
            raise LookupError("a session that was begun is not there")
        return secret, begun

    async def find(self, secret: str) -> Session | None:
        """Return the session of that secret, if it is valid; take note, coarsely, that it was used."""
        key = digest(secret)
        now = func.now()
        is_due = LoginSession.claims_expire_at <= now + literal(RENEW_AHEAD)
        is_stale = LoginSession.claims_expire_at <= now
        async with self._database.session() as session:
            rows = await session.execute(
                select(LoginSession, is_due, is_stale).where(LoginSession.digest == key, ~self._is_over())
            )
            row = rows.one_or_none()
            if row is None:
                return None
            found, due, stale = row
            unused = LoginSession.last_used_at < now - literal(LAST_USED_RESOLUTION)
            touch = update(LoginSession).where(LoginSession.digest == key, unused).values(last_used_at=now)
            await session.execute(touch)
        held = self._seal.open_token(found.secret)
        if held is None:  # the pepper is another one: nobody can renew it
            return None
        return Session(
            digest=key,
            csrf=found.csrf,
            login=Login(identity=_identity(found), secret=held),
            begun_at=found.begun_at,
            expires_at=found.expires_at,
            is_due=due,
            is_stale=stale,
        )

    async def claim_renewal(self, session: Session) -> bool:
        """Tell whether the caller is the one to renew the claims; for a while nobody else is."""
        claim = (
            update(LoginSession)
            .where(
                LoginSession.digest == session.digest,
                LoginSession.claims_expire_at <= func.now() + literal(RENEW_AHEAD),
                or_(LoginSession.renewing_until.is_(None), LoginSession.renewing_until <= func.now()),
            )
            .values(renewing_until=func.now() + literal(RENEWAL_LEASE))
            .returning(LoginSession.csrf)
        )
        async with self._database.session() as database_session:
            return await database_session.scalar(claim) is not None

    async def release_renewal(self, session: Session) -> None:
        """Let another one renew the claims."""
        async with self._database.session() as database_session:
            await self._update(database_session, session.digest, {"renewing_until": None})

    async def renew(self, session: Session, login: Login) -> str | None:
        """Store the claims; return a new secret if they give other rights, since then the old one is soon over.

        A session that was ended meanwhile stays so.
        """
        before, after = session.login.identity, login.identity
        claims = self._claims(login) | {"renewing_until": None}
        async with self._database.session() as database_session:
            if (before.roles, before.organizations) == (after.roles, after.organizations):
                await self._update(database_session, session.digest, claims)
                return None
            claims |= {"expires_at": func.least(LoginSession.expires_at, func.now() + literal(OVERLAP))}
            if not await self._update(database_session, session.digest, claims):
                return None
            secret = secrets.token_urlsafe(32)
            values = self._claims(login) | {
                "digest": digest(secret),
                "csrf": session.csrf,
                "begun_at": session.begun_at,
            }
            await database_session.execute(insert(LoginSession).values(**values, expires_at=session.expires_at))
            return secret

    async def end(self, session: Session) -> None:
        """End that session."""
        await self._delete(LoginSession.digest == session.digest)

    async def end_all(self, identity: Identity) -> int:
        """End every session of a person; return how many there were."""
        async with self._database.session() as session:
            return await end_subject(session, identity.issuer, identity.subject)

    async def end_told(self, ended: EndedSessions) -> int:
        """End what the provider has ended; return how many that were. A later session is none of it."""
        conditions = [LoginSession.issuer == ended.issuer, LoginSession.begun_at <= ended.told_at + _LEEWAY]
        if ended.session_id is not None:
            conditions.append(LoginSession.provider_session_id == ended.session_id)
        if ended.subject is not None:
            conditions.append(LoginSession.subject == ended.subject)
        return await self._delete(*conditions)

    def _is_over(self) -> Any:
        idle_since = func.now() - literal(self._idle)
        return or_(LoginSession.expires_at <= func.now(), LoginSession.last_used_at <= idle_since)

    def _claims(self, login: Login) -> dict[str, Any]:
        identity = login.identity
        return {
            "issuer": identity.issuer,
            "subject": identity.subject,
            "email": identity.email,
            "name": identity.name,
            "organizations": sorted(identity.organizations),
            "roles": sorted(identity.roles),
            "provider_session_id": identity.session_id,
            "claims_expire_at": identity.expires_at,
            "secret": self._seal.token(login.secret),
        }

    async def _update(self, session: AsyncSession, key: bytes, values: Mapping[str, Any]) -> bool:
        changed = update(LoginSession).where(LoginSession.digest == key).values(**values).returning(LoginSession.csrf)
        return await session.scalar(changed) is not None

    async def _delete(self, *conditions: Any) -> int:
        async with self._database.session() as session:
            return await _deleted(session, *conditions)


async def end_subject(session: AsyncSession, issuer: str, subject: str) -> int:
    """End every session of a subject, with the transaction; return how many there were."""
    return await _deleted(session, LoginSession.issuer == issuer, LoginSession.subject == subject)


async def _deleted(session: AsyncSession, *conditions: Any) -> int:
    gone = await session.scalars(delete(LoginSession).where(*conditions).returning(LoginSession.csrf))
    return len(gone.all())


def digest(secret: str) -> bytes:
    """Return what stands for a session's secret in the database. It has 256 random bits: no slow hash is needed."""
    return hashlib.sha256(secret.encode()).digest()


def _identity(row: LoginSession) -> Identity:
    return Identity(
        issuer=row.issuer,
        subject=row.subject,
        email=row.email,
        name=row.name,
        organizations=frozenset(row.organizations),
        roles=frozenset(row.roles),
        session_id=row.provider_session_id,
        expires_at=row.claims_expire_at,
    )
