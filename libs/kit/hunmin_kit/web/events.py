"""Server-sent events, both ends. The status is decided by the first chunk; what fails later becomes a last event."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from fastapi import Response
from hunmin_contracts.errors import Problem
from starlette.types import Receive, Scope, Send

from hunmin_kit.background import in_background
from hunmin_kit.web.edge import ERROR_KEY
from hunmin_kit.web.errors import problem_of

HEARTBEAT_S = 15.0  # between two of a stream that may be silent: less than proxies and callers wait
SILENCE_S = 3 * HEARTBEAT_S  # after which its sender is held dead
_HEARTBEAT = b": still here\n\n"  # a comment


def error_event(problem: Problem) -> bytes:
    """Return the `error` event that ends a stream between services."""
    return b"event: error\ndata: " + problem.model_dump_json().encode() + b"\n\n"


class EventStream(Response):
    """A streamed answer whose generator is closed, in the task that ran it, as soon as the client leaves.

    `chunks` yields encoded events. What it raises before the first one is an ordinary error status; after it,
    `on_error` renders the last event. (Starlette's own StreamingResponse sends the status first, and leaves an
    interrupted generator to the garbage collector.) With `heartbeat_s` a comment is sent that often, and the status
    with the first of them: for streams that may be silent for hours.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        on_error: Callable[[Problem], bytes] = error_event,
        heartbeat_s: float | None = None,
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._chunks = chunks
        self._on_error = on_error
        self._heartbeat_s = heartbeat_s
        self._has_begun = False
        self._turn = asyncio.Lock()  # the heart beats in a task of its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._chunks) as chunks, self._beating(send):
            try:
                async for chunk in chunks:
                    await self._put(send, chunk)
            except Exception as error:  # the HTTP edge of a stream
                if not self._has_begun:
                    raise
                problem = problem_of(error)
                scope[ERROR_KEY] = problem.code
                await self._put(send, self._on_error(problem))
        await self._put(send, b"", more_body=False)

    async def _put(self, send: Send, body: bytes, *, more_body: bool = True) -> None:
        async with self._turn:
            if not self._has_begun:
                self._has_begun = True
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": body, "more_body": more_body})

    @asynccontextmanager
    async def _beating(self, send: Send) -> AsyncGenerator[None, None]:
        if self._heartbeat_s is None:
            yield
            return
        async with in_background(self._beat(send, self._heartbeat_s)):
            yield

    async def _beat(self, send: Send, heartbeat_s: float) -> None:
        while True:
            await asyncio.sleep(heartbeat_s)
            await self._put(send, _HEARTBEAT)


async def decode_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[tuple[str, bytes], None]:
    """Yield (event name, data) of each event in a stream that `EventStream` wrote; comments are passed over.

    Lines end with `\\n` only: `str.splitlines` would also cut at U+2028 and its kin, which JSON leaves as they are.
    """
    buffer = b""
    async for chunk in chunks:
        buffer += chunk
        *blocks, buffer = buffer.split(b"\n\n")
        for block in blocks:
            fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
            if b"data" in fields:
                yield fields.get(b"event", b"message").decode(), fields[b"data"]
