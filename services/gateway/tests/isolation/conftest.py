"""The gateway before the real services that keep what accounts own, and everyone who may call it."""

import json
import secrets
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest_asyncio
from hunmin_contracts.ids import ApiKeyId
from hunmin_contracts.quotas import LimitName
from hunmin_contracts.tenancy import KeyKind, Role
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.login.browser import CSRF_HEADER
from hunmin_gateway.login.cookies import SESSION
from hunmin_gateway.login.doors import login_of_app
from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.quotas.limits import Limits
from hunmin_gateway.service import SERVICE
from hunmin_gateway.tables import ApiKey, Project, User
from hunmin_generation.service import SERVICE as GENERATION
from hunmin_kit.identity import Identity, Login
from hunmin_kit.testing import Running, running
from hunmin_tokenizer.service import SERVICE as TOKENIZER
from hunmin_tuning.jobs.tables import Job
from hunmin_tuning.service import SERVICE as TUNING
from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from isolation_actors import (  # noqa: E402  # needs the path above
    ADMIN,
    DEVELOPER,
    NEIGHBOUR,
    NOBODY,
    OPERATOR,
    OWNER,
    REVOKED,
    STRANGER,
    VIEWER,
    Actor,
)
from isolation_things import LIMIT, USER_EMAIL, USER_ID, make_job, make_soft_prompt  # noqa: E402

ROLES = {OWNER: Role.OWNER, ADMIN: Role.ADMIN, DEVELOPER: Role.DEVELOPER, VIEWER: Role.VIEWER}
STARTER = HERE.parents[3] / "training" / "models" / "starter"
ENVIRONMENT = {
    "HUNMIN_GENERATION_MODELS": json.dumps({"starter": str(STARTER)}),
    "HUNMIN_GENERATION_THREADS": "1",
    "HUNMIN_TUNING_MODELS": json.dumps({"starter": str(STARTER)}),
    "HUNMIN_TUNING_SLOTS": "0",  # jobs wait: whatever becomes of one, a request did it
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up() -> AsyncIterator[Running]:
    """Everything, in this process."""
    async with running(SERVICE, GENERATION, TOKENIZER, TUNING, env=ENVIRONMENT) as up_:
        yield up_


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(up: Running) -> dict[Actor, httpx.AsyncClient]:
    """A client for each actor. Who is to be refused by the key alone has one that once was the owner's."""
    parts = parts_of_app(up.app("gateway"))
    mine, other, above = (f"account {secrets.token_hex(6)}" for _ in range(3))
    keys: dict[Actor, str | None] = {NOBODY: None}
    async with parts.database.session() as session:
        ring = KeyRing(session, pepper=parts.pepper)
        keys[STRANGER], _ = await ring.create(other, "stranger", role=Role.OWNER)
        keys[OPERATOR], _ = await ring.create(above, "operator", role=Role.OWNER, kind=KeyKind.OPERATOR)
        keys[REVOKED], revoked_id = await ring.create(mine, "revoked", role=Role.OWNER)
        await ring.revoke(revoked_id)
        for actor, role in ROLES.items():
            keys[actor], _ = await ring.create(mine, str(actor), role=role)
        keys[NEIGHBOUR], neighbour_id = await ring.create(mine, "neighbour", role=Role.ADMIN)
        await _move_to_another_project(session, neighbour_id)
        await Limits(session).set(mine, LimitName.TOKENS_PER_MONTH, LIMIT)
        session.add(User(id=USER_ID, issuer="https://id.example", subject="1", email=USER_EMAIL, name="훈민"))
    clients = {}
    for actor, key in keys.items():
        clients[actor] = up.http("gateway")
        clients[actor].headers.update({} if key is None else {"authorization": f"Bearer {key}"})
    await _let_a_job_succeed(up, clients[OWNER])
    return clients


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def person(up: Running, callers: dict[Actor, httpx.AsyncClient]) -> httpx.AsyncClient:
    """The browser of somebody who has logged in, an owner of the stranger's account."""
    account_id = (await callers[STRANGER].get("/studio/v1/account")).json()["id"]
    account = (await callers[OPERATOR].get(f"/studio/v1/operator/accounts/{account_id}")).json()
    identity = Identity(
        issuer="https://id.example",
        subject=secrets.token_hex(8),
        email=None,
        name=None,
        organizations=frozenset({account["organization"]}),
        roles=frozenset({Role.OWNER}),
        session_id=None,
        expires_at=datetime.now(UTC) + timedelta(hours=1),
    )
    login = Login(identity=identity, secret="none")  # nobody renews it
    secret, session = await login_of_app(up.app("gateway")).sessions.begin(login, replacing=None)
    client = up.http("gateway")
    client.headers.update({"cookie": f"{SESSION}={secret}", CSRF_HEADER: session.csrf})
    return client


async def _move_to_another_project(session: AsyncSession, key_id: ApiKeyId) -> None:
    key = await session.get_one(ApiKey, key_id)
    project_id = f"proj_{secrets.token_hex(12)}"
    session.add(Project(id=project_id, account_id=key.account_id, name="another", is_default=False, archived_at=None))
    await session.flush()
    key.project_id = project_id


async def _let_a_job_succeed(up: Running, owner: httpx.AsyncClient) -> None:
    """Write what the tuning service would when a job ends: to run one takes minutes, and is tested elsewhere."""
    job, made = await make_job(owner), await make_soft_prompt(owner)
    ended = {"state": "succeeded", "step": 1, "total_steps": 1, "soft_prompt": made.ids["reference"]}
    async with up.platform("tuning").database().session() as session:
        await session.execute(
            update(Job).where(Job.id == job.ids["id"]).values(**ended, started_at=func.now(), ended_at=func.now())
        )
