"""The rows that are in memory: loaded on first use, kept while they are used, the longest unused go first.

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

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.loads = 0
        self.evictions = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # longest unused first

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

        Uses that come while they are loaded wait for the same load, and share its error. `overloaded` if those in use
        leave no room.
        """
        entry = self._entries.get(key) or self._begin(key, size, load)
        self._entries.move_to_end(key)
        entry.users += 1
        try:
            yield await asyncio.shield(entry.rows)  # another user may wait for it too
        finally:
            entry.users -= 1
            if entry.is_forgotten and entry.is_idle:
                self._drop(entry)

    def forget(self, key: str) -> None:
        """Let the rows of `key` go, as soon as nobody uses them."""
        if (entry := self._entries.get(key)) is not None:
            entry.is_forgotten = True
            if entry.is_idle:
                self._drop(entry)

    def _begin(self, key: str, size: int, load: Load) -> _Entry:
        self._make_room(size)
        entry = _Entry(key, size, asyncio.create_task(_loaded(key, load)))
        entry.rows.add_done_callback(lambda task: self._ended(entry, task))
        self._entries[key] = entry
        self.held_bytes += size
        self.loads += 1
        return entry

    def _make_room(self, size: int) -> None:
        for entry in [entry for entry in self._entries.values() if entry.is_idle]:
            if self.held_bytes + size <= self.limit_bytes:
                return
            self._drop(entry)
            self.evictions += 1
        if self._entries and self.held_bytes + size > self.limit_bytes:
            raise HunminError(
                ErrorCode.OVERLOADED,
                "The soft prompts that are in use now leave no room for another. Send the request again later.",
                retry_after_s=_RETRY_AFTER_S,
            )

    def _ended(self, entry: _Entry, load: asyncio.Task[SoftPromptRows]) -> None:
        if load.cancelled() or load.exception() is not None or (entry.is_forgotten and entry.is_idle):
            self._drop(entry)

    def _drop(self, entry: _Entry) -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
            self.held_bytes -= entry.size


async def _loaded(key: str, load: Load) -> SoftPromptRows:
    return SoftPromptRows(key, await load())
