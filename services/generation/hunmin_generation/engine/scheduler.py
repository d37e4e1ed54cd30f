"""Which tokens of which sequences run in the next step. Must not know torch, text or requests.

First come, first served: sequences are admitted in order of arrival, and when blocks run out the youngest gives up its
own and waits at the front, to be computed again. The oldest always advances, so every sequence ends.
"""

from collections import deque
from dataclasses import dataclass

from hunmin_generation.engine.blocks import BlockPool
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


class Scheduler:
    """Continuous batching with chunked prefill under a token budget."""

    def __init__(self, blocks: BlockPool, *, max_batch_tokens: int, max_running: int) -> None:
        """Run at most `max_batch_tokens` tokens of at most `max_running` sequences in a step."""
        if max_running > max_batch_tokens:
            raise ValueError("every running sequence needs a token of the budget: max_running exceeds max_batch_tokens")
        self.blocks = blocks
        self.max_batch_tokens = max_batch_tokens
        self.max_running = max_running
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest first
        self.preemptions = 0

    @property
    def capacity(self) -> int:
        """How many tokens the pool holds: a longer sequence can never run."""
        return self.blocks.count * self.blocks.block_size

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence whose `max_length` is at most `capacity`."""
        if sequence.max_length > self.capacity:
            raise ValueError(f"a sequence of {sequence.max_length} tokens never fits a pool of {self.capacity}")
        self.waiting.append(sequence)

    def finish(self, sequence: Sequence) -> None:
        """End a sequence, whether it waits, runs or has ended, and free its blocks."""
        if sequence.status is Status.RUNNING:
            self.running.remove(sequence)
        elif sequence.status is Status.WAITING:
            self.waiting.remove(sequence)
        sequence.status = Status.FINISHED
        self._release(sequence)

    def schedule(self) -> list[Work]:
        """Choose the next step: every decoding sequence first, then chunks of prompts, both oldest first.

        The chosen tokens count as computed from here on; a step that fails must finish its sequences.
        """
        works = self._decode()
        budget = self.max_batch_tokens - len(works)
        for sequence in self.running:
            if not _decodes(sequence):
                budget -= self._prefill(sequence, budget, works)
        while budget > 0 and self._admit():
            budget -= self._prefill(self.running[-1], budget, works)
        for work in works:
            work.sequence.computed += work.count
        return works

    def _decode(self) -> list[Work]:
        works: list[Work] = []
        for sequence in list(self.running):
            # A victim of this very loop waits again; a prompt holds its blocks from admission on.
            if sequence.status is Status.RUNNING and _decodes(sequence) and self._extend(sequence):
                works.append(Work(sequence, sequence.computed, 1))
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
            works.append(Work(sequence, sequence.computed, count))
        return count

    def _admit(self) -> bool:
        """Move the first waiting sequence to the running ones if there is room; nobody overtakes it."""
        if not self.waiting or len(self.running) >= self.max_running:
            return False
        sequence = self.waiting[0]
        needed = self.blocks.needed(len(sequence.tokens))
        # One block in reserve for each that runs: it would be taken back from the newcomer within a few steps.
        if needed + len(self.running) > self.blocks.free:
            return False
        self.waiting.popleft()
        sequence.blocks = self.blocks.take(needed)
        sequence.status = Status.RUNNING
        self.running.append(sequence)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        sequence.computed = 0
        sequence.status = Status.WAITING
        self.waiting.appendleft(sequence)
        self.preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        self.blocks.give_back(sequence.blocks)
        sequence.blocks = []


def _decodes(sequence: Sequence) -> bool:
    return sequence.pending == 1 and sequence.computed > 0
