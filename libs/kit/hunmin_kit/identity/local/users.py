"""Local users and the links that make them. The only statements on `local_users` and `local_invitations`."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from hunmin_contracts.errors import ErrorCode, HunminError
from sqlalchemy import ColumnElement, delete, func, insert, literal, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_kit.identity.local.tables import INVITATIONS, USERS

LINK_LIFE = timedelta(hours=24)
_ADDRESS = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,255}")
_LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class LocalUser:
    """A user, as it is stored."""

    subject: str
    email: str
    name: str | None
    organizations: frozenset[str]
    roles: frozenset[str]
    password_hash: str
    password_changed_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """What a link makes: a new user, or with `subject` another password of that one."""

    email: str | None
    subject: str | None
    organizations: frozenset[str]
    roles: frozenset[str]


class LocalUsers:
    """Works in the session it is given; whoever opened that commits."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, *, email: str | None = None, subject: str | None = None) -> LocalUser | None:
        """Return the user of that address or that subject, if there is one."""
        is_it = USERS.c.subject == subject if email is None else USERS.c.email == email
        rows = await self._session.execute(select(*_COLUMNS).where(is_it))
        found = rows.mappings().one_or_none()
        return None if found is None else _user(dict(found))

    async def list(self) -> list[LocalUser]:
        """Return every user, oldest first."""
        rows = await self._session.execute(select(*_COLUMNS).order_by(USERS.c.created_at, USERS.c.subject))
        return [_user(dict(row)) for row in rows.mappings()]

    async def set_password(self, subject: str, password_hash: str, *, is_new: bool = True) -> None:
        """Store another hash; `is_new` tells that of another password from a stronger one of the same."""
        changes: dict[str, object] = {"password_hash": password_hash}
        if is_new:
            changes["password_changed_at"] = func.now()
        await self._session.execute(update(USERS).where(USERS.c.subject == subject).values(**changes))

    async def set_disabled(self, email: str, *, disabled: bool) -> str:
        """Lock a user out, or in again; return its subject, NOT_FOUND if there is none."""
        changed = await self._session.scalar(
            update(USERS)
            .where(USERS.c.email == normal_address(email))
            .values(disabled_at=func.now() if disabled else None)
            .returning(USERS.c.subject)
        )
        if changed is None:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no user {email}. List the users.")
        return str(changed)

    async def change(self, email: str, *, organizations: Iterable[str], roles: Iterable[str]) -> LocalUser:
        """Replace what a user was invited as; NOT_FOUND if there is none."""
        claims = {"organizations": sorted(organizations), "roles": sorted(roles)}
        address = normal_address(email)
        await self._session.execute(update(USERS).where(USERS.c.email == address).values(**claims))
        user = await self.find(email=address)
        if user is None:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no user {email}. List the users.")
        return user

    async def invite(self, email: str, *, organizations: Iterable[str], roles: Iterable[str]) -> str:
        """Return the secret of a link by which the owner of an address becomes a user; CONFLICT if it is one."""
        address = normal_address(email)
        if await self.find(email=address) is not None:
            raise HunminError(ErrorCode.CONFLICT, f"{address} is a user. Make a link for another password instead.")
        return await self._store(address, None, organizations, roles)

    async def invite_first(self, *, organizations: Iterable[str], roles: Iterable[str]) -> str | None:
        """Return the secret of a link by which anybody becomes the first user; None if there is one."""
        if await self._session.scalar(select(USERS.c.subject).limit(1)) is not None:
            return None
        return await self._store(None, None, organizations, roles)

    async def invite_to_reset(self, email: str) -> str:
        """Return the secret of a link by which a user chooses another password; NOT_FOUND if there is none."""
        user = await self.find(email=normal_address(email))
        if user is None:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no user {email}. List the users.")
        return await self._store(user.email, user.subject, (), ())

    async def invitation(self, secret: str) -> Invitation:
        """Return what the link of `secret` makes; NOT_FOUND if it is none, is used or too old."""
        return await self._invitation(select(*_INVITED).where(_is_valid(secret)))

    async def accept(self, secret: str, email: str, name: str | None, password_hash: str) -> LocalUser:
        """Use a link up, and return its user; NOT_FOUND as `invitation`, CONFLICT if the address has a user."""
        # Of two that use a first user's link at a time one must find the other's user.
        await self._session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('local_users', 0))"))
        invited = await self._invitation(delete(INVITATIONS).where(_is_valid(secret)).returning(*_INVITED))
        if invited.subject is not None:
            await self.set_password(invited.subject, password_hash)
            await self._session.execute(delete(INVITATIONS).where(INVITATIONS.c.subject == invited.subject))
            user = await self.find(subject=invited.subject)
            if user is None:
                raise _no_link()
            return user
        address = invited.email or normal_address(email)
        if invited.email is None and await self._session.scalar(select(USERS.c.subject).limit(1)) is not None:
            raise _no_link()
        subject = await self._add(address, name, invited, password_hash)
        used = or_(INVITATIONS.c.email == address, INVITATIONS.c.email.is_(None))
        await self._session.execute(delete(INVITATIONS).where(used))
        user = await self.find(subject=subject)
        if user is None:
            raise LookupError("a user that was inserted is not there")
        return user

    async def _add(self, email: str, name: str | None, invited: Invitation, password_hash: str) -> str:
        subject = f"local_{secrets.token_hex(12)}"
        values = {
            "subject": subject,
            "email": email,
            "name": (name or "").strip()[:_LONGEST_NAME] or None,
            "organizations": sorted(invited.organizations),
            "roles": sorted(invited.roles),
            "password_hash": password_hash,
        }
        try:
            await self._session.execute(insert(USERS).values(**values))
        except IntegrityError as error:
            raise HunminError(ErrorCode.CONFLICT, f"{email} is a user already. Log in.") from error
        return subject

    async def _store(
        self, email: str | None, subject: str | None, organizations: Iterable[str], roles: Iterable[str]
    ) -> str:
        secret = secrets.token_urlsafe(32)
        await self._session.execute(delete(INVITATIONS).where(INVITATIONS.c.expires_at <= func.now()))
        await self._session.execute(
            insert(INVITATIONS).values(
                digest=_digest(secret),
                email=email,
                subject=subject,
                organizations=sorted(organizations),
                roles=sorted(roles),
                expires_at=func.now() + literal(LINK_LIFE),
            )
        )
        return secret

    async def _invitation(self, statement: object) -> Invitation:
        found = (await self._session.execute(statement)).mappings().one_or_none()  # type: ignore[call-overload]
        if found is None:
            raise _no_link()
        return Invitation(
            email=found["email"],
            subject=found["subject"],
            organizations=frozenset(found["organizations"]),
            roles=frozenset(found["roles"]),
        )


def normal_address(email: str) -> str:
    """Return an address as it is stored and compared; INVALID_PARAMETER if it is none."""
    address = email.strip().lower()
    if not _ADDRESS.fullmatch(address):
        raise HunminError(ErrorCode.INVALID_PARAMETER, "This is no e-mail address. Check it.", param="email")
    return address


_COLUMNS = [column for column in USERS.c if column.name != "created_at"]
_INVITED = [INVITATIONS.c.email, INVITATIONS.c.subject, INVITATIONS.c.organizations, INVITATIONS.c.roles]


def _user(row: dict[str, object]) -> LocalUser:
    sets = {name: frozenset(row.pop(name)) for name in ("organizations", "roles")}  # type: ignore[call-overload]
    return LocalUser(**row, **sets)  # type: ignore[arg-type]


def _is_valid(secret: str) -> ColumnElement[bool]:
    return (INVITATIONS.c.digest == _digest(secret)) & (INVITATIONS.c.expires_at > func.now())


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _no_link() -> HunminError:
    return HunminError(ErrorCode.NOT_FOUND, "This link is not valid: it was used, or is too old. Ask for another one.")
