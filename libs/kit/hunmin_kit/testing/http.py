"""httpx on an application of this process, streaming. (`httpx.ASGITransport` buffers the whole answer.)"""

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import cast

import httpx
from multidict import CIMultiDict
from starlette.types import ASGIApp
from yarl import URL

from hunmin_kit.web.inprocess import InProcessAnswer, InProcessTransport
from hunmin_kit.web.transport import BrokenOff, Request


class AppTransport(httpx.AsyncBaseTransport):
    """Calls the application that `find_app` returns."""

    def __init__(self, find_app: Callable[[], ASGIApp]) -> None:
        self._transport = InProcessTransport(find_app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it."""
        headers = CIMultiDict(
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        )
        body = cast(AsyncIterable[bytes], request.stream)
        answer = await self._transport.send(Request(request.method, URL(str(request.url), encoded=True), headers, body))
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer), request=request)

    async def aclose(self) -> None:
        """Cancel the calls that still run."""
        await self._transport.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: InProcessAnswer) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._answer:
                yield piece
        except BrokenOff as error:
            raise _broken_off() from error

    async def aclose(self) -> None:
        await self._answer.aclose()


def _broken_off() -> httpx.HTTPError:
    return httpx.RemoteProtocolError("The answer broke off.")
