"""A browser without a screen: it keeps cookies as browsers do on this machine, and follows nothing by itself."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio
from hunmin_gateway.login.first_user import link_of
from hunmin_gateway.parts import Parts, parts_of_app
from hunmin_gateway.tenancy.accounts import Accounts
from hunmin_kit.identity.local import LocalUsers
from playwright.async_api import Page, async_playwright

PASSWORD = "나랏말싸미 듕귁에 달아"


class Browser:
    """Cookies are kept by hand, since httpx takes 127.0.0.1 for no secure place, as browsers do."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies: dict[str, str] = {}
        self.set_cookies: list[str] = []  # as the last answer sent them
        self._http = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = dict(options.pop("headers", {}))
        if self.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await self._http.request(method, path, headers=headers, **options)
        self.set_cookies = answer.headers.get_list("set-cookie")
        for cookie in self.set_cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
            if "max-age=0" in cookie.lower():
                del self.cookies[name]
        return answer

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.send("GET", path, **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        return await self.send("POST", path, **options)

    async def open_form(self, return_to: str = "/") -> str:
        """Begin a login; return the state of the form that is shown."""
        begun = await self.get("/auth/login", params={"return_to": return_to})
        assert begun.status_code == 303, begun.text
        (state,) = parse_qs(urlsplit(begun.headers["location"]).query)["state"]
        return state

    async def log_in(self, email: str, password: str = PASSWORD, *, return_to: str = "/") -> httpx.Response:
        state = await self.open_form(return_to)
        return await self.post("/auth/password", data={"state": state, "email": email, "password": password})

    async def session(self) -> dict[str, Any]:
        answer = await self.get("/auth/session")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def is_logged_in(self) -> bool:
        return (await self.get("/auth/session")).status_code == 200

    async def csrf(self) -> dict[str, str]:
        """Return the header that proves that a request is meant."""
        return {"X-Hunmin-CSRF": (await self.session())["csrf"]}

    async def aclose(self) -> None:
        await self._http.aclose()


@pytest.fixture
def parts(gateway) -> Parts:
    return parts_of_app(gateway.app("gateway"))


@pytest_asyncio.fixture(loop_scope="session")
async def browser(gateway) -> AsyncIterator[Browser]:
    opened = Browser(gateway.url("gateway"))
    yield opened
    await opened.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def other(gateway) -> AsyncIterator[Browser]:
    opened = Browser(gateway.url("gateway"))
    yield opened
    await opened.aclose()


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def default_account(parts) -> None:
    """The account that invitations are into."""
    async with parts.database.session() as session:
        await Accounts(session).ensure("default")


async def invite(parts: Parts, email: str | None = None, *, roles=("developer",), organizations=("default",)) -> str:
    """Return the path of an invitation's link."""
    async with parts.database.session() as session:
        address = email or f"{secrets.token_hex(4)}@example.org"
        secret = await LocalUsers(session).invite(address, organizations=organizations, roles=roles)
    return link_of(secret, "")


@pytest_asyncio.fixture(loop_scope="session")
async def email(parts, other) -> str:
    """Somebody who has registered, and is logged in nowhere."""
    address = f"{secrets.token_hex(4)}@example.org"
    (token,) = parse_qs(urlsplit(await invite(parts, address)).query)["token"]
    answer = await other.post("/auth/register", data={"token": token, "name": "세종", "password": PASSWORD})
    assert answer.status_code == 303, answer.text
    other.cookies.clear()
    return address


CHROMIUM = Path("/usr/bin/chromium")
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
in_a_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no chromium: apt-get install chromium")


@asynccontextmanager
async def real_page(url: str) -> AsyncIterator[Page]:
    """Yield a page of a real browser without a history, at the studio of that address."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        context = await chromium.new_context(base_url=url, locale="ko-KR")
        yield await context.new_page()
        await chromium.close()
