"""Statements that every request runs: compiled once, sent by asyncpg itself, each a transaction in one round trip.

SQLAlchemy's session costs several times what such a statement does. And nobody waits for the disk at their commits
(`synchronous_commit=off`): a crash of PostgreSQL may lose those of its last second, one of ours loses none.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
from opentelemetry.trace import Tracer
from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

from hunmin_kit.data.failures import as_hunmin_errors, unavailable
from hunmin_kit.observe.tracing import call_span

_DIALECT = dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


class Quick:
    """A statement, prepared for asyncpg. Make it once, where the statement stands."""

    def __init__(self, statement: Executable) -> None:
        assert isinstance(statement, ClauseElement)  # noqa: S101  # every Executable is one; the types do not say so
        compiled = statement.compile(dialect=_DIALECT)
        assert isinstance(compiled, SQLCompiler)  # noqa: S101
        self.text = str(compiled)
        self.names = list(compiled.positiontup or [])
        self.constants = {name: value for name, value in compiled.params.items() if value is not None}
        self.operation = self.text.split(None, 1)[0].upper()


class NullRefused(Exception):
    """A NOT NULL has refused the statement, which has changed nothing. The message is the column."""


class QuickStatements:
    """Connections for them, beside the pool of a Database's sessions. Opened when they are needed."""

    def __init__(self, *, schema: str, tracer: Tracer, pool_size: int, connect_args: Mapping[str, Any]) -> None:
        self._schema = schema
        self._tracer = tracer
        self._pool_size = pool_size
        self._connect_args = dict(connect_args)
        self._pool: asyncio.Future[Any] | None = None

    async def fetch(self, statement: Quick, values: Mapping[str, Any] = {}) -> Sequence[Any]:
        """Run a statement as a transaction of its own; return its rows, whose columns are found by name.

        Raises NullRefused.
        """
        known = {**statement.constants, **values}
        arguments = [known[name] for name in statement.names]
        attributes = {"db.system.name": "postgresql", "db.namespace": self._schema}
        with as_hunmin_errors():
            try:
                with call_span(self._tracer, f"{statement.operation} {self._schema}", attributes):
                    async with (await self._opened()).acquire() as connection:
                        rows: Sequence[Any] = await connection.fetch(statement.text, *arguments)
                return rows
            except asyncpg.NotNullViolationError as error:
                raise NullRefused(error.column_name) from error
            except OSError as error:  # nothing but the database is asked for anything here
                raise unavailable() from error

    async def close(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            pool = await self._pool
            await pool.close()

    async def _opened(self) -> Any:
        if self._pool is None or (self._pool.done() and self._pool.exception() is not None):
            self._pool = asyncio.ensure_future(self._open())
        return await asyncio.shield(self._pool)

    async def _open(self) -> Any:
        settings = {**self._connect_args["server_settings"], "synchronous_commit": "off"}
        return await asyncpg.create_pool(
            **{**self._connect_args, "server_settings": settings},
            min_size=0,
            max_size=self._pool_size,
            reset=_nothing,  # a round trip; no statement here leaves anything behind
        )


async def _nothing(connection: Any) -> None:
    """Leave a connection as it is."""
