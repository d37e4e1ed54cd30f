"""Alembic without an env.py per service: a chain is a package with `versions/`, its table is in its schema."""

import asyncio
import importlib.resources
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from hunmin_contracts.errors import ErrorCode, HunminError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from hunmin_kit.data.database import Database, create_engine

_POLL_S = 0.2
_log = structlog.get_logger()


class Chain:
    """The migrations of one service."""

    def __init__(self, schema: str, package: str) -> None:
        self._schema = schema
        folder = Path(str(importlib.resources.files(package)))
        self._script = ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])

    @property
    def head(self) -> str | None:
        """The newest revision that this code knows."""
        return self._script.get_current_head()

    async def upgrade(self, url: str) -> None:
        """Bring the schema to head, creating it if need be. Several may try at once: one works, others wait."""
        engine = create_engine(url, schema=self._schema, pool_size=2)
        try:
            async with self._lock(engine), engine.connect() as connection:
                await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"'))
                before = await connection.run_sync(self._current)
                await connection.commit()  # alembic commits each step itself, if no transaction is open
                if before == self.head:
                    return
                if before is not None and not self._knows(before):
                    _log.warning("database.schema.ahead", schema=self._schema, found=before, known=self.head)
                    return
                await connection.run_sync(self._run)
        finally:
            await engine.dispose()
        _log.info("database.schema.migrated", schema=self._schema, before=before, after=self.head)

    async def check(self, database: Database) -> None:
        """Raise UNAVAILABLE if the schema is behind this code. One that is ahead is a newer release's, and will do."""
        async with database.session() as session:
            connection = await session.connection()
            current = await connection.run_sync(self._current)
        if current != self.head and (current is None or self._knows(current)):
            raise HunminError(
                ErrorCode.UNAVAILABLE,
                f"The schema {self._schema} is at {current or 'nothing'}, this release needs {self.head}. "
                "Run `hunmin migrate`.",
            )

    def _knows(self, revision: str) -> bool:
        try:
            self._script.get_revision(revision)
        except CommandError:
            return False
        return True

    def _current(self, connection: Connection) -> str | None:
        context = MigrationContext.configure(connection, opts={"version_table_schema": self._schema})
        return context.get_current_revision()

    def _run(self, connection: Connection) -> None:
        def steps(revision, _context):  # type: ignore[no-untyped-def]  # alembic's own types are private
            return self._script._upgrade_revs("head", revision)

        with EnvironmentContext(Config(), self._script, fn=steps) as environment:
            environment.configure(
                connection=connection, version_table_schema=self._schema, transaction_per_migration=True
            )
            with environment.begin_transaction():
                environment.run_migrations()

    @asynccontextmanager
    async def _lock(self, engine: AsyncEngine) -> AsyncGenerator[None, None]:
        # Tried again and again rather than waited for: a waiting statement holds a snapshot, and the winner's
        # CREATE INDEX CONCURRENTLY would wait for it.
        key = {"key": f"hunmin migrate {self._schema}"}
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            while not await self._try_lock(connection, key):  # noqa: ASYNC110  # the event is in the database
                await asyncio.sleep(_POLL_S)
            try:
                yield
            finally:
                await connection.execute(text("SELECT pg_advisory_unlock(hashtextextended(:key, 0))"), key)

    async def _try_lock(self, connection: AsyncConnection, key: dict[str, str]) -> bool:
        return bool(await connection.scalar(text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))"), key))
