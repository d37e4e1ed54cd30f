"""Brings services up for a test the way `hunmin run` does, with every span kept."""

import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import _lru_cache_wrapper
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import structlog
from fastapi import FastAPI
from fastapi.dependencies import models
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from hunmin_kit.observe import logs
from hunmin_kit.run.hosting import IN_PROCESS_URL, Hosted, hosted
from hunmin_kit.run.plan import Plan, plan
from hunmin_kit.run.platform import Platform
from hunmin_kit.run.server import bind, listening, url_of
from hunmin_kit.run.service import Service
from hunmin_kit.run.settings import service_prefix
from hunmin_kit.testing.http import AppTransport
from hunmin_kit.testing.postgres import fresh_database
from hunmin_kit.web.client import Client
from hunmin_kit.web.inprocess import InProcessTransport
from hunmin_kit.web.network import NetworkTransport

_TIMEOUT_S = 30
_EMPTY: Mapping[str, str] = MappingProxyType({})
_NO_PORTS: Mapping[str, int] = MappingProxyType({})


@dataclass
class Running:
    """Services that are up."""

    _plan: Plan
    _up: Hosted
    _urls: Mapping[str, str]  # of open ports
    _exporters: Mapping[str, InMemorySpanExporter]
    _stack: AsyncExitStack

    def client(self, name: str) -> Client:
        """Return a client of that service, as another service has it."""
        deadlines, tracer = self._plan.platform.deadlines, trace.NoOpTracer()
        transport = (
            NetworkTransport(max_connections=100, connect_s=deadlines.connect_s)
            if name in self._urls
            else InProcessTransport(lambda: self.app(name))
        )
        client = Client(name, transport, tracer=tracer, base_url=self.url(name), deadlines=deadlines)
        self._stack.push_async_callback(client.aclose)
        return client

    def http(self, name: str) -> httpx.AsyncClient:
        """Return a bare HTTP client on that service's application; it streams."""
        transport = None if name in self._urls else AppTransport(lambda: self.app(name))
        client = httpx.AsyncClient(transport=transport, base_url=self.url(name), timeout=_TIMEOUT_S, trust_env=False)
        self._stack.push_async_callback(client.aclose)
        return client

    def app(self, name: str) -> FastAPI:
        """Return that service's application."""
        return self._up.apps[name]

    def platform(self, name: str) -> Platform:
        """Return what that service was given."""
        return self._up.platforms[name]

    def url(self, name: str) -> str:
        """Return where that service answers; of use to other programs only with `network=True`."""
        return self._urls.get(name, IN_PROCESS_URL)

    def spans(self, name: str) -> tuple[ReadableSpan, ...]:
        """Return the spans that this service has ended so far."""
        return self._exporters[name].get_finished_spans()

    async def announcements(self, name: str) -> list[str]:
        """Return what that service prints once it is up."""
        return await self._up.platforms[name].announce(self.url(name))


@asynccontextmanager
async def running(
    *services: Service[Any],
    env: Mapping[str, str] = _EMPTY,
    network: bool = False,
    ports: Mapping[str, int] = _NO_PORTS,
) -> AsyncGenerator[Running, None]:
    """Run `services` on a fresh, migrated database and with HUNMIN_HOME in a fresh folder, unless `env` says otherwise.

    They reach each other in process, or with `network=True` on `ports`, else on free ones. os.environ is not read.
    """
    if not structlog.is_configured():
        logs.configure(level="WARNING", form="json")
    async with AsyncExitStack() as stack:
        stack.callback(_forget_endpoints)
        environ = dict(env)
        if "HUNMIN_HOME" not in environ:
            environ["HUNMIN_HOME"] = str(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hunmin-"))))
        if "HUNMIN_DATABASE_URL" not in environ and any(service.migrations for service in services):
            environ["HUNMIN_DATABASE_URL"] = await stack.enter_async_context(fresh_database())
        listeners = (
            {service.name: bind("127.0.0.1", ports.get(service.name, 0), variable="") for service in services}
            if network
            else {}
        )
        urls = {name: url_of(listener) for name, listener in listeners.items()}
        needed = {need for service in services for need in service.needs}
        environ |= {f"{service_prefix(name)}URL": url for name, url in urls.items() if name in needed}
        exporters = {service.name: InMemorySpanExporter() for service in services}
        checked = plan(services, environ)
        up = await stack.enter_async_context(hosted(checked, migrate=True, exporters=exporters))
        for name, listener in listeners.items():
            await stack.enter_async_context(listening(up.apps[name], listener, drain_s=1))
        clients = await stack.enter_async_context(AsyncExitStack())
        yield Running(checked, up, urls, exporters, clients)


def _forget_endpoints() -> None:
    """Let go of what FastAPI's caches keep for good: an endpoint's function, and with it the service that made it."""
    for found in vars(models).values():
        if isinstance(found, _lru_cache_wrapper):
            found.cache_clear()
