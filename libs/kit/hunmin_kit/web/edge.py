"""The HTTP edge of every service: one ASGI layer that gives a request its id, its limits and its end.

It reads the body (bounded), runs the application, cancels it when the client leaves, turns what nobody caught into a
problem document, and writes one log line and one metric. It knows no route."""

import asyncio
import io
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from fastapi import Request, Response
from hunmin_contracts.errors import ErrorCode, HunminError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hunmin_kit.observe.logs import ResponseAborted
from hunmin_kit.observe.metrics import Metrics
from hunmin_kit.web.request_id import HEADER, accept_request_id, request_context

OBSERVATION_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
ERROR_KEY = "hunmin.error"  # in the ASGI scope: the code of the error that was answered, also within a stream
_FILES = ("multipart/form-data", "application/octet-stream")  # bodies that pass through as they come
CLIENT_LEFT = 499  # nginx's number for it; never sent, only counted

_log = structlog.get_logger()
# The last but one: a surrogate in the bytes that UTF-8 would give it, which Python's JSON reader decodes.
_SUSPICIOUS_JSON = re.compile(rb"\\u[dD][89a-fA-F]|NaN|Infinity|\xed[\xa0-\xbf]|\x00")


class ClientLeft(Exception):
    """The client closed the connection before its request was read."""


@dataclass
class _Answer:
    """What was sent so far."""

    status: int | None = None
    is_complete: bool = False


