"""One service's schema in a PostgreSQL database, and its transactions."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
from opentelemetry.metrics import NoOpMeter
from opentelemetry.trace import Tracer
from sqlalchemy import URL, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from hunmin_kit.data.failures import as_hunmin_errors, unavailable
from hunmin_kit.data.quick import QuickStatements

_CONNECT_TIMEOUT_S = 5
_IDLE_IN_TRANSACTION_S = 60  # no transaction waits for anything but the database: who is silent for so long is frozen

ResultT = TypeVar("ResultT")


class Database:
    """The schema `schema` of the database at `url`, with `public` behind it for the types of extensions."""

    def __init__(self, url: str, *, schema: str, tracer: Tracer, pool_size: int = 10) -> None:
        self.schema = schema
        self._engine = create_engine(url, schema=schema, pool_size=pool_size)
        usage = NoOpMeter("hunmin").create_up_down_counter("db.client.connections.usage")
        EngineTracer(tracer, self._engine.sync_engine, usage)  # type: ignore[no-untyped-call]
        self.quick = QuickStatements(
            schema=schema, tracer=tracer, pool_size=pool_size, connect_args=_driver_arguments(self._engine, schema)
        )
        # A closed session stays closed: a streaming route cannot open a second, uncommitted transaction by mistake.
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False, close_resets_only=False)

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[AsyncSession, None]:
        """Open one transaction: committed on a clean exit, rolled back on an error.

        A database that cannot be reached is UNAVAILABLE; the pool connects again by itself.
        """
        with as_hunmin_errors():
            async with self._sessions.begin() as session:
                yield session

    async def run(self, work: Callable[[AsyncSession], Awaitable[ResultT]]) -> ResultT:
        """Do `work` in a transaction of its own; return what it returns."""
        async with self.session() as session:
            return await work(session)

    async def ping(self) -> None:
        """Raise UNAVAILABLE unless the database answers."""
        async with self.session() as session:
            await session.execute(text("SELECT 1"))

    @asynccontextmanager
    async def bare_connection(self) -> AsyncGenerator[Any, None]:
        """Open a connection of asyncpg's own, beside the pool and in no transaction: to listen for notices."""
        with as_hunmin_errors():
            async with self._engine.connect() as connection:
                await connection.run_sync(lambda sync: sync.detach())
                yield (await connection.get_raw_connection()).driver_connection

    async def has_table(self, name: str) -> bool:
        """Whether the schema has a table of that name."""
        async with self.session() as session:
            found = await session.scalar(text("SELECT to_regclass(:name)"), {"name": f'"{self.schema}"."{name}"'})
        return found is not None

    async def close(self) -> None:
        """Close every connection."""
        await self.quick.close()
        await self._engine.dispose()


def create_engine(url: str, *, schema: str, pool_size: int = 10) -> AsyncEngine:
    """Return an engine on asyncpg whose unqualified names live in `schema`."""
    engine = create_async_engine(
        async_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,  # a failed statement must not carry its values into a log
        connect_args=_connect_arguments(schema),
    )
    event.listen(engine.sync_engine, "do_connect", _connect)
    return engine


def _connect_arguments(schema: str) -> dict[str, Any]:
    return {
        "timeout": _CONNECT_TIMEOUT_S,
        "server_settings": {
            "search_path": f'"{schema}",public',
            "application_name": f"hunmin-{schema}",
            # Or a process that is stopped, not dead, would keep its row locks for ever.
            "idle_in_transaction_session_timeout": str(round(_IDLE_IN_TRANSACTION_S * 1000)),
        },
    }


def _driver_arguments(engine: AsyncEngine, schema: str) -> dict[str, Any]:
    """Return what asyncpg itself is told to connect as the engine does."""
    _, of_url = engine.dialect.create_connect_args(engine.url)
    return {**of_url, **_connect_arguments(schema)}


def async_url(url: str) -> URL:
    """Return `url` with our driver, however its scheme is spelled."""
    return make_url(url).set(drivername="postgresql+asyncpg")


def _connect(dialect: Dialect, _record: object, arguments: list[Any], parameters: dict[str, Any]) -> DBAPIConnection:
    # Here and not around the session: an OSError of the application's own must stay what it is.
    try:
        return dialect.connect(*arguments, **parameters)
    except (OSError, asyncpg.PostgresError) as error:
        raise unavailable() from error
