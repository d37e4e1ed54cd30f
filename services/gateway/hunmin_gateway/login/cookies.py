"""The cookies of login. Their prefix has browsers take them from this very host alone, and only over TLS.

Browsers take 127.0.0.1 and localhost for as good as TLS, so the same cookies work there over plain HTTP.
"""

from ipaddress import ip_address

from fastapi import Request, Response
from hunmin_contracts.errors import ErrorCode, HunminError
from starlette.datastructures import URL
from starlette.responses import Response as StarletteResponse

from hunmin_gateway.login.seal import START_LIFE_S

SESSION = "__Host-hunmin"
_START = "__Host-hunmin-login-"  # and the beginning of the login's state: two tabs may log in at a time
_SHOWN_LETTERS = 8
LONGEST_PATH = 2000


def session_header(secret: str, *, max_age_s: int) -> str:
    """Return the value of Set-Cookie that gives a browser its session."""
    response = StarletteResponse()
    _set(response, SESSION, secret, max_age_s)
    return response.headers["set-cookie"]


def set_session(response: Response, secret: str, *, max_age_s: int) -> None:
    """Give the browser its session."""
    _set(response, SESSION, secret, max_age_s)


def set_start(response: Response, state: str, sealed: str) -> None:
    """Have the browser keep the login that it has begun."""
    _set(response, _start_name(state), sealed, START_LIFE_S)


def start_of(request: Request, state: str) -> str | None:
    """Return what the browser keeps of the login of that state."""
    return request.cookies.get(_start_name(state))


def drop_start(response: Response, state: str) -> None:
    """Have the browser forget the login of that state."""
    _set(response, _start_name(state), "", 0)


def drop_session(response: Response) -> None:
    """Have the browser forget its session."""
    _set(response, SESSION, "", 0)


def check_transport(url: URL) -> None:
    """Raise CONFLICT if a browser at that address would not keep the cookies: over plain HTTP from another machine."""
    host = url.hostname or ""
    if url.scheme == "https" or host == "localhost" or host.endswith(".localhost") or _is_loopback(host):
        return
    raise HunminError(
        ErrorCode.CONFLICT,
        "Over plain HTTP browsers keep no login but on the studio's own machine. Open the studio at http://127.0.0.1 "
        "there, or by https:// through a proxy for TLS, and set HUNMIN_GATEWAY_PUBLIC_URL to its address.",
    )


def safe_path(return_to: str) -> str:
    """Return a path within the studio, for a browser to go to; INVALID_PARAMETER if it leads anywhere else."""
    is_path = return_to.startswith("/") and not return_to.startswith("//") and "\\" not in return_to
    if is_path and len(return_to) <= LONGEST_PATH and return_to.isascii() and return_to.isprintable():
        return return_to
    raise HunminError(
        ErrorCode.INVALID_PARAMETER,
        "return_to must be a path of this studio, such as /docs.",
        param="return_to",
    )


def _start_name(state: str) -> str:
    letters = "".join(letter for letter in state[:_SHOWN_LETTERS] if letter.isascii() and (letter.isalnum()))
    return f"{_START}{letters}"


def _set(response: StarletteResponse, name: str, value: str, max_age_s: int) -> None:
    response.set_cookie(name, value, max_age=max_age_s, path="/", secure=True, httponly=True, samesite="lax")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
