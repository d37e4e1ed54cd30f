"""The adapter to users of the studio's own. Passwords are looked at outside of every transaction."""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from urllib.parse import urlencode

from hunmin_contracts.errors import ErrorCode, HunminError
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_kit.data import Database
from hunmin_kit.identity.identity import Identity
from hunmin_kit.identity.local.attempts import Attempts
from hunmin_kit.identity.local.passwords import Passwords, check_choice
from hunmin_kit.identity.local.users import Invitation, LocalUser, LocalUsers, normal_address
from hunmin_kit.identity.provider import EndedSessions, Login, LoginStart

ISSUER = "urn:hunmin:local"  # not the studio's address: users stay who they are when that changes
CLAIMS_LIFE = timedelta(minutes=5)


class LocalChange(StrEnum):
    """What a user does themselves."""

    REGISTERED = "registered"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105  # what was done


OnChange = Callable[[AsyncSession, LocalChange, LocalUser], Awaitable[None]]


class LocalProvider:
    """An IdentityProvider over a schema that has its tables. `form_path` is where the form for its login is.

    `on_change` is told of what users do themselves, in the transaction in which they do.
    """

    def __init__(
        self, database: Database, *, form_path: str, on_change: OnChange, passwords: Passwords | None = None
    ) -> None:
        self._database = database
        self._form_path = form_path
        self._on_change = on_change
        self._passwords = passwords or Passwords()
        self._attempts = Attempts(database)

    @property
    def issuer(self) -> str:
        """The issuer of its identities."""
        return ISSUER

    async def begin_login(self, *, callback: str) -> LoginStart:
        """Return the form's address."""
        state = secrets.token_urlsafe(32)
        return LoginStart(url=f"{self._form_path}?{urlencode({'state': state})}", state=state, secrets={})

    async def finish_login(self, start: LoginStart, answer: Mapping[str, str], *, callback: str) -> Login:
        """Return who has that `email` and `password`; what is wrong of the two, nobody learns."""
        if not hmac.compare_digest(answer.get("state", "").encode(), start.state.encode()):
            raise HunminError(ErrorCode.UNAUTHENTICATED, "The form is not that of this browser's login. Log in again.")
        email = normal_address(answer.get("email", ""))
        user = await self._known(email, answer.get("password", ""))
        return _login(user)

    async def renew(self, login: Login) -> Login:
        """Look whether the user is still there, and what its roles are."""
        user = await self._find(login.identity.subject)
        if user is None or user.disabled_at is not None or _login(user).secret != login.secret:
            raise HunminError(ErrorCode.UNAUTHENTICATED, "The login was ended. Log in again.")
        return _login(user)

    async def verify_bearer(self, token: str) -> Identity:
        """Refuse it: machines have API keys here."""
        raise HunminError(
            ErrorCode.UNAUTHENTICATED,
            "This studio issues no access tokens. Send an API key: Authorization: Bearer hm_….",
        )

    async def logout_url(self, login: Login, *, back_to: str) -> str | None:
        """Return None: there is no session but the studio's."""
        return None

    async def verify_logout(self, token: str) -> EndedSessions:
        """Refuse it: nobody logs out elsewhere."""
        raise HunminError(ErrorCode.INVALID_REQUEST, "This studio has users of its own, who log out here alone.")

    async def aclose(self) -> None:
        """Do nothing: the database is its owner's."""

    async def invitation(self, secret: str) -> Invitation:
        """Return what the link of `secret` makes; NOT_FOUND if it is none, is used or too old."""
        async with self._database.session() as session:
            return await LocalUsers(session).invitation(secret)

    async def accept(self, secret: str, *, email: str, name: str | None, password: str) -> Login:
        """Use the link of `secret`: make its user, or give it another password. Return the user's first login."""
        invited = await self.invitation(secret)
        address = invited.email or normal_address(email)
        check_choice(password, email=address)
        password_hash = await self._passwords.hash(password)
        async with self._database.session() as session:
            user = await LocalUsers(session).accept(secret, address, name, password_hash)
            is_new = invited.subject is None
            await self._on_change(session, LocalChange.REGISTERED if is_new else LocalChange.PASSWORD_CHANGED, user)
        if user.disabled_at is not None:
            raise HunminError(ErrorCode.FORBIDDEN, "This user is locked out. Ask the operator of this studio.")
        await self._attempts.forgive(address)
        return _login(user)

    async def change_password(self, subject: str, *, current: str, new: str) -> Login:
        """Give a user another password, and return a login of it; every other one is over."""
        user = await self._find(subject)
        if user is None:
            raise HunminError(ErrorCode.UNAUTHENTICATED, "The login was ended. Log in again.")
        await self._known(user.email, current)
        check_choice(new, email=user.email)
        password_hash = await self._passwords.hash(new)
        async with self._database.session() as session:
            await LocalUsers(session).set_password(subject, password_hash)
            await self._on_change(session, LocalChange.PASSWORD_CHANGED, user)
        changed = await self._find(subject)
        if changed is None:
            raise HunminError(ErrorCode.UNAUTHENTICATED, "The login was ended. Log in again.")
        return _login(changed)

    async def _known(self, email: str, password: str) -> LocalUser:
        await self._attempts.begin(email)
        async with self._database.session() as session:
            user = await LocalUsers(session).find(email=email)
        fits = await self._passwords.verify(password, None if user is None else user.password_hash)
        if user is None or not fits or user.disabled_at is not None:
            raise HunminError(ErrorCode.UNAUTHENTICATED, "The address or the password is wrong. Try again.")
        await self._attempts.forgive(email)
        if self._passwords.is_outdated(user.password_hash):
            password_hash = await self._passwords.hash(password)
            async with self._database.session() as session:
                await LocalUsers(session).set_password(user.subject, password_hash, is_new=False)
        return user

    async def _find(self, subject: str) -> LocalUser | None:
        async with self._database.session() as session:
            return await LocalUsers(session).find(subject=subject)


def _login(user: LocalUser) -> Login:
    identity = Identity(
        issuer=ISSUER,
        subject=user.subject,
        email=user.email,
        name=user.name,
        organizations=user.organizations,
        roles=user.roles,
        session_id=None,
        expires_at=datetime.now(UTC) + CLAIMS_LIFE,
    )
    return Login(identity=identity, secret=user.password_changed_at.isoformat())
