"""The database of a process. Imported only where a service has a schema: SQLAlchemy and Alembic load slowly."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
from opentelemetry.sdk.trace import TracerProvider

from hunmin_kit.data.database import Database
from hunmin_kit.data.migrations import Chain
from hunmin_kit.run.errors import StartError
from hunmin_kit.run.plan import Plan
from hunmin_kit.run.service import Service
from hunmin_kit.web.app import ReadyCheck

_log = structlog.get_logger()


@asynccontextmanager
async def database(plan: Plan) -> AsyncGenerator[str, None]:
    """Yield the URL of the database: the one that is set, or an embedded server's for as long as the block lasts."""
    if plan.platform.database_url is not None:
        yield plan.platform.database_url.get_secret_value()
        return
    try:
        from hunmin_kit.data.embedded import EmbeddedPostgres
    except ImportError:  # as in images
        raise StartError("HUNMIN_DATABASE_URL is not set, and no PostgreSQL is installed here. Set it.") from None
    folder = plan.platform.home / "postgres"
    async with EmbeddedPostgres(folder).running() as url:
        _log.info("database.server.started", folder=str(folder))
        yield url


async def migrate_all(plan: Plan, database_url: str) -> None:
    """Bring the schema of each service to head."""
    for service in plan.services:
        if service.migrations is not None:
            await Chain(schema_of(service), service.migrations).upgrade(database_url)


def open_schema(
    service: Service[Any], plan: Plan, database_url: str, provider: TracerProvider
) -> tuple[Database, ReadyCheck]:
    """Return the schema of `service`, to be closed by the caller, and the check that it is at head."""
    if service.migrations is None:
        raise LookupError(f"{service.name} has no migrations.")
    name = schema_of(service)
    tracer = provider.get_tracer("hunmin_kit")
    database = Database(database_url, schema=name, tracer=tracer, pool_size=plan.platform.database_pool_size)
    return database, partial(Chain(name, service.migrations).check, database)


def schema_of(service: Service[Any]) -> str:
    """Return the name of that service's schema."""
    return service.name.replace("-", "_")
