"""The audit: each change with who made it, what was before and after, and no secret; in the change's transaction."""

import json

import pytest
import pytest_asyncio
from hunmin_contracts.audit import Action
from hunmin_contracts.events import AUDIT
from hunmin_contracts.tenancy import KeyKind, Role
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.parts import parts_of_app
from sqlalchemy import text

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/studio/v1"


async def send(studio, method: str, path: str, body: dict | None = None, *, key: str | None = None) -> dict:
    """Send a request, which must succeed."""
    headers = {"Authorization": f"Bearer {key or studio.key}", "x-request-id": "req_of_a_change"}
    response = await studio.http.request(method, PATH + path, json=body, headers=headers)
    assert response.is_success, response.text
    return response.json() if response.content else {}


async def last(studio, query: str = "") -> dict:
    """Return the newest change of the account."""
    return (await send(studio, "GET", f"/audit?limit=1&{query}"))["data"][0]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def operator(gateway) -> str:
    """An operator's key."""
    parts = parts_of_app(gateway.app("gateway"))
    async with parts.database.session() as session:
        ring = KeyRing(session, pepper=parts.pepper)
        return (await ring.create("operators", "test", kind=KeyKind.OPERATOR, role=Role.OWNER))[0]


class TestEntries:
    async def test_of_projects_tell_before_and_after(self, studio):
        own = (await send(studio, "GET", "/me"))["key_id"]
        made = await send(studio, "POST", "/projects", {"name": "one"})
        entry = await last(studio)
        assert {name: entry[name] for name in ("actor_kind", "actor_id", "action", "subject_id", "request_id")} == {
            "actor_kind": "key",
            "actor_id": own,
            "action": "project.created",
            "subject_id": made["id"],
            "request_id": "req_of_a_change",
        }
        assert (entry["account_id"], entry["project_id"]) == (studio.account_id, made["id"])
        assert (entry["before"], entry["after"]) == (None, made)
        for method, path, body, action in (
            ("PATCH", "", {"name": "two"}, "project.renamed"),
            ("POST", "/archive", None, "project.archived"),
            ("POST", "/restore", None, "project.restored"),
        ):
            before = await send(studio, "GET", f"/projects/{made['id']}")
            after = await send(studio, method, f"/projects/{made['id']}{path}", body)
            entry = await last(studio)
            assert (entry["action"], entry["before"], entry["after"]) == (action, before, after)

    async def test_of_keys_hold_no_secret(self, studio):
        made = await send(studio, "POST", "/keys", {"name": "one"})
        entry = await last(studio)
        assert (entry["action"], entry["before"], entry["after"]) == ("key.created", None, made["info"])
        rotated = await send(studio, "POST", f"/keys/{made['info']['id']}/rotate", {"overlap_s": 60})
        new, old = (await send(studio, "GET", "/audit?limit=2"))["data"]
        assert (new["action"], new["subject_id"]) == ("key.created", rotated["info"]["id"])
        assert (old["action"], old["before"]) == ("key.rotated", made["info"])
        assert old["after"]["replaced_by"] == rotated["info"]["id"]
        revoked = await send(studio, "POST", f"/keys/{made['info']['id']}/revoke")
        entry = await last(studio)
        assert (entry["action"], entry["after"]) == ("key.revoked", revoked)
        assert entry["before"]["revoked_at"] is None
        async with studio.parts.database.session() as session:
            rows = "\n".join(await session.scalars(text("SELECT audit_entries::text FROM audit_entries")))
            told = "\n".join(
                bytes(one).decode() for one in await session.scalars(text("SELECT content FROM event_outbox"))
            )
        assert made["info"]["id"] in rows
        for secret in (made["key"], rotated["key"], studio.key):
            assert secret[12:36] not in rows + told
            assert secret[12:36].encode().hex() not in rows + told

    async def test_of_members_and_the_account(self, studio):
        added = await send(studio, "POST", "/members", {"email": "a@b.c", "role": "viewer"})
        assert (await last(studio))["after"] == added
        changed = await send(studio, "PATCH", f"/members/{added['id']}", {"role": "admin"})
        entry = await last(studio)
        assert (entry["action"], entry["before"], entry["after"]) == ("member.changed", added, changed)
        await send(studio, "DELETE", f"/members/{added['id']}")
        entry = await last(studio)
        assert (entry["action"], entry["before"], entry["after"]) == ("member.removed", changed, None)
        before = await send(studio, "GET", "/account")
        after = await send(studio, "PATCH", "/account", {"name": f"{before['name']} 2"})
        entry = await last(studio)
        assert (entry["action"], entry["before"], entry["after"]) == ("account.renamed", before, after)

    async def test_of_operators_are_marked(self, studio, operator):
        own = (await send(studio, "GET", "/me", key=operator))["key_id"]
        account = f"/operator/accounts/{studio.account_id}"
        limit = await send(
            studio, "PUT", f"{account}/limits", {"name": "requests_per_minute", "value": 5}, key=operator
        )
        entry = await last(studio)
        kept = {name: limit[name] for name in ("id", "name", "model", "purpose", "value")}
        assert (entry["action"], entry["before"], entry["after"]) == ("limit.set", None, kept)
        assert (entry["actor_kind"], entry["actor_id"]) == ("operator", own)
        await send(studio, "PUT", f"{account}/limits", {"name": "requests_per_minute", "value": 9}, key=operator)
        entry = await last(studio)
        assert (entry["before"], entry["after"]) == (kept, kept | {"value": 9})
        await send(studio, "DELETE", f"{account}/limits/{limit['id']}", key=operator)
        entry = await last(studio)
        assert (entry["action"], entry["before"], entry["after"]) == ("limit.removed", kept | {"value": 9}, None)
        for name, action in (("suspend", "account.suspended"), ("resume", "account.resumed")):
            await send(studio, "POST", f"{account}/{name}", key=operator)
            await send(studio, "POST", f"{account}/{name}", key=operator)  # no change, and none is noted
            found = (await send(studio, "GET", f"/operator/audit?action={action}&limit=2", key=operator))["data"]
            assert [one["account_id"] for one in found].count(studio.account_id) == 1

    async def test_is_not_there_if_the_change_is_not(self, studio):
        await send(studio, "POST", "/projects", {"name": "one"})
        before = await last(studio)
        for body in ({"name": "one"}, {"name": ""}):
            assert (await studio.http.post(f"{PATH}/projects", json=body)).is_client_error
        assert await last(studio) == before

    async def test_is_of_the_transaction_that_makes_the_change(self, studio):
        made = await send(studio, "POST", "/projects", {"name": "one"})
        query = text(
            "SELECT audit_entries.xmin = projects.xmin FROM audit_entries JOIN projects ON projects.id = subject_id "
            "WHERE subject_id = :id"
        )
        async with studio.parts.database.session() as session:
            assert await session.scalar(query, {"id": made["id"]})

    async def test_is_told_as_an_event_with_it(self, studio):
        made = await send(studio, "POST", "/projects", {"name": "one"})
        entry = await last(studio)
        async with studio.parts.database.session() as session:
            query = text("SELECT key, content FROM event_outbox WHERE topic = :topic ORDER BY number DESC LIMIT 1")
            key, content = (await session.execute(query, {"topic": AUDIT.name})).one()
        told = json.loads(content)
        assert (key, told["type"]) == (studio.account_id, AUDIT.name)
        assert told["data"] == entry
        assert told["data"]["after"] == made


