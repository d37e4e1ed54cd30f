"""Mounts a function as the server end of an Endpoint. The other end is `Client`."""

import asyncio
import inspect
import json
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, BinaryIO, TypeVar, get_type_hints

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from hunmin_contracts.endpoint import AnyEndpoint, StreamEndpoint
from hunmin_contracts.errors import ErrorCode, HunminError
from pydantic import BaseModel, ValidationError

from hunmin_kit.web.edge import is_json
from hunmin_kit.web.events import HEARTBEAT_S, EventStream
from hunmin_kit.web.openapi import BODILESS, declare, takes_file

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
ModelT = TypeVar("ModelT", bound=BaseModel)

MAX_HEAD_BYTES = 16 * 2**20  # of the line of JSON before an uploaded file


def serve(router: APIRouter, endpoint: AnyEndpoint) -> Callable[[FunctionT], FunctionT]:
    """Mount the decorated function at `endpoint`. Its first parameter is the request; others are FastAPI dependencies.

    An Endpoint's function returns the response. A StreamEndpoint's is an async generator of events: what it raises
    before the first event is an ordinary error status, after it an `error` event; it is closed when the client leaves.
    (An endless one's status is sent with its first heartbeat, if no event comes before.)
    An UploadEndpoint's returns the response too. Where a file comes, it is the second parameter: an open one of the
    system (it has a `fileno`), closed after the answer.
    """

    def mount(function: FunctionT) -> FunctionT:
        if isinstance(endpoint, StreamEndpoint):
            answer = _streamed(function, heartbeat_s=HEARTBEAT_S if endpoint.is_endless else None)
        else:
            answer = _whole(function)
        # Not functools.wraps: FastAPI unwraps a route to see whether it is a generator, and would run it itself.
        answer.__name__, answer.__doc__ = function.__name__, function.__doc__
        answer.__signature__ = _signature(function, endpoint)  # type: ignore[attr-defined]
        declare(answer, endpoint)
        router.add_api_route(
            endpoint.path,
            answer,
            methods=[endpoint.method],
            response_model=None,
            include_in_schema=False,  # the declaration describes it, in openapi.py
        )
        return function

    return mount


def _whole(function: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(_hunmin_parsed: tuple[Any, ...], **dependencies: Any) -> Response:
        reply: BaseModel = await function(*_hunmin_parsed, **dependencies)
        return Response(reply.model_dump_json(by_alias=True), media_type="application/json")

    return answer


def _streamed(function: Callable[..., Any], *, heartbeat_s: float | None) -> Callable[..., Any]:
    async def answer(_hunmin_parsed: tuple[Any, ...], **dependencies: Any) -> Response:
        return EventStream(_encoded(function(*_hunmin_parsed, **dependencies)), heartbeat_s=heartbeat_s)

    return answer


async def _encoded(events: AsyncGenerator[BaseModel, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield b"data: " + event.model_dump_json(by_alias=True).encode() + b"\n\n"


def _signature(function: Callable[..., Any], endpoint: AnyEndpoint) -> inspect.Signature:
    """Return the signature that FastAPI sees: what we parse as one parameter, every other as it was written."""
    hints = get_type_hints(function, include_extras=True)
    if takes_file(endpoint):
        parse, parsed = _upload_parser(endpoint.request), 2
    elif endpoint.method in BODILESS:
        parse, parsed = _query_parser(endpoint.request), 1
    else:
        parse, parsed = _body_parser(endpoint.request), 1
    request = inspect.Parameter(
        "_hunmin_parsed", inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[Any, Depends(parse)]
    )
    dependencies = [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in list(inspect.signature(function).parameters.values())[parsed:]
    ]
    return inspect.Signature([request, *dependencies])


def _body_parser(model: type[BaseModel]) -> Callable[..., Any]:
    async def parse(request: Request) -> tuple[BaseModel]:
        body = await request.body()
        if body and not is_json(request.headers.get("content-type")):
            raise HunminError(
                ErrorCode.UNSUPPORTED_MEDIA_TYPE, "The body is not declared as JSON. Send application/json."
            )
        return (validated(model, body, request.path_params),)

    return parse


def _upload_parser(model: type[BaseModel]) -> Callable[..., Any]:
    async def parse(request: Request) -> AsyncGenerator[tuple[BaseModel, BinaryIO], None]:
        with tempfile.TemporaryFile() as file:
            head = bytearray()
            is_head = True
            async for piece in request.stream():
                if is_head:
                    line, end, piece = piece.partition(b"\n")
                    head += line
                    is_head = not end
                    if len(head) > MAX_HEAD_BYTES:
                        break
                await asyncio.to_thread(file.write, piece)
            if is_head:
                raise HunminError(
                    ErrorCode.INVALID_REQUEST,
                    "The body has no line of JSON before the file. Put it there, and a line feed.",
                )
            file.seek(0)
            yield validated(model, bytes(head), request.path_params), file

    return parse


def validated(model: type[ModelT], body: bytes, path_params: Mapping[str, Any] = {}) -> ModelT:
    """Return what a body of JSON holds, with the values of its path; refuse it as FastAPI refuses one.

    JSON's types are taken as they are, since the OpenAPI file promises that: a number in quotes is no number.
    """
    try:
        if path_params:
            values = json.loads(body or b"{}")
            body = json.dumps({**values, **path_params} if isinstance(values, dict) else values).encode()
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    except ValueError:
        raise HunminError(
            ErrorCode.INVALID_REQUEST, "The body is not valid JSON. Correct it and send it again."
        ) from None
    raise _refusal(errors, body)  # here the error is gone, and what it held of the body


def _query_parser(model: type[BaseModel]) -> Callable[..., Any]:
    lists = {name for name, field in model.model_fields.items() if _is_list(field.annotation)}

    async def parse(request: Request) -> tuple[BaseModel]:
        query = request.query_params
        values: dict[str, Any] = {name: query.getlist(name) if name in lists else query[name] for name in query}
        try:
            return (model.model_validate(values | request.path_params),)
        except ValidationError as error:
            raise RequestValidationError(
                [{**item, "loc": ("query", *item["loc"])} for item in error.errors(include_url=False)]
            ) from None

    return parse


def _is_list(annotation: Any) -> bool:
    return "list[" in str(annotation)


def _refusal(found: Sequence[Any], body: bytes) -> Exception:
    errors = [{**item, "loc": ("body", *item["loc"])} for item in found]
    if not body:
        return RequestValidationError(errors, body=None)
    if any(item["type"] == "json_invalid" for item in errors):
        return HunminError(ErrorCode.INVALID_REQUEST, "The body is not valid JSON. Correct it and send it again.")
    return RequestValidationError(errors, body=json.loads(body))
