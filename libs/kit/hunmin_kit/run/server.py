"""Open ports: a uvicorn server for each, in one event loop, without uvicorn's own signals, logs and exit."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from hunmin_kit.run.errors import StartError

_KEEPALIVE_S = 30
_BACKLOG = 2048


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def bind(host: str, port: int, *, variable: str) -> socket.socket:
    """Take the port, not yet answering on it; a StartError names `variable` if that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, or asyncio does not set TCP_NODELAY on what it accepts, and small answers wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)  # at once: two processes may bind one port, but only one may listen on it
    except OSError as error:
        listener.close()
        raise StartError(
            f"Port {port} on {host} cannot be opened: {error.strerror}. Stop what uses it, or set {variable}."
        ) from None
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL that reaches this port from this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def listening(app: FastAPI, listener: socket.socket, *, drain_s: float) -> AsyncGenerator[None, None]:
    """Answer on `listener`. On leaving: no new connections, running requests get `drain_s`, the rest is cancelled."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=_KEEPALIVE_S,
        timeout_graceful_shutdown=drain_s,  # type: ignore[arg-type]  # handed to asyncio.wait_for, which takes a float
        server_header=False,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not task.done():  # noqa: ASYNC110  # uvicorn offers a flag, no event
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await task
