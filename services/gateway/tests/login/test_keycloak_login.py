"""The gateway before a real Keycloak: a real browser logs in and out, machines send access tokens."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.service import SERVICE
from hunmin_gateway.tenancy.accounts import Accounts
from hunmin_kit.testing import Running, running
from hunmin_kit.testing import keycloak as real
from playwright.async_api import Page
from sqlalchemy import text

from .conftest import Browser, in_a_browser, real_page

COOKIE = "__Host-hunmin"
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not real.is_there(), reason=real.ABSENT),
    pytest.mark.timeout(300),
]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def realm(port) -> Iterator[real.KeycloakRealm]:
    with real.keycloak_realm(studio_url=f"http://127.0.0.1:{port}", organizations=("acme", "zeta")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def studio(realm, port, neighbours) -> AsyncIterator[Running]:
    """A gateway whose people Keycloak knows, at the address that Keycloak calls for a logout."""
    env = {
        "HUNMIN_GATEWAY_OIDC_ISSUER": realm.issuer,
        "HUNMIN_GATEWAY_OIDC_CLIENT_SECRET": realm.client_secret,
        "HUNMIN_GATEWAY_OIDC_KEYS_FRESH_S": "2",
    }
    async with running(SERVICE, *neighbours, env=env, network=True, ports={"gateway": port}) as up:
        async with parts_of_app(up.app("gateway")).database.session() as session:
            await Accounts(session).ensure("acme")
        yield up


@pytest_asyncio.fixture(loop_scope="module")
async def browser(studio) -> AsyncIterator[Browser]:
    opened = Browser(studio.url("gateway"))
    yield opened
    await opened.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def page(studio) -> AsyncIterator[Page]:
    async with real_page(studio.url("gateway")) as opened:
        yield opened


async def fill_in(page: Page, person: real.Person) -> None:
    """Log in at Keycloak's pages: a realm with organisations asks for the name first."""
    await page.fill("#username", person.name)
    await page.click("#kc-login")
    await page.fill("#password", person.password)
    await page.click("#kc-login")


async def log_in(browser: Browser, person: real.Person, *, return_to: str = "/") -> None:
    """Log in without a screen."""
    begun = await browser.get("/auth/login", params={"return_to": return_to})
    answer, _ = await real.sign_in(begun.headers["location"], person)
    done = await browser.get("/auth/callback", params=answer)
    assert (done.status_code, done.headers["location"]) == (303, return_to)


async def row_count(studio: Running) -> int:
    async with parts_of_app(studio.app("gateway")).database.session() as session:
        return await session.scalar(text("SELECT count(*) FROM sessions"))


@in_a_browser
class TestRealBrowser:
    async def test_logs_in_keeps_no_token_and_logs_out_everywhere(self, realm, studio, page):
        person = realm.person(roles=["developer"], organizations=["acme"])
        await page.goto("/auth/login?return_to=/docs")
        assert page.url.startswith(realm.issuer)
        await fill_in(page, person)
        await page.wait_for_url(f"{studio.url('gateway')}/docs")
        (cookie,) = [one for one in await page.context.cookies() if one["name"] == COOKIE]
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Lax")
        assert (cookie["domain"], cookie["path"]) == ("127.0.0.1", "/")
        ours = [one["value"] for one in await page.context.cookies(studio.url("gateway")) if "hunmin" in one["name"]]
        assert not [value for value in ours if value.count(".") == 2]
        assert await page.evaluate("document.cookie.includes('hunmin')") is False
        assert await page.evaluate("localStorage.length + sessionStorage.length") == 0

        session = await page.evaluate("fetch('/auth/session').then(answer => answer.json())")
        assert (session["subject"], session["organizations"], session["roles"]) == (person.id, ["acme"], ["developer"])
        assert await page.evaluate("fetch('/v1/models').then(answer => answer.status)") == 200

        logout = "headers => fetch('/auth/logout', {method: 'POST', headers}).then(answer => answer.json())"
        refused = await page.evaluate(logout, {})
        assert refused["code"] == "forbidden"
        there = (await page.evaluate(logout, {"X-Hunmin-CSRF": session["csrf"]}))["url"]
        assert await page.evaluate("fetch('/auth/session').then(answer => answer.status)") == 401
        await page.goto(there)
        await page.wait_for_url(f"{studio.url('gateway')}/")
        await page.goto("/auth/login")
        assert await page.locator("#username").count() == 1  # Keycloak asks anew: its session is over too

    async def test_a_second_login_needs_no_password_and_has_another_id(self, realm, studio, page):
        await page.goto("/auth/login?return_to=/docs")
        await fill_in(page, realm.person())
        await page.wait_for_url("**/docs")
        ids = []
        for _ in range(2):
            ids += [one["value"] for one in await page.context.cookies() if one["name"] == COOKIE]
            await page.goto("/auth/login?return_to=/docs")
            await page.wait_for_url(f"{studio.url('gateway')}/docs")
        assert len(set(ids)) == 2


