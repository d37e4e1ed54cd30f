"""The rows that are in memory: loaded on first use, kept while they are used, the longest unused go first.

What finds no room waits for it, first come, first served.

Lives in one event loop. It knows neither registry nor files.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_modeling.soft_prompt import SoftPromptRows
from torch import Tensor

Load = Callable[[], Coroutine[Any, Any, Tensor]]
_RETRY_AFTER_S = 1
_WAIT_S = 30.0  # for room


@dataclass(eq=False)
class _Entry:
    key: str
    size: int  # bytes
    rows: asyncio.Task[SoftPromptRows]
    users: int = 0
    is_forgotten: bool = False

    @property
    def is_idle(self) -> bool:
        return self.users == 0 and self.rows.done()


class Residents:
    """At most `limit_bytes` of rows, those of loads under way included; one soft prompt alone may be larger."""

    def __init__(self, limit_bytes: int, *, max_waiting: int, wait_s: float = _WAIT_S) -> None:
        """Let `max_waiting` uses wait for room, each for `wait_s` at most."""
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.loads = 0
        self.evictions = 0
        self.waiting = 0  # uses that wait for room
        self._max_waiting = max_waiting
        self._wait_s = wait_s
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # longest unused first
        self._turn = asyncio.Lock()  # of the first that waits: a lock is given in the order of arrival
        self._has_room = asyncio.Event()  # more of it than when that one looked last

    def __len__(self) -> int:
        """How many soft prompts are in memory, or on their way there."""
        return len(self._entries)

    @property
    def used(self) -> int:
        """How many of them are in use."""
        return sum(entry.users > 0 for entry in self._entries.values())

    @asynccontextmanager
    async def hold(self, key: str, size: int, load: Load) -> AsyncGenerator[SoftPromptRows, None]:
        """Keep the rows of `key`, `size` bytes of them, while the block lasts; `load` runs if they are not here.

        Uses that come while they are loaded wait for the same load, and share its error. While those in use leave no
        room it waits; `overloaded` after `wait_s`, or if too many wait.
        """
        entry = self._used(key) or await self._admitted(key, size, load)
        try:
            yield await asyncio.shield(entry.rows)  # another user may wait for it too
        finally:
            entry.users -= 1
            if entry.is_idle:
                self._has_room.set()
                if entry.is_forgotten:
                    self._drop(entry)

    def forget(self, key: str) -> None:
        """Let the rows of `key` go, as soon as nobody uses them."""
        if (entry := self._entries.get(key)) is not None:
            entry.is_forgotten = True
            if entry.is_idle:
                self._drop(entry)

    def _used(self, key: str) -> _Entry | None:
        """Return the entry of `key`, if there is one, with one use more."""
        if (entry := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
            entry.users += 1
        return entry

    async def _admitted(self, key: str, size: int, load: Load) -> _Entry:
        """Return what `_used` returns as soon as there is room for it, after those that wait already."""
        if self.waiting >= self._max_waiting and (self._turn.locked() or not self._fits(size)):
            raise _overloaded()
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s), self._turn:
                while (entry := self._used(key)) is None:
                    if self._fits(size):
                        self._begin(key, size, load)
                        continue
                    self._has_room.clear()
                    await self._has_room.wait()
                return entry
        except TimeoutError:
            raise _overloaded() from None
        finally:
            self.waiting -= 1

    def _fits(self, size: int) -> bool:
        """Tell whether `size` bytes have room beside what is in use, were all else dropped."""
        in_use = sum(entry.size for entry in self._entries.values() if not entry.is_idle)
        return not in_use or in_use + size <= self.limit_bytes

    def _begin(self, key: str, size: int, load: Load) -> None:
        """Load what fits, in the place of the longest unused."""
        for entry in [entry for entry in self._entries.values() if entry.is_idle]:
            if self.held_bytes + size <= self.limit_bytes:
                break
            self._drop(entry)
            self.evictions += 1
        entry = _Entry(key, size, asyncio.create_task(_loaded(key, load)))
        entry.rows.add_done_callback(lambda task: self._ended(entry, task))
        self._entries[key] = entry
        self.held_bytes += size
        self.loads += 1

    def _ended(self, entry: _Entry, load: asyncio.Task[SoftPromptRows]) -> None:
        if load.cancelled() or load.exception() is not None or (entry.is_forgotten and entry.is_idle):
            self._drop(entry)
        self._has_room.set()

    def _drop(self, entry: _Entry) -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
            self.held_bytes -= entry.size


def _overloaded() -> HunminError:
    return HunminError(
        ErrorCode.OVERLOADED,
        "The soft prompts that are in use now leave no room for another. Send the request again later.",
        retry_after_s=_RETRY_AFTER_S,
    )


async def _loaded(key: str, load: Load) -> SoftPromptRows:
    return SoftPromptRows(key, await load())
