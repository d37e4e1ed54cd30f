"""The blocks of the KV pool: which are free, held by whom, and what they hold. Must not know torch or text.

A full block has a key, a digest of every token up to its end and of what those tokens mean (the sequence's root); one
can have a second key for its first tokens, where a soft prompt ends in it. A block that nobody holds keeps its content
until it is needed, so that a later sequence that begins alike starts from it; what is expected to be used again, a soft
prompt, outlasts the rest.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

Key = bytes
_FIRST_ROUND = 16


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
    """Hands out blocks in the order of their numbers, around and around: what is taken together lies together.

    So attention reads memory in its order. Content that nobody holds goes when the hand passes it, unless it was used
    since the hand passed last (the CLOCK policy, Corbato 1968). While there are blocks that were never used no content
    goes, and the rounds become longer only as they fill up: memory that is not needed is not touched.
    """

    def __init__(self, count: int, *, block_size: int) -> None:
        """Own the blocks 0 to `count - 1`, each of `block_size` tokens."""
        self.count = count
        self.block_size = block_size
        self.free = count  # how many blocks nobody holds
        self._hand = 0
        self._opened = min(count, _FIRST_ROUND)  # blocks of a round: those behind them were never used
        self._empty = self._opened  # of these, neither held nor with content
        self._holders = [0] * count
        self._keys: list[list[Key]] = [[] for _ in range(count)]
        self._found: dict[Key, int] = {}
        self._used: set[int] = set()  # since the hand passed
        self._lasting: OrderedDict[int, None] = OrderedDict()  # held or idle, least recently used first

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
        """Hold `count` blocks of no content, which must be free."""
        if count > self.free:
            raise ValueError(f"{count} blocks asked for, {self.free} free")
        return [self._take() for _ in range(count)]

    def share(self, blocks: Sequence[int]) -> None:
        """Hold `blocks`, found by their keys, once more."""
        for block in blocks:
            if not self._keys[block]:
                raise ValueError(f"block {block} has no content to share")
            self.free -= not self._holders[block]
            self._holders[block] += 1
            self.touch(block)

    def touch(self, block: int) -> None:
        """Say that the content of `block` was used, without holding it."""
        self._used.add(block)
        if block in self._lasting:
            self._lasting.move_to_end(block)

    def give_back(self, blocks: Sequence[int]) -> None:
        """Hold `blocks` once less."""
        for block in blocks:
            if not self._holders[block]:
                raise ValueError(f"block {block} is given back, but nobody holds it")
            self._holders[block] -= 1
            if not self._holders[block]:
                self.free += 1
                self._empty += not self._keys[block]

    def publish(self, block: int, key: Key, *, lasting: bool = False) -> None:
        """Let others find a block that is held, unless the same content is already there.

        The hand passes over `lasting` content, of up to half of the pool: then the longest unused lasts no more.
        """
        if key not in self._found:
            self._found[key] = block
            self._keys[block].append(key)
            if lasting:
                self._lasting[block] = None
                if len(self._lasting) > self.count // 2:
                    self._lasting.popitem(last=False)

    def forget(self, block: int) -> None:
        """Let nobody find `block` any more: its content is dropped, or was never computed."""
        for key in self._keys[block]:
            del self._found[key]
        self._empty += bool(self._keys[block]) and not self._holders[block]
        self._keys[block] = []
        self._used.discard(block)
        self._lasting.pop(block, None)

    def _take(self) -> int:
        block = self._next()
        self.forget(block)
        self._holders[block] = 1
        self._empty -= 1
        self.free -= 1
        return block

    def _next(self) -> int:
        """Move the hand to a block that may be taken."""
        for _ in range(2 * self.count):
            if self._hand == self._opened:
                self._begin_round()
            block = self._hand
            self._hand += 1
            if self._holders[block] or block in self._lasting or (self._keys[block] and self._opened < self.count):
                continue
            if block not in self._used:
                return block
            self._used.remove(block)
        return next(block for block in self._lasting if not self._holders[block])  # all that is left lasts

    def _begin_round(self) -> None:
        if self._opened < self.count and 2 * self._empty < self._opened:
            opened = min(self.count, 2 * self._opened)
            self._empty += opened - self._opened
            self._opened = opened
        else:
            self._hand = 0
