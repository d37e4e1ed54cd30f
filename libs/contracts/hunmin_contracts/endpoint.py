"""One declaration for both ends of an internal call: the server mounts it, the client calls it."""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, RootModel

from hunmin_contracts.errors import ErrorCode

RequestT = TypeVar("RequestT", bound=BaseModel)
ResponseT = TypeVar("ResponseT", bound=BaseModel)
EventT = TypeVar("EventT", bound=RootModel)  # type: ignore[type-arg]  # the root's type is the stream's own union

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True)
class Endpoint(Generic[RequestT, ResponseT]):
    """A call with one reply.

    `path` may hold `{field}` of the request model; a GET or DELETE sends the other fields as query parameters,
    every other method sends them as a JSON body. One that `is_long` reads a file before it answers: its caller waits as
    long as for a stream. `errors` are those of its own, beside what any call may be answered with.
    """

    method: Method
    path: str
    request: type[RequestT]
    response: type[ResponseT]
    is_long: bool = False
    errors: tuple[ErrorCode, ...] = ()


@dataclass(frozen=True)
class StreamEndpoint(Generic[RequestT, EventT]):
    """A call answered by server-sent events, `data:` lines of `event` as JSON; a failure ends it with an `error` event.

    `event` is a `RootModel` over a discriminated union, so that each line is typed. One that `is_endless` lasts as long
    as what it tells of, which may be days: no deadline ends it, only silence. Comments are sent while nothing comes.
    """

    method: Method
    path: str
    request: type[RequestT]
    event: type[EventT]
    is_endless: bool = False
    takes_file: bool = False  # its body is an UploadEndpoint's
    errors: tuple[ErrorCode, ...] = ()


@dataclass(frozen=True)
class UploadEndpoint(Generic[RequestT, ResponseT]):
    """A call whose body is a file: `application/octet-stream`, the request's fields as one line of JSON, then the file.

    Fields in `path` are left out of that line. (A query would not do: a template is longer than URLs may be.)
    """

    method: Method
    path: str
    request: type[RequestT]
    response: type[ResponseT]
    errors: tuple[ErrorCode, ...] = ()


AnyEndpoint = Endpoint[Any, Any] | StreamEndpoint[Any, Any] | UploadEndpoint[Any, Any]
