"""The routes of login: by a provider's page or the studio's own form, and out again.

A login is finished only in the browser that began it: what it keeps in a cookie must fit what comes back.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.routing import APIRoute
from hunmin_contracts.errors import ErrorCode, HunminError, Problem
from hunmin_contracts.schema import Schema
from hunmin_kit.identity import Login, LoginStart
from starlette.datastructures import URL
from starlette.responses import HTMLResponse, RedirectResponse

from hunmin_gateway.login import cookies, pages
from hunmin_gateway.login.doors import BACKCHANNEL_PATH, CALLBACK_PATH, LoginDep, LoginParts
from hunmin_gateway.login.sessions import Session

_SEE_OTHER = 303
_UNFIT = (ErrorCode.UNAUTHENTICATED, ErrorCode.OVERLOADED, ErrorCode.INVALID_PARAMETER)
_log = structlog.get_logger()
router = APIRouter(
    prefix="/auth",
    tags=["Login"],
    responses={"4XX": {"model": Problem, "description": "What is wrong with the request"}},
)


async def _session_of(request: Request, parts: LoginDep) -> Session:
    return await parts.browsers.session_of(request)


SessionDep = Annotated[Session, Depends(_session_of)]
# What cookies.safe_path lets pass; it says so itself.
ReturnTo = Annotated[
    str, Query(json_schema_extra={"pattern": r"^/([ -.0-\[\]-~][ -\[\]-~]*)?$", "maxLength": cookies.LONGEST_PATH})
]


class SessionInfo(Schema):
    """Who is logged in. `csrf` goes into the header X-Hunmin-CSRF of every request that changes something."""

    issuer: str
    subject: str
    email: str | None
    name: str | None
    organizations: list[str]
    roles: list[str]
    csrf: str
    expires_at: datetime


class LogoutInfo(Schema):
    """Where to go to be logged out at the identity provider too; the studio's start page if there is nothing to do."""

    url: str


class PasswordChange(Schema):
    """The password of now, and the one to be."""

    current: str
    new: str


@router.get("/login", status_code=_SEE_OTHER, response_class=RedirectResponse, summary="Log in with a browser")
async def login(request: Request, parts: LoginDep, return_to: ReturnTo = "/") -> RedirectResponse:
    """Send the browser to the page of login, and afterwards to the path `return_to`."""
    cookies.check_transport(URL(parts.url(request, "/")))
    path = cookies.safe_path(return_to)
    start = await parts.provider.begin_login(callback=parts.url(request, CALLBACK_PATH))
    response = RedirectResponse(start.url, _SEE_OTHER, {"Cache-Control": "no-store"})
    cookies.set_start(response, start.state, parts.seal.start(start, return_to=path))
    return response


@router.get(
    "/callback", status_code=_SEE_OTHER, response_class=RedirectResponse, summary="Finish a login at a provider"
)
async def callback(request: Request, parts: LoginDep, state: Annotated[str, Query()] = "") -> RedirectResponse:
    """Take the provider's answer, begin a session, and send the browser to where it wanted to go."""
    if parts.is_local:
        raise HunminError(ErrorCode.NOT_FOUND, "This studio has users of its own. Log in at /auth/login.")
    return await _finish(request, parts, state, dict(request.query_params))


@router.get(
    "/password",
    response_class=HTMLResponse,
    responses={_SEE_OTHER: {"description": "No login has begun: begin one"}},
    summary="Show the form of the built-in login",
)
async def form(parts: LoginDep, state: str = "") -> Response:
    """Show the form of the built-in login, for a login that /auth/login began."""
    parts.check_local()
    return pages.login_form(state) if state else RedirectResponse(pages.LOGIN_PATH, _SEE_OTHER)


@router.post(
    "/password",
    status_code=_SEE_OTHER,
    response_class=RedirectResponse,
    summary="Log in with a password",
)
async def password(
    request: Request,
    parts: LoginDep,
    state: Annotated[str, Form()] = "",
    email: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
) -> Response:
    """Take the form of the built-in login. With a wrong password it is shown again, for another try."""
    provider = parts.local
    answer = {"state": state, "email": email, "password": password}
    _, return_to = _opened(request, parts, state)
    try:
        return await _finish(request, parts, state, answer)
    except HunminError as error:
        if error.code not in _UNFIT:
            raise
        start = await provider.begin_login(callback="")
        response = pages.login_form(start.state, email=email, error=error.message, status=error.status)
        if "retry_after_s" in error.details:
            response.headers["Retry-After"] = str(error.details["retry_after_s"])
        cookies.drop_start(response, state)
        cookies.set_start(response, start.state, parts.seal.start(start, return_to=return_to))
        return response


