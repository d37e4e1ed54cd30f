"""The blocks of the KV pool: which are free, held by whom, and what they hold. Must not know torch or text.

A full block has a key, a digest of every token up to its end and of what those tokens mean (the sequence's root); one
can have a second key for its first tokens, where a soft prompt ends in it. A block that nobody holds keeps its content
until it is needed, so that a later sequence that begins alike starts from it; what is expected to be used again, a soft
prompt, outlasts the rest.
"""

import hashlib
import heapq
from array import array
from collections import OrderedDict
from collections.abc import Sequence

Key = bytes


def root_key(*parts: str) -> Key:
    """Return the key that chains of blocks begin with: sequences share blocks only if every part is the same."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()


def next_key(key: Key, tokens: "array[int]") -> Key:
    """Return the key of `tokens`, a block or the beginning of one, that follow the block of `key`."""
    return hashlib.sha256(key + tokens.tobytes()).digest()


class BlockPool:
    """Hands out block numbers, the lowest free one first: attention reads stretches of neighbours where they lie."""

    def __init__(self, count: int, *, block_size: int) -> None:
        """Own the blocks 0 to `count - 1`, each of `block_size` tokens."""
        self.count = count
        self.block_size = block_size
        self._empty = list(range(count))  # a heap
        self._holders = [0] * count
        self._keys: list[list[Key]] = [[] for _ in range(count)]
        self._found: dict[Key, int] = {}
        # Keyed blocks that nobody holds, least recently used first.
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._lasting_idle: OrderedDict[int, None] = OrderedDict()  # dropped only when no other is left
        self._lasting: set[int] = set()  # held or idle

    @property
    def free(self) -> int:
        """How many blocks nobody holds."""
        return len(self._empty) + len(self._idle) + len(self._lasting_idle)

    @property
    def usage(self) -> float:
        """Which part of the pool is held, from 0 to 1."""
        return 1 - self.free / self.count

    def needed(self, length: int) -> int:
        """Return how many blocks hold `length` tokens."""
        return -(-length // self.block_size)

    def holders(self, block: int) -> int:
        """Return how many sequences hold `block`."""
        return self._holders[block]

    def find(self, keys: Sequence[Key]) -> list[int]:
        """Return the blocks of the longest beginning of `keys` that is there."""
        found: list[int] = []
        for key in keys:
            block = self._found.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def free_without(self, blocks: Sequence[int]) -> int:
        """Return how many blocks stay free if `blocks` are held too."""
        return self.free - sum(not self._holders[block] for block in blocks)

    def take(self, count: int) -> list[int]:
        """Hold `count` blocks of no content, which must be free; the content longest unused is dropped for them."""
        if count > self.free:
            raise ValueError(f"{count} blocks asked for, {self.free} free")
        while len(self._empty) < count:
            self.forget(next(iter(self._idle or self._lasting_idle)))
        taken = [heapq.heappop(self._empty) for _ in range(count)]
        for block in taken:
            self._holders[block] = 1
        return taken

    def share(self, blocks: Sequence[int]) -> None:
        """Hold `blocks`, found by their keys, once more."""
        for block in blocks:
            if not self._keys[block]:
                raise ValueError(f"block {block} has no content to share")
            self._holders[block] += 1
            self._idle_of(block).pop(block, None)

    def touch(self, block: int) -> None:
        """Say that the content of `block` was used, without holding it."""
        if block in (idle := self._idle_of(block)):
            idle.move_to_end(block)

    def give_back(self, blocks: Sequence[int]) -> None:
        """Hold `blocks` once less. Later blocks of a sequence are dropped before those that they follow."""
        for block in reversed(blocks):
            if not self._holders[block]:
                raise ValueError(f"block {block} is given back, but nobody holds it")
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if self._keys[block]:
                self._idle_of(block)[block] = None
            else:
                heapq.heappush(self._empty, block)
        while len(self._lasting_idle) > self.count // 2:  # what has lasted long unused gives way to other prefixes
            block, _ = self._lasting_idle.popitem(last=False)
            self._lasting.discard(block)
            self._idle[block] = None

    def publish(self, block: int, key: Key, *, lasting: bool = False) -> None:
        """Let others find a block that is held, unless the same content is already there.

        Up to half of the pool keeps `lasting` content while other content could be dropped.
        """
        if key not in self._found:
            self._found[key] = block
            self._keys[block].append(key)
            if lasting:
                self._lasting.add(block)

    def forget(self, block: int) -> None:
        """Let nobody find `block` any more: its content is dropped, or was never computed."""
        for key in self._keys[block]:
            del self._found[key]
        self._keys[block] = []
        if block in (idle := self._idle_of(block)):
            del idle[block]
            heapq.heappush(self._empty, block)
        self._lasting.discard(block)

    def _idle_of(self, block: int) -> "OrderedDict[int, None]":
        return self._lasting_idle if block in self._lasting else self._idle
