"""`hunmin identity`, on a database and a Keycloak of its own."""

import argparse
import re
import secrets
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import pytest
from hunmin_contracts.errors import HunminError
from hunmin_gateway.commands import identity
from hunmin_gateway.commands.command import answer
from hunmin_gateway.service import SERVICE
from hunmin_kit.run.errors import StartError
from hunmin_kit.testing import Running, running
from hunmin_kit.testing import keycloak as real
from hunmin_kit.testing.postgres import fresh_database
from sqlalchemy import text

from .conftest import PASSWORD, Browser


async def hunmin(environ: dict[str, str], *arguments: str) -> str:
    parser = argparse.ArgumentParser()
    identity.add(parser.add_subparsers())
    options = parser.parse_args(["identity", *arguments])
    return await (identity.init if arguments[0] == "init" else answer)(options, environ)


class TestUsers:
    async def test_are_invited_listed_locked_out_and_given_another_password(self, neighbours, tmp_path):
        async with fresh_database() as database:
            env = {"HUNMIN_DATABASE_URL": database, "HUNMIN_HOME": str(tmp_path)}
            async with running(SERVICE, *neighbours, env=env, network=True) as up:
                browser = Browser(up.url("gateway"))
                await up.announcements("gateway")  # which makes the account
                with pytest.raises(HunminError, match="There is no account 'acme'"):
                    await hunmin(env, "invite", "a@example.org", "--account", "acme")
                invited = await hunmin(env, "invite", "a@example.org", "--role", "viewer")
                assert "http://127.0.0.1:8080/auth/register?token=" in invited
                await _follow(browser, invited, PASSWORD)
                assert (await browser.session())["organizations"] == ["default"]
                (row,) = [line for line in (await hunmin(env, "users")).splitlines() if "a@example.org" in line]
                assert re.search(r"default +viewer +active", row)

                changed = await hunmin(env, "change", "a@example.org", "--role", "developer", "--role", "operator")
                assert "is developer, operator in default" in changed
                (row,) = [line for line in (await hunmin(env, "users")).splitlines() if "a@example.org" in line]
                assert re.search(r"default +developer, operator +active", row)

                locked = await hunmin(env, "disable", "A@example.org")
                assert "1 of their sessions ended" in locked
                assert not await browser.is_logged_in()
                assert (await browser.log_in("a@example.org")).status_code == 401
                await hunmin(env, "enable", "a@example.org")
                await _follow(browser, await hunmin(env, "reset", "a@example.org"), "another password")
                assert (await browser.log_in("a@example.org", "another password")).status_code == 303
                await browser.aclose()
                for action in ("reset", "disable", "change"):
                    with pytest.raises(HunminError, match="There is no user"):
                        await hunmin(env, action, "nobody@example.org")
                assert await _noted(up) == [
                    ("cli", "user.invited"),
                    ("user", "user.registered"),
                    ("cli", "user.changed"),
                    ("cli", "user.disabled"),
                    ("cli", "user.enabled"),
                    ("cli", "user.reset_offered"),
                    ("user", "user.password_changed"),
                ]

    async def test_are_nobodys_where_a_provider_knows_the_people(self, tmp_path):
        async with fresh_database() as database:
            env = {"HUNMIN_DATABASE_URL": database, "HUNMIN_HOME": str(tmp_path)}
            async with running(SERVICE, env=env | _AWAY):
                pass
            provider = {
                "HUNMIN_GATEWAY_OIDC_ISSUER": "https://x.example/realms/h",
                "HUNMIN_GATEWAY_OIDC_CLIENT_SECRET": "s",
            }
            with pytest.raises(HunminError, match=r"no users of its own.*https://x\.example/realms/h"):
                await hunmin(env | provider, "users")


async def _noted(up: Running) -> list[tuple[str, str]]:
    """Return who did what to users, in order; no entry tells a password, or what became of it."""
    async with up.platform("gateway").database().session() as session:
        entries = "SELECT actor_kind, action, before, after FROM audit_entries WHERE action LIKE 'user.%' ORDER BY at"
        rows = (await session.execute(text(entries))).all()
    assert all("password" not in str(row.before or "") + str(row.after or "") for row in rows)
    return [(row.actor_kind, row.action) for row in rows]