@router.post("/password/change", status_code=204, summary="Change your password")
async def change(
    request: Request, parts: LoginDep, found: SessionDep, body: PasswordChange, response: Response
) -> None:
    """Change the password of the built-in user who is logged in. Every other session of theirs ends."""
    provider = parts.local
    changed = await provider.change_password(found.login.identity.subject, current=body.current, new=body.new)
    await parts.sessions.end_all(changed.identity)
    await _begin(request, parts, changed, response)


@router.get("/register", include_in_schema=False)
async def registration(request: Request, parts: LoginDep, token: str = "") -> Response:
    """Show the form of an invitation, or of the link for another password."""
    cookies.check_transport(URL(parts.url(request, "/")))
    return pages.registration_form(token, await parts.local.invitation(token))


@router.post("/register", status_code=_SEE_OTHER, include_in_schema=False)
async def register(
    request: Request,
    parts: LoginDep,
    token: Annotated[str, Form()] = "",
    email: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
) -> Response:
    """Make the user of an invitation, or set the password anew, and begin a session."""
    provider = parts.local
    invited = await provider.invitation(token)
    try:
        accepted = await provider.accept(token, email=email, name=name or None, password=password)
    except HunminError as error:
        if error.code not in (*_UNFIT, ErrorCode.CONFLICT):
            raise
        return pages.registration_form(token, invited, email=email, name=name, error=error.message, status=error.status)
    await parts.sessions.end_all(accepted.identity)  # of before another password
    response = RedirectResponse("/", _SEE_OTHER, {"Cache-Control": "no-store"})
    await _begin(request, parts, accepted, response)
    return response


@router.get("/session", summary="Who is logged in")
async def session(found: SessionDep, response: Response) -> SessionInfo:
    """Tell who is logged in with this browser, and the proof that its requests need."""
    response.headers["Cache-Control"] = "no-store"
    return _info(found)


@router.post("/logout", summary="Log out")
async def logout(request: Request, parts: LoginDep, found: SessionDep, response: Response) -> LogoutInfo:
    """End the session, and tell where to go to end the provider's too."""
    await parts.sessions.end(found)
    cookies.drop_session(response)
    back_to = parts.url(request, "/")
    return LogoutInfo(url=await parts.provider.logout_url(found.login, back_to=back_to) or back_to)


@router.post(BACKCHANNEL_PATH.removeprefix("/auth"), summary="End the sessions that the provider has ended")
async def backchannel_logout(
    parts: LoginDep, response: Response, logout_token: Annotated[str, Form()] = ""
) -> dict[str, int]:
    """Take the logout token of an OpenID provider (OpenID Connect Back-Channel Logout 1.0)."""
    response.headers["Cache-Control"] = "no-store"
    ended = await parts.sessions.end_told(await parts.provider.verify_logout(logout_token))
    _log.info("login.sessions.ended", by="provider", count=ended)
    return {"ended": ended}


async def _finish(request: Request, parts: LoginParts, state: str, answer: Mapping[str, str]) -> RedirectResponse:
    start, return_to = _opened(request, parts, state)
    finished = await parts.provider.finish_login(start, answer, callback=parts.url(request, CALLBACK_PATH))
    response = RedirectResponse(return_to, _SEE_OTHER, {"Cache-Control": "no-store"})
    cookies.drop_start(response, state)
    await _begin(request, parts, finished, response)
    return response


def _opened(request: Request, parts: LoginParts, state: str) -> tuple[LoginStart, str]:
    sealed = cookies.start_of(request, state)
    opened = None if sealed is None else parts.seal.open_start(sealed)
    if opened is None or opened[0].state != state:
        raise HunminError(
            ErrorCode.UNAUTHENTICATED,
            "This login was not begun in this browser, or too long ago; or the browser keeps no cookies. Log in again.",
        )
    return opened


async def _begin(request: Request, parts: LoginParts, login: Login, response: Response) -> None:
    """Begin a session under a new id, whatever id the browser came with."""
    secret, _ = await parts.sessions.begin(login, replacing=request.cookies.get(cookies.SESSION))
    cookies.set_session(response, secret, max_age_s=round(parts.sessions.lifetime.total_seconds()))
    _log.info("login.session.begun", issuer=login.identity.issuer)


def _info(session: Session) -> SessionInfo:
    identity = session.login.identity
    return SessionInfo(
        issuer=identity.issuer,
        subject=identity.subject,
        email=identity.email,
        name=identity.name,
        organizations=sorted(identity.organizations),
        roles=sorted(identity.roles),
        csrf=session.csrf,
        expires_at=session.expires_at,
    )


OPEN_PATHS = frozenset(route.path for route in router.routes if isinstance(route, APIRoute))  # each looks for itself
