"""A call of the API as a value: what to send, and what comes of the answer. It knows neither sockets nor `await`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from hunmin_contracts.page import Page
from pydantic import BaseModel, ValidationError

from hunmin.errors import UnexpectedAnswerError, UnreachableError, error_of

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)
ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. `is_repeatable`: sending it twice does no harm, so it may be sent again if its answer got lost."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: BaseModel | Mapping[str, Any] | None = None
    form: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, tuple[str, bytes]] | None = None
    is_repeatable: bool = True

    def arguments(self) -> dict[str, Any]:
        """Return what httpx needs to send it; what is None is left out, so that the server's default holds."""
        arguments: dict[str, Any] = {"method": self.method, "url": f"/studio/v1/{self.path}"}
        arguments["params"] = {name: value for name, value in self.query.items() if value is not None}
        if isinstance(self.body, BaseModel):
            arguments["content"] = self.body.model_dump_json(exclude_none=True)
            arguments["headers"] = {"content-type": "application/json"}
        elif self.body is not None:
            arguments["json"] = self.body
        if self.files is not None:
            arguments |= {"files": self.files, "data": self.form}
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


def segment(value: str) -> str:
    """Return `value` as one segment of a path."""
    return quote(value, safe="@")


def model(kind: type[ModelT]) -> Callable[[httpx.Response], ModelT]:
    """Return a reader of `kind`. A field that this version does not know is passed over: the server may be newer."""

    def read(response: httpx.Response) -> ModelT:
        try:
            return kind.model_validate_json(response.content, extra="ignore")
        except ValidationError as error:
            message = f"The answer is no {kind.__name__} of this library's version: {error}. Update the library."
            raise UnexpectedAnswerError(message) from None

    return read


def content(response: httpx.Response) -> bytes:
    """Read the body as it is."""
    return response.content


def nothing(response: httpx.Response) -> None:
    """Read no body."""