class TestLogin:
    async def test_is_of_the_browser_that_began_it(self, realm, studio, browser):
        person = realm.person(roles=["owner"], organizations=["acme"])
        begun = await browser.get("/auth/login")
        answer, _ = await real.sign_in(begun.headers["location"], person)
        stranger = Browser(studio.url("gateway"))
        refused = await stranger.get("/auth/callback", params=answer, headers={"accept": "text/html"})
        assert refused.status_code == 401
        assert "not begun in this browser" in refused.text
        assert COOKIE not in stranger.cookies
        await stranger.aclose()
        assert (await browser.get("/auth/callback", params=answer)).status_code == 303
        assert (await browser.get("/auth/callback", params=answer)).status_code == 401  # good once
        assert await browser.is_logged_in()

    async def test_that_was_refused_there_is_told(self, browser, realm):
        begun = await browser.get("/auth/login")
        state = dict(part.split("=") for part in urlsplit(begun.headers["location"]).query.split("&"))["state"]
        query = {"error": "access_denied<script>", "state": state, "iss": realm.issuer}
        refused = await browser.get("/auth/callback", params=query, headers={"accept": "text/html"})
        assert refused.status_code == 401
        assert "access_denied&lt;script&gt;" in refused.text

    async def test_has_no_form_of_its_own(self, browser):
        for path in ("/auth/password?state=x", "/auth/register?token=x"):
            assert (await browser.get(path)).status_code == 404
        for path in ("/auth/password", "/auth/register"):
            assert (await browser.post(path, data={"state": "x", "token": "x"})).status_code == 404

    async def test_of_a_member_of_nothing_opens_nothing(self, realm, browser):
        await log_in(browser, realm.person(roles=["owner"], organizations=["zeta"]))  # of which there is no account
        refused = await browser.get("/v1/models")
        assert refused.status_code == 403
        assert "member of no account" in refused.json()["error"]["message"]


class TestRights:
    async def test_are_those_of_now_once_the_claims_are_renewed(self, realm, studio, browser):
        person = realm.person(roles=["admin"], organizations=["acme"])
        await log_in(browser, person)
        before = browser.cookies[COOKIE]
        realm.set_roles(person, ["viewer"])
        assert (await browser.session())["roles"] == ["admin"]  # as the provider said last
        async with parts_of_app(studio.app("gateway")).database.session() as session:
            await session.execute(text("UPDATE sessions SET claims_expire_at = now()"))
        assert (await browser.session())["roles"] == ["viewer"]
        assert browser.cookies[COOKIE] != before

    async def test_of_somebody_locked_out_are_none(self, realm, studio, browser):
        person = realm.person(roles=["admin"], organizations=["acme"])
        await log_in(browser, person)
        realm.admin.update_user(person.id, {"enabled": False})
        async with parts_of_app(studio.app("gateway")).database.session() as session:
            await session.execute(text("UPDATE sessions SET claims_expire_at = now()"))
        assert (await browser.get("/v1/models")).status_code == 401
        assert not await browser.is_logged_in()


class TestBackchannelLogout:
    async def test_ends_the_session_that_keycloak_ends_and_no_other(self, realm, studio, browser):
        person = realm.person()
        other = Browser(studio.url("gateway"))
        await log_in(browser, person)
        await log_in(other, realm.person())
        await asyncio.to_thread(realm.admin.user_logout, person.id)  # tells the studio, before it answers
        assert not await browser.is_logged_in()
        assert await other.is_logged_in()
        await other.aclose()

    async def test_is_refused_of_anybody_else(self, realm, studio, browser):
        await log_in(browser, realm.person())
        before = await row_count(studio)
        token = realm.access_token(realm.machine())
        for forged in ("", "a.b.c", token):
            refused = await browser.post("/auth/backchannel-logout", data={"logout_token": forged})
            assert refused.status_code == 400, refused.text
        assert await row_count(studio) == before
        assert await browser.is_logged_in()


class TestBearer:
    async def test_of_a_machine_opens_the_api(self, realm, browser):
        token = realm.access_token(realm.machine(roles=["developer"], organizations=["acme"]))
        header = {"authorization": f"Bearer {token}"}
        assert (await browser.get("/v1/models", headers=header)).status_code == 200
        body = {"model": "team/parrot", "prompt": "가나다", "max_tokens": 2}
        done = await browser.post("/v1/completions", json=body, headers=header)  # no cookie, so no proof is needed
        assert done.status_code == 200, done.text

    async def test_that_is_wrong_is_refused_in_each_dialect(self, realm, browser):
        wrong = realm.access_token(realm.machine(roles=["owner"], organizations=["acme"], audience="another-api"))
        for token in (wrong, wrong[:-8] + "AAAAAAAA", "a.b.c", f"hm_{secrets.token_hex(16)}"):
            for path in ("/v1/models", "/studio/v1/usage", "/info"):
                refused = await browser.get(path, headers={"authorization": f"Bearer {token}"})
                assert refused.status_code == 401, path

    async def test_does_what_its_role_may(self, realm, browser):
        token = realm.access_token(realm.machine(roles=["viewer"], organizations=["acme"]))
        body = {"model": "team/parrot", "prompt": "가나다"}
        refused = await browser.post("/v1/completions", json=body, headers={"authorization": f"Bearer {token}"})
        assert refused.status_code == 403
