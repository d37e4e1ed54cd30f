"""Sends calls, blocking or not, and again where that helps. One rule decides for both (`Retries`)."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import httpx

from hunmin.call import Call, Pages
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


class Sender:
    """Sends over blocking connections; safe to share between threads."""

    def __init__(self, http: httpx.Client, retries: Retries) -> None:
        self.http = http
        self.retries = retries

    def send(self, call: Call[T]) -> T:
        """Return what comes of `call`."""
        for attempt in count():
            outcome = self._try(call)
            pause_s = self.retries.pause_s(attempt, call, outcome)
            if pause_s is None:
                break
            time.sleep(pause_s)
        return call.result(outcome)

    def items(self, pages: Pages[ItemT]) -> Generator[ItemT, None, None]:
        """Yield the items of all pages, each page when it is needed."""
        page = self.send(pages.page(None))
        yield from page.data
        while page.next_cursor is not None:
            page = self.send(pages.page(page.next_cursor))
            yield from page.data

    def _try(self, call: Call[Any]) -> httpx.Response | httpx.TransportError:
        try:
            return self.http.request(**call.arguments())
        except httpx.TransportError as error:
            return error


class AsyncSender:
    """Sends within an event loop."""

    def __init__(self, http: httpx.AsyncClient, retries: Retries) -> None:
        self.http = http
        self.retries = retries

    async def send(self, call: Call[T]) -> T:
        """Return what comes of `call`."""
        for attempt in count():
            outcome = await self._try(call)
            pause_s = self.retries.pause_s(attempt, call, outcome)
            if pause_s is None:
                break
            await asyncio.sleep(pause_s)
        return call.result(outcome)

    async def items(self, pages: Pages[ItemT]) -> AsyncGenerator[ItemT, None]:
        """Yield the items of all pages, each page when it is needed."""
        page = await self.send(pages.page(None))
        for item in page.data:
            yield item
        while page.next_cursor is not None:
            page = await self.send(pages.page(page.next_cursor))
            for item in page.data:
                yield item

    async def _try(self, call: Call[Any]) -> httpx.Response | httpx.TransportError:
        try:
            return await self.http.request(**call.arguments())
        except httpx.TransportError as error:
            return error
