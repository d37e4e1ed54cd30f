"""What the routes of login share."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.identity import IdentityProvider
from hunmin_kit.identity.local import LocalProvider

from hunmin_gateway.login.browser import Browsers
from hunmin_gateway.login.seal import Seal
from hunmin_gateway.login.sessions import Sessions

CALLBACK_PATH, BACKCHANNEL_PATH = "/auth/callback", "/auth/backchannel-logout"


@dataclass(frozen=True)
class LoginParts:
    """The parts. `public_url` is where browsers reach the studio; None: as each request says."""

    provider: IdentityProvider
    sessions: Sessions
    browsers: Browsers
    seal: Seal
    public_url: str | None

    def url(self, request: Request, path: str) -> str:
        """Return the address of a path of the studio, as browsers know it."""
        base = self.public_url or str(request.base_url)
        return f"{base.rstrip('/')}{path}"

    @property
    def is_local(self) -> bool:
        """Whether the studio has users of its own."""
        return isinstance(self.provider, LocalProvider)

    def check_local(self) -> None:
        """Raise NOT_FOUND where somebody else knows the people."""
        _ = self.local

    @property
    def local(self) -> LocalProvider:
        """The studio's own users; NOT_FOUND where somebody else knows the people."""
        if not isinstance(self.provider, LocalProvider):
            raise HunminError(
                ErrorCode.NOT_FOUND, f"This studio has no users of its own. Log in by {self.provider.issuer}."
            )
        return self.provider


def attach_login(app: FastAPI, parts: LoginParts) -> None:
    """Give `parts` to the routes of `app`."""
    app.state.login = parts


def login_of_app(app: FastAPI) -> LoginParts:
    """Return what was attached to `app`."""
    parts: LoginParts = app.state.login
    return parts


def login_of(request: Request) -> LoginParts:
    """Return the parts of the application that serves `request`."""
    return login_of_app(request.app)


LoginDep = Annotated[LoginParts, Depends(login_of)]
