"""Enters services in the order of their needs and leaves them in reverse; chooses how they reach each other.

(Mounting an application does not run its lifespan, so this module enters each composition root itself.)"""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import structlog
from fastapi import FastAPI
from opentelemetry.sdk.trace.export import SpanExporter
from pydantic import HttpUrl, SecretStr, TypeAdapter, ValidationError
from sqlalchemy.exc import ArgumentError

from hunmin_kit.data.database import Database, async_url
from hunmin_kit.data.embedded import EmbeddedPostgres
from hunmin_kit.data.migrations import Chain
from hunmin_kit.observe.tracing import tracer_provider
from hunmin_kit.run.errors import StartError
from hunmin_kit.run.platform import Platform
from hunmin_kit.run.service import Service, find, in_order, installed_names
from hunmin_kit.run.settings import PREFIX, PlatformSettings, Settings, check_names, load_settings, service_prefix
from hunmin_kit.web.inprocess import InProcessTransport
from hunmin_kit.web.network import network_transport

IN_PROCESS_URL = "http://in-process"
_log = structlog.get_logger()


@dataclass(frozen=True)
class Plan:
    """What one process is to run, checked."""

    services: list[Service[Any]]
    platform: PlatformSettings
    settings: Mapping[str, Settings]
    urls: Mapping[str, str]  # of the services that are called over the network

    @property
    def needs_database(self) -> bool:
        """Whether any service has a schema."""
        return any(service.migrations for service in self.services)


def plan(services: Iterable[Service[Any]], environ: Mapping[str, str]) -> Plan:
    """Read and check every setting; a StartError says in one line what is wrong."""
    ordered = in_order(services)
    here = {service.name for service in ordered}
    callees = {need for service in ordered for need in service.needs}
    known = {PREFIX: PlatformSettings} | {service_prefix(service.name): service.settings for service in ordered}
    others = [service_prefix(name) for name in installed_names() if name not in here]
    check_names(environ, known, others, map(service_prefix, callees))
    platform = load_settings(PlatformSettings, PREFIX, environ)
    if platform.database_url is not None:
        _check_database_url(platform.database_url)
    settings = {
        service.name: load_settings(service.settings, service_prefix(service.name), environ) for service in ordered
    }
    urls = {name: url for name in callees if (url := _url_of(name, here, environ)) is not None}
    resolved = platform.model_copy(update={"home": platform.home.expanduser().resolve()})
    return Plan(ordered, resolved, settings, urls)


def _check_database_url(url: SecretStr) -> None:
    try:
        async_url(url.get_secret_value())
    except (ArgumentError, ValueError) as error:
        raise StartError(f"{PREFIX}DATABASE_URL is not valid: {error}.") from None


def _url_of(name: str, here: set[str], environ: Mapping[str, str]) -> str | None:
    """Return where `name` is called over the network, or None if it is called in this process."""
    prefix = service_prefix(name)
    url = environ.get(f"{prefix}URL")
    if url is not None:
        try:
            return str(TypeAdapter(HttpUrl).validate_python(url))
        except ValidationError:
            raise StartError(f"{prefix}URL is not valid: it is written as http://host:port.") from None
    if name in here:
        return None
    if name not in installed_names():
        raise StartError(f"{prefix}URL is not set, and the service {name} is not installed here. Set it.")
    port = load_settings(find(name).settings, prefix, environ).port
    return f"http://127.0.0.1:{port}"


@dataclass
class Hosted:
    """Services that are up."""

    apps: dict[str, FastAPI] = field(default_factory=dict)
    platforms: dict[str, Platform] = field(default_factory=dict)
    is_draining: bool = False


@asynccontextmanager
async def hosted(
    plan: Plan, *, migrate: bool = False, exporters: Mapping[str, SpanExporter] | None = None
) -> AsyncGenerator[Hosted, None]:
    """Bring every service of `plan` up, and down again in reverse. The database is embedded where none is given."""
    up = Hosted()
    async with AsyncExitStack() as stack:
        database_url = await stack.enter_async_context(database(plan))
        if migrate or plan.platform.database_url is None:
            await migrate_all(plan.services, database_url)
        for service in plan.services:
            with structlog.contextvars.bound_contextvars(service=service.name):
                exporter = (exporters or {}).get(service.name)
                await stack.enter_async_context(_hosted_service(plan, service, up, database_url, exporter))
                _log.info("service.started")
        yield up


@asynccontextmanager
async def database(plan: Plan) -> AsyncGenerator[str, None]:
    """Yield the URL of the database: the one that is set, or an embedded server's for as long as the block lasts."""
    if plan.platform.database_url is not None:
        yield plan.platform.database_url.get_secret_value()
    elif not plan.needs_database:
        yield ""
    else:
        server = EmbeddedPostgres(plan.platform.home / "postgres")
        async with server.running() as url:
            _log.info("database.server.started", folder=str(plan.platform.home / "postgres"))
            yield url


async def migrate_all(services: Iterable[Service[Any]], database_url: str) -> None:
    """Bring the schema of each service to head."""
    for service in services:
        if service.migrations is not None:
            await Chain(schema_of(service.name), service.migrations).upgrade(database_url)


def schema_of(service: str) -> str:
    """Return the name of that service's schema."""
    return service.replace("-", "_")


@asynccontextmanager
async def _hosted_service(
    plan: Plan, service: Service[Any], up: Hosted, database_url: str, exporter: SpanExporter | None
) -> AsyncGenerator[None, None]:
    endpoint = plan.platform.otlp_endpoint
    provider = tracer_provider(service.name, otlp_endpoint=str(endpoint) if endpoint else None, exporter=exporter)
    chain = Chain(schema_of(service.name), service.migrations) if service.migrations is not None else None
    schema = (
        Database(
            database_url,
            schema=schema_of(service.name),
            tracer=provider.get_tracer("hunmin_kit"),
            pool_size=plan.platform.database_pool_size,
        )
        if chain is not None
        else None
    )
    platform = Platform(
        service.name,
        plan.platform,
        tracer_provider=provider,
        transport=_transport_choice(plan, up),
        needs=service.needs,
        database=schema,
        chain=chain,
        is_draining=lambda: up.is_draining,
    )
    async with AsyncExitStack() as stack:
        stack.callback(provider.shutdown)
        if schema is not None:
            stack.push_async_callback(schema.close)
        stack.push_async_callback(platform.close)
        app = await stack.enter_async_context(service.build(platform, plan.settings[service.name]))
        up.apps[service.name] = app
        up.platforms[service.name] = platform
        yield
    _log.info("service.stopped", service=service.name)


def _transport_choice(plan: Plan, up: Hosted) -> Callable[[str], tuple[str, httpx.AsyncBaseTransport]]:
    def choose(name: str) -> tuple[str, httpx.AsyncBaseTransport]:
        if name in plan.urls:
            return plan.urls[name], network_transport(max_connections=plan.platform.max_connections)
        return IN_PROCESS_URL, InProcessTransport(lambda: _app_of(name, up))

    return choose


def _app_of(name: str, up: Hosted) -> FastAPI:
    if name not in up.apps:
        raise httpx.ConnectError(f"{name} is not up")
    return up.apps[name]
