"""The engine: `step()` runs one batch of every request there is. One thread calls it; see `thread.py` for the others.

A request that goes wrong ends alone: what fails in its own post-processing ends it, what fails in the forward pass ends
the requests of that batch, and the engine goes on.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import ChunkEvent
from hunmin_modeling.checkpoint import Checkpoint
from hunmin_modeling.kv_pool import kv_bytes_per_token

from hunmin_generation.engine.admission import max_tokens
from hunmin_generation.engine.blocks import BlockPool
from hunmin_generation.engine.request import Completion, EngineRequest, Generation, Sink
from hunmin_generation.engine.runner import Outcome, Runner, Task
from hunmin_generation.engine.scheduler import Scheduler, Work
from hunmin_generation.engine.sequence import Sequence, Status
from hunmin_generation.engine.text import TokenText


@dataclass(frozen=True)
class EngineLimits:
    """How much an engine does at once. The pool holds `kv_bytes`: running sequences, and what is kept of ended ones."""

    max_batch_tokens: int = 512
    max_running: int = 64
    block_size: int = 32
    kv_bytes: int = 256 * 2**20
    prefix_cache: bool = True


@dataclass
class EngineCounts:
    """What the engine has done since it began."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0


class Engine:
    """Continuous batching on one checkpoint."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        vocabulary: TokenText,
        limits: EngineLimits,
        *,
        on_failure: Callable[[Exception], None] = lambda error: None,
        on_first_token: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Serve `checkpoint`. `on_failure` hears of unexpected errors, `on_first_token` how long a request waited."""
        blocks = _block_count(checkpoint, limits)
        self.checkpoint = checkpoint
        self.counts = EngineCounts()
        self.scheduler = Scheduler(
            BlockPool(blocks, block_size=limits.block_size),
            max_batch_tokens=limits.max_batch_tokens,
            max_running=limits.max_running,
            prefix_cache=limits.prefix_cache,
        )
        self.max_length = min(checkpoint.context_length, self.scheduler.capacity)
        self._vocab_size = min(checkpoint.vocab_size, vocabulary.vocab_size)
        self._runner = Runner(checkpoint, blocks=blocks, block_size=limits.block_size, vocab_size=self._vocab_size)
        self._end_ids = checkpoint.end_ids | {vocabulary.eos_id}
        self._vocabulary = vocabulary
        self._on_failure = on_failure
        self._on_first_token = on_first_token
        self._owners: dict[Sequence, tuple[Generation, Completion]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._owners

    def max_tokens(self, request: EngineRequest) -> int:
        """Return how many tokens `request` may generate; HunminError if it can never be served. For any thread."""
        return max_tokens(request, max_length=self.max_length, vocab_size=self._vocab_size)

    def add(self, request: EngineRequest, sink: Sink) -> Generation:
        """Queue a request; its events go to `sink`. Raises what `max_tokens` raises."""
        generation = Generation(
            request,
            sink,
            max_tokens=self.max_tokens(request),
            end_ids=self._end_ids,
            vocabulary=self._vocabulary,
        )
        for completion in generation.completions:
            self._owners[completion.sequence] = (generation, completion)
            self.scheduler.add(completion.sequence)
        generation.emit_prompt()
        return generation

    def cancel(self, generation: Generation) -> None:
        """End a request without a word to its sink; nothing happens if it is over."""
        if not generation.is_over:
            generation.is_over = True
            self.counts.cancelled += 1
            self._release(generation)

    def fail_all(self, error: HunminError) -> None:
        """End every request with `error`."""
        for generation in {id(generation): generation for generation, _ in self._owners.values()}.values():
            self._fail(generation, error)

    def step(self) -> None:
        """Run one batch: schedule, run, post-process."""
        try:
            works = self.scheduler.schedule()
        except Exception:
            self.scheduler.withdraw()  # nothing of it will be computed
            raise
        if not works:
            return
        try:
            outcomes = self._runner.run([self._task(work) for work in works], self.scheduler.copies)
        except Exception as error:  # the engine's edge: whatever it was, the others are served
            self._on_failure(error)
            self.scheduler.withdraw()
            for generation in {id(found := self._owners[work.sequence][0]): found for work in works}.values():
                self._fail(generation, _internal())
            return
        for work, outcome in zip(works, outcomes, strict=True):
            if work.sequence.status is Status.RUNNING:
                self._take(work, outcome)

    def _task(self, work: Work) -> Task:
        generation, completion = self._owners[work.sequence]
        return Task(
            work=work,
            draw=completion.draw,
            is_sampled=work.reaches_end and len(work.sequence.tokens) < work.sequence.max_length,
            scored_from=generation.scored_from(completion),
            is_embedded=generation.request.embed,
            rows=generation.request.soft_prompt.rows if generation.request.soft_prompt is not None else None,
        )

    def _take(self, work: Work, outcome: Outcome) -> None:
        generation, completion = self._owners[work.sequence]
        try:
            self._advance(work, outcome, generation, completion)
        except Exception as error:  # the engine's edge: one bad request ends alone
            self._on_failure(error)
            self._fail(generation, error if isinstance(error, HunminError) else _internal())

    def _advance(self, work: Work, outcome: Outcome, generation: Generation, completion: Completion) -> None:
        self.counts.prompt_tokens += max(0, min(work.sequence.prompt_length - work.start, work.count))
        if outcome.prompt:
            generation.add_prompt_scores(work.start, outcome.prompt)
            generation.emit_prompt()
        if outcome.hidden_sum is not None:
            generation.add_hidden(work.start, outcome.hidden_sum)
        if not work.reaches_end:
            return
        chunk: ChunkEvent | None
        if outcome.choice is None:
            chunk = completion.end_unsampled()
        else:
            self.counts.generated_tokens += 1
            chunk = completion.advance(outcome.choice)
            if not generation.has_token:
                generation.has_token = True
                self._on_first_token(time.monotonic() - generation.added_at)
        if chunk is not None:
            generation.emit(chunk)
        if completion.finish_reason is not None:
            self.scheduler.finish(completion.sequence)
            del self._owners[completion.sequence]
            if generation.close():
                self.counts.finished += 1

    def _fail(self, generation: Generation, error: HunminError) -> None:
        self.counts.failed += 1
        self._release(generation)
        generation.fail(error)

    def _release(self, generation: Generation) -> None:
        for completion in generation.completions:
            self.scheduler.finish(completion.sequence)
            self._owners.pop(completion.sequence, None)


def _internal() -> HunminError:
    return HunminError(ErrorCode.INTERNAL, "The engine failed on this request. Send it again.")


def _block_count(checkpoint: Checkpoint, limits: EngineLimits) -> int:
    token_bytes = kv_bytes_per_token(checkpoint.config, checkpoint.dtype)
    count = limits.kv_bytes // (token_bytes * limits.block_size)
    if count < 1:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"kv_bytes {limits.kv_bytes} is less than a block of {limits.block_size} tokens of {token_bytes} bytes.",
            param="kv_bytes",
        )
    return count
