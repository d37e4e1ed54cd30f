"""Hears what PostgreSQL's NOTIFY tells. A hint alone: who waits for one looks anyway after a while."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from hunmin_contracts.errors import HunminError

from hunmin_kit.data.database import Database

_AGAIN_S = 1.0
_log = structlog.get_logger()


class Notices:
    """The notices of one channel with one payload."""

    def __init__(self) -> None:
        self._heard = asyncio.Event()

    def hear(self) -> None:
        """Wake who waits."""
        self._heard.set()

    async def wait(self, *, within_s: float) -> None:
        """Wait for a notice since the last call, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._heard.wait()
        self._heard.clear()


@asynccontextmanager
async def notices(database: Database, channel: str, *, payload: str) -> AsyncGenerator[Notices, None]:
    """Hear them as long as the block lasts, over a connection of its own that is made again when it breaks."""
    heard = Notices()
    listening = asyncio.create_task(_listen(database, channel, payload, heard))
    try:
        yield heard
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def _listen(database: Database, channel: str, payload: str, heard: Notices) -> None:
    def on_notice(_connection: Any, _pid: int, _channel: str, told: str) -> None:
        if told == payload:
            heard.hear()

    while True:
        broken = asyncio.Event()
        try:
            async with database.bare_connection() as connection:
                connection.add_termination_listener(lambda _connection, broken=broken: broken.set())
                await connection.add_listener(channel, on_notice)
                heard.hear()  # what came before
                await broken.wait()
        except HunminError as error:
            _log.info("events.notices.delayed", channel=channel, reason=error.message)
        await asyncio.sleep(_AGAIN_S)
