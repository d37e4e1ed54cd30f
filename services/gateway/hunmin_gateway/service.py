"""The composition root of the gateway: its settings, its parts, its first key."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI
from hunmin_contracts.events import USAGE
from hunmin_kit.data import Database
from hunmin_kit.events import Subscription
from hunmin_kit.run import Platform, Service, Settings
from pydantic import AfterValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from hunmin_gateway.api import UPLOAD_PATHS, mount, render_error
from hunmin_gateway.audit.audit import STARTING, Audit
from hunmin_gateway.described import API_DESCRIPTION
from hunmin_gateway.keys.pepper import load_pepper
from hunmin_gateway.keys.ring import DEFAULT_ACCOUNT, KeyRing, keys_exist
from hunmin_gateway.keys.text import is_well_formed
from hunmin_gateway.parts import Parts, attach
from hunmin_gateway.pipeline import Pipeline
from hunmin_gateway.quotas.quotas import LEASE_S, Quotas
from hunmin_gateway.usage.ledger import UsageLedger
from hunmin_gateway.usage.lost import LostExchanges
from hunmin_gateway.welcome import Welcome

_SETTLE_EVERY_S = 30.0


def _a_key(value: SecretStr) -> SecretStr:
    if not is_well_formed(value.get_secret_value()):
        raise PydanticCustomError("key", "not an API key; make one with `hunmin keys new`")
    return value


class GatewaySettings(Settings):
    """HUNMIN_GATEWAY_…"""

    port: int = Field(default=8080, ge=0, le=65535)
    # The first key's value, for installations without a reader of the first start's output.
    bootstrap_key: Annotated[SecretStr, AfterValidator(_a_key)] | None = None
    # The secret that keys are hashed under; None: made on the first start and kept in HUNMIN_HOME/gateway/key_pepper.
    key_pepper: Annotated[SecretStr, Field(min_length=32)] | None = None
    # What /generate serves: a TGI server has one model, and its requests name none. None: the first one.
    tgi_model: Annotated[str, Field(min_length=1)] | None = None
    # After which others give back what a gateway that died had reserved.
    quota_lease_s: float = Field(default=LEASE_S, ge=1, le=3600)
    # When a request that was metered and has no row of usage is settled by another gateway, since its own must be lost.
    # Longer than a request may take (HUNMIN_STREAM_DEADLINE_S), and than the database may be away after it.
    lost_after_s: float = Field(default=900, gt=0)


@asynccontextmanager
async def build(platform: Platform, settings: GatewaySettings) -> AsyncGenerator[FastAPI, None]:
    """Put the gateway together; on leaving, wait for usage that is still being written."""
    await platform.check_schema()
    database = platform.database()
    pepper = await pepper_of(platform, settings, database)
    events = platform.events()
    bootstrap_key = settings.bootstrap_key.get_secret_value() if settings.bootstrap_key is not None else None
    if bootstrap_key is not None:
        async with database.session() as session:
            ring, audit = KeyRing(session, pepper=pepper), Audit(session, events, STARTING)
            await ring.ensure(bootstrap_key, DEFAULT_ACCOUNT, "bootstrap", audit=audit)
    generation = platform.client("generation")
    platform.on_ready(Welcome(database, pepper, events, generation, bootstrap_key=bootstrap_key).text)
    ledger, quotas = UsageLedger(database), Quotas(database, generation, lease_s=settings.quota_lease_s)
    app = platform.app(
        title="Hunmin Studio", render_error=render_error, upload_paths=UPLOAD_PATHS, description=API_DESCRIPTION
    )
    pipeline = Pipeline(generation, ledger, quotas)
    tokenizer, tuning = platform.client("tokenizer"), platform.client("tuning")
    attach(app, Parts(database, pepper, pipeline, generation, tokenizer, tuning, events, settings.tgi_model))
    mount(app)
    every_s = min(_SETTLE_EVERY_S, settings.lost_after_s)
    lost = LostExchanges(database, ledger, lost_after_s=settings.lost_after_s, every_s=every_s)
    settling = asyncio.create_task(lost.run())
    try:
        async with quotas.kept(), events.running(Subscription("lost-exchanges", USAGE, lost.note)):
            yield app
    finally:
        settling.cancel()
        await asyncio.gather(settling, return_exceptions=True)
        await ledger.finish()


async def pepper_of(platform: Platform, settings: GatewaySettings, database: Database) -> bytes:
    """Return the secret that keys are hashed under."""
    async with database.session() as session:
        exist = await keys_exist(session)
    configured = settings.key_pepper.get_secret_value() if settings.key_pepper is not None else None
    return load_pepper(platform.home / "gateway" / "key_pepper", configured=configured, keys_exist=exist)


SERVICE = Service(
    name="gateway",
    settings=GatewaySettings,
    build=build,
    needs=("generation", "tokenizer", "tuning"),
    migrations="hunmin_gateway.migrations",
    public=True,
)
