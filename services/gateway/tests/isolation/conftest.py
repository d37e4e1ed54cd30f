"""The gateway before the real services that keep what accounts own, and everyone who may call it."""

import json
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest_asyncio
from hunmin_contracts.ids import ApiKeyId
from hunmin_contracts.quotas import LimitName
from hunmin_contracts.tenancy import Role
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.quotas.limits import Limits
from hunmin_gateway.service import SERVICE
from hunmin_gateway.tables import ApiKey, Project
from hunmin_generation.service import SERVICE as GENERATION
from hunmin_kit.testing import Running, running
from hunmin_tokenizer.service import SERVICE as TOKENIZER
from hunmin_tuning.service import SERVICE as TUNING
from sqlalchemy.ext.asyncio import AsyncSession

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from isolation_actors import NEIGHBOUR, NOBODY, OWNER, REVOKED, STRANGER, VIEWER, Actor  # noqa: E402  # needs the path above
from isolation_things import LIMIT  # noqa: E402

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
    mine, other = (f"account {secrets.token_hex(6)}" for _ in range(2))
    async with parts.database.session() as session:
        ring = KeyRing(session, pepper=parts.pepper)
        owner, _ = await ring.create(mine, "owner")
        stranger, _ = await ring.create(other, "stranger")
        revoked, revoked_id = await ring.create(mine, "revoked")
        await ring.revoke(revoked_id)
        viewer, _ = await ring.create(mine, "viewer", role=Role.VIEWER)
        neighbour, neighbour_id = await ring.create(mine, "neighbour")
        await _move_to_another_project(session, neighbour_id)
        await Limits(session).set(mine, LimitName.TOKENS_PER_MONTH, LIMIT)
    keys = {OWNER: owner, STRANGER: stranger, REVOKED: revoked, NOBODY: None, VIEWER: viewer, NEIGHBOUR: neighbour}
    clients = {}
    for actor, key in keys.items():
        clients[actor] = up.http("gateway")
        clients[actor].headers.update({} if key is None else {"authorization": f"Bearer {key}"})
    return clients


async def _move_to_another_project(session: AsyncSession, key_id: ApiKeyId) -> None:
    key = await session.get_one(ApiKey, key_id)
    project_id = f"proj_{secrets.token_hex(12)}"
    session.add(Project(id=project_id, account_id=key.account_id, name="another", is_default=False, archived_at=None))
    await session.flush()
    key.project_id = project_id
