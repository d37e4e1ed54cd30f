"""People log in: at the studio's own form, or at Keycloak's pages where it has its people there."""

import asyncio
import re
import secrets
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from hunmin_kit.testing.keycloak import sign_in
from ways import ACCOUNT

PASSWORD = "나랏말싸미 듕귁에 달아"


class Browser:
    """Keeps cookies by hand: httpx takes 127.0.0.1 for no secure place, as browsers do."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)
        self._cookies: dict[str, str] = {}

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def send(self, method: str, path: str, **options) -> httpx.Response:
        headers = options.pop("headers", {}) | {"cookie": "; ".join(f"{k}={v}" for k, v in self._cookies.items())}
        answer = self._http.request(method, path, headers=headers, **options)
        for cookie in answer.headers.get_list("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value.strip('"')
            if "max-age=0" in cookie.lower():
                del self._cookies[name]
        return answer

    def begin(self, return_to: str) -> str:
        """Return the address of the page that asks who one is."""
        begun = self.send("GET", "/auth/login", params={"return_to": return_to})
        assert begun.status_code == 303, begun.text
        return begun.headers["location"]


def log_in_at_keycloak(browser: Browser, realm, email: str) -> httpx.Response:
    person = realm.person(roles=["developer"], organizations=[ACCOUNT])
    answer, _ = asyncio.run(sign_in(browser.begin("/docs"), person))
    return browser.send("GET", "/auth/callback", params=answer)


def log_in_at_the_form(browser: Browser, process, email: str) -> httpx.Response:
    invited = process.hunmin("identity", "invite", email, "--role", "developer")
    link = urlsplit(re.findall(r"http\S+", invited)[0])
    page = browser.send("GET", f"{link.path}?{link.query}")
    assert "비밀번호" in page.text
    (token,) = parse_qs(link.query)["token"]
    done = browser.send("POST", "/auth/register", data={"token": token, "name": "세종", "password": PASSWORD})
    assert done.status_code == 303, done.text
    shown = browser.send("GET", browser.begin("/docs"))
    (state,) = re.findall(r'name="state" value="([^"]+)"', shown.text)
    return browser.send("POST", "/auth/password", data={"state": state, "email": email, "password": PASSWORD})


def test_a_person_logs_in_asks_and_logs_out(studio, process, realm):
    if process is None and realm is None:
        pytest.skip("whom a studio that runs elsewhere lets in is not known here (E2E_REALM)")
    email = f"{secrets.token_hex(4)}@example.org"
    asked = {"model": studio.model, "prompt": "이 영화는", "max_tokens": 3}
    with Browser(studio.url) as browser:
        done = (
            log_in_at_the_form(browser, process, email) if realm is None else log_in_at_keycloak(browser, realm, email)
        )
        assert (done.status_code, done.headers["location"]) == (303, "/docs")
        session = browser.send("GET", "/auth/session").json()
        assert (session["organizations"], session["roles"]) == ([ACCOUNT], ["developer"])
        proof = {"X-Hunmin-CSRF": session["csrf"]}
        completion = browser.send("POST", "/v1/completions", json=asked, headers=proof)
        assert completion.json()["usage"]["completion_tokens"] > 0
        assert browser.send("POST", "/v1/completions", json=asked).status_code == 403
        assert browser.send("POST", "/auth/logout", headers=proof).status_code == 200
        assert browser.send("GET", "/auth/session").status_code == 401
