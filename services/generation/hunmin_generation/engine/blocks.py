"""Which blocks of the KV pool are free. Must not know torch, text, or who holds a block."""

import heapq


class BlockPool:
    """Hands out block numbers, the lowest free one first: attention reads the stretch of the pool that is in use."""

    def __init__(self, count: int, *, block_size: int) -> None:
        """Own the blocks 0 to `count - 1`, each of `block_size` tokens."""
        self.count = count
        self.block_size = block_size
        self._free = list(range(count))

    @property
    def free(self) -> int:
        """How many blocks nobody holds."""
        return len(self._free)

    @property
    def usage(self) -> float:
        """Which part of the pool is held, from 0 to 1."""
        return 1 - len(self._free) / self.count

    def needed(self, length: int) -> int:
        """Return how many blocks hold `length` tokens."""
        return -(-length // self.block_size)

    def take(self, count: int) -> list[int]:
        """Take `count` blocks, which must be free."""
        if count > len(self._free):
            raise ValueError(f"{count} blocks asked for, {len(self._free)} free")
        return [heapq.heappop(self._free) for _ in range(count)]

    def give_back(self, blocks: list[int]) -> None:
        """Free `blocks`, each taken before."""
        for block in blocks:
            heapq.heappush(self._free, block)
