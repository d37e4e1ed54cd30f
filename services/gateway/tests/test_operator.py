"""Operators: accounts, limits and users above all accounts, and how an account that is suspended is refused."""

from datetime import UTC, datetime

import httpx
import openai
import pytest
import pytest_asyncio
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tenancy import KeyKind, Role
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.service import SERVICE
from hunmin_gateway.tenancy.principals import principal_of
from hunmin_kit.identity import Identity
from hunmin_kit.testing import running
from hunmin_kit.testing.postgres import fresh_database

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/studio/v1/operator"


@pytest_asyncio.fixture(loop_scope="session")
async def operator(studio) -> dict[str, str]:
    """The headers of an operator's key."""
    async with studio.parts.database.session() as session:
        ring = KeyRing(session, pepper=studio.parts.pepper)
        key, _ = await ring.create("operators", "test", kind=KeyKind.OPERATOR, role=Role.OWNER)
    return {"Authorization": f"Bearer {key}"}


async def send(studio, operator, method: str, path: str, status: int = 200, **options) -> dict:
    """Send an operator's request, which must be answered by that status."""
    response = await studio.http.request(method, PATH + path, headers=operator, **options)
    assert response.status_code == status, response.text
    return response.json() if response.content else {}


async def test_owner_of_an_account_is_none(studio):
    for method, path in (("GET", "/accounts"), ("POST", f"/accounts/{studio.account_id}/suspend"), ("GET", "/audit")):
        response = await studio.http.request(method, PATH + path)
        assert (response.status_code, response.json()["details"]["scope"]) == (403, "operator")


class TestAccounts:
    async def test_are_made_found_and_renamed(self, studio, operator):
        name = f"새 계정 {new_key()}"
        made = await send(studio, operator, "POST", "/accounts", 201, json={"name": name})
        await send(studio, operator, "POST", "/accounts", 409, json={"name": name})
        assert await send(studio, operator, "GET", f"/accounts/{made['id']}") == made
        found = await send(studio, operator, "GET", "/accounts", params={"q": name[2:].upper()})
        assert found["data"] == [made]
        renamed = await send(studio, operator, "PATCH", f"/accounts/{made['id']}", json={"name": f"{name}!"})
        assert renamed == made | {"name": f"{name}!"}
        await send(studio, operator, "GET", "/accounts/acct_none", 404)

    async def test_are_of_the_organization_that_an_operator_says(self, studio, operator):
        first, second, organization = (new_key() for _ in range(3))
        made = [await send(studio, operator, "POST", "/accounts", 201, json={"name": one}) for one in (first, second)]
        assert [one["organization"] for one in made] == [first, second]
        one, other = (f"/accounts/{account['id']}" for account in made)
        changed = await send(studio, operator, "PATCH", one, json={"organization": organization})
        assert changed == made[0] | {"organization": organization}
        await send(studio, operator, "PATCH", other, 409, json={"organization": organization})
        await send(studio, operator, "PATCH", one, json={"organization": None})
        both = await send(studio, operator, "PATCH", other, json={"name": f"{second}!", "organization": organization})
        assert both == made[1] | {"name": f"{second}!", "organization": organization}
        audit = await send(studio, operator, "GET", "/audit", params={"subject": made[1]["id"]})
        assert [entry["action"] for entry in audit["data"]] == [
            "account.organization_changed",
            "account.renamed",
            "account.created",
        ]
        owner = await studio.http.patch("/studio/v1/account", json={"organization": organization})
        assert owner.status_code == 400

    async def test_that_are_suspended_are_refused_everything_until_they_are_resumed(self, studio, operator):
        await send(studio, operator, "POST", f"/accounts/{studio.account_id}/suspend")
        with pytest.raises(openai.PermissionDeniedError) as refusal:
            await studio.client.models.list()
        assert refusal.value.code == "account_suspended"
        for path in ("/studio/v1/me", "/studio/v1/usage", "/studio/v1/keys"):
            response = await studio.http.get(path)
            assert (response.status_code, response.json()["code"]) == (403, "account_suspended")
        await send(studio, operator, "POST", f"/accounts/{studio.account_id}/resume")
        assert (await studio.http.get("/studio/v1/me")).status_code == 200


