"""A call of the API as a value: what to send, and what comes of the answer. It knows neither sockets nor `await`."""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar
from urllib.parse import quote

import httpx
from hunmin_contracts.page import Page
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from hunmin.errors import UnexpectedAnswerError, UnreachableError, error_of

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)
ItemT = TypeVar("ItemT")

File = bytes | str | PathLike[str] | BinaryIO  # a str is a path
LONG_S = 3600.0  # for what the studio reads row by row before it answers


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. `is_repeatable`: sending it twice does no harm, so it may be sent again if its answer got lost.

    `answer_within_s` is how long the answer may take, where that is longer than the client's own patience.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: BaseModel | Mapping[str, Any] | None = None
    form: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, tuple[str, File]] | None = None
    is_repeatable: bool = True
    answer_within_s: float = 0.0

    @contextmanager
    def request(self, http: httpx.Client | httpx.AsyncClient) -> Generator[httpx.Request, None, None]:
        """Build what `http` sends; files are open until the end of the block, and are read from their beginning."""
        with ExitStack() as opened:
            arguments = self._arguments()
            if self.files is not None:
                files = {part: (name, _opened(file, opened)) for part, (name, file) in self.files.items()}
                arguments |= {"files": files, "data": self.form}
            patience_s = http.timeout.read
            if patience_s is not None and self.answer_within_s > patience_s:
                arguments["timeout"] = httpx.Timeout(**http.timeout.as_dict() | {"read": self.answer_within_s})
            try:
                request = http.build_request(self.method, f"/studio/v1/{self.path}", **arguments)
            except UnicodeEncodeError as error:
                raise _no_text(error) from None
            yield request

    def _arguments(self) -> dict[str, Any]:
        """Return query and body; what is None is left out, so that the server's default holds."""
        arguments: dict[str, Any] = {"params": {name: value for name, value in self.query.items() if value is not None}}
        if isinstance(self.body, BaseModel):
            arguments["content"] = as_json(self.body)
            arguments["headers"] = {"content-type": "application/json"}
        elif self.body is not None:
            arguments["json"] = self.body
        return arguments

    def result(self, outcome: httpx.Response | httpx.TransportError) -> T:
        """Return what the answer holds, or raise what it means."""
        if isinstance(outcome, httpx.TransportError):
            reason = str(outcome) or type(outcome).__name__
            raise UnreachableError(f"The studio did not answer {self.method} {self.path}: {reason}.") from outcome
        if not outcome.is_success:
            raise error_of(outcome)
        return self.read(outcome)


@dataclass(frozen=True)
class Pages(Generic[ItemT]):
    """A list that comes in pages: `page` is the call for the one after a cursor."""

    page: Callable[[str | None], Call[Page[ItemT]]]


@dataclass(frozen=True)
class Stream(Generic[ItemT]):
    """Server-sent events, until the server ends them; `read` makes an item of one's data.

    Who was cut off goes on behind the last event that came, or behind the one with the id `after`. Events of other
    types than `types` are passed over: the server may be newer.
    """

    path: str
    read: Callable[[str], ItemT]
    types: frozenset[str]
    after: str | None = None


@dataclass(frozen=True)
class Poll(Generic[T]):
    """A call that is repeated until its result `is_over`; `on_change` is told each result that differs."""

    call: Call[T]
    is_over: Callable[[T], bool]
    on_change: Callable[[T], object]
    every_s: float
    within_s: float | None

    def check(self, waited_s: float) -> None:
        """Raise TimeoutError if there is no time to ask again."""
        if self.within_s is not None and waited_s + self.every_s > self.within_s:
            raise TimeoutError(f"{self.call.method} {self.call.path} did not come to an end in {self.within_s:g} s.")


def as_json(body: BaseModel) -> str:
    """Return `body` as JSON without what is None, so that the server's default holds."""
    try:
        return body.model_dump_json(exclude_none=True)
    except PydanticSerializationError as error:
        raise _no_text(error) from None


def segment(value: str) -> str:
    """Return `value` as one segment of a path; ValueError for what would lead to another path."""
    if value in ("", ".", "..") or "/" in value:
        raise ValueError(f"{value!r} names nothing in the studio: a name is not empty, `.` or `..`, and has no slash.")
    try:
        return quote(value, safe="@")
    except UnicodeEncodeError as error:
        raise _no_text(error) from None


def model(kind: type[ModelT]) -> Callable[[httpx.Response], ModelT]:
    """Return a reader of `kind`. A field that this version does not know is passed over: the server may be newer."""

    def read(response: httpx.Response) -> ModelT:
        return _validated(kind, response.content)

    return read


def event(kind: type[ModelT]) -> Callable[[str], ModelT]:
    """Return a reader of `kind` from an event's data."""

    def read(data: str) -> ModelT:
        return _validated(kind, data)

    return read


def content(response: httpx.Response) -> bytes:
    """Read the body as it is."""
    return response.content


def nothing(response: httpx.Response) -> None:
    """Read no body."""


def _validated(kind: type[ModelT], data: str | bytes) -> ModelT:
    try:
        return kind.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        message = f"The answer is no {kind.__name__} of this library's version: {error}. Update the library."
        raise UnexpectedAnswerError(message) from None


def _opened(file: File, stack: ExitStack) -> bytes | BinaryIO:
    if isinstance(file, str | PathLike):
        return stack.enter_context(Path(file).open("rb"))
    return file


def _no_text(error: Exception) -> ValueError:
    return ValueError(
        f"A text of the request is not valid Unicode ({error}): it holds half of a surrogate pair, as a file read with "
        'errors="surrogateescape" does. Read it in its own encoding, or replace those characters.'
    )