class TestList:
    async def test_is_filtered_by_who_what_and_when(self, studio):
        one = await send(studio, "POST", "/projects", {"name": "one"})
        key = await send(studio, "POST", "/keys", {"name": "k", "scopes": ["manage"], "is_account_wide": True})
        two = await send(studio, "POST", "/projects", {"name": "two"}, key=key["key"])

        async def subjects(query: str) -> list[str]:
            return [entry["subject_id"] for entry in (await send(studio, "GET", f"/audit?{query}"))["data"]]

        assert await subjects("") == [two["id"], key["info"]["id"], one["id"]]
        assert await subjects(f"actor={key['info']['id']}") == [two["id"]]
        assert await subjects(f"action={Action.KEY_CREATED}") == [key["info"]["id"]]
        assert await subjects(f"subject={one['id']}") == [one["id"]]
        middle = (await last(studio, f"subject={key['info']['id']}"))["at"].replace("+", "%2B")
        assert await subjects(f"since={middle}") == [two["id"], key["info"]["id"]]
        assert await subjects(f"until={middle}") == [one["id"]]
        page = await send(studio, "GET", "/audit?limit=2")
        rest = await send(studio, "GET", f"/audit?limit=2&cursor={page['next_cursor'].replace('+', '%2B')}")
        assert [entry["subject_id"] for entry in rest["data"]] == [one["id"]]
        assert rest["next_cursor"] is None

    @pytest.mark.parametrize("query", ["action=none", "since=yesterday", "cursor=x", "typo=1"])
    async def test_refuses_what_it_does_not_know(self, studio, query):
        assert (await studio.http.get(f"{PATH}/audit?{query}")).status_code == 400
