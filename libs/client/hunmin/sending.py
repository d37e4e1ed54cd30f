"""Sends calls, blocking or not, and again where that helps. One rule decides for both (`Retries`)."""

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, TypeVar

import httpx
from httpx_sse import EventSource, ServerSentEvent

from hunmin.call import Call, Pages, Poll, Stream, nothing
from hunmin.errors import retry_after_s

T = TypeVar("T")
ItemT = TypeVar("ItemT")

_REFUSED = 429  # nothing was done
_UNAVAILABLE = 503  # something may have been done
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class Retries:
    """When to try again: at most `limit` times, after a pause that doubles from `first_s`, with jitter.

    A server's Retry-After is the least pause; one longer than `longest_s` is not waited for.
    """

    limit: int = 4
    first_s: float = 0.5
    longest_s: float = 30.0

    def pause_s(self, attempt: int, call: Call[Any], outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Return the pause after `attempt` (from 0), or None where its outcome stands."""
        if attempt >= self.limit or not _may_help(call, outcome):
            return None
        asked = None if isinstance(outcome, httpx.TransportError) else retry_after_s(outcome)
        if asked is not None and asked > self.longest_s:
            return None
        backoff = min(self.longest_s, self.first_s * 2**attempt)
        return (asked or backoff / 2) + random.uniform(0, backoff / 2)  # noqa: S311  spreads callers, hides nothing


def _may_help(call: Call[Any], outcome: httpx.Response | httpx.TransportError) -> bool:
    if isinstance(outcome, httpx.TransportError):
        return call.is_repeatable or isinstance(outcome, _NOT_SENT)
    return outcome.status_code == _REFUSED or (outcome.status_code == _UNAVAILABLE and call.is_repeatable)


class _Reader(Generic[ItemT]):
    """Where the reader of a stream is, and what an end of its connection means: no event is missed, or given twice."""

    def __init__(self, stream: Stream[ItemT], retries: Retries) -> None:
        self.call = Call("GET", stream.path, nothing)
        self._stream = stream
        self._retries = retries
        self._last = stream.after
        self._failures = 0  # since the last event
        self._error: httpx.Response | None = None

    def resumed(self, request: httpx.Request) -> httpx.Request:
        """Return the request for what has not come yet."""
        request.headers["accept"] = "text/event-stream"
        if self._last is not None:
            request.headers["last-event-id"] = self._last
        return request

    def items(self, event: ServerSentEvent) -> Generator[ItemT, None, None]:
        """Yield the item of an event, unless it tells of a failure."""
        if event.event == "error":
            self._error = _as_response(event.data)
            return
        self._last = event.id or self._last
        if event.event in self._stream.types:
            self._failures = 0
            yield self._stream.read(event.data)

    def pause_s(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Return the pause before the next connection, or None at the stream's end; raise what stands in its way."""
        if self._error is not None:
            outcome, self._error = self._error, None
        if isinstance(outcome, httpx.Response) and outcome.is_success:
            return None
        if isinstance(outcome, httpx.ReadTimeout):  # it was open, and nothing happened
            self._failures = 0
        pause_s = self._retries.pause_s(self._failures, self.call, outcome)
        self._failures += 1
        if pause_s is None:
            self.call.result(outcome)
        return pause_s


def _as_response(data: str) -> httpx.Response:
    """Return the answer that a problem document, come as an event, would have been."""
    try:
        status = int(json.loads(data)["status"])
    except (ValueError, KeyError, TypeError):
        status = 500
    return httpx.Response(status if httpx.codes.is_error(status) else 500, content=data.encode())


class Sender:
    """Sends over blocking connections; safe to share between threads."""

    def __init__(self, http: httpx.Client, retries: Retries) -> None:
        self.http = http
        self.retries = retries

    def send(self, call: Call[T] | Poll[T]) -> T:
        """Return what comes of `call`, or of the last of them."""
        return self._send(call) if isinstance(call, Call) else self._poll(call)

    def items(self, source: Pages[ItemT] | Stream[ItemT]) -> Generator[ItemT, None, None]:
        """Yield the items of all pages, each page when it is needed, or those of a stream as they come."""
        return self._pages(source) if isinstance(source, Pages) else self._stream(source)

    def _send(self, call: Call[T]) -> T:
        for attempt in count():
            outcome = self._try(call)
            pause_s = self.retries.pause_s(attempt, call, outcome)
            if pause_s is None:
                break
            time.sleep(pause_s)
        return call.result(outcome)

    def _poll(self, poll: Poll[T]) -> T:
        begun, last = time.monotonic(), None
        while True:
            found = self._send(poll.call)
            if found != last:
                poll.on_change(found)
            if poll.is_over(found):
                return found
            last = found
            poll.check(time.monotonic() - begun)
            time.sleep(poll.every_s)

    def _stream(self, stream: Stream[ItemT]) -> Generator[ItemT, None, None]:
        reader = _Reader(stream, self.retries)
        while True:
            try:
                with (
                    reader.call.request(self.http) as request,
                    closing(self.http.send(reader.resumed(request), stream=True)) as response,
                ):
                    if response.is_success:
                        for event in EventSource(response).iter_sse():
                            yield from reader.items(event)
                    else:
                        response.read()
                    pause_s = reader.pause_s(response)
            except httpx.TransportError as error:
                pause_s = reader.pause_s(error)
            if pause_s is None:
                return
            time.sleep(pause_s)

    def _pages(self, pages: Pages[ItemT]) -> Generator[ItemT, None, None]:
        page = self._send(pages.page(None))
        yield from page.data
        while page.next_cursor is not None:
            page = self._send(pages.page(page.next_cursor))
            yield from page.data

    def _try(self, call: Call[Any]) -> httpx.Response | httpx.TransportError:
        try:
            with call.request(self.http) as request:
                return self.http.send(request)
        except httpx.TransportError as error:
            return error


class AsyncSender:
    """Sends within an event loop."""

    def __init__(self, http: httpx.AsyncClient, retries: Retries) -> None:
        self.http = http
        self.retries = retries

    async def send(self, call: Call[T] | Poll[T]) -> T:
        """Return what comes of `call`, or of the last of them."""
        return await (self._send(call) if isinstance(call, Call) else self._poll(call))

    def items(self, source: Pages[ItemT] | Stream[ItemT]) -> AsyncGenerator[ItemT, None]:
        """Yield the items of all pages, each page when it is needed, or those of a stream as they come."""
        return self._pages(source) if isinstance(source, Pages) else self._stream(source)

    async def _send(self, call: Call[T]) -> T:
        for attempt in count():
            outcome = await self._try(call)
            pause_s = self.retries.pause_s(attempt, call, outcome)
            if pause_s is None:
                break
            await asyncio.sleep(pause_s)
        return call.result(outcome)

    async def _poll(self, poll: Poll[T]) -> T:
        begun, last = time.monotonic(), None
        while True:
            found = await self._send(poll.call)
            if found != last:
                poll.on_change(found)
            if poll.is_over(found):
                return found
            last = found
            poll.check(time.monotonic() - begun)
            await asyncio.sleep(poll.every_s)

    async def _stream(self, stream: Stream[ItemT]) -> AsyncGenerator[ItemT, None]:
        reader = _Reader(stream, self.retries)
        while True:
            try:
                with reader.call.request(self.http) as request:
                    async with aclosing(await self.http.send(reader.resumed(request), stream=True)) as response:
                        if response.is_success:
                            async for event in EventSource(response).aiter_sse():
                                for item in reader.items(event):
                                    yield item
                        else:
                            await response.aread()
                        pause_s = reader.pause_s(response)
            except httpx.TransportError as error:
                pause_s = reader.pause_s(error)
            if pause_s is None:
                return
            await asyncio.sleep(pause_s)

    async def _pages(self, pages: Pages[ItemT]) -> AsyncGenerator[ItemT, None]:
        page = await self._send(pages.page(None))
        for item in page.data:
            yield item
        while page.next_cursor is not None:
            page = await self._send(pages.page(page.next_cursor))
            for item in page.data:
                yield item

    async def _try(self, call: Call[Any]) -> httpx.Response | httpx.TransportError:
        try:
            with call.request(self.http) as request:
                return await self.http.send(request)
        except httpx.TransportError as error:
            return error
