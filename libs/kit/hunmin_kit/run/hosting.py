"""Enters services in the order of their needs and leaves them in reverse; chooses how they reach each other.

(Mounting an application does not run its lifespan, so this module enters each composition root itself.)"""

import asyncio
import ipaddress
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI
from opentelemetry.sdk.trace.export import SpanExporter

from hunmin_kit.observe.metrics import Metrics
from hunmin_kit.observe.tracing import tracer_provider
from hunmin_kit.run.plan import Plan
from hunmin_kit.run.platform import Platform
from hunmin_kit.run.service import Service
from hunmin_kit.run.settings import PlatformSettings
from hunmin_kit.web.balancing import BalancedTransport, named
from hunmin_kit.web.inprocess import InProcessTransport
from hunmin_kit.web.network import NetworkTransport
from hunmin_kit.web.transport import Transport, Unreachable

IN_PROCESS_URL = "http://in-process"
_log = structlog.get_logger()


@dataclass
class Hosted:
    """Services that are up."""

    apps: dict[str, FastAPI] = field(default_factory=dict)
    platforms: dict[str, Platform] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)
    is_draining: bool = False


@asynccontextmanager
async def hosted(
    plan: Plan, *, migrate: bool = False, exporters: Mapping[str, SpanExporter] | None = None
) -> AsyncGenerator[Hosted, None]:
    """Bring every service of `plan` up, and down again in reverse. An embedded database is always migrated first."""
    up = Hosted()
    async with AsyncExitStack() as stack:
        preloads = [
            threading.Thread(target=service.preload, daemon=True) for service in plan.services if service.preload
        ]
        for preload in preloads:
            preload.start()
        database_url = ""
        if plan.needs_database:
            from hunmin_kit.run import storage  # see there

            database_url = await stack.enter_async_context(storage.database(plan))
            if migrate or plan.platform.database_url is None:
                await storage.migrate_all(plan, database_url)
        for preload in preloads:
            await asyncio.to_thread(preload.join)
        for service in plan.services:
            with structlog.contextvars.bound_contextvars(service=service.name):
                _log.info("service.starting")
                started = time.monotonic()
                exporter = (exporters or {}).get(service.name)
                await stack.enter_async_context(_hosted_service(plan, service, up, database_url, exporter))
                _log.info("service.started", start_s=round(time.monotonic() - started, 2))
        yield up


@asynccontextmanager
async def _hosted_service(
    plan: Plan, service: Service[Any], up: Hosted, database_url: str, exporter: SpanExporter | None
) -> AsyncGenerator[None, None]:
    endpoint = plan.platform.otlp_endpoint
    provider = tracer_provider(service.name, otlp_endpoint=str(endpoint) if endpoint else None, exporter=exporter)
    async with AsyncExitStack() as stack:
        stack.callback(provider.shutdown)
        database = check_schema = None
        if service.migrations is not None:
            from hunmin_kit.run import storage

            database, check_schema = storage.open_schema(service, plan, database_url, provider)
            stack.push_async_callback(database.close)
        platform = Platform(
            service.name,
            plan.platform,
            tracer_provider=provider,
            metrics=up.metrics,
            transport=_transport_choice(plan, up),
            needs=service.needs,
            database=database,
            check_schema=check_schema,
            is_draining=lambda: up.is_draining,
        )
        stack.push_async_callback(platform.close)
        up.apps[service.name] = await stack.enter_async_context(service.build(platform, plan.settings[service.name]))
        up.platforms[service.name] = platform
        yield
    _log.info("service.stopped", service=service.name)


def _transport_choice(plan: Plan, up: Hosted) -> Callable[[str], tuple[str, Transport]]:
    def choose(name: str) -> tuple[str, Transport]:
        if name in plan.urls:
            return plan.urls[name], _to_replicas(plan.urls[name], plan.platform)
        return IN_PROCESS_URL, InProcessTransport(lambda: _app_of(name, up))

    return choose


def _to_replicas(url: str, settings: PlatformSettings) -> Transport:
    network = NetworkTransport(max_connections=settings.max_connections, connect_s=settings.deadlines.connect_s)
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None or _is_one_server(parts.hostname):
        return network  # by TLS a replica is known by the service's name alone, not by its address
    return BalancedTransport(network, named(parts.hostname, parts.port))


def _is_one_server(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def _app_of(name: str, up: Hosted) -> FastAPI:
    if name not in up.apps:
        raise Unreachable(f"{name} is not up")
    return up.apps[name]
