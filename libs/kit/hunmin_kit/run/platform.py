"""What a service gets from the process it runs in, and all it may know of that process."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI
from hunmin_contracts.errors import ErrorCode, HunminError
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry

from hunmin_kit.blobs import Blobs, open_blobs
from hunmin_kit.observe.metrics import Metrics
from hunmin_kit.run.errors import StartError
from hunmin_kit.run.settings import PlatformSettings
from hunmin_kit.web.app import AppParts, ReadyCheck, build_app
from hunmin_kit.web.client import Client, Deadlines
from hunmin_kit.web.errors import ErrorRenderer
from hunmin_kit.web.openapi import Description
from hunmin_kit.web.transport import Transport

if TYPE_CHECKING:
    from hunmin_kit.data.database import Database  # a service without a schema starts without SQLAlchemy
    from hunmin_kit.events import Events

_AGAIN_S = 1.0
_log = structlog.get_logger()
ReadyCallback = Callable[[str], Awaitable[str | None]]
TransportChoice = Callable[[str], tuple[str, Transport]]  # name → base URL and transport


class Platform:
    """One per service. `home` is where everything that a run writes is kept."""

    def __init__(
        self,
        service: str,
        settings: PlatformSettings,
        *,
        tracer_provider: TracerProvider,
        metrics: Metrics,
        transport: TransportChoice,
        needs: tuple[str, ...] = (),
        database: "Database | None" = None,
        check_schema: ReadyCheck | None = None,
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self.service = service
        self.home: Path = settings.home
        self.registry: CollectorRegistry = metrics.registry
        self.tracer: Tracer = tracer_provider.get_tracer(f"hunmin_{service}")
        self._settings = settings
        self._tracer_provider = tracer_provider
        self._metrics = metrics
        self._transport = transport
        self._needs = needs
        self._database = database
        self._check_schema = check_schema
        self._is_draining = is_draining
        self._clients: dict[str, Client] = {}
        self._ready_callbacks: list[ReadyCallback] = []

    def client(self, name: str) -> Client:
        """Return the client of another service, which must be among those this one needs."""
        if name not in self._needs:
            raise LookupError(f"{self.service} does not declare that it needs {name}: add it to Service.needs.")
        if name not in self._clients:
            base_url, transport = self._transport(name)
            self._clients[name] = Client(
                name, transport, tracer=self.tracer, base_url=base_url, deadlines=self.deadlines
            )
        return self._clients[name]

    def database(self) -> "Database":
        """Return this service's schema; a LookupError if the service has none."""
        if self._database is None:
            raise LookupError(f"{self.service} has no schema: give Service.migrations its chain.")
        return self._database

    def events(self) -> "Events":
        """Return what this service tells and subscribes to; its chain has the tables of events."""
        from hunmin_kit.run import backbone  # see there

        return backbone.events(self.database(), self._settings, tracer=self.tracer, metrics=self._metrics)

    @property
    def blobs_url(self) -> str | None:
        """Where `blobs` is, for processes elsewhere; None: a folder of this machine."""
        return self._settings.blobs_url

    @property
    def deadlines(self) -> Deadlines:
        """How long its clients wait."""
        return self._settings.deadlines

    def blobs(self) -> Blobs:
        """Return the store of files that every service shares; a StartError if its driver is not installed."""
        try:
            return open_blobs(self._settings.blobs_url, home=self.home)
        except (ImportError, ValueError) as error:
            raise StartError(
                f"HUNMIN_BLOBS_URL cannot be opened: {error}. Install its driver, or correct it."
            ) from None

    def app(
        self,
        *,
        title: str,
        ready: ReadyCheck | None = None,
        render_error: ErrorRenderer | None = None,
        upload_paths: Iterable[str] = (),
        description: Description | None = None,
    ) -> FastAPI:
        """Return an application with errors, request ids, limits, traces, metrics, /livez /readyz /metrics on it.

        `ready` raises HunminError(UNAVAILABLE) while the service cannot work. `render_error` gives errors another body.
        Files that are sent to `upload_paths` may be as large as HUNMIN_UPLOAD_LIMIT_BYTES. `description` is what the
        OpenAPI file says beside what routes and endpoints say themselves.
        """
        parts = AppParts(
            service=self.service,
            metrics=self._metrics,
            tracer_provider=self._tracer_provider,
            body_limit_bytes=self._settings.body_limit_bytes,
            upload_limit_bytes=self._settings.upload_limit_bytes,
            check_ready=self._check_ready,
            is_draining=self._is_draining,
        )
        app = build_app(
            parts,
            title=title,
            ready=ready,
            render_error=render_error,
            upload_paths=upload_paths,
            description=description,
        )
        app.state.database = self.database
        return app

    def on_ready(self, callback: ReadyCallback) -> None:
        """Call `callback` with the service's URL when every port is open; what it returns is printed on stdout."""
        self._ready_callbacks.append(callback)

    async def announce(self, url: str) -> list[str]:
        """Run the callbacks of `on_ready` and return their texts; for the process.

        Requests are answered by now, so what a callback cannot reach at the moment it waits for, and ends nothing.
        """
        texts = [await self._text(callback, url) for callback in self._ready_callbacks]
        return [text for text in texts if text is not None]

    async def _text(self, callback: ReadyCallback, url: str) -> str | None:
        while True:
            try:
                return await callback(url)
            except HunminError as error:
                if error.code is not ErrorCode.UNAVAILABLE:
                    raise
                _log.warning("process.announcement.delayed", reason=error.message)
                await asyncio.sleep(_AGAIN_S)

    async def close(self) -> None:
        """Close what the service was given; for the process."""
        for client in self._clients.values():
            await client.aclose()

    async def check_schema(self) -> None:
        """Raise UNAVAILABLE if the schema is behind this code; for a service that reads it while it starts."""
        if self._check_schema is not None:
            await self._check_schema()

    async def _check_ready(self) -> None:
        if self._is_draining():
            raise HunminError(ErrorCode.UNAVAILABLE, "The service is shutting down. Ask another instance.")
        await self.check_schema()
