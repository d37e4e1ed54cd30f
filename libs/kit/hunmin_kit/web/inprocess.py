"""The transport between two services of one process: httpx to ASGI, streaming, with the callee in a world of its own.

(`httpx.ASGITransport` buffers the whole answer, and lets the caller's context variables leak into the callee.)"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextvars import Context
from typing import Any, cast
from urllib.parse import unquote

import httpx
from starlette.types import ASGIApp, Message, Scope

_WINDOW = 8  # messages between callee and caller: enough to overlap their work, few enough to hold the callee back


class InProcessTransport(httpx.AsyncBaseTransport):
    """Calls the app that `find_app` returns, which may raise `httpx.ConnectError` while there is none."""

    def __init__(self, find_app: Callable[[], ASGIApp]) -> None:
        self._find_app = find_app
        self._exchanges: dict[asyncio.Task[None], _Exchange] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and return as soon as the answer's head is there."""
        exchange = _Exchange(cast(AsyncIterable[bytes], request.stream))
        # A fresh context: identity and trace reach the callee in headers, as over the network, or not at all.
        task = asyncio.create_task(exchange.run(self._find_app(), _scope(request)), context=Context())
        self._exchanges[task] = exchange
        task.add_done_callback(self._exchanges.pop)
        try:
            head = await exchange.next_message()
        except BaseException:
            exchange.leave()
            raise
        return httpx.Response(head["status"], headers=head["headers"], stream=_Body(exchange), request=request)

    async def aclose(self) -> None:
        """Cancel the calls that still run, and wait for them."""
        for task, exchange in self._exchanges.items():
            exchange.leave()
            task.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)


class _Exchange:
    """One request and its answer."""

    def __init__(self, body: AsyncIterable[bytes]) -> None:
        self._body: AsyncIterator[bytes] | None = aiter(body)
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(_WINDOW)
        self._gone = asyncio.Event()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._send)
        except Exception:  # noqa: S110  # the callee's edge has logged it; here it only cuts the answer short
            pass
        finally:
            await self._put(None)

    async def next_message(self) -> Message:
        """Return the callee's next message; a RemoteProtocolError if it stopped before it was done."""
        message = await self._messages.get()
        if message is None:
            raise httpx.RemoteProtocolError("The answer broke off.")
        return message

    def leave(self) -> None:
        """Tell the callee that nobody listens any more, and a caller that still does that nothing more comes."""
        self._gone.set()
        while not self._messages.empty():  # lets a callee go that waits for room
            self._messages.get_nowait()
        self._messages.put_nowait(None)

    async def _receive(self) -> Message:
        if self._body is not None:
            try:
                return {"type": "http.request", "body": await anext(self._body), "more_body": True}
            except StopAsyncIteration:
                self._body = None
                return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self._put(message)

    async def _put(self, message: Message | None) -> None:
        if not self._gone.is_set():
            await self._messages.put(message)


class _Body(httpx.AsyncByteStream):
    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._exchange.next_message()
            more = message.get("more_body", False)
            if body := message.get("body", b""):
                yield body

    async def aclose(self) -> None:
        self._exchange.leave()


def _scope(request: httpx.Request) -> dict[str, Any]:
    raw_path, _, query = request.url.raw_path.partition(b"?")
    return {
        "type": "http",
        # 2.3: a callee that streams must listen for the disconnect instead of waiting for its next send to fail
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": unquote(raw_path.decode("ascii")),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": (request.url.host, request.url.port),
        "client": ("in-process", 0),
    }
