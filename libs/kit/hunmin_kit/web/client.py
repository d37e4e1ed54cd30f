"""The caller's end of an Endpoint. It does not know which transport carries it."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from hunmin_contracts.endpoint import AnyEndpoint, Endpoint, StreamEndpoint, UploadEndpoint
from hunmin_contracts.errors import ErrorCode, HunminError, Problem
from opentelemetry import propagate, trace
from pydantic import BaseModel, RootModel, ValidationError

from hunmin_kit.web.balancing import AFFINITY
from hunmin_kit.web.events import SILENCE_S, decode_events
from hunmin_kit.web.request_id import HEADER, current_or_new_request_id

RequestT = TypeVar("RequestT", bound=BaseModel)
ResponseT = TypeVar("ResponseT", bound=BaseModel)
EventT = TypeVar("EventT", bound=RootModel)  # type: ignore[type-arg]  # the root's type is the stream's own union
Wait = Callable[[], AbstractAsyncContextManager[None]]

_FIELD = re.compile(r"{(\w+)}")
_RETRY_AFTER_S = 1
_UNREACHABLE_STATUS = (502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long a caller waits: to be connected, for a whole call, for a whole stream; for the next sign of an endless.

    An upload, and a call that `is_long`, may take as long as a stream.
    """

    connect_s: float = 2.0
    call_s: float = 60.0
    stream_s: float = 600.0
    silence_s: float = SILENCE_S


class Client:
    """Another service, by name. Forwards the request id and the W3C trace context.

    Of several replicas the one is asked that suits the request's `affinity`, a text, where its class has one.
    """

    def __init__(
        self,
        service: str,
        transport: httpx.AsyncBaseTransport,
        *,
        tracer: trace.Tracer,
        base_url: str,
        deadlines: Deadlines = Deadlines(),  # frozen
    ) -> None:
        self._service = service
        self._tracer = tracer
        self._deadlines = deadlines
        # Without httpx's client, whose redirects, cookies and credentials no service has: it takes as long as all else.
        self._transport = transport
        self._base_url = httpx.URL(base_url)
        timeout = httpx.Timeout(None, connect=deadlines.connect_s, pool=deadlines.connect_s)
        self._extensions = {"timeout": timeout.as_dict()}

    async def call(self, endpoint: Endpoint[RequestT, ResponseT], request: RequestT) -> ResponseT:
        """Return the callee's response; raise HunminError as it raised it, UNAVAILABLE or DEADLINE_EXCEEDED."""
        with self._span(endpoint) as span:
            deadline_s = self._deadlines.stream_s if endpoint.is_long else self._deadlines.call_s
            response = await self._answer(self._request(endpoint, request, span), deadline_s)
            return endpoint.response.model_validate_json(response.content)

    async def upload(
        self, endpoint: UploadEndpoint[RequestT, ResponseT], request: RequestT, file: AsyncIterable[bytes]
    ) -> ResponseT:
        """Send `file` as it comes, of which nothing is kept here, and return or raise as `call` does."""
        with self._span(endpoint) as span:
            response = await self._answer(self._upload(endpoint, request, file, span), self._deadlines.stream_s)
            return endpoint.response.model_validate_json(response.content)

    @asynccontextmanager
    async def stream(
        self, endpoint: StreamEndpoint[RequestT, EventT], request: RequestT, file: AsyncIterable[bytes] | None = None
    ) -> AsyncGenerator[AsyncIterator[EventT], None]:
        """Enter to send the request and learn its status; iterate for its events; leave at any time to cancel it.

        `file` goes as it comes to an endpoint that takes one; None is an empty one. An endless stream that falls silent
        is UNAVAILABLE, any other that takes too long DEADLINE_EXCEEDED.
        """
        wait = self._waiting(endpoint)
        with self._span(endpoint) as span:
            sent = (
                self._upload(endpoint, request, file, span)
                if endpoint.takes_file
                else self._request(endpoint, request, span)
            )
            async with wait():
                response = await self._transport.handle_async_request(sent)
            try:
                if response.is_error:
                    async with wait():
                        await response.aread()
                self._raise_for_status(response)
                async with (
                    aclosing(_received(response, wait)) as pieces,
                    aclosing(_decoded(endpoint, pieces)) as events,
                ):
                    yield events
            finally:
                await response.aclose()

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()

    def _waiting(self, endpoint: StreamEndpoint[Any, Any]) -> Wait:
        """Return what every wait for a part of the stream stands in."""
        now = asyncio.get_running_loop().time
        end = now() + self._deadlines.stream_s

        @asynccontextmanager
        async def wait() -> AsyncGenerator[None, None]:
            with self._as_hunmin_errors():
                try:
                    async with asyncio.timeout_at(now() + self._deadlines.silence_s if endpoint.is_endless else end):
                        yield
                except TimeoutError as error:
                    if endpoint.is_endless:
                        raise self._unavailable("fell silent") from error
                    raise

        return wait

    async def _answer(self, request: httpx.Request, deadline_s: float) -> httpx.Response:
        with self._as_hunmin_errors():
            async with asyncio.timeout(deadline_s):
                response = await self._transport.handle_async_request(request)
                try:
                    await response.aread()
                finally:
                    await response.aclose()
        self._raise_for_status(response)
        return response

    def _request(self, endpoint: AnyEndpoint, request: BaseModel, span: trace.Span) -> httpx.Request:
        headers = self._headers(span)
        path, fields = _filled(endpoint.path, request)
        if endpoint.method in ("GET", "DELETE"):
            query = request.model_dump(mode="json", exclude=fields, exclude_none=True)
            return self._to(endpoint, path, headers, query=query)
        body = request.model_dump_json(exclude=fields, by_alias=True).encode()
        headers["content-type"] = "application/json"
        return self._to(endpoint, path, headers, body, affinity=getattr(request, "affinity", None))

    def _upload(
        self, endpoint: AnyEndpoint, request: BaseModel, file: AsyncIterable[bytes] | None, span: trace.Span
    ) -> httpx.Request:
        path, fields = _filled(endpoint.path, request)
        body = _behind(request.model_dump_json(exclude=fields, by_alias=True).encode(), file)
        headers = {**self._headers(span), "content-type": "application/octet-stream"}
        return self._to(endpoint, path, headers, body)

    def _to(
        self,
        endpoint: AnyEndpoint,
        path: str,
        headers: Mapping[str, str],
        content: bytes | AsyncIterable[bytes] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        affinity: str | None = None,
    ) -> httpx.Request:
        return httpx.Request(
            endpoint.method,
            _url(self._base_url, path),
            params=query,
            headers=headers,
            content=content,
            extensions=self._extensions if affinity is None else {**self._extensions, AFFINITY: affinity},
        )

    def _headers(self, span: trace.Span) -> dict[str, str]:
        headers: dict[str, str] = {HEADER: current_or_new_request_id()}
        propagate.inject(headers, context=trace.set_span_in_context(span))
        return headers

    @contextmanager
    def _span(self, endpoint: AnyEndpoint) -> Iterator[trace.Span]:
        # Never the current span: a stream's block may be left in another context than the one it was entered in.
        span = self._tracer.start_span(
            f"{endpoint.method} {endpoint.path}",
            kind=trace.SpanKind.CLIENT,
            attributes={
                "http.request.method": endpoint.method,
                "url.template": endpoint.path,
                "server.address": self._service,
            },
        )
        try:
            yield span
        except BaseException as error:
            if not isinstance(error, GeneratorExit):
                span.set_attribute(
                    "error.type", error.code if isinstance(error, HunminError) else type(error).__qualname__
                )
                span.set_status(trace.StatusCode.ERROR)
            raise
        finally:
            span.end()

    @contextmanager
    def _as_hunmin_errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise self._unavailable("cannot be reached") from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise HunminError(
                ErrorCode.DEADLINE_EXCEEDED,
                f"The service {self._service} did not answer in time. Ask for less, or try again later.",
            ) from error
        except httpx.TransportError as error:
            raise self._unavailable("broke off its answer") from error

    def _raise_for_status(self, response: httpx.Response) -> None:
        if not response.is_error:
            return
        try:
            raise Problem.model_validate_json(response.content).error()
        except ValidationError:
            pass
        if response.status_code in _UNREACHABLE_STATUS:
            raise self._unavailable(f"answered {response.status_code}")
        raise HunminError(
            ErrorCode.INTERNAL,
            f"The service {self._service} answered {response.status_code} without a problem document. "
            "Check that its URL leads to a Hunmin service.",
        )

    def _unavailable(self, what: str) -> HunminError:
        return HunminError(
            ErrorCode.UNAVAILABLE,
            f"The service {self._service} {what}. Try again shortly.",
            retry_after_s=_RETRY_AFTER_S,
        )


