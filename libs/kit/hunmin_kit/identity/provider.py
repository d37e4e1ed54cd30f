"""The port to whoever knows people and machines: what the studio needs of an identity provider, however it is made.

No method returns an identity that was not checked: every failed check raises.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from hunmin_kit.identity.identity import Identity


@dataclass(frozen=True, kw_only=True)
class LoginStart:
    """A login that has begun: the browser goes to `url` and comes back with `state`.

    `secrets` are for `finish_login` alone. Whoever keeps them ties them to the one browser that began.
    """

    url: str
    state: str
    secrets: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Login:
    """Somebody who has logged in. `secret` is what `renew` and `logout_url` need; no browser sees it."""

    identity: Identity
    secret: str


@dataclass(frozen=True, kw_only=True)
class EndedSessions:
    """Sessions that the provider has ended: one by its id, or all of a subject; those that began until `told_at`."""

    issuer: str
    session_id: str | None
    subject: str | None
    told_at: datetime


class IdentityProvider(Protocol):
    """Every method raises UNAVAILABLE while the provider cannot be asked, and nothing is known without it."""

    @property
    def issuer(self) -> str:
        """The issuer of its identities."""
        ...

    async def begin_login(self, *, callback: str) -> LoginStart:
        """Begin a login whose answer comes to the URL `callback`."""
        ...

    async def finish_login(self, start: LoginStart, answer: Mapping[str, str], *, callback: str) -> Login:
        """Return who logged in, by what came back; UNAUTHENTICATED if nobody did, OVERLOADED after many failures."""
        ...

    async def renew(self, login: Login) -> Login:
        """Ask anew for the claims of somebody who is logged in; UNAUTHENTICATED if the provider has ended that."""
        ...

    async def verify_bearer(self, token: str) -> Identity:
        """Return whom an access token speaks for; UNAUTHENTICATED with the reason why it is refused."""
        ...

    async def logout_url(self, login: Login, *, back_to: str) -> str | None:
        """Return where the browser goes to end the provider's session too; None if there is nothing to end."""
        ...

    async def verify_logout(self, token: str) -> EndedSessions:
        """Return what a back-channel logout token ends; INVALID_REQUEST with the reason why it is refused."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
