"""One PostgreSQL server for all tests of this user, fresh databases on it. Nothing of it is durable."""

import atexit
import functools
import os
import secrets
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from sqlalchemy import make_url

from hunmin_kit.data.embedded import SERVER_VERSION, EmbeddedPostgres

_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200", "shared_buffers=32MB")


@asynccontextmanager
async def fresh_database() -> AsyncGenerator[str, None]:
    """Yield the URL of an empty database that is dropped afterwards."""
    server = _server()
    name = f"test_{os.getpid()}_{secrets.token_hex(4)}"
    await _execute(server.url, f"CREATE DATABASE {name}")
    try:
        yield make_url(server.url).set(database=name).render_as_string(hide_password=False)
    finally:
        await _execute(server.url, f"DROP DATABASE {name} WITH (FORCE)")


@functools.cache
def _server() -> EmbeddedPostgres:
    """Start the server once per process. It is shared by test runs at the same time, and stopped by the last."""
    folder = Path(tempfile.gettempdir()) / f"hunmin-test-postgres-{SERVER_VERSION}-{os.getuid()}"
    server = EmbeddedPostgres(folder, options=_FAST)
    server.enter()
    atexit.register(server.leave)
    return server


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
