"""Keys over their life: the first one, more of them, revoked, expired, and the command that does it."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hunmin_contracts.errors import HunminError
from hunmin_contracts.ids import ApiKeyId
from hunmin_contracts.quotas import LimitName
from hunmin_contracts.tenancy import Role
from hunmin_gateway.api import UPLOAD_PATHS
from hunmin_gateway.keys.authentication import Authentication
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.keys.text import digest, new_key, visible_prefix
from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.quotas.limits import Limits
from hunmin_gateway.service import SERVICE
from hunmin_gateway.tables import ApiKey
from hunmin_kit.run.errors import StartError
from hunmin_kit.testing import Running, running
from hunmin_kit.testing.postgres import fresh_database
from sqlalchemy import event, text, update
from sqlalchemy.orm import Session

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def refusal(studio, key: str) -> str:
    response = await studio.http.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert response.status_code == 401, response.text
    return response.json()["error"]["message"]


class TestAuthentication:
    async def test_a_revoked_key_is_refused_at_once(self, studio):
        assert (await studio.http.get("/v1/models")).status_code == 200
        async with studio.parts.database.session() as session:
            ring = KeyRing(session, pepper=studio.parts.pepper)
            (info,) = [key.info for key in await ring.list() if key.info.prefix == visible_prefix(studio.key)]
            await ring.revoke(ApiKeyId(info.id))
        assert "was revoked" in await refusal(studio, studio.key)

    async def test_is_not_remembered_as_it_was_before_a_change_that_came_meanwhile(self, studio):
        async with studio.parts.database.session() as session:
            key, _ = await KeyRing(session, pepper=studio.parts.pepper).create("default", "new")
            await Limits(session).set("default", LimitName.REQUESTS_PER_MINUTE, 1000)  # or nothing is remembered
        statements = studio.parts.database.quick

        class Slow:
            async def fetch(self, *asked: Any) -> Any:
                found = await statements.fetch(*asked)
                authentication.forget()  # between the look-up and its end
                return found

        authentication = Authentication(Slow(), pepper=studio.parts.pepper)
        assert (await authentication.principal_of(key)).has_limits
        assert not authentication._remembered

    async def test_what_is_known_of_keys_is_forgotten_behind_the_change_and_before_its_answer(
        self, studio, monkeypatch
    ):
        steps: list[str] = []
        event.listen(Session, "after_commit", commit := lambda _: steps.append("commit"))
        monkeypatch.setattr(studio.parts.authentication, "forget", lambda: steps.append("forget"))
        async with studio.parts.database.session() as session:
            key, _ = await KeyRing(session, pepper=studio.parts.pepper).create("default", "owner's", role=Role.OWNER)
        steps.clear()
        made = await studio.http.post(
            "/studio/v1/keys", json={"name": "new"}, headers={"Authorization": f"Bearer {key}"}
        )
        event.remove(Session, "after_commit", commit)
        assert made.status_code == 201, made.text
        assert steps[-2:] == ["commit", "forget"]

    async def test_an_expired_key_is_refused(self, studio):
        async with studio.parts.database.session() as session:
            ring = KeyRing(session, pepper=studio.parts.pepper)
            old, _ = await ring.create("default", "old", lifetime=timedelta(seconds=-1))
            fresh, _ = await ring.create("default", "fresh", lifetime=timedelta(minutes=1))
        assert "has expired" in await refusal(studio, old)
        answer = await studio.http.get("/v1/models", headers={"Authorization": f"bearer {fresh}"})
        assert answer.status_code == 200

    async def test_a_typo_and_an_unknown_key_are_told_apart(self, studio):
        typo = studio.key[:10] + ("a" if studio.key[10] != "a" else "b") + studio.key[11:]
        assert "mistyped" in await refusal(studio, typo)
        assert "is unknown here" in await refusal(studio, new_key())

    async def test_a_wrong_key_is_refused_while_the_body_still_comes(self, studio):
        """Or anyone could fill the disk: a form with a file is kept in a temporary one as it comes."""
        described = (await studio.http.get("/openapi.json")).json()["paths"]
        paths = [path for path, calls in described.items() if "security" in calls.get("post", {})]
        assert len(paths) > 15
        url = httpx.URL(studio.url)
        for path in paths:
            reader, writer = await asyncio.open_connection(url.host, url.port)
            size = 900_000_000 if path in UPLOAD_PATHS else 9_000_000
            head = f"POST {path.replace('{', '').replace('}', '')} HTTP/1.1", "Host: x", f"Content-Length: {size}"
            form = "Content-Type: multipart/form-data; boundary=x", "Authorization: Bearer " + new_key(), "", "--x\r\n"
            writer.write("\r\n".join([*head, *form]).encode())
            async with asyncio.timeout(10):
                assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n", path
            writer.close()
            await writer.wait_closed()

    @pytest.mark.parametrize("header", [None, "", "Bearer", "Basic dTpw", "hm_x"])
    async def test_without_a_bearer_key_the_answer_says_how_to_send_one(self, studio, header):
        async with httpx.AsyncClient(base_url=studio.url) as http:
            response = await http.get(
                "/studio/v1/usage", headers={"Authorization": header} if header is not None else {}
            )
        assert response.status_code == 401
        assert "Authorization: Bearer" in response.json()["detail"]

    async def test_last_use_is_noted_once_a_minute(self, studio):
        async def last_used_at():
            async with studio.parts.database.session() as session:
                return await session.scalar(
                    text("SELECT last_used_at FROM api_keys WHERE digest = :digest"), {"digest": stored}
                )

        stored = digest(studio.key, pepper=studio.parts.pepper)
        assert await last_used_at() is None
        await studio.http.get("/v1/models")
        first = await last_used_at()
        await studio.http.get("/v1/models")
        assert first is not None
        assert await last_used_at() == first
        async with studio.parts.database.session() as session:
            await session.execute(
                update(ApiKey).where(ApiKey.digest == stored).values(last_used_at=first - timedelta(minutes=2))
            )
        await studio.http.get("/v1/models")
        assert await last_used_at() >= first

    async def test_the_key_itself_is_nowhere_in_the_database(self, studio):
        async with studio.parts.database.session() as session:
            rows = (await session.execute(text("SELECT api_keys::text FROM api_keys"))).scalars().all()
        assert rows
        assert not any(studio.key in row or studio.key[12:36] in row for row in rows)


@asynccontextmanager
async def two_gateways(neighbours, home: Path) -> AsyncIterator[tuple[Running, Running, dict[str, str]]]:
    """Two on one database, with the header of an owner of account `default`."""
    async with fresh_database() as database:
        env = {"HUNMIN_DATABASE_URL": database, "HUNMIN_HOME": str(home)}
        async with (
            running(SERVICE, *neighbours, env=env, network=True) as one,
            running(SERVICE, *neighbours, env=env, network=True) as other,
        ):
            first, *_ = await one.announcements("gateway")
            yield one, other, {"Authorization": "Bearer " + first.split("shown this once: ")[1].split()[0]}


ENDS = [("revoke", None), ("rotate", {"overlap_s": 0})]


class TestRevocationAtAnotherGateway:
    async def test_counts_at_once_in_an_account_without_limits(self, neighbours, tmp_path):
        async with (
            two_gateways(neighbours, tmp_path) as (one, other, owner),
            httpx.AsyncClient(base_url=one.url("gateway"), headers=owner) as http,
        ):
            for path, body in ENDS:
                made = (await http.post("/studio/v1/keys", json={"name": "k"})).json()
                assert await _status(other, made["key"]) == 200
                answer = await http.post(f"/studio/v1/keys/{made['info']['id']}/{path}", json=body)
                assert answer.is_success
                assert await _status(other, made["key"]) == 401

    async def test_counts_within_5_s_where_the_key_is_remembered(self, neighbours, tmp_path):
        async with (
            two_gateways(neighbours, tmp_path) as (one, other, owner),
            httpx.AsyncClient(base_url=one.url("gateway"), headers=owner) as http,
        ):
            async with parts_of_app(one.app("gateway")).database.session() as session:
                await Limits(session).set("default", LimitName.REQUESTS_PER_MINUTE, 100_000)  # or nothing is remembered
            for path, body in ENDS:
                made = (await http.post("/studio/v1/keys", json={"name": "k"})).json()
                await _warm(made["key"], one, other)
                answer = await http.post(f"/studio/v1/keys/{made['info']['id']}/{path}", json=body)
                ended_at = time.monotonic()
                assert answer.is_success
                assert await _status(one, made["key"]) == 401
                while (status := await _status(other, made["key"])) == 200:  # to use it must not prolong it
                    assert time.monotonic() < ended_at + 5, "refused at one, and served at the other 5 s later"
                assert status == 401


class TestFirstKey:
    async def test_is_printed_once_with_a_command_that_works(self, neighbours, tmp_path):
        async with fresh_database() as database:
            env = {"HUNMIN_DATABASE_URL": database, "HUNMIN_HOME": str(tmp_path)}
            async with running(SERVICE, *neighbours, env=env, network=True) as up:
                first, *_ = await up.announcements("gateway")
                key = first.split("shown this once: ")[1].split()[0]
                assert await _curl(first, up) == 200
                again, *_ = await up.announcements("gateway")
            async with running(SERVICE, *neighbours, env=env, network=True) as up:
                later, *_ = await up.announcements("gateway")
                assert await _status(up, key) == 200
        for text_ in (again, later):
            assert key not in text_
            assert visible_prefix(key) in text_
            assert "hunmin keys create" in text_

    async def test_is_one_though_two_gateways_begin_together(self, neighbours, tmp_path):
        async with fresh_database() as database:
            env = {"HUNMIN_DATABASE_URL": database, "HUNMIN_HOME": str(tmp_path)}
            async with running(SERVICE, *neighbours, env=env, network=True) as up:
                announced = await asyncio.gather(*(up.announcements("gateway") for _ in range(4)))
        assert sum("shown this once" in text_ for text_, *_ in announced) == 1

    async def test_can_be_chosen_and_is_not_printed(self, neighbours, tmp_path):
        key = new_key()
        async with fresh_database() as database:
            env = {"HUNMIN_DATABASE_URL": database, "HUNMIN_HOME": str(tmp_path), "HUNMIN_GATEWAY_BOOTSTRAP_KEY": key}
            for _ in range(2):
                async with running(SERVICE, *neighbours, env=env, network=True) as up:
                    announced, *_ = await up.announcements("gateway")
                    assert await _status(up, key) == 200
                    assert key not in announced
                    assert visible_prefix(key) in announced

    async def test_that_is_no_key_stops_the_start_and_says_how_to_make_one(self, neighbours):
        with pytest.raises(StartError, match=r"HUNMIN_GATEWAY_BOOTSTRAP_KEY.*hunmin keys new") as stop:
            async with running(SERVICE, *neighbours, env={"HUNMIN_GATEWAY_BOOTSTRAP_KEY": "secret"}):
                pass
        assert "secret" not in str(stop.value)


class TestCommand:
    async def test_makes_lists_rotates_and_revokes_keys(self, neighbours, hunmin, tmp_path):
        async with fresh_database() as database:
            env = {"HUNMIN_DATABASE_URL": database, "HUNMIN_HOME": str(tmp_path)}
            async with running(SERVICE, *neighbours, env=env, network=True) as up:
                made = await hunmin(["keys", "create", "for tests", "--account", "team", "--days", "1"], env)
                key, key_id = made.splitlines()[-1], made.split()[0]
                assert await _status(up, key) == 200
                listed = await hunmin(["keys", "list"], env)
                assert key not in listed
                assert all(part in listed for part in (key_id, "team", "for tests", visible_prefix(key), "valid until"))
                rotated = await hunmin(["keys", "rotate", key_id, "--overlap-s", "60"], env)
                assert [await _status(up, one) for one in (key, rotated.splitlines()[-1])] == [200, 200]
                await hunmin(["keys", "revoke", key_id], env)
                assert await _status(up, key) == 401
                with pytest.raises(HunminError, match="no key key_none"):
                    await hunmin(["keys", "revoke", "key_none"], env)

    async def test_new_prints_a_key_that_bootstraps_and_stores_nothing(self, tmp_path):
        done = await _command("new", home=tmp_path)
        key = done.stdout.strip()
        assert SERVICE.settings(bootstrap_key=key).bootstrap_key.get_secret_value() == key
        assert not list(tmp_path.iterdir())

    async def test_says_on_one_line_that_the_schema_is_missing(self, tmp_path):
        async with fresh_database() as database:
            done = await _command("list", home=tmp_path, HUNMIN_DATABASE_URL=database)
        assert done.returncode == 2
        assert done.stderr.startswith("hunmin: The schema gateway is at nothing")
        assert done.stderr.count("\n") == 1


async def _command(action: str, *, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HUNMIN_")}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", "from hunmin_command import main; main()", "keys", action],
        env=kept | {"HUNMIN_HOME": str(home)} | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


async def _warm(key: str, *gateways: Running) -> None:
    """Have each remember the key, all at the same time."""

    def is_known(up: Running) -> bool:
        parts = parts_of_app(up.app("gateway"))
        return digest(key, pepper=parts.pepper) in parts.authentication._remembered

    async with asyncio.timeout(30):
        while not all(map(is_known, gateways)):  # on a slow machine one may have forgotten it before the other knows
            assert await asyncio.gather(*(_status(up, key) for up in gateways)) == [200] * len(gateways)


async def _status(up: Running, key: str) -> int:
    async with httpx.AsyncClient(base_url=up.url("gateway")) as http:
        return (await http.get("/v1/models", headers={"Authorization": f"Bearer {key}"})).status_code


async def _curl(announced: str, up: Running) -> int:
    command = announced[announced.index("curl ") :].strip() + " --silent --output /dev/null --write-out '%{http_code}'"
    process = await asyncio.create_subprocess_shell(command, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    return int(output)
