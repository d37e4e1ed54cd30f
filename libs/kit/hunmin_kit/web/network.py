"""The transport to a service in another process: aiohttp's pool of HTTP/1.1 connections."""

import ssl
from collections.abc import AsyncIterator
from functools import cache

import aiohttp
import certifi

from hunmin_kit.web.transport import Answer, BrokenOff, Request, Transport, Unreachable

_KEEPALIVE_S = 5.0  # shorter than the server's, so that we never send on a connection it is about to close
_PIECE_BYTES = 2**14


class NetworkTransport(Transport):
    """A pool of at most `max_connections`. Whoever has none within `connect_s` finds the service unreachable."""

    def __init__(self, *, max_connections: int, connect_s: float) -> None:
        self._max_connections = max_connections
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_s)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Answer:
        """Send it; a connection that was refused is tried once more."""
        try:
            try:
                return await self._send(request)
            except aiohttp.ClientConnectorError:
                return await self._send(request)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable from error
        except aiohttp.ClientError as error:
            raise BrokenOff from error

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def _send(self, request: Request) -> Answer:
        response = await self._opened().request(
            request.method, request.url, headers=request.headers, data=request.body or None, allow_redirects=False
        )
        return _NetworkAnswer(response)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:  # it belongs to the loop that runs
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._max_connections, keepalive_timeout=_KEEPALIVE_S, ssl=authorities()
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                auto_decompress=False,
                skip_auto_headers=("accept", "accept-encoding", "user-agent"),
            )
        return self._session


class _NetworkAnswer(Answer):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        super().__init__(response.status)
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.content.iter_chunked(_PIECE_BYTES):
                yield piece
        except aiohttp.ClientError as error:
            raise BrokenOff from error

    async def aclose(self) -> None:
        self._response.release()  # closes the connection of one that was not read to its end
        await self._response.wait_for_close()


@cache
def authorities() -> ssl.SSLContext:
    """Read the authorities that certify other servers, once: 40 ms."""
    return ssl.create_default_context(cafile=certifi.where())
