"""Writes that outlast whoever asks for them, and a database that restarts."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from hunmin_contracts.errors import ErrorCode, HunminError

PATIENCE_S = 30.0  # for a database that restarts
_RETRY_S = 0.5
Write = Callable[[], Awaitable[object]]


class LastingWrites:
    """Writes, each a transaction, again while the database is away. `finish` before the service stops."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._unwritten: set[asyncio.Task[None]] = set()

    def start(self, write: Write, *, on_loss: Callable[[HunminError], object]) -> asyncio.Task[None]:
        """Begin to write, in a task that no caller's cancellation reaches; what ends it, it tells `on_loss` and raises.

        A connection that broke while committing may have committed: `write` must do no harm when it is done twice.
        """
        writing = asyncio.create_task(self._write(write, on_loss))
        self._unwritten.add(writing)
        writing.add_done_callback(self._unwritten.discard)
        return writing

    async def finish(self) -> None:
        """Wait for what is still being written."""
        await asyncio.gather(*self._unwritten, return_exceptions=True)

    async def _write(self, write: Write, on_loss: Callable[[HunminError], object]) -> None:
        give_up_at = time.monotonic() + self._patience_s
        while True:
            try:
                await write()
                return
            except HunminError as error:
                if error.code is not ErrorCode.UNAVAILABLE or time.monotonic() > give_up_at:
                    on_loss(error)
                    raise
            await asyncio.sleep(_RETRY_S)
