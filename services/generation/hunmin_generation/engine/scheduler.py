"""Which tokens of which sequences run in the next step. Must not know torch, text or requests.

First come, first served within a priority: sequences are admitted in that order, and when blocks run out the last of
those that run gives up its own and waits in its old place, to be computed again. The first always advances, so every
sequence ends.
"""

from bisect import insort
from dataclasses import dataclass
from itertools import count

from hunmin_generation.engine.blocks import BlockPool, next_key
from hunmin_generation.engine.sequence import Sequence, Status


@dataclass(frozen=True)
class Work:
    """Tokens `start` to `start + count` of a sequence, to be run in this step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def reaches_end(self) -> bool:
        """Whether the last known token is among them, so that the next can be chosen."""
        return self.start + self.count == len(self.sequence.tokens)


@dataclass(frozen=True)
class Copy:
    """The first `count` tokens of block `source`, to be copied to `target`."""

    source: int
    target: int
    count: int


class Scheduler:
    """Continuous batching with chunked prefill under a token budget."""

    def __init__(
        self, blocks: BlockPool, *, max_batch_tokens: int, max_running: int, prefix_cache: bool = True
    ) -> None:
        """Run at most `max_batch_tokens` tokens of at most `max_running` sequences in a step.

        With `prefix_cache` a sequence starts from the blocks that another has computed for the same beginning.
        """
        if max_running > max_batch_tokens:
            raise ValueError("every running sequence needs a token of the budget: max_running exceeds max_batch_tokens")
        self.blocks = blocks
        self.max_batch_tokens = max_batch_tokens
        self.max_running = max_running
        self.prefix_cache = prefix_cache
        self.waiting: list[Sequence] = []  # by priority and arrival, as those that run
        self.running: list[Sequence] = []
        self.preemptions = 0
        self.queried_tokens = 0  # of prompts that were looked up in the cache
        self.cached_tokens = 0  # of these, found there
        self._places: dict[Sequence, tuple[int, int]] = {}
        self._arrivals = count()
        self.copies: list[Copy] = []  # to be made before the step is run, in this order
        self._published: list[int] = []  # in the last step
        self._ends: set[bytes] = set()  # keys of its soft prompts' ends: copied from the next step on

    @property
    def capacity(self) -> int:
        """How many tokens the pool holds: a longer sequence can never run."""
        return self.blocks.count * self.blocks.block_size

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence whose `max_length` is at most `capacity`."""
        if sequence.max_length > self.capacity:
            raise ValueError(f"a sequence of {sequence.max_length} tokens never fits a pool of {self.capacity}")
        self._places[sequence] = (sequence.priority, next(self._arrivals))
        insort(self.waiting, sequence, key=self._places.__getitem__)

    def finish(self, sequence: Sequence) -> None:
        """End a sequence, whether it waits, runs or has ended, and free its blocks."""
        if sequence.status is Status.RUNNING:
            self.running.remove(sequence)
        elif sequence.status is Status.WAITING:
            self.waiting.remove(sequence)
        sequence.status = Status.FINISHED
        self._places.pop(sequence, None)
        self._release(sequence)

    def schedule(self) -> list[Work]:
        """Choose the next step: every decoding sequence first, then chunks of prompts, both in order.

        The chosen tokens count as computed from here on, also for others that begin alike: a batch writes every key
        before it reads one. A step that fails must be withdrawn, and its sequences finished.
        """
        self._published, self._ends, self.copies = [], set(), []
        works = self._decode()
        budget = self.max_batch_tokens - len(works)
        for sequence in self.running:
            if not _decodes(sequence):
                budget -= self._prefill(sequence, budget, works)
        while budget > 0 and (admitted := self._admit()) is not None:
            budget -= self._prefill(admitted, budget, works)
        return works

    def withdraw(self) -> None:
        """Forget what the last step was to compute: it failed."""
        for block in self._published:
            self.blocks.forget(block)
        self._published = []

    def _decode(self) -> list[Work]:
        works: list[Work] = []
        for sequence in list(self.running):
            # A victim of this very loop waits again; a prompt holds its blocks from admission on.
            if sequence.status is Status.RUNNING and _decodes(sequence) and self._extend(sequence):
                works.append(self._work(sequence, 1))
        return works

    def _extend(self, sequence: Sequence) -> bool:
        """Give a decoding sequence the block for its next token; false if it had to give up its own."""
        missing = self.blocks.needed(len(sequence.tokens)) - len(sequence.blocks)
        while missing > self.blocks.free:
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        sequence.blocks += self.blocks.take(missing)
        return True

    def _prefill(self, sequence: Sequence, budget: int, works: list[Work]) -> int:
        count = min(sequence.pending, budget)
        if count > 0:
            works.append(self._work(sequence, count))
        return count

    def _work(self, sequence: Sequence, count: int) -> Work:
        work = Work(sequence, sequence.computed, count)
        sequence.computed += count
        if self.prefix_cache:
            size = self.blocks.block_size
            first, end = work.start // size, sequence.computed // size
            for number, key in enumerate(self._keys(sequence, end)[first:end], start=first):
                self.blocks.publish(sequence.blocks[number], key, lasting=(number + 1) * size <= sequence.shared)
                self._published.append(sequence.blocks[number])
            if work.start < sequence.shared <= sequence.computed and sequence.shared % size:
                number = sequence.shared // size
                self.blocks.publish(sequence.blocks[number], key := self._end_key(sequence), lasting=True)
                self._published.append(sequence.blocks[number])
                self._ends.add(key)
        return work

    def _keys(self, sequence: Sequence, full_blocks: int) -> list[bytes]:
        """Return the keys of at least the first `full_blocks` blocks."""
        keys, size = sequence.keys, self.blocks.block_size
        while len(keys) < full_blocks:
            at = len(keys) * size
            keys.append(next_key(keys[-1] if keys else sequence.root, sequence.tokens[at : at + size]))
        return keys

    def _end_key(self, sequence: Sequence) -> bytes:
        """Return the key of what is shared in the block where that ends."""
        number, size = sequence.shared // self.blocks.block_size, self.blocks.block_size
        keys = self._keys(sequence, number)
        return next_key(keys[number - 1] if number else sequence.root, sequence.tokens[number * size : sequence.shared])

    def _admit(self) -> Sequence | None:
        """Move the first waiting sequence to the running ones if there is room; nobody overtakes it."""
        if not self.waiting or len(self.running) >= self.max_running:
            return None
        sequence = self.waiting[0]
        found = self._cached(sequence)
        needed = self.blocks.needed(len(sequence.tokens)) - len(found)
        # One block in reserve for each that runs: it would be taken back from the newcomer within a few steps.
        if needed + len(self.running) > self.blocks.free_without(found):
            return None
        end = self._cached_end(sequence, len(found))
        if end is not None:
            self.blocks.touch(end)
        self.blocks.share(found)
        sequence.blocks = [*found]
        sequence.blocks += self.blocks.take(needed)
        sequence.computed = len(found) * self.blocks.block_size
        if end is not None:
            self.copies.append(Copy(end, sequence.blocks[len(found)], sequence.shared - sequence.computed))
            sequence.computed = sequence.shared
        self.queried_tokens += len(sequence.tokens)
        self.cached_tokens += sequence.computed
        del self.waiting[0]
        sequence.status = Status.RUNNING
        insort(self.running, sequence, key=self._places.__getitem__)
        return sequence

    def _cached(self, sequence: Sequence) -> list[int]:
        """Return the blocks that hold the beginning of `sequence` already; its last token is always run."""
        if not self.prefix_cache:
            return []
        full_blocks = _reusable(sequence) // self.blocks.block_size
        return self.blocks.find(self._keys(sequence, full_blocks)[:full_blocks])

    def _cached_end(self, sequence: Sequence, full_blocks: int) -> int | None:
        """Return the block in which what `sequence` shares ends, if that and the `full_blocks` before it are there."""
        size = self.blocks.block_size
        if not self.prefix_cache or sequence.shared > _reusable(sequence) or not sequence.shared % size:
            return None
        if full_blocks != sequence.shared // size or (key := self._end_key(sequence)) in self._ends:
            return None
        return next(iter(self.blocks.find([key])), None)

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        sequence.computed = 0
        sequence.status = Status.WAITING
        insort(self.waiting, sequence, key=self._places.__getitem__)
        self.preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        self.blocks.give_back(sequence.blocks)
        sequence.blocks = []


def _reusable(sequence: Sequence) -> int:
    """Return how many first tokens need not be run again. The last one always is, for what follows it."""
    if sequence.completion_length:  # preempted: what was wanted of its prompt is known
        return len(sequence.tokens) - 1
    return min(len(sequence.tokens) - 1, sequence.reusable)


def _decodes(sequence: Sequence) -> bool:
    return sequence.pending == 1 and sequence.computed > 0