class TestLimits:
    async def test_are_set_listed_and_removed(self, studio, operator):
        path = f"/accounts/{studio.account_id}/limits"
        limit = {"name": "tokens_per_month", "value": 7, "purpose": "completion"}
        quota = await send(studio, operator, "PUT", path, json=limit)
        assert (quota["value"], quota["used"], quota["model"], quota["purpose"]) == (7, 0, "*", "completion")
        assert (await send(studio, operator, "GET", path))["data"] == [quota]
        assert (await studio.http.get("/studio/v1/quotas")).json()["data"] == [quota]
        with pytest.raises(openai.RateLimitError):
            await studio.client.completions.create(model="team/parrot", prompt="가", max_tokens=20)
        other = await send(studio, operator, "POST", "/accounts", 201, json={"name": new_key()})
        await send(studio, operator, "DELETE", f"/accounts/{other['id']}/limits/{quota['id']}", 404)
        await send(studio, operator, "DELETE", f"{path}/{quota['id']}", 204)
        assert (await send(studio, operator, "GET", path))["data"] == []

    @pytest.mark.parametrize("change", [{"name": "beauty"}, {"value": -1}, {"value": 2**63}, {"purpose": "fun"}])
    async def test_of_no_sense_are_refused(self, studio, operator, change):
        path = f"/accounts/{studio.account_id}/limits"
        await send(studio, operator, "PUT", path, 400, json={"name": "tokens_per_month", "value": 7} | change)
        await send(
            studio, operator, "PUT", "/accounts/acct_none/limits", 404, json={"name": "tokens_per_month", "value": 1}
        )


class TestCommand:
    async def test_makes_suspends_and_renames_accounts_and_an_operator_s_key(self, neighbours, hunmin, tmp_path):
        async with fresh_database() as database:
            env = {"HUNMIN_DATABASE_URL": database, "HUNMIN_HOME": str(tmp_path)}
            async with running(SERVICE, *neighbours, env=env, network=True) as up:
                made = await hunmin(["accounts", "create", "팀"], env)
                with pytest.raises(HunminError, match="already"):
                    await hunmin(["accounts", "create", "팀"], env)
                with pytest.raises(HunminError, match="no account 'none'"):
                    await hunmin(["accounts", "suspend", "none"], env)
                key = (await hunmin(["keys", "create", "k", "--account", "팀"], env)).splitlines()[-1]
                above = (await hunmin(["keys", "create", "k", "--operator", "--role", "viewer"], env)).splitlines()[-1]
                async with httpx.AsyncClient(base_url=up.url("gateway")) as http:

                    async def status(key: str, path: str) -> int:
                        return (await http.get(path, headers={"Authorization": f"Bearer {key}"})).status_code

                    assert await status(key, "/studio/v1/me") == 200
                    await hunmin(["accounts", "suspend", "팀"], env)
                    assert await status(key, "/studio/v1/me") == 403
                    assert "suspended" in await hunmin(["accounts", "list"], env)
                    await hunmin(["accounts", "resume", "팀"], env)
                    assert await status(key, "/studio/v1/me") == 200
                    assert await status(key, f"{PATH}/accounts") == 403
                    assert await status(above, f"{PATH}/accounts") == 200
                    organized = await hunmin(["accounts", "organization", "팀", "team"], env)
                    assert "the organisation team" in organized
                    assert "no organisation" in await hunmin(["accounts", "organization", "팀", "--none"], env)
                    renamed = await hunmin(["accounts", "rename", "팀", "새 팀"], env)
                    assert renamed.split(":")[0] == made.split(":")[0]
                    audit = (await http.get(f"{PATH}/audit", headers={"Authorization": f"Bearer {above}"})).json()
        told = [(one["action"], one["actor_kind"]) for one in audit["data"]]
        assert told == [
            ("account.renamed", "cli"),
            ("account.organization_changed", "cli"),
            ("account.organization_changed", "cli"),
            ("account.resumed", "cli"),
            ("account.suspended", "cli"),
            ("key.created", "cli"),
            ("account.created", "cli"),
            ("key.created", "cli"),
            ("account.created", "cli"),
        ]
        assert all(one["actor_id"] for one in audit["data"])


async def test_users_are_found_disabled_and_enabled(studio, operator):
    account = (await studio.http.get("/studio/v1/account")).json()["name"]
    who = Identity(
        issuer="https://id.example",
        subject=new_key(),
        email=f"{new_key()}@Example.com",
        name="훈민",
        organizations=frozenset({account}),
        roles=frozenset({"developer"}),
        session_id=None,
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    )

    async def ask() -> str | None:
        async with studio.parts.database.session() as session:
            return (await principal_of(session, studio.parts.events, who, wanted_project=None, request_id=None)).user_id

    user_id = await ask()
    (found,) = (await send(studio, operator, "GET", "/users", params={"q": who.email[:20].upper()}))["data"]
    assert (found["id"], found["subject"], found["email"]) == (user_id, who.subject, who.email.lower())
    await send(studio, operator, "POST", f"/users/{user_id}/disable")
    with pytest.raises(HunminError) as refusal:
        await ask()
    assert refusal.value.code is ErrorCode.FORBIDDEN
    await send(studio, operator, "POST", f"/users/{user_id}/enable")
    assert await ask() == user_id
    actions = (await send(studio, operator, "GET", f"/audit?subject={user_id}"))["data"]
    assert [one["action"] for one in actions] == ["user.enabled", "user.disabled"]


async def test_operator_s_key_is_made_by_no_api(studio, operator):
    mine = httpx.Headers(operator)
    response = await studio.http.post("/studio/v1/keys", headers=mine, json={"name": "x", "kind": "operator"})
    assert response.status_code == 400
