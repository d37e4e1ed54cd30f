"""Server-sent events, both ends. The status is decided by the first chunk; what fails later becomes a last event."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from fastapi import Response
from hunmin_contracts.errors import Problem
from starlette.types import Receive, Scope, Send

from hunmin_kit.web.edge import ERROR_KEY
from hunmin_kit.web.errors import problem_of


def error_event(problem: Problem) -> bytes:
    """Return the `error` event that ends a stream between services."""
    return b"event: error\ndata: " + problem.model_dump_json().encode() + b"\n\n"


class EventStream(Response):
    """A streamed answer whose generator is closed, in the task that ran it, as soon as the client leaves.

    `chunks` yields encoded events. What it raises before the first one is an ordinary error status; after it,
    `on_error` renders the last event. (Starlette's own StreamingResponse sends the status first, and leaves an
    interrupted generator to the garbage collector.)
    """

    media_type = "text/event-stream"

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], *, on_error: Callable[[Problem], bytes] = error_event
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._chunks = chunks
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._chunks) as chunks:
            try:
                first = await anext(chunks)
            except StopAsyncIteration:
                first = b""
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                await send({"type": "http.response.body", "body": first, "more_body": True})
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except Exception as error:  # the HTTP edge of a stream: its status is sent already
                problem = problem_of(error)
                scope[ERROR_KEY] = problem.code
                body = self._on_error(problem)
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def decode_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[tuple[str, bytes], None]:
    """Yield (event name, data) of each event in a stream that `EventStream` wrote.

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
