"""Every route says what its caller needs, and lets in who has it and nobody else."""

import pytest
from fastapi import APIRouter, FastAPI
from hunmin_contracts.tenancy import SCOPES, Role, Scope
from hunmin_gateway.api import OPEN_PATHS, mount
from hunmin_gateway.authentication import OPERATOR, check_declared
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.studio.router import studio_router
from hunmin_gateway.tables import Account
from hunmin_kit.run.errors import StartError
from sqlalchemy import select

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def key_of(studio, role: Role) -> dict[str, str]:
    """Return the headers of a new key of that role."""
    async with studio.parts.database.session() as session:
        account = await session.scalar(select(Account.name).where(Account.id == studio.account_id))
        key, _ = await KeyRing(session, pepper=studio.parts.pepper).create(account, role, role=role)
    return {"Authorization": f"Bearer {key}"}


async def routes(studio) -> list[tuple[str, str, str]]:
    """Return method, path and the required right of every route that has one, with ids of nothing."""
    paths = (await studio.http.get("/openapi.json")).json()["paths"]
    found = []
    for path, calls in paths.items():
        for method, call in calls.items():
            for (rights,) in [one.values() for one in call.get("security", [])]:
                (right,) = rights
                found.append((method, path.replace("{", "").replace("}", ""), right))
    return found


@pytest.mark.parametrize("role", list(Role))
async def test_role_opens_the_routes_of_its_scopes_and_no_other(studio, role):
    headers = await key_of(studio, role)
    asked = await routes(studio)
    assert len(asked) > 40
    for method, path, right in asked:
        response = await studio.http.request(method, path, headers=headers)
        if right in SCOPES[role]:
            assert response.status_code not in (401, 403), (method, path, response.text)
        else:
            assert response.status_code == 403, (method, path, response.text)
            assert right in response.text, (method, path)


async def test_routes_that_are_described_without_a_right_are_open_on_purpose(studio):
    paths = (await studio.http.get("/openapi.json")).json()["paths"]
    bare = {path for path, calls in paths.items() if any(not call.get("security") for call in calls.values())}
    assert {path.replace("{name}", "{name:path}") for path in bare} <= OPEN_PATHS


async def test_missing_scope_is_named_in_each_dialect(studio):
    headers = await key_of(studio, Role.VIEWER)
    openai = await studio.http.post("/v1/completions", headers=headers, json={})
    error = openai.json()["error"]
    assert (openai.status_code, error["code"], error["type"]) == (403, "permission_denied", "permission_error")
    assert "the scope generate" in error["message"]
    problem = (await studio.http.post("/studio/v1/gradients", headers=headers, json={})).json()
    assert (problem["code"], problem["details"]["scope"]) == ("permission_denied", Scope.GRADIENTS)
    assert "the scope generate" in (await studio.http.post("/generate", headers=headers, json={})).json()["error"]


async def test_route_that_declares_nothing_cannot_be_made():
    router = studio_router()
    with pytest.raises(LookupError, match=r"/studio/v1/secrets declares no scope"):

        @router.get("/secrets")
        async def secrets() -> None: ...


async def test_route_that_anybody_reaches_stops_the_start():
    app, router = FastAPI(title="Hunmin Studio"), APIRouter(prefix="/studio/v1")

    @router.get("/secrets")
    async def secrets() -> None: ...

    app.include_router(router)
    with pytest.raises(StartError, match="/studio/v1/secrets is open to the world"):
        mount(app)


async def test_operator_s_routes_are_checked_like_any_other():
    assert OPERATOR not in set(Scope)
    check_declared(FastAPI().routes, open_paths=frozenset())
