"""Logging in with the studio's own form, in and out again, as browsers and those who abuse them would."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from hunmin_gateway.login.sessions import digest
from hunmin_gateway.service import SERVICE
from hunmin_kit.testing import running
from hunmin_kit.testing.postgres import fresh_database
from sqlalchemy import text

from .conftest import PASSWORD, Browser, in_a_browser, invite, real_page

pytestmark = pytest.mark.asyncio(loop_scope="session")
COOKIE = "__Host-hunmin"


async def run(parts, statement: str, **values: object) -> None:
    async with parts.database.session() as session:
        await session.execute(text(statement), values)


def row_of(browser: Browser) -> dict[str, bytes]:
    return {"digest": digest(browser.cookies[COOKIE])}


class TestLogin:
    async def test_with_the_form_goes_where_the_browser_wanted(self, browser, email):
        begun = await browser.get("/auth/login", params={"return_to": "/docs?page=2"})
        shown = await browser.get(begun.headers["location"])
        assert shown.headers["content-type"].startswith("text/html")
        (state,) = re.findall(r'name="state" value="([^"]+)"', shown.text)
        done = await browser.post("/auth/password", data={"state": state, "email": email, "password": PASSWORD})
        assert (done.status_code, done.headers["location"]) == (303, "/docs?page=2")
        session = await browser.session()
        assert (session["email"], session["name"], session["roles"]) == (email, "세종", ["developer"])
        assert session["organizations"] == ["default"]

    async def test_its_cookies_are_for_this_host_and_no_script(self, browser, email):
        await browser.open_form()
        (start,) = browser.set_cookies
        await browser.log_in(email)
        (session,) = [cookie for cookie in browser.set_cookies if cookie.startswith(f"{COOKIE}=")]
        for cookie in (start, session):
            assert cookie.startswith("__Host-")
            flags = {part.strip().lower() for part in cookie.split(";")[1:]}
            assert {"httponly", "secure", "samesite=lax", "path=/"} <= flags
            assert not any(flag.startswith("domain") for flag in flags)

    async def test_pages_allow_no_script_no_frame_and_no_cache(self, browser, parts):
        for path in ("/auth/password?state=x", await invite(parts)):
            page = await browser.get(path)
            assert page.status_code == 200
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
            assert page.headers["cache-control"] == "no-store"
            assert page.headers["referrer-policy"] == "no-referrer"
            assert "<script" not in page.text
            assert "비밀번호" in page.text
            assert "assword" in page.text

    async def test_with_a_wrong_password_shows_the_form_again(self, browser, email):
        wrong = await browser.log_in(email, "another <b>password", return_to="/docs")
        assert wrong.status_code == 401
        assert "The address or the password is wrong" in wrong.text
        assert email in wrong.text
        assert "another" not in wrong.text
        (state,) = re.findall(r'name="state" value="([^"]+)"', wrong.text)
        done = await browser.post("/auth/password", data={"state": state, "email": email, "password": PASSWORD})
        assert (done.status_code, done.headers["location"]) == (303, "/docs")

    async def test_what_is_typed_is_shown_as_text(self, browser):
        shown = await browser.log_in('"><script>alert(1)</script>@x')
        assert "<script" not in shown.text

    async def test_after_many_failures_must_wait(self, browser, email):
        for _ in range(6):
            assert (await browser.log_in(email, "a wrong guess")).status_code == 401
        locked = await browser.log_in(email)
        assert locked.status_code == 429
        assert int(locked.headers["retry-after"]) >= 1
        assert not await browser.is_logged_in()

    @pytest.mark.parametrize(
        "return_to",
        [
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "evil",
            "",
            "/a\r\nX: y",
            "javascript:alert(1)",
            "/한",
        ],
    )
    async def test_never_leads_out_of_the_studio(self, browser, return_to):
        refused = await browser.get("/auth/login", params={"return_to": return_to})
        assert refused.status_code == 400
        assert refused.json()["details"]["param"] == "return_to"
        assert browser.set_cookies == []

    async def test_works_in_two_tabs(self, browser, email):
        first, second = await browser.open_form("/first"), await browser.open_form("/second")
        for state, path in ((first, "/first"), (second, "/second")):
            form = {"state": state, "email": email, "password": PASSWORD}
            assert (await browser.post("/auth/password", data=form)).headers["location"] == path

    async def test_over_plain_http_from_elsewhere_is_refused_with_the_reason(self, browser):
        for host in ("studio.example", "10.0.0.7:8080", "127.0.0.1.evil.example"):
            refused = await browser.get("/auth/login", headers={"host": host})
            assert refused.status_code == 409
            assert "https://" in refused.json()["detail"]
        for host in ("localhost:8080", "[::1]:8080", "studio.localhost"):
            assert (await browser.get("/auth/login", headers={"host": host})).status_code == 303


class TestAnotherSite:
    async def test_cannot_log_a_browser_in_as_somebody_else(self, browser, other, email):
        state = await other.open_form()
        form = {"state": state, "email": email, "password": PASSWORD}
        refused = await browser.post("/auth/password", data=form)  # a form of another site, with the attacker's state
        assert refused.status_code == 401
        assert COOKIE not in browser.cookies

    async def test_cannot_change_anything_with_the_cookie_alone(self, browser, other, email):
        await browser.log_in(email)
        await other.log_in(email)
        foreign = await other.csrf()
        for headers in ({}, {"X-Hunmin-CSRF": ""}, {"X-Hunmin-CSRF": "guessed"}, foreign):
            for path in ("/auth/logout", "/auth/password/change", "/v1/completions"):
                body = {"current": PASSWORD, "new": "another password", "model": "m", "prompt": "p"}
                refused = await browser.post(path, headers=headers, json=body)
                assert refused.status_code == 403, path
        assert await browser.is_logged_in()

    async def test_cannot_fix_a_session(self, browser, other, email):
        await other.log_in(email)
        fixed = other.cookies[COOKIE]
        browser.cookies[COOKIE] = fixed
        await browser.log_in(email)
        assert browser.cookies[COOKIE] != fixed
        assert not await other.is_logged_in()  # the id that was fixed is over
        assert await browser.is_logged_in()

    async def test_cannot_make_up_a_session_or_a_start(self, browser, email):
        browser.cookies[COOKIE] = "made-up"
        assert (await browser.get("/auth/session")).status_code == 401
        state = await browser.open_form()
        (name,) = [name for name in browser.cookies if name.startswith("__Host-hunmin-login-")]
        browser.cookies[name] = browser.cookies[name][:-4] + "AAAA"
        form = {"state": state, "email": email, "password": PASSWORD}
        assert (await browser.post("/auth/password", data=form)).status_code == 401


class TestSession:
    async def test_opens_the_api_as_a_principal(self, browser, email):
        await browser.log_in(email)
        assert (await browser.get("/v1/models")).status_code == 200
        assert (await browser.get("/studio/v1/usage")).status_code == 200
        body = {"model": "team/parrot", "prompt": "가나다", "max_tokens": 2}
        done = await browser.post("/v1/completions", json=body, headers=await browser.csrf())
        assert done.status_code == 200, done.text

    async def test_a_refused_header_is_not_passed_over_for_it(self, browser, email):
        await browser.log_in(email)
        for header in ("Bearer hm_wrong", "Bearer a.b.c", "Basic eDp5", "Bearer", ""):
            refused = await browser.get("/v1/models", headers={"authorization": header})
            assert refused.status_code == 401, header

    async def test_tells_that_there_is_none(self, browser):
        missing = await browser.get("/auth/session")
        assert (missing.status_code, missing.json()["code"]) == (401, "unauthenticated")
        assert "/auth/login" in missing.json()["detail"]

    async def test_is_stored_as_a_digest(self, browser, email, parts):
        await browser.log_in(email)
        async with parts.database.session() as session:
            rows = str((await session.execute(text("SELECT * FROM sessions"))).all())
        assert browser.cookies[COOKIE] not in rows

    async def test_ends_when_it_is_not_used(self, browser, email, parts):
        await browser.log_in(email)
        await run(
            parts,
            "UPDATE sessions SET last_used_at = now() - interval '8 hours 1 second' WHERE digest = :digest",
            **row_of(browser),
        )
        assert not await browser.is_logged_in()

    async def test_ends_in_time_however_much_it_is_used(self, browser, email, parts):
        await browser.log_in(email)
        await run(parts, "UPDATE sessions SET expires_at = now() WHERE digest = :digest", **row_of(browser))
        assert not await browser.is_logged_in()

    async def test_has_the_rights_of_now_under_a_new_id(self, browser, email, parts):
        await browser.log_in(email)
        before, csrf = browser.cookies[COOKIE], await browser.csrf()
        await run(parts, "UPDATE local_users SET roles = '{viewer}' WHERE email = :email", email=email)
        await run(parts, "UPDATE sessions SET claims_expire_at = now() WHERE digest = :digest", **row_of(browser))
        assert (await browser.session())["roles"] == ["viewer"]
        after = browser.cookies[COOKIE]
        assert after != before
        assert await browser.csrf() == csrf  # the page that is open goes on
        old = {"cookie": f"{COOKIE}={before}"}
        browser.cookies.clear()
        assert (await browser.get("/auth/session", headers=old)).json()["roles"] == ["viewer"]  # for what is on its way
        over = "UPDATE sessions SET expires_at = expires_at - interval '10 s' WHERE digest = :digest"
        await run(parts, over, digest=digest(before))
        assert (await browser.get("/auth/session", headers=old)).status_code == 401

    async def test_ends_for_who_is_locked_out(self, browser, email, parts):
        await browser.log_in(email)
        await run(parts, "UPDATE local_users SET disabled_at = now() WHERE email = :email", email=email)
        await run(parts, "UPDATE sessions SET claims_expire_at = now() WHERE digest = :digest", **row_of(browser))
        assert (await browser.get("/v1/models")).status_code == 401
        assert not await browser.is_logged_in()


class TestLogout:
    async def test_ends_the_session_for_whoever_has_its_id(self, browser, email):
        await browser.log_in(email)
        stolen = {"cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
        done = await browser.post("/auth/logout", headers=await browser.csrf())
        assert done.json() == {"url": f"{browser.url}/"}
        assert COOKIE not in browser.cookies
        assert (await browser.get("/auth/session", headers=stolen)).status_code == 401

    async def test_leaves_other_browsers_alone(self, browser, other, email):
        await browser.log_in(email)
        await other.log_in(email)
        await browser.post("/auth/logout", headers=await browser.csrf())
        assert await other.is_logged_in()

    async def test_nobody_else_logs_out_here(self, browser):
        refused = await browser.post("/auth/backchannel-logout", data={"logout_token": "a.b.c"})
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        assert (await browser.get("/auth/callback?code=x&state=y")).status_code == 404


class TestPassword:
    async def test_a_change_ends_every_other_session(self, browser, other, email):
        await browser.log_in(email)
        await other.log_in(email)
        before = browser.cookies[COOKIE]
        body = {"current": PASSWORD, "new": "another password"}
        changed = await browser.post("/auth/password/change", json=body, headers=await browser.csrf())
        assert changed.status_code == 204
        assert browser.cookies[COOKIE] != before
        assert await browser.is_logged_in()
        assert not await other.is_logged_in()
        assert (await other.log_in(email)).status_code == 401
        assert (await other.log_in(email, "another password")).status_code == 303

    async def test_a_change_needs_the_one_of_now_and_a_good_one(self, browser, email):
        await browser.log_in(email)
        headers = await browser.csrf()
        wrong = {"current": "a wrong guess", "new": "another password"}
        assert (await browser.post("/auth/password/change", json=wrong, headers=headers)).status_code == 401
        common = {"current": PASSWORD, "new": "qwertyuiop"}
        assert (await browser.post("/auth/password/change", json=common, headers=headers)).status_code == 400
        assert (await browser.log_in(email)).status_code == 303


class TestRegistration:
    async def test_by_an_invitation_logs_in(self, browser, parts):
        link = await invite(parts, "new.user@example.org", roles=["viewer"])
        page = await browser.get(link)
        assert 'value="new.user@example.org" required readonly' in page.text
        (token,) = re.findall(r'name="token" value="([^"]+)"', page.text)
        weak = await browser.post("/auth/register", data={"token": token, "password": "short", "name": "훈민"})
        assert weak.status_code == 400
        assert "10 to 256" in weak.text
        assert "훈민" in weak.text
        done = await browser.post("/auth/register", data={"token": token, "password": PASSWORD, "name": "훈민"})
        assert (done.status_code, done.headers["location"]) == (303, "/")
        session = await browser.session()
        assert (session["email"], session["name"], session["roles"]) == ("new.user@example.org", "훈민", ["viewer"])
        used = await browser.get(link, headers={"accept": "text/html"})
        assert used.status_code == 404
        assert "다시 로그인" in used.text
        assert (await browser.get(link)).json()["code"] == "not_found"


@in_a_browser
class TestRealBrowser:
    async def test_registers_logs_in_and_keeps_the_cookie_over_plain_http_here(self, gateway, parts):
        async with real_page(gateway.url("gateway")) as page:
            await page.goto(await invite(parts, "real@example.org"))
            await page.fill("[name=name]", "세종")
            await page.fill("[name=password]", PASSWORD)
            await page.click("button")
            await page.wait_for_url("**/")
            session = await page.evaluate("fetch('/auth/session').then(answer => answer.json())")
            assert (session["email"], session["name"]) == ("real@example.org", "세종")
            logout = "headers => fetch('/auth/logout', {method: 'POST', headers}).then(answer => answer.status)"
            assert await page.evaluate(logout, {"X-Hunmin-CSRF": session["csrf"]}) == 200

            await page.goto("/auth/login?return_to=/docs")
            await page.fill("[name=email]", "real@example.org")
            await page.fill("[name=password]", "a wrong guess")
            await page.click("button")
            assert "wrong" in await page.inner_text("[role=alert]")
            await page.fill("[name=password]", PASSWORD)
            await page.click("button")
            await page.wait_for_url("**/docs")
            assert await page.evaluate("fetch('/studio/v1/usage').then(answer => answer.status)") == 200
            assert await page.evaluate("document.cookie") == ""


class TestFirstUser:
    async def test_registers_by_the_link_that_a_start_prints(self, neighbours, tmp_path):
        async with fresh_database() as database:
            env = {"HUNMIN_DATABASE_URL": database, "HUNMIN_HOME": str(tmp_path)}
            links = []
            for _ in range(2):
                async with running(SERVICE, *neighbours, env=env, network=True) as up:
                    links += [_link(line) for line in await up.announcements("gateway") if "/auth/register" in line]
            assert len(set(links)) == 2
            async with running(SERVICE, *neighbours, env=env, network=True) as up:
                browser = Browser(up.url("gateway"))
                (token,) = parse_qs(urlsplit(links[1]).query)["token"]
                form = {"token": token, "email": "Admin@example.org", "name": "", "password": PASSWORD}
                done = await browser.post("/auth/register", data=form)
                assert done.status_code == 303, done.text
                session = await browser.session()
                assert (session["email"], session["name"]) == ("admin@example.org", None)
                assert set(session["roles"]) == {"owner", "operator"}
                assert (await browser.get("/studio/v1/usage")).status_code == 200
                for link in links:
                    assert (await browser.get(urlsplit(link).path + "?" + urlsplit(link).query)).status_code == 404
                assert not [line for line in await up.announcements("gateway") if "/auth/register" in line]
                await browser.aclose()

    async def test_a_public_url_is_where_the_link_leads(self, neighbours):
        env = {"HUNMIN_GATEWAY_PUBLIC_URL": "https://studio.example.org"}
        async with running(SERVICE, *neighbours, env=env) as up:
            begun = await up.http("gateway").get("/auth/login", headers={"host": "10.0.0.7:8080"})
            assert begun.status_code == 303  # whatever the proxy's own request looks like
            (line,) = [line for line in await up.announcements("gateway") if "/auth/register" in line]
        assert _link(line).startswith("https://studio.example.org/auth/register?token=")


def _link(line: str) -> str:
    (link,) = re.findall(r"https?://\S+/auth/register\?token=\S+", line)
    return link
