"""The thread that computes gradients, below the engine's in priority, and the door to it for an event loop."""

import asyncio
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable

import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.gradients import GradientUsage
from hunmin_modeling.gradient import Gradients


class _Ended(Exception):
    """The client left, or the service ends, in the middle of a micro-batch."""


class _Job:
    """One batch on its way through the thread. `told` gets the usage after each micro-batch, then None, or an error."""

    def __init__(self, batch: Gradients) -> None:
        self.batch = batch
        self.told: asyncio.Queue[GradientUsage | HunminError | None] = asyncio.Queue()
        self.has_left = False


class GradientWorker:
    """Computes batches, first come, first served. Its methods are called from one event loop, that of `start`."""

    def __init__(
        self, *, threads: int, max_queue: int, on_failure: Callable[[Exception], None] = lambda error: None
    ) -> None:
        """Compute with `threads` threads; let `max_queue` batches wait beside the one that is computed."""
        self.finished = self.failed = self.cancelled = self.backward_tokens = 0
        self._threads = threads
        self._max_accepted = max_queue + 1
        self._on_failure = on_failure
        self._accepted = 0  # batches that are not over
        self._wake = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._is_closing = False
        self._mean_duration_s = 1.0
        self._thread = threading.Thread(target=self._run, name="gradients", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def waiting(self) -> int:
        """How many batches wait to be computed."""
        return len(self._jobs)

    @property
    def is_alive(self) -> bool:
        """Whether batches can be computed."""
        return self._thread.is_alive() and not self._is_closing

    def start(self) -> None:
        """Begin to serve, for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        """End what still runs or waits with an `unavailable` error, and stop the thread."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    async def compute(self, batch: Gradients) -> AsyncGenerator[GradientUsage, None]:
        """Yield what has been computed, after each micro-batch; closing the generator ends the work.

        At its end `batch` is computed. Raises `overloaded` before the first if too many batches wait.
        """
        if not self.is_alive:
            raise _closing()
        if self._accepted >= self._max_accepted:
            raise HunminError(
                ErrorCode.OVERLOADED,
                f"{self._accepted} batches of gradients are computed or wait, as many as the model takes. "
                "Send it again later.",
                retry_after_s=math.ceil(self._mean_duration_s),
            )
        job = _Job(batch)
        self._accepted += 1
        with self._wake:
            self._jobs.append(job)
            self._wake.notify()
        try:
            while (usage := await job.told.get()) is not None:
                if isinstance(usage, HunminError):
                    raise usage
                yield usage
        finally:
            job.has_left = True
            self._accepted -= 1
            self._take_out(job)

    def _take_out(self, job: _Job) -> None:
        """Let go of a job that still waits: its batch must not stay in memory until its turn comes."""
        with self._wake:
            if job in self._jobs:
                self._jobs.remove(job)
                self.cancelled += 1

    # What follows runs on the worker's thread.

    def _run(self) -> None:
        # Only what decode leaves over: with the least "nice" value in place of this, decode waited 1.8 times as long.
        # Before the first parallel region: the threads that it makes inherit the policy of this one.
        if sys.platform == "linux":  # elsewhere a thread has no policy of its own
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
        torch.get_num_threads()  # first: a thread's first look at the number sets it to what another thread set last
        torch.set_num_threads(self._threads)
        while (job := self._next()) is not None:
            started = time.monotonic()
            try:
                self._compute(job)
            except _Ended:
                with self._wake:
                    self.cancelled += 1
                self._tell(job, _closing())
            except Exception as error:  # the worker's edge: one bad batch ends alone
                self.failed += 1
                self._on_failure(error)
                self._tell(job, HunminError(ErrorCode.INTERNAL, "The gradient failed. Send the request again."))
            else:
                self.finished += 1
                self._mean_duration_s += 0.1 * (time.monotonic() - started - self._mean_duration_s)
                self._tell(job, None)

    def _next(self) -> _Job | None:
        """Wait for a job; None once there will be no more."""
        with self._wake:
            while not self._jobs and not self._is_closing:
                self._wake.wait()
            return self._jobs.popleft() if self._jobs else None

    def _compute(self, job: _Job) -> None:
        batch = job.batch

        def pause() -> None:
            if job.has_left or self._is_closing:
                raise _Ended

        before = 0
        pause()
        for _ in batch.run(pause):
            self.backward_tokens += batch.tokens - before
            before = batch.tokens
            self._tell(job, GradientUsage(prompt_tokens=batch.prompt_tokens, backward_tokens=batch.tokens))

    def _tell(self, job: _Job, what: GradientUsage | HunminError | None) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(job.told.put_nowait, what)


def _closing() -> HunminError:
    return HunminError(ErrorCode.UNAVAILABLE, "The model is shutting down. Send the request to another instance.")
