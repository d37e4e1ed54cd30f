"""The composition root of the gateway: its settings, its parts, its first key."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI
from hunmin_contracts.events import BATCH, JOB, USAGE
from hunmin_kit.data import Database
from hunmin_kit.events import Events, Subscription
from hunmin_kit.run import Platform, Service
from hunmin_kit.run.errors import StartError
from pydantic import AfterValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from hunmin_gateway.api import UPLOAD_PATHS, mount, render_error
from hunmin_gateway.audit.audit import STARTING, Audit
from hunmin_gateway.batches.results import Results
from hunmin_gateway.batches.running import run_line
from hunmin_gateway.batches.validating import Validation
from hunmin_gateway.batches.worker import LEASE_S as LINE_LEASE_S
from hunmin_gateway.batches.worker import BatchWorker
from hunmin_gateway.described import API_DESCRIPTION
from hunmin_gateway.idempotency.keys import IdempotencyKeys
from hunmin_gateway.keys.authentication import Authentication
from hunmin_gateway.keys.pepper import load_pepper
from hunmin_gateway.keys.ring import DEFAULT_ACCOUNT, KeyRing, keys_exist
from hunmin_gateway.keys.text import is_well_formed
from hunmin_gateway.login.composition import login_parts
from hunmin_gateway.login.doors import attach_login
from hunmin_gateway.login.settings import LoginSettings
from hunmin_gateway.openai.batch_requests import OpenAIRequests
from hunmin_gateway.parts import Parts, attach
from hunmin_gateway.pipeline import Pipeline
from hunmin_gateway.quotas.holdings import Holdings
from hunmin_gateway.quotas.jobs import RunningJobs
from hunmin_gateway.quotas.quotas import LEASE_S, Quotas
from hunmin_gateway.quotas.storage import Storage, files_of, store_of
from hunmin_gateway.usage.ledger import UsageLedger
from hunmin_gateway.usage.lost import LostExchanges
from hunmin_gateway.welcome import Welcome

_SETTLE_EVERY_S = 1.0  # as long as room may be held that a cut request did not need


def _a_key(value: SecretStr) -> SecretStr:
    if not is_well_formed(value.get_secret_value()):
        raise PydanticCustomError("key", "not an API key; make one with `hunmin keys new`")
    return value


class GatewaySettings(LoginSettings):
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
    # Requests of batches that this gateway makes at a time; 0: it leaves them to others.
    batch_concurrency: int = Field(default=8, ge=0, le=1000)
    # After which others make the requests of batches that a gateway that died was making.
    batch_lease_s: float = Field(default=LINE_LEASE_S, ge=1, le=3600)


@asynccontextmanager
async def build(platform: Platform, settings: GatewaySettings) -> AsyncGenerator[FastAPI, None]:
    """Put the gateway together; on leaving, wait for usage that is still being written."""
    check_lost_after(settings.lost_after_s, stream_s=platform.deadlines.stream_s)
    await platform.check_schema()
    database = platform.database()
    pepper = await pepper_of(platform, settings, database)
    events = platform.events()
    bootstrap_key = await _bootstrap_key(settings, database, events, pepper)
    generation = platform.client("generation")
    platform.on_ready(Welcome(database, pepper, events, generation, bootstrap_key=bootstrap_key).text)
    ledger, quotas = UsageLedger(database), Quotas(database, generation, lease_s=settings.quota_lease_s)
    app = platform.app(
        title="Hunmin Studio", render_error=render_error, upload_paths=UPLOAD_PATHS, description=API_DESCRIPTION
    )
    tokenizer, tuning = platform.client("tokenizer"), platform.client("tuning")
    blobs, holdings = platform.blobs(), Holdings(database)
    jobs = RunningJobs(quotas, holdings)
    # Whatever keeps files of accounts is a store here, or its files are free.
    storage = Storage(database, quotas, holdings, [store_of(tuning), store_of(generation), files_of(database)])
    keys = IdempotencyKeys(database)
    parts = Parts(
        database,
        pepper,
        Authentication(database.quick, pepper=pepper),
        Pipeline(generation, ledger, quotas),
        generation,
        tokenizer,
        tuning,
        blobs,
        events,
        keys,
        jobs,
        storage,
        settings.tgi_model,
    )
    attach(app, parts)
    mount(app)
    every_s = min(_SETTLE_EVERY_S, settings.lost_after_s)
    lost = LostExchanges(database, ledger, lost_after_s=settings.lost_after_s, every_s=every_s)
    worker = batch_worker(platform, settings, parts)
    subscriptions = (
        Subscription("lost-exchanges", USAGE, lost.note),
        Subscription("batches", BATCH, worker.note),
        Subscription("running-jobs", JOB, jobs.note),
    )
    try:
        async with (
            login_parts(platform, settings, database, events, pepper) as login,
            quotas.kept(),
            keys.kept(),
            lost.settled(),
            events.running(*subscriptions),
            worker.running(),
        ):
            attach_login(app, login)
            yield app
    finally:
        await ledger.finish()
        await holdings.finish()


def check_lost_after(lost_after_s: float, *, stream_s: float) -> None:
    """Raise a StartError if a request may still run when it is held lost."""
    if lost_after_s <= stream_s:
        raise StartError(
            f"HUNMIN_GATEWAY_LOST_AFTER_S is {lost_after_s:g}, and a request may take {stream_s:g} s "
            "(HUNMIN_STREAM_DEADLINE_S): it would be settled while it runs. Set it higher."
        )


async def _bootstrap_key(settings: GatewaySettings, database: Database, events: Events, pepper: bytes) -> str | None:
    """Make the key that the settings name, where it is not there yet; return it."""
    if settings.bootstrap_key is None:
        return None
    key = settings.bootstrap_key.get_secret_value()
    async with database.session() as session:
        ring, audit = KeyRing(session, pepper=pepper), Audit(session, events, STARTING)
        await ring.ensure(key, DEFAULT_ACCOUNT, "bootstrap", audit=audit)
    return key


def batch_worker(platform: Platform, settings: GatewaySettings, parts: Parts) -> BatchWorker:
    """Return what runs batches in this gateway."""
    database, events, blobs, dialect = parts.database, parts.events, parts.blobs, OpenAIRequests(parts)
    return BatchWorker(
        database,
        events,
        validation=Validation(database, events, blobs, dialect),
        results=Results(database, events, blobs),
        run_line=lambda line: run_line(line, dialect, platform.tracer),
        concurrency=settings.batch_concurrency,
        lease_s=settings.batch_lease_s,
    )


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
