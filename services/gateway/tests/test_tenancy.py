"""Projects, members and keys through the Studio API: who sees what, who may what, and what stays."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import pytest
import pytest_asyncio
from hunmin_contracts.tenancy import SCOPES, Role
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.tenancy.principals import principal_of
from hunmin_kit.identity import Identity
from sqlalchemy import text

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/studio/v1"


@dataclass
class Caller:
    """Somebody with a key."""

    http: httpx.AsyncClient
    key: str
    id: str

    async def ask(self, method: str, path: str, status: int = 200, **options) -> dict:
        """Send a request under /studio/v1, which must be answered by that status."""
        response = await self.http.request(
            method, PATH + path, headers={"Authorization": f"Bearer {self.key}"}, **options
        )
        assert response.status_code == status, response.text
        return response.json() if response.content else {}

    async def make(self, **body) -> "Caller":
        """Make another key."""
        made = await self.ask("POST", "/keys", 201, json={"name": "made"} | body)
        return Caller(self.http, made["key"], made["info"]["id"])


@pytest_asyncio.fixture(loop_scope="session")
async def owner(studio) -> Caller:
    """The owner of a new account."""
    mine = await studio.http.get(f"{PATH}/me")
    return Caller(studio.http, studio.key, mine.json()["key_id"])


@pytest_asyncio.fixture(loop_scope="session")
async def stranger(studio) -> Caller:
    """The owner of another account."""
    async with studio.parts.database.session() as session:
        ring = KeyRing(session, pepper=studio.parts.pepper)
        key, key_id = await ring.create(f"another {new_key()}", "test", role=Role.OWNER)
    return Caller(studio.http, key, key_id)


@pytest_asyncio.fixture(loop_scope="session")
async def person(studio) -> str:
    """The id of a user who was here."""
    identity = Identity(
        issuer="https://id.example",
        subject=new_key(),
        email=None,
        name="훈민",
        organizations=frozenset({(await studio.http.get(f"{PATH}/account")).json()["name"]}),
        roles=frozenset({"viewer"}),
        session_id=None,
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    async with studio.parts.database.session() as session:
        return (
            await principal_of(session, studio.parts.events, identity, wanted_project=None, request_id=None)
        ).user_id


class TestMe:
    async def test_says_what_one_may_do(self, owner, studio):
        me = await owner.ask("GET", "/me")
        assert (me["role"], me["account"]["id"], me["is_operator"]) == ("owner", studio.account_id, False)
        assert (me["project"]["name"], me["project"]["is_default"]) == ("default", True)
        lesser = await owner.make(scopes=["read"], kind="test")
        me = await lesser.ask("GET", "/me")
        assert (me["role"], me["kind"], me["scopes"], me["is_account_wide"]) == ("viewer", "test", ["read"], False)

    async def test_account_is_renamed_by_its_owner_alone(self, owner, stranger):
        name = new_key()
        assert (await owner.ask("PATCH", "/account", json={"name": f"  {name} "}))["name"] == name
        assert (await owner.ask("GET", "/account"))["name"] == name
        problem = await stranger.ask("PATCH", "/account", 409, json={"name": name})
        assert problem["details"]["param"] == "name"
        admin = await owner.make(scopes=sorted(SCOPES[Role.ADMIN]), is_account_wide=True)
        assert "account" in (await admin.ask("PATCH", "/account", 403, json={"name": "x"}))["detail"]


class TestProjects:
    async def test_are_made_found_renamed_archived_and_restored(self, owner):
        made = await owner.ask("POST", "/projects", 201, json={"name": "감성 분석"})
        assert await owner.ask("GET", f"/projects/{made['id']}") == made
        assert [one["name"] for one in (await owner.ask("GET", "/projects?q=감성"))["data"]] == ["감성 분석"]
        assert (await owner.ask("GET", "/projects?q=%25"))["data"] == []
        renamed = await owner.ask("PATCH", f"/projects/{made['id']}", json={"name": "요약"})
        assert renamed == made | {"name": "요약"}
        key = await owner.make(project_id=made["id"])
        assert (await owner.ask("POST", f"/projects/{made['id']}/archive"))["archived_at"]
        await key.ask("GET", "/me", 403)
        await owner.ask("POST", "/keys", 409, json={"name": "late", "project_id": made["id"]})
        assert [one["id"] for one in (await owner.ask("GET", "/projects?archived=true"))["data"]] == [made["id"]]
        assert (await owner.ask("POST", f"/projects/{made['id']}/restore"))["archived_at"] is None
        await key.ask("GET", "/me")

    async def test_have_names_of_their_own_in_an_account(self, owner, stranger):
        await owner.ask("POST", "/projects", 201, json={"name": "one"})
        await owner.ask("POST", "/projects", 409, json={"name": "one"})
        other = await owner.ask("POST", "/projects", 201, json={"name": "two"})
        await owner.ask("PATCH", f"/projects/{other['id']}", 409, json={"name": "one"})
        await stranger.ask("POST", "/projects", 201, json={"name": "one"})

    async def test_default_one_stays(self, owner):
        (default,) = (await owner.ask("GET", "/projects"))["data"]
        await owner.ask("POST", f"/projects/{default['id']}/archive", 409)

    async def test_are_paged_newest_first(self, owner):
        for number in range(5):
            await owner.ask("POST", "/projects", 201, json={"name": str(number)})
        seen, cursor = [], ""
        while cursor is not None:
            query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
            page = await owner.ask("GET", "/projects", params=query)
            seen += [one["name"] for one in page["data"]]
            cursor = page["next_cursor"]
        assert seen == ["4", "3", "2", "1", "0", "default"]

    @pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101, None, 7])
    async def test_name_is_checked(self, owner, name):
        await owner.ask("POST", "/projects", 400, json={"name": name})


class TestIsolation:
    async def test_another_account_sees_and_changes_nothing(self, owner, stranger):
        project = (await owner.ask("POST", "/projects", 201, json={"name": "secret"}))["id"]
        key = await owner.make(project_id=project)
        member = (await owner.ask("POST", "/members", 201, json={"email": "a@b.c", "role": "viewer"}))["id"]
        for method, path, body in (
            ("GET", f"/projects/{project}", None),
            ("PATCH", f"/projects/{project}", {"name": "stolen"}),
            ("POST", f"/projects/{project}/archive", None),
            ("POST", f"/projects/{project}/restore", None),
            ("GET", f"/keys/{key.id}", None),
            ("POST", f"/keys/{key.id}/revoke", None),
            ("POST", f"/keys/{key.id}/rotate", {"overlap_s": 0}),
            ("POST", "/keys", {"name": "into", "project_id": project}),
            ("GET", f"/members/{member}", None),
            ("PATCH", f"/members/{member}", {"role": "developer"}),
            ("DELETE", f"/members/{member}", None),
            ("POST", "/members", {"email": "x@y.z", "role": "viewer", "project_id": project}),
        ):
            await stranger.ask(method, path, 404, json=body)
        for path in ("keys", "members", "usage", "usage/summary", "usage.csv"):
            await stranger.ask("GET", f"/{path}?project={project}", 404)
        for path in ("/projects?q=secret", "/members", "/audit", "/usage"):
            assert (await stranger.ask("GET", path))["data"] == []
        assert (await owner.ask("GET", f"/projects/{project}"))["name"] == "secret"
        assert (await owner.ask("GET", f"/members/{member}"))["role"] == "viewer"
        await key.ask("GET", "/me")

    async def test_key_of_a_project_sees_that_project_alone(self, owner):
        projects = [(await owner.ask("POST", "/projects", 201, json={"name": name}))["id"] for name in ("a", "b")]
        admins = [await owner.make(project_id=one, scopes=sorted(SCOPES[Role.OWNER])) for one in projects]
        other = await owner.make(project_id=projects[1])
        first = admins[0]
        assert [one["id"] for one in (await first.ask("GET", "/projects"))["data"]] == [projects[0]]
        assert {one["project_id"] for one in (await first.ask("GET", "/keys"))["data"]} == {projects[0]}
        assert {one["project_id"] for one in (await first.ask("GET", "/audit"))["data"]} == {projects[0]}
        for method, path, body in (
            ("GET", f"/projects/{projects[1]}", None),
            ("PATCH", f"/projects/{projects[1]}", {"name": "x"}),
            ("POST", f"/projects/{projects[1]}/archive", None),
            ("GET", f"/keys/{other.id}", None),
            ("POST", f"/keys/{other.id}/revoke", None),
            ("GET", f"/keys?project={projects[1]}", None),
            ("GET", f"/usage?project={projects[1]}", None),
            ("GET", f"/usage/summary?project={projects[1]}", None),
            ("GET", f"/usage.csv?project={projects[1]}", None),
        ):
            await first.ask(method, path, 404, json=body)
        for method, path, body in (
            ("POST", "/projects", {"name": "c"}),
            ("POST", f"/projects/{projects[0]}/archive", None),
            ("PATCH", "/account", {"name": "c"}),
            ("POST", "/keys", {"name": "c", "is_account_wide": True}),
        ):
            problem = await first.ask(method, path, 403, json=body)
            assert problem["details"]["scope"] == "account-wide"

    async def test_usage_is_a_project_s_own(self, owner, studio):
        project = (await owner.ask("POST", "/projects", 201, json={"name": "own"}))["id"]
        key = await owner.make(project_id=project)
        for caller in (owner, key):
            headers = {"Authorization": f"Bearer {caller.key}"}
            body = {"model": "team/parrot", "prompt": "가", "max_tokens": 2}
            assert (await studio.http.post("/v1/completions", headers=headers, json=body)).status_code == 200
        (row,) = (await key.ask("GET", "/usage"))["data"]
        assert (row["project_id"], row["key_id"]) == (project, key.id)
        assert len((await owner.ask("GET", "/usage"))["data"]) == 2
        assert (await owner.ask("GET", f"/usage?project={project}"))["data"] == [row]
        sums = (await owner.ask("GET", "/usage/summary?by=project"))["data"]
        assert {one["project_id"]: one["requests"] for one in sums}[project] == 1
        assert len(sums) == 2


class TestKeys:
    async def test_hold_no_right_that_their_maker_lacks(self, owner):
        admin = await owner.make(scopes=sorted(SCOPES[Role.ADMIN]), is_account_wide=True)
        assert (await admin.ask("POST", "/keys", 403, json={"name": "x", "scopes": ["account"]}))["details"] == {
            "scope": "account"
        }
        manager = await owner.make(scopes=["manage", "read"])
        made = await manager.ask("POST", "/keys", 201, json={"name": "x"})
        assert made["info"]["scopes"] == ["read"]
        for name in ("rotate", "revoke"):
            for key in (owner, admin):  # it would get, or take, what it has not
                await manager.ask("POST", f"/keys/{key.id}/{name}", 403, json={})

    async def test_are_described_without_their_secret(self, owner):
        made = await owner.ask("POST", "/keys", 201, json={"name": "shown once", "lifetime_s": 3600, "kind": "test"})
        info = made["info"]
        assert await owner.ask("GET", f"/keys/{info['id']}") == info
        assert made["key"] not in str(await owner.ask("GET", "/keys"))
        lifetime = datetime.fromisoformat(info["expires_at"]) - datetime.fromisoformat(info["created_at"])
        assert lifetime.total_seconds() == pytest.approx(3600)
        assert (info["kind"], info["created_by"], info["name"]) == ("test", owner.id, "shown once")

    async def test_are_listed_by_name_kind_maker_and_validity(self, owner):
        test = await owner.make(name="one", kind="test")
        gone = await owner.make(name="two")
        await owner.ask("POST", f"/keys/{gone.id}/revoke")

        async def listed(query: str) -> list[str]:
            return [one["id"] for one in (await owner.ask("GET", f"/keys?{query}"))["data"]]

        assert await listed("q=ON") == [test.id]
        assert await listed("kind=test") == [test.id]
        assert await listed(f"created_by={owner.id}") == [gone.id, test.id]
        assert await listed("valid=false") == [gone.id]
        assert await listed("valid=true") == [test.id, owner.id]

    async def test_revoked_one_is_refused_from_the_next_request_on(self, owner):
        key = await owner.make()
        await key.ask("GET", "/me")
        revoked = await owner.ask("POST", f"/keys/{key.id}/revoke")
        assert await owner.ask("POST", f"/keys/{key.id}/revoke") == revoked
        assert "revoked" in (await key.ask("GET", "/me", 401))["detail"]

    @pytest.mark.parametrize(
        "body",
        [{"kind": "operator"}, {"kind": "console"}, {"scopes": []}, {"scopes": ["all"]}, {"lifetime_s": 0}, {"x": 1}],
    )
    async def test_of_no_sense_are_refused(self, owner, body):
        await owner.ask("POST", "/keys", 400, json={"name": "x"} | body)


class TestRotation:
    async def test_both_are_valid_as_long_as_they_overlap(self, owner, studio):
        old = await owner.make(scopes=["read", "generate"], kind="test", lifetime_s=7200)
        made = await owner.ask("POST", f"/keys/{old.id}/rotate", 201, json={"overlap_s": 600})
        new = Caller(owner.http, made["key"], made["info"]["id"])
        for key in (old, new):
            await key.ask("GET", "/me")
        was = await owner.ask("GET", f"/keys/{old.id}")
        assert was["replaced_by"] == new.id
        same = ("scopes", "kind", "project_id", "name", "is_account_wide")
        assert {name: made["info"][name] for name in same} == {name: was[name] for name in same}
        ends_at = datetime.fromisoformat(was["expires_at"])
        assert 590 < (ends_at - datetime.now(UTC)).total_seconds() <= 600
        async with studio.parts.database.session() as session:
            await session.execute(text("UPDATE api_keys SET expires_at = now() WHERE id = :id"), {"id": old.id})
        assert "expired" in (await old.ask("GET", "/me", 401))["detail"]
        await new.ask("GET", "/me")

    async def test_without_overlap_the_old_one_is_refused_at_once(self, owner):
        old = await owner.make()
        await owner.ask("POST", f"/keys/{old.id}/rotate", 201, json={})
        await old.ask("GET", "/me", 401)

    async def test_never_lengthens_the_old_one_s_life(self, owner):
        old = await owner.make(lifetime_s=60)
        before = (await owner.ask("GET", f"/keys/{old.id}"))["expires_at"]
        await owner.ask("POST", f"/keys/{old.id}/rotate", 201, json={"overlap_s": 86_400})
        assert (await owner.ask("GET", f"/keys/{old.id}"))["expires_at"] == before

    async def test_happens_once(self, owner):
        old = await owner.make()
        bodies = [owner.http.request("POST", f"{PATH}/keys/{old.id}/rotate", json={"overlap_s": 60}) for _ in range(4)]
        statuses = sorted([response.status_code for response in await asyncio.gather(*bodies)])
        assert statuses == [201, 409, 409, 409]
        gone = await owner.make()
        await owner.ask("POST", f"/keys/{gone.id}/revoke")
        await owner.ask("POST", f"/keys/{gone.id}/rotate", 409, json={})


class TestMembers:
    async def test_are_added_found_changed_and_removed(self, owner, person):
        invited = await owner.ask("POST", "/members", 201, json={"email": " Kim@Example.COM ", "role": "developer"})
        assert (invited["email"], invited["user_id"], invited["project_id"]) == ("kim@example.com", None, None)
        known = await owner.ask("POST", "/members", 201, json={"user_id": person, "role": "viewer"})
        assert (known["user_id"], known["name"]) == (person, "훈민")
        assert [one["id"] for one in (await owner.ask("GET", "/members"))["data"]] == [known["id"], invited["id"]]
        assert [one["id"] for one in (await owner.ask("GET", "/members?q=KIM"))["data"]] == [invited["id"]]
        assert [one["id"] for one in (await owner.ask("GET", "/members?role=viewer"))["data"]] == [known["id"]]
        changed = await owner.ask("PATCH", f"/members/{known['id']}", json={"role": "admin"})
        assert changed == known | {"role": "admin"}
        await owner.ask("DELETE", f"/members/{known['id']}", 204)
        await owner.ask("GET", f"/members/{known['id']}", 404)

    async def test_are_so_once_in_each_place(self, owner, person):
        project = (await owner.ask("POST", "/projects", 201, json={"name": "p"}))["id"]
        for body in ({"user_id": person}, {"email": "a@b.c"}):
            for where in ({}, {"project_id": project}):
                await owner.ask("POST", "/members", 201, json={"role": "viewer"} | body | where)
                await owner.ask("POST", "/members", 409, json={"role": "admin"} | body | where)

    async def test_owners_and_admins_are_for_owners_to_make(self, owner):
        admin = await owner.make(scopes=sorted(SCOPES[Role.ADMIN]), is_account_wide=True)
        for role in ("owner", "admin"):
            problem = await admin.ask("POST", "/members", 403, json={"email": "a@b.c", "role": role})
            assert problem["details"]["scope"] == "account"
        viewer = await admin.ask("POST", "/members", 201, json={"email": "a@b.c", "role": "viewer"})
        await admin.ask("PATCH", f"/members/{viewer['id']}", 403, json={"role": "owner"})
        other = await owner.ask("POST", "/members", 201, json={"email": "o@b.c", "role": "owner"})
        await admin.ask("PATCH", f"/members/{other['id']}", 403, json={"role": "viewer"})
        await admin.ask("DELETE", f"/members/{other['id']}", 403)

    async def test_last_owner_stays(self, owner, person):
        last = await owner.ask("POST", "/members", 201, json={"user_id": person, "role": "owner"})
        invited = await owner.ask("POST", "/members", 201, json={"email": "a@b.c", "role": "owner"})
        await owner.ask("PATCH", f"/members/{last['id']}", 409, json={"role": "admin"})
        await owner.ask("DELETE", f"/members/{last['id']}", 409)
        await owner.ask("PATCH", f"/members/{last['id']}", json={"role": "owner"})
        await owner.ask("DELETE", f"/members/{invited['id']}", 204)  # who never came is no owner yet

    async def test_two_last_owners_do_not_leave_at_the_same_time(self, owner, studio, person):
        async with studio.parts.database.session() as session:
            await session.execute(
                text("INSERT INTO users (id, issuer, subject) VALUES (:id, 'test', :id)"), {"id": f"user_{new_key()}"}
            )
            second = await session.scalar(text("SELECT id FROM users WHERE issuer = 'test' ORDER BY created_at DESC"))
        ids = [
            (await owner.ask("POST", "/members", 201, json={"user_id": one, "role": "owner"}))["id"]
            for one in (person, second)
        ]
        answers = await asyncio.gather(*(owner.http.delete(f"{PATH}/members/{one}") for one in ids))
        assert sorted(answer.status_code for answer in answers) == [204, 409]

    @pytest.mark.parametrize(
        "body", [{}, {"email": "a@b.c", "user_id": "user_1"}, {"email": "nobody"}, {"email": "a@b.c", "role": "king"}]
    )
    async def test_are_named_in_one_way(self, owner, body):
        await owner.ask("POST", "/members", 400, json={"role": "viewer"} | body)

    async def test_unknown_user_is_not_found(self, owner):
        await owner.ask("POST", "/members", 404, json={"role": "viewer", "user_id": "user_none"})
