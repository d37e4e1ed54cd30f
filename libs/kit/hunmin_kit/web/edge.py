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
from hunmin_kit.observe.metrics import HttpMetrics
from hunmin_kit.web.request_id import HEADER, accept_request_id, request_context

OBSERVATION_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
ERROR_KEY = "hunmin.error"  # in the ASGI scope: the code of the error that was answered, also within a stream
_FORM_PIECE_BYTES = 2**16
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
        metrics: HttpMetrics,
        body_limit_bytes: int,
        on_exception: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self._app = app
        self._service = service
        self._metrics = metrics
        self._body_limit_bytes = body_limit_bytes
        self._on_exception = on_exception

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
                MutableHeaders(scope=message)[HEADER] = request_id
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
            body = await _read_body(scope, receive, self._body_limit_bytes)
            await _run_until_client_leaves(self._app, scope, body, receive, send, answer)
        except ClientLeft:
            return
        except Exception as error:  # the HTTP edge
            request = Request(scope)
            response = await self._on_exception(request, error)
            if answer.status is not None:
                raise ResponseAborted from None
            await response(scope, receive, send)

    def _finish(self, scope: Scope, answer: _Answer, duration_s: float) -> None:
        if scope["path"] in OBSERVATION_PATHS:
            return
        status = answer.status if answer.status is not None and answer.is_complete else CLIENT_LEFT
        route = getattr(scope.get("route"), "path_format", None) or "unmatched"
        self._metrics.observe(method=scope["method"], route=route, status=status, duration_s=duration_s)
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
    """A request's body, which the application is given once, and which then is no longer kept here."""

    def __init__(self, content: bytes, *, piece_bytes: int) -> None:
        self._content: bytes | None = content
        self._piece_bytes = piece_bytes
        self._sent = 0

    def next_message(self) -> Message | None:
        """Return its next piece; None after the last."""
        if self._content is None:
            return None
        start, end = self._sent, self._sent + self._piece_bytes
        piece = self._content[start:end]  # all of it is itself, and no copy
        if more := end < len(self._content):
            self._sent = end
        else:
            self._content = None
        return {"type": "http.request", "body": piece, "more_body": more}


async def _read_body(scope: Scope, receive: Receive, limit_bytes: int) -> _Body:
    headers = Headers(scope=scope)
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    body = io.BytesIO()  # gives its content away without a copy
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body.write(message.get("body", b""))
        if body.tell() > limit_bytes:
            raise _too_large(limit_bytes)
        more = message.get("more_body", False)
    content = body.getvalue()
    _check_json(headers, content)
    # A form's parser copies whatever it is given at a time.
    is_form = headers.get("content-type", "").startswith("multipart/")
    return _Body(content, piece_bytes=_FORM_PIECE_BYTES if is_form else max(1, len(content)))


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

    async def replay() -> Message:
        if (message := body.next_message()) is not None:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()
        if task is not None and not answer.is_complete:
            task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        await app(scope, replay, send)
    except asyncio.CancelledError:
        if not gone.is_set() or (task is not None and task.uncancel() > 0):
            raise
    finally:
        watcher.cancel()
