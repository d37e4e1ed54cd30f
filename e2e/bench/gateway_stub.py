"""The servers beside the gateway in its benchmark, each `python gateway_stub.py NAME PORT WAIT_S`.

`engine` answers as the generation service does, after the same time whatever it is asked; it speaks HTTP by itself, so
that it takes as little of the processor as can be. `echo` is the least that FastAPI and the gateway's own server do.
"""

import asyncio
import json
import sys

from fastapi import FastAPI
from hunmin_kit.run.server import bind, listening
from pydantic import BaseModel

MODEL = "parrot"
PROMPT_TOKENS, COMPLETION_TOKENS = 4, 8
_EVENTS = (
    {"type": "prompt", "prompt_tokens": PROMPT_TOKENS},
    {
        "type": "chunk",
        "index": 0,
        "text": " 참 좋았다",
        "completion_tokens": COMPLETION_TOKENS,
        "finish_reason": "length",
    },
    {"type": "usage", "prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS},
)
_STREAM = b"".join(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n" for event in _EVENTS)
_MEASUREMENT = {
    "model": MODEL,
    "reference": MODEL,
    "prompt_tokens": PROMPT_TOKENS,
    "max_tokens": COMPLETION_TOKENS,
    "backward_tokens": 0,
}


def _response(body: bytes, kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


_ANSWERS = {
    b"/v1/generate": _response(_STREAM, "text/event-stream"),
    b"/v1/measure": _response(json.dumps(_MEASUREMENT).encode(), "application/json"),
    b"/v1/models": _response(b'{"models": []}', "application/json"),
}


class Engine(asyncio.Protocol):
    """One connection: requests one after the other, each with a Content-Length."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            _, _, length = head.partition(b"content-length:")
            whole = end + 4 + int(length.split(b"\r\n", 1)[0] or 0)
            if len(self._received) < whole:
                return
            self._received = self._received[whole:]
            path = head.split(b" ", 2)[1]
            wait_s = self._wait_s if path == b"/v1/generate" else 0
            asyncio.get_running_loop().call_later(wait_s, self._transport.write, _ANSWERS[path])


class Question(BaseModel):
    """What the echo is asked: the same body as the gateway."""

    model: str
    prompt: str
    max_tokens: int


def echo(wait_s: float) -> FastAPI:
    """Return the application that answers with what it is asked, after the engine's time."""
    app = FastAPI()

    @app.post("/v1/completions")
    async def answer(question: Question) -> Question:
        await asyncio.sleep(wait_s)
        return question

    return app


async def main(name: str, port: int, wait_s: float) -> None:
    """Serve until killed."""
    if name == "engine":
        server = await asyncio.get_running_loop().create_server(lambda: Engine(wait_s), "127.0.0.1", port)
        await server.serve_forever()
    async with listening(echo(wait_s), bind("127.0.0.1", port, variable="PORT"), drain_s=1):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