_AWAY = {f"HUNMIN_{name}_URL": "http://nowhere.invalid" for name in ("GENERATION", "TOKENIZER", "TUNING")}


async def _follow(browser: Browser, text: str, password: str) -> None:
    (token,) = parse_qs(urlsplit(text.splitlines()[-1]).query)["token"]
    answer = await browser.post("/auth/register", data={"token": token, "password": password})
    assert answer.status_code == 303, answer.text


class TestSettings:
    @pytest.mark.parametrize(
        ("env", "message"),
        [
            ({"OIDC_ISSUER": "login.example"}, "OIDC_ISSUER is not valid"),
            ({"OIDC_ISSUER": "https://x/realms/h"}, "OIDC_CLIENT_SECRET"),
            (
                {"OIDC_ISSUER": "https://x/realms/h", "OIDC_CLIENT_SECRET": "s", "OIDC_AUDIENCE": "hunmin"},
                "would look like an access token",
            ),
            ({"OIDC_AUTHORIZED_PARTIES": "machine"}, "written as JSON"),
            ({"SESSION_IDLE_S": "0"}, "SESSION_IDLE_S is not valid"),
        ],
        ids=str,
    )
    async def test_that_are_wrong_stop_the_start(self, neighbours, env, message):
        with pytest.raises(StartError, match=message):
            async with running(SERVICE, *neighbours, env={f"HUNMIN_GATEWAY_{name}": env[name] for name in env}):
                pass


class TestInit:
    async def test_says_what_it_needs(self):
        with pytest.raises(StartError, match=r"HUNMIN_GATEWAY_OIDC_ISSUER.*realms/NAME"):
            await hunmin({}, "init")
        with pytest.raises(StartError, match="KEYCLOAK_ADMIN_PASSWORD"):
            await hunmin({"HUNMIN_GATEWAY_OIDC_ISSUER": "http://127.0.0.1:9/realms/hunmin"}, "init")
        env = {
            "HUNMIN_GATEWAY_OIDC_ISSUER": "http://127.0.0.1:9/realms/hunmin",
            "KEYCLOAK_ADMIN_PASSWORD": "x",
        }
        with pytest.raises(HunminError, match="cannot be reached"):
            await hunmin(env, "init")

    @pytest.mark.skipif(not real.is_there(), reason=real.ABSENT)
    @pytest.mark.timeout(300)
    async def test_makes_a_realm_that_the_gateway_works_with(self, neighbours):
        server_url, administrator = real.server()
        user, password = administrator.user, administrator.password
        realm = f"init-{secrets.token_hex(4)}"
        env = {
            "HUNMIN_GATEWAY_OIDC_ISSUER": f"{server_url}/realms/{realm}",
            "HUNMIN_GATEWAY_PUBLIC_URL": "http://127.0.0.1:4711",
        }
        asking = env | {"KEYCLOAK_ADMIN_PASSWORD": password}
        first = await hunmin(asking, "init", "--admin", user, "--organization", "acme")
        assert f"created  realm {realm}" in first
        assert "created  organization acme" in first
        secret = first.rpartition("HUNMIN_GATEWAY_OIDC_CLIENT_SECRET=")[2]
        env |= {"HUNMIN_GATEWAY_OIDC_CLIENT_SECRET": secret}
        again = await hunmin(env | {"KEYCLOAK_ADMIN_PASSWORD": password}, "init", "--organization", "acme")
        assert {line.split()[0] for line in again.splitlines()} == {"kept"}
        async with running(SERVICE, *neighbours, env=env, network=True) as up:
            browser = Browser(up.url("gateway"))
            begun = await browser.get("/auth/login")
            assert "redirect_uri=http%3A%2F%2F127.0.0.1%3A4711%2Fauth%2Fcallback" in begun.headers["location"]
            shown = await browser.get(begun.headers["location"])
            assert 'id="kc-form-login"' in shown.text
            await browser.aclose()


class TestEntryPoint:
    def test_is_a_subcommand_with_help(self):
        program = "import argparse, sys; from hunmin_gateway.commands.identity import add; "
        program += "p = argparse.ArgumentParser(); add(p.add_subparsers()); p.parse_args(['identity', '--help'])"
        shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for action in ("init", "users", "invite", "change", "reset", "disable", "enable"):
            assert action in shown.stdout
