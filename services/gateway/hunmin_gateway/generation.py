"""The calls to the generation service that one exchange makes: all its prompts at once, their events in one stream."""

import asyncio
from collections import deque
from functools import partial
from types import TracebackType

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import GENERATE, GenerateRequest, UsageEvent
from hunmin_kit.web import Client

from hunmin_gateway.exchange import Event, Exchange


class Generation:
    """An async context: inside it the calls run and the meter counts; leaving it closes whatever still streams.

    Iterate it for `(number of the prompt, event)` in the order of arrival. The first prompt that fails ends it with
    that error. The meter counts on arrival, so it is right even for events that nobody waited for.
    """

    def __init__(self, exchange: Exchange[GenerateRequest], service: Client) -> None:
        self._exchange = exchange
        self._service = service
        self._queue: asyncio.Queue[tuple[int, Event | None]] = asyncio.Queue()
        self._seen_early: deque[tuple[int, Event]] = deque()
        self._calls: list[asyncio.Task[None]] = []
        self._unfinished = 0

    async def __aenter__(self) -> "Generation":
        for number, request in enumerate(self._exchange.requests):
            call = asyncio.create_task(self._call(number, request))
            call.add_done_callback(partial(self._ended, number))
            self._calls.append(call)
            self._unfinished += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def accepted(self) -> None:
        """Return once every prompt was accepted; raise the first refusal. No event is lost to the iteration."""
        waiting = set(range(len(self._calls)))
        while waiting:
            number, event = await self._next()
            waiting.discard(number)
            if event is not None:
                self._seen_early.append((number, event))

    def __aiter__(self) -> "Generation":
        return self

    async def __anext__(self) -> tuple[int, Event]:
        if self._seen_early:
            return self._seen_early.popleft()
        while self._unfinished:
            number, event = await self._next()
            if event is not None:
                return number, event
        raise StopAsyncIteration

    async def _call(self, number: int, request: GenerateRequest) -> None:
        event: Event | None = None
        async with self._service.stream(GENERATE, request) as events:
            async for wrapped in events:
                event = wrapped.root
                self._exchange.meter.count(number, event)
                self._queue.put_nowait((number, event))
        if not isinstance(event, UsageEvent):
            raise HunminError(
                ErrorCode.UNAVAILABLE, "The model stopped before the end of its answer. Try again.", incomplete=True
            )

    def _ended(self, number: int, _: asyncio.Task[None]) -> None:
        self._queue.put_nowait((number, None))

    async def _next(self) -> tuple[int, Event | None]:
        number, event = await self._queue.get()
        if event is None:
            self._unfinished -= 1
            self._calls[number].result()  # raises what ended the call, if it failed
        return number, event
