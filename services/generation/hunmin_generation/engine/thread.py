"""The thread that an engine runs on, and the door to it for an event loop: submit, read events, leave at any time."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable

import torch
from hunmin_contracts.errors import ErrorCode, HunminError

from hunmin_generation.engine.engine import Engine
from hunmin_generation.engine.request import EngineRequest, Event, Generation


class _Stream:
    """Events of one request on their way from the engine's thread to the event loop."""

    def __init__(self, request: EngineRequest) -> None:
        self.request = request
        self.events: asyncio.Queue[Event | HunminError | None] = asyncio.Queue()  # None: usage was sent, it is over
        self.generation: Generation | None = None  # of the engine's thread alone
        self.started_at = time.monotonic()


class EngineThread:
    """Runs an engine on a thread of its own. Its methods are called from one event loop, that of `start`."""

    def __init__(
        self,
        engine: Engine,
        *,
        threads: int,
        max_queue: int,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        """Compute with `threads` threads; let `max_queue` completions wait beside those that may run."""
        self.engine = engine
        self._threads = threads
        self._max_accepted = engine.scheduler.max_running + max_queue
        self._on_failure = on_failure
        self._wake = threading.Condition()
        self._inbox: deque[Callable[[], None]] = deque()
        self._accepted = 0  # completions of requests that are not over
        self._is_closing = False
        self._outbox: list[tuple[_Stream, Event | HunminError | None]] = []
        self._mean_duration_s = 1.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_alive(self) -> bool:
        """Whether requests can be served."""
        return self._thread.is_alive() and not self._is_closing

    def start(self) -> None:
        """Begin to serve, for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        """End what still runs with an `unavailable` error, and stop the thread."""
        self._is_closing = True
        self._post(lambda: self.engine.fail_all(_closing()))
        await asyncio.to_thread(self._thread.join)

    def admit(self, request: EngineRequest) -> int:
        """Return how many tokens each completion may have; HunminError if the request can never be served."""
        max_tokens = self.engine.max_tokens(request)
        if request.n > self._max_accepted:
            raise HunminError(
                ErrorCode.INVALID_PARAMETER,
                f"The model takes {self._max_accepted} completions at a time, and this request asks for {request.n}. "
                "Ask for less.",
                param="n",
            )
        return max_tokens

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Event, None]:
        """Yield the events of `request`; closing the generator cancels what is left of it.

        Raises HunminError before the first event if the request can never be served, or not now.
        """
        self.admit(request)
        if not self.is_alive:
            raise _closing()
        if self._accepted + request.n > self._max_accepted:
            raise HunminError(
                ErrorCode.OVERLOADED,
                f"{self._accepted} completions are running or waiting, and this request asks for {request.n} more: "
                f"the model takes {self._max_accepted}. Send it again later.",
                retry_after_s=math.ceil(self._mean_duration_s),
            )
        stream = _Stream(request)
        self._accepted += request.n
        self._post(lambda: self._add(stream))
        try:
            while (event := await stream.events.get()) is not None:
                if isinstance(event, HunminError):
                    raise event
                yield event
        finally:
            self._accepted -= request.n
            self._post(lambda: self._cancel(stream))

    def _post(self, command: Callable[[], None]) -> None:
        with self._wake:
            self._inbox.append(command)
            self._wake.notify()

    # What follows runs on the engine's thread.

    def _run(self) -> None:
        torch.get_num_threads()  # first: a thread's first look at the number sets it to what another thread set last
        torch.set_num_threads(self._threads)
        while self._is_needed():
            try:
                while self._inbox:
                    self._inbox.popleft()()
                self.engine.step()
            except Exception as error:  # the engine loop's edge: a fault in bookkeeping must not end the service
                self._on_failure(error)
                self.engine.fail_all(HunminError(ErrorCode.INTERNAL, "The engine failed. Send the request again."))
            self._deliver()

    def _is_needed(self) -> bool:
        """Wait until there is something to do; false once there will be no more."""
        with self._wake:
            while not self._inbox and self.engine.is_idle and not self._is_closing:
                self._wake.wait()
            return bool(self._inbox) or not self.engine.is_idle

    def _add(self, stream: _Stream) -> None:
        def sink(event: Event | HunminError) -> None:
            self._outbox.append((stream, event))
            if not isinstance(event, HunminError) and event.type == "usage":
                self._outbox.append((stream, None))
                self._mean_duration_s += 0.1 * (time.monotonic() - stream.started_at - self._mean_duration_s)

        try:
            stream.generation = self.engine.add(stream.request, sink)
        except HunminError as error:
            sink(error)

    def _cancel(self, stream: _Stream) -> None:
        if stream.generation is not None:
            self.engine.cancel(stream.generation)

    def _deliver(self) -> None:
        """Hand everything that a step brought to the event loop in one call: waking it costs more than an event."""
        if self._outbox and self._loop is not None and not self._loop.is_closed():
            outbox, self._outbox = self._outbox, []
            self._loop.call_soon_threadsafe(_hand_out, outbox)


def _hand_out(outbox: list[tuple[_Stream, Event | HunminError | None]]) -> None:
    for stream, event in outbox:
        stream.events.put_nowait(event)


def _closing() -> HunminError:
    return HunminError(ErrorCode.UNAVAILABLE, "The model is shutting down. Send the request to another instance.")
