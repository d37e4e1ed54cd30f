"""The transport between two services of one process: ASGI, streaming, with the callee in a world of its own."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextvars import Context
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

from hunmin_kit.web.transport import Answer, BrokenOff, Request, Transport

_WINDOW = 8  # messages between callee and caller: enough to overlap their work, few enough to hold the callee back


class InProcessTransport(Transport):
    """Calls the app that `find_app` returns, which may raise Unreachable while there is none."""

    def __init__(self, find_app: Callable[[], ASGIApp]) -> None:
        self._find_app = find_app
        self._exchanges: dict[asyncio.Task[None], _Exchange] = {}

    async def send(self, request: Request) -> "InProcessAnswer":
        """Send it, and return as soon as the answer's head is there."""
        exchange = _Exchange(_whole(request.body) if isinstance(request.body, bytes) else request.body)
        # A fresh context: identity and trace reach the callee in headers, as over the network, or not at all.
        task = asyncio.create_task(exchange.run(self._find_app(), _scope(request)), context=Context())
        self._exchanges[task] = exchange
        task.add_done_callback(self._exchanges.pop)
        try:
            head = await exchange.next_message()
        except BaseException:
            exchange.leave()
            raise
        return InProcessAnswer(head, exchange)

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
        """Return the callee's next message; BrokenOff if it stopped before it was done."""
        message = await self._messages.get()
        if message is None:
            raise BrokenOff
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


class InProcessAnswer(Answer):
    """The answer of an application; it has its headers, as ASGI writes them."""

    def __init__(self, head: Message, exchange: _Exchange) -> None:
        super().__init__(head["status"])
        self.headers: list[tuple[bytes, bytes]] = list(head["headers"])
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._exchange.next_message()
            more = message.get("more_body", False)
            if body := message.get("body", b""):
                yield body

    async def aclose(self) -> None:
        """Tell the application that nobody listens any more."""
        self._exchange.leave()


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _scope(request: Request) -> dict[str, Any]:
    url = request.url
    return {
        "type": "http",
        # 2.3: a callee that streams must listen for the disconnect instead of waiting for its next send to fail
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": unquote(url.raw_path),
        "raw_path": url.raw_path.encode(),
        "query_string": url.raw_query_string.encode(),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in _headers(request)],
        "server": (url.host, url.port),
        "client": ("in-process", 0),
    }


def _headers(request: Request) -> Iterable[tuple[str, str]]:
    """Return what a server would see: also the headers that HTTP itself has."""
    yield from request.headers.items()
    if "host" not in request.headers:
        yield "host", request.host
    if isinstance(request.body, bytes) and request.body and "content-length" not in request.headers:
        yield "content-length", str(len(request.body))
