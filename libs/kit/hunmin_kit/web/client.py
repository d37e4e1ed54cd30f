"""The caller's end of an Endpoint. It does not know which transport carries it."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn, Protocol, TypeVar
from urllib.parse import quote

from hunmin_contracts.endpoint import AnyEndpoint, Endpoint, StreamEndpoint, UploadEndpoint
from hunmin_contracts.errors import ErrorCode, HunminError, Problem
from multidict import CIMultiDict
from opentelemetry import propagate, trace
from pydantic import BaseModel, RootModel, ValidationError
from yarl import URL

from hunmin_kit.observe.tracing import call_span
from hunmin_kit.web.events import SILENCE_S, decode_events
from hunmin_kit.web.request_id import HEADER, current_or_new_request_id
from hunmin_kit.web.transport import Answer, BrokenOff, Crowded, Request, Transport, Unreachable

RequestT = TypeVar("RequestT", bound=BaseModel)
ResponseT = TypeVar("ResponseT", bound=BaseModel)
EventT = TypeVar("EventT", bound=RootModel)  # type: ignore[type-arg]  # the root's type is the stream's own union
ResultT = TypeVar("ResultT")

_FIELD = re.compile(r"{(\w+)}")
_RETRY_AFTER_S = 1
_FIRST_ERROR_STATUS = 400
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


class Wait(Protocol):
    """Awaits a part of a stream, no longer than its endpoint allows."""

    async def __call__(self, part: Awaitable[ResultT]) -> ResultT: ...


class Client:
    """Another service, by name. Forwards the request id and the W3C trace context.

    Of several replicas the one is asked that suits the request's `affinity`, a text, where its class has one.
    """

    def __init__(
        self,
        service: str,
        transport: Transport,
        *,
        tracer: trace.Tracer,
        base_url: str,
        deadlines: Deadlines = Deadlines(),  # frozen
    ) -> None:
        self._service = service
        self._tracer = tracer
        self._deadlines = deadlines
        self._transport = transport
        self._base_url = base_url.rstrip("/")

    async def call(self, endpoint: Endpoint[RequestT, ResponseT], request: RequestT) -> ResponseT:
        """Return the callee's response; raise HunminError as it raised it, UNAVAILABLE or DEADLINE_EXCEEDED."""
        with self._span(endpoint) as span:
            deadline_s = self._deadlines.stream_s if endpoint.is_long else self._deadlines.call_s
            body = await self._body(self._request(endpoint, request, span), deadline_s)
            return endpoint.response.model_validate_json(body)

    async def upload(
        self, endpoint: UploadEndpoint[RequestT, ResponseT], request: RequestT, file: AsyncIterable[bytes]
    ) -> ResponseT:
        """Send `file` as it comes, of which nothing is kept here, and return or raise as `call` does."""
        with self._span(endpoint) as span:
            body = await self._body(self._upload(endpoint, request, file, span), self._deadlines.stream_s)
            return endpoint.response.model_validate_json(body)

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
            async with aclosing(await wait(self._transport.send(sent))) as answer:
                if _is_error(answer):
                    self._raise(answer.status, await wait(answer.read()))
                async with (
                    aclosing(_received(answer, wait)) as pieces,
                    aclosing(_decoded(endpoint, pieces)) as events,
                ):
                    yield events

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()

    def _waiting(self, endpoint: StreamEndpoint[Any, Any]) -> Wait:
        """Return what every part of the stream is awaited by."""
        now = asyncio.get_running_loop().time
        end = now() + self._deadlines.stream_s

        async def wait(part: Awaitable[ResultT]) -> ResultT:
            with self._as_hunmin_errors():
                try:
                    async with asyncio.timeout_at(now() + self._deadlines.silence_s if endpoint.is_endless else end):
                        return await part
                except TimeoutError as error:
                    if endpoint.is_endless:
                        raise self._unavailable("fell silent") from error
                    raise

        return wait

    async def _body(self, request: Request, deadline_s: float) -> bytes:
        with self._as_hunmin_errors():
            async with asyncio.timeout(deadline_s), aclosing(await self._transport.send(request)) as answer:
                body = await answer.read()
        if _is_error(answer):
            self._raise(answer.status, body)
        return body

    def _request(self, endpoint: AnyEndpoint, request: BaseModel, span: trace.Span) -> Request:
        headers = _headers(span)
        path, fields = _filled(endpoint.path, request)
        if endpoint.method in ("GET", "DELETE"):
            url = _url(self._base_url, path)
            query = request.model_dump(mode="json", exclude=fields, exclude_none=True)
            return Request(endpoint.method, url.with_query(_pairs(query)), headers)
        headers["content-type"] = "application/json"
        body = request.model_dump_json(exclude=fields, by_alias=True).encode()
        affinity = getattr(request, "affinity", None)
        return Request(endpoint.method, _url(self._base_url, path), headers, body, affinity=affinity)

    def _upload(
        self, endpoint: AnyEndpoint, request: BaseModel, file: AsyncIterable[bytes] | None, span: trace.Span
    ) -> Request:
        headers = _headers(span)
        headers["content-type"] = "application/octet-stream"
        path, fields = _filled(endpoint.path, request)
        body = _behind(request.model_dump_json(exclude=fields, by_alias=True).encode(), file)
        return Request(endpoint.method, _url(self._base_url, path), headers, body)

    def _span(self, endpoint: AnyEndpoint) -> AbstractContextManager[trace.Span]:
        attributes = {
            "http.request.method": endpoint.method,
            "url.template": endpoint.path,
            "server.address": self._service,
        }
        return call_span(self._tracer, f"{endpoint.method} {endpoint.path}", attributes)

    @contextmanager
    def _as_hunmin_errors(self) -> Iterator[None]:
        try:
            yield
        except Unreachable as error:
            raise self._unavailable("cannot be reached") from error
        except Crowded as error:
            raise self._unavailable("is asked for more than there are connections") from error
        except BrokenOff as error:
            raise self._unavailable("broke off its answer") from error
        except TimeoutError as error:
            raise HunminError(
                ErrorCode.DEADLINE_EXCEEDED,
                f"The service {self._service} did not answer in time. Ask for less, or try again later.",
            ) from error

    def _raise(self, status: int, body: bytes) -> NoReturn:
        try:
            raise Problem.model_validate_json(body).error()
        except ValidationError:
            pass
        if status in _UNREACHABLE_STATUS:
            raise self._unavailable(f"answered {status}")
        raise HunminError(
            ErrorCode.INTERNAL,
            f"The service {self._service} answered {status} without a problem document. "
            "Check that its URL leads to a Hunmin service.",
        )

    def _unavailable(self, what: str) -> HunminError:
        return HunminError(
            ErrorCode.UNAVAILABLE,
            f"The service {self._service} {what}. Try again shortly.",
            retry_after_s=_RETRY_AFTER_S,
        )


def _is_error(answer: Answer) -> bool:
    return answer.status >= _FIRST_ERROR_STATUS


async def _received(answer: Answer, wait: Wait) -> AsyncGenerator[bytes, None]:
    pieces = aiter(answer)
    while (piece := await wait(anext(pieces, None))) is not None:
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
def _url(base: str, path: str) -> URL:
    return URL(base + path, encoded=True)


def _headers(span: trace.Span) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict({HEADER: current_or_new_request_id()})
    propagate.inject(headers, context=trace.set_span_in_context(span))
    return headers


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a query says, a list as its name again and again."""
    pairs = [(name, one) for name, value in values.items() for one in (value if isinstance(value, list) else [value])]
    return [(name, str(one).lower() if isinstance(one, bool) else str(one)) for name, one in pairs]


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
