"""One service's schema in a PostgreSQL database, and its transactions."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
from hunmin_contracts.errors import ErrorCode, HunminError
from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
from opentelemetry.metrics import NoOpMeter
from opentelemetry.trace import Tracer
from sqlalchemy import URL, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

_CONNECT_TIMEOUT_S = 5
_IDLE_IN_TRANSACTION_S = 60  # no transaction waits for anything but the database: who is silent for so long is frozen
_RETRY_AFTER_S = 1
_NUL_IN_TEXT = "22021"  # character_not_in_repertoire: valid UTF-8 that PostgreSQL cannot store
# Class 08 is a lost connection; 57P0x a server that stops or starts; 53300 one that has no connection left; 25P03 a
# transaction that was given up because nothing came.
_UNAVAILABLE_STATES = ("08", "57P", "53300", "25P03")


class Database:
    """The schema `schema` of the database at `url`, with `public` behind it for the types of extensions."""

    def __init__(self, url: str, *, schema: str, tracer: Tracer, pool_size: int = 10) -> None:
        self.schema = schema
        self._engine = create_engine(url, schema=schema, pool_size=pool_size)
        usage = NoOpMeter("hunmin").create_up_down_counter("db.client.connections.usage")
        EngineTracer(tracer, self._engine.sync_engine, usage)  # type: ignore[no-untyped-call]
        # A closed session stays closed: a streaming route cannot open a second, uncommitted transaction by mistake.
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False, close_resets_only=False)

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[AsyncSession, None]:
        """Open one transaction: committed on a clean exit, rolled back on an error.

        A database that cannot be reached is UNAVAILABLE; the pool connects again by itself.
        """
        with _as_hunmin_errors():
            async with self._sessions.begin() as session:
                yield session

    async def ping(self) -> None:
        """Raise UNAVAILABLE unless the database answers."""
        async with self.session() as session:
            await session.execute(text("SELECT 1"))

    @asynccontextmanager
    async def bare_connection(self) -> AsyncGenerator[Any, None]:
        """Open a connection of asyncpg's own, beside the pool and in no transaction: to listen for notices."""
        with _as_hunmin_errors():
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
        await self._engine.dispose()


def create_engine(url: str, *, schema: str, pool_size: int = 10) -> AsyncEngine:
    """Return an engine on asyncpg whose unqualified names live in `schema`."""
    engine = create_async_engine(
        async_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,  # a failed statement must not carry its values into a log
        connect_args={
            "timeout": _CONNECT_TIMEOUT_S,
            "server_settings": {
                "search_path": f'"{schema}",public',
                "application_name": f"hunmin-{schema}",
                # Or a process that is stopped, not dead, would keep its row locks for ever.
                "idle_in_transaction_session_timeout": str(round(_IDLE_IN_TRANSACTION_S * 1000)),
            },
        },
    )
    event.listen(engine.sync_engine, "do_connect", _connect)
    return engine


def async_url(url: str) -> URL:
    """Return `url` with our driver, however its scheme is spelled."""
    return make_url(url).set(drivername="postgresql+asyncpg")


def _connect(dialect: Dialect, _record: object, arguments: list[Any], parameters: dict[str, Any]) -> DBAPIConnection:
    # Here and not around the session: an OSError of the application's own must stay what it is.
    try:
        return dialect.connect(*arguments, **parameters)
    except (OSError, asyncpg.PostgresError) as error:
        raise _unavailable() from error


@contextmanager
def _as_hunmin_errors() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        state = str(getattr(error.orig, "sqlstate", None) or "")
        if error.connection_invalidated or state.startswith(_UNAVAILABLE_STATES):
            raise _unavailable() from error
        if state == _NUL_IN_TEXT:
            raise HunminError(
                ErrorCode.INVALID_PARAMETER, "A text holds the character U+0000, which cannot be stored. Remove it."
            ) from error
        raise
    except PoolTimeoutError as error:
        raise _unavailable() from error


def _unavailable() -> HunminError:
    return HunminError(
        ErrorCode.UNAVAILABLE, "The database cannot be reached. Try again shortly.", retry_after_s=_RETRY_AFTER_S
    )