async def _received(response: httpx.Response, wait: Wait) -> AsyncGenerator[bytes, None]:
    pieces = response.aiter_raw()
    while True:
        async with wait():
            piece = await anext(pieces, None)
        if piece is None:
            return
        yield piece


async def _decoded(endpoint: StreamEndpoint[Any, EventT], pieces: AsyncIterator[bytes]) -> AsyncGenerator[EventT, None]:
    async with aclosing(decode_events(pieces)) as events:
        async for name, data in events:
            if name == "error":
                raise Problem.model_validate_json(data).error()
            yield endpoint.event.model_validate_json(data)


def _filled(path: str, request: BaseModel) -> tuple[str, set[str]]:
    """Return `path` with the request's values in it, and those fields' names; NOT_FOUND if one leads elsewhere."""
    return _FIELD.sub(lambda match: _segment(request, match[1]), path), set(_FIELD.findall(path))


# Parsing takes as long as all else that makes a request, and most paths are an endpoint's own.
@lru_cache(maxsize=256)
def _url(base: httpx.URL, path: str) -> httpx.URL:
    return base.copy_with(raw_path=base.raw_path.rstrip(b"/") + path.encode())


def _segment(request: BaseModel, field: str) -> str:
    value = str(getattr(request, field))
    if "/" in value or value in ("", ".", ".."):  # encoded or not, servers and clients take these for other paths
        raise HunminError(ErrorCode.NOT_FOUND, f"There is nothing called {value[:80]!r}. Check the name.", param=field)
    return quote(value, safe="")


async def _behind(head: bytes, file: AsyncIterable[bytes] | None) -> AsyncIterator[bytes]:
    yield head + b"\n"
    if file is not None:
        async for piece in file:
            yield piece
