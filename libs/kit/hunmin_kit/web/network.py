"""The transport to a service in another process: aiohttp's pool of HTTP/1.1 connections."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from functools import cache

import aiohttp
import certifi

from hunmin_kit.web.transport import Answer, BrokenOff, Crowded, Request, Transport, Unreachable

_KEEPALIVE_S = 5.0  # shorter than the server's, so that we never send on a connection it is about to close
_PIECE_BYTES = 2**14


class NetworkTransport(Transport):
    """A pool of at most `max_connections`. For a free one, and then to be connected, a request waits `connect_s`."""

    def __init__(self, *, max_connections: int, connect_s: float) -> None:
        self._connect_s = connect_s
        self._free = asyncio.Semaphore(max_connections)  # aiohttp would not tell which of the two took too long
        self._session: aiohttp.ClientSession | None = None
        self._answers: set[_NetworkAnswer] = set()

    async def send(self, request: Request) -> Answer:
        """Send it; a connection that was refused is tried once more.

        As RFC 9110 (9.2.2) allows, aiohttp sends an idempotent request again whose connection broke before an answer.
        """
        await self._wait_for_room()
        try:
            return await self._try_twice(request)
        except BaseException:
            self._free.release()
            raise

    async def aclose(self) -> None:
        """Break off the answers that still come, and close every connection."""
        for answer in self._answers:
            answer.break_off()
        if self._session is not None:
            await self._session.close()

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(self._connect_s if self._free.locked() else None):
                await self._free.acquire()
        except TimeoutError as error:
            raise Crowded from error

    async def _try_twice(self, request: Request) -> Answer:
        try:
            try:
                return await self._send(request)
            except aiohttp.ClientConnectorError:
                return await self._send(request)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable from error
        except aiohttp.ClientError as error:
            raise BrokenOff from error

    async def _send(self, request: Request) -> Answer:
        session = self._opened()
        if session.closed:
            raise Unreachable
        response = await session.request(
            request.method, request.url, headers=request.headers, data=request.body or None, allow_redirects=False
        )
        answer = _NetworkAnswer(response, on_close=self._forget)
        self._answers.add(answer)
        return answer

    def _forget(self, answer: "_NetworkAnswer") -> None:
        if answer in self._answers:
            self._answers.remove(answer)
            self._free.release()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:  # it belongs to the loop that runs
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S, ssl=authorities()),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_s),
                auto_decompress=False,
                skip_auto_headers=("accept", "accept-encoding", "user-agent"),
            )
        return self._session


class _NetworkAnswer(Answer):
    def __init__(self, response: aiohttp.ClientResponse, *, on_close: Callable[["_NetworkAnswer"], None]) -> None:
        super().__init__(response.status)
        self._response = response
        self._on_close = on_close

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.content.iter_chunked(_PIECE_BYTES):
                yield piece
        except aiohttp.ClientError as error:
            raise BrokenOff from error

    def break_off(self) -> None:
        """Let whoever reads it find it broken off."""
        self._response.close()

    async def aclose(self) -> None:
        try:
            self._response.release()  # closes the connection of one that was not read to its end
            await self._response.wait_for_close()
        finally:
            self._on_close(self)


@cache
def authorities() -> ssl.SSLContext:
    """Read the authorities that certify other servers, once: 40 ms."""
    return ssl.create_default_context(cafile=certifi.where())