class Edge:
    """ASGI middleware around everything that a service answers."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: str,
        metrics: Metrics,
        body_limit_bytes: int,
        upload_limit_bytes: int,
        upload_paths: frozenset[str],
        on_exception: Callable[[Request, Exception], Awaitable[Response]],
        is_draining: Callable[[], bool],
    ) -> None:
        self._app = app
        self._service = service
        self._metrics = metrics
        self._body_limit_bytes = body_limit_bytes
        self._upload_limit_bytes = upload_limit_bytes
        self._upload_paths = upload_paths
        self._on_exception = on_exception
        self._is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = accept_request_id(Headers(scope=scope).get(HEADER))
        answer = _Answer()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                if self._is_draining():  # or the client's next request meets a connection that is just being closed
                    headers["connection"] = "close"
            elif not message.get("more_body", False):
                answer.is_complete = True
            await send(message)

        with (
            request_context(request_id),
            structlog.contextvars.bound_contextvars(service=self._service, request_id=request_id),
        ):
            try:
                await self._serve(scope, receive, send_with_id, answer)
            finally:
                self._finish(scope, answer, time.perf_counter() - started)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, answer: _Answer) -> None:
        try:
            body = _Body(scope, receive, self._limit_bytes(scope))
            await body.open()
            await _run_until_client_leaves(self._app, scope, body, receive, send, answer)
        except ClientLeft:
            return
        except Exception as error:  # the HTTP edge
            request = Request(scope)
            response = await self._on_exception(request, error)
            if answer.status is not None:
                raise ResponseAborted from None
            await response(scope, receive, send)

    def _limit_bytes(self, scope: Scope) -> int:
        # What is no file is held in memory, and bounded as everywhere.
        is_upload = scope["path"] in self._upload_paths and _is_file(Headers(scope=scope))
        return self._upload_limit_bytes if is_upload else self._body_limit_bytes

    def _finish(self, scope: Scope, answer: _Answer, duration_s: float) -> None:
        if scope["path"] in OBSERVATION_PATHS:
            return
        status = answer.status if answer.status is not None and answer.is_complete else CLIENT_LEFT
        route = getattr(scope.get("route"), "path_format", None) or "unmatched"
        self._metrics.observe(
            service=self._service, method=scope["method"], route=route, status=status, duration_s=duration_s
        )
        error = {"error": scope[ERROR_KEY]} if ERROR_KEY in scope else {}
        _log.info(
            "http.request.finished",
            method=scope["method"],
            route=route,
            status=status,
            duration_s=round(duration_s, 4),
            **error,
        )


class _Body:
    """A request's body. Files reach the application as they come, bounded, taking no memory; others are read whole."""

    def __init__(self, scope: Scope, receive: Receive, limit_bytes: int) -> None:
        """Refuse a body that says itself that it is too large."""
        self._headers = Headers(scope=scope)
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._size = 0
        self._whole: bytes | None = None
        self.has_come = asyncio.Event()
        declared = self._headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit_bytes:
            raise _too_large(limit_bytes)

    async def open(self) -> None:
        """Read all of it and look it over, unless it is a file; ClientLeft if it does not come."""
        if _is_file(self._headers):
            return
        content = io.BytesIO()  # gives its content away without a copy
        while not self.has_come.is_set():
            content.write((await self._receive_piece())["body"])
        self._whole = content.getvalue()
        _check_json(self._headers, self._whole)

    async def next_message(self) -> Message | None:
        """Return its next piece, None after the last; ClientLeft or `too_large` while it comes."""
        if self._whole is not None:
            body, self._whole = self._whole, None  # kept by whoever reads it, and not here
            return {"type": "http.request", "body": body, "more_body": False}
        return None if self.has_come.is_set() else await self._receive_piece()

    async def _receive_piece(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body, more = message.get("body", b""), message.get("more_body", False)
        self._size += len(body)
        if self._size > self._limit_bytes:
            raise _too_large(self._limit_bytes)
        if not more:
            self.has_come.set()
        return {"type": "http.request", "body": body, "more_body": more}


def _is_file(headers: Headers) -> bool:
    return headers.get("content-type", "").lower().startswith(_FILES)


def _too_large(limit_bytes: int) -> HunminError:
    return HunminError(
        ErrorCode.TOO_LARGE,
        f"The body is larger than {limit_bytes} bytes. Send less in one request.",
        limit=limit_bytes,
    )


def _check_json(headers: Headers, body: bytes) -> None:
    """Refuse what Python's JSON reader lets through and nothing after it can carry: NaN, Infinity, lone surrogates.

    The body is parsed here only if a fast scan finds one of their spellings; malformed JSON is left to the route.
    """
    if not is_json(headers.get("content-type")) or not _SUSPICIOUS_JSON.search(body):
        return
    try:
        json.dumps(json.loads(body, parse_constant=_refuse_constant), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise HunminError(
            ErrorCode.INVALID_REQUEST,
            "The body holds a lone surrogate (\\ud800 to \\udfff), which is no Unicode text. Remove it.",
        ) from None
    except (ValueError, RecursionError):
        return


def is_json(content_type: str | None) -> bool:
    """Say whether this media type is JSON."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _refuse_constant(name: str) -> float:
    raise HunminError(ErrorCode.INVALID_REQUEST, f"The body holds {name}, which is not JSON. Send a number or null.")


async def _run_until_client_leaves(
    app: ASGIApp, scope: Scope, body: _Body, receive: Receive, send: Send, answer: _Answer
) -> None:
    """Run `app` in this task, and cancel it once the client is gone, whether or not it streams.

    This task is cancelled once, as `asyncio.timeout` does it, so a `finally` in the application may await.
    """
    task = asyncio.current_task()
    gone = asyncio.Event()

    def leave() -> None:
        gone.set()
        if task is not None and not answer.is_complete:
            task.cancel()

    async def replay() -> Message:
        try:
            if (message := await body.next_message()) is not None:
                return message
        except ClientLeft:
            leave()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def watch() -> None:
        await body.has_come.wait()  # until then it is `replay` that listens
        while (await receive())["type"] != "http.disconnect":
            pass
        leave()

    watcher = asyncio.create_task(watch())
    try:
        await app(scope, replay, send)
    except asyncio.CancelledError:
        if not gone.is_set() or (task is not None and task.uncancel() > 0):
            raise
    finally:
        watcher.cancel()
