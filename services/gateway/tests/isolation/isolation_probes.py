"""The ways in which an operation may reach what an account owns."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from isolation_things import Make

MISSING = (403, 404)
REFUSED = (400,)  # what names nothing is a wrong parameter there, as OpenAI has it
Try = Callable[[httpx.AsyncClient, str], Awaitable[tuple[int, str]]]


@dataclass(frozen=True)
class Reach:
    """Try to reach one thing by its id: `{id}` in the path, the query, the body or a form.

    `expected`: how the owner is told of an id that nobody has, and whoever does not own it of this one.
    `own`: how the owner is answered for its own, where that is not a 2xx.
    """

    make: Make
    kind: str
    params: Mapping[str, str] | None = None
    body: Any = None
    form: Mapping[str, str] | None = None
    upload: tuple[str, str, bytes] | None = None  # a part of the form that is a file: its field, name and content
    path: Mapping[str, str] | None = None  # what is not `{id}` of the path: an id of another kind, or a text
    expected: Sequence[int] = MISSING
    own: int | None = None


@dataclass(frozen=True)
class Run:
    """Try to reach one thing by its id, where that takes several requests. `fills` is where the id goes in the last.

    `run` returns the status and the body of what came of it.
    """

    make: Make
    kind: str
    run: Try
    fills: str
    expected: Sequence[int] = MISSING
    own: int | None = None


@dataclass(frozen=True)
class Show:
    """List things of the account: the owner's are there for the owner alone. `kinds` are the ids by which it shows.

    `is_behind`: what comes behind a page that the owner has read, by the owner's own cursor.
    """

    make: Make
    kinds: tuple[str, ...]
    params: Mapping[str, str] | None = None
    is_behind: bool = False


@dataclass(frozen=True)
class Beside:
    """Make a thing under the name that another account's has: it becomes one of the caller's own, to be read there."""

    make: Make
    own: str
    form: Mapping[str, str]
    filename: str
    content: bytes


@dataclass(frozen=True)
class Change:
    """Change or make something by no id: it is the caller's own, and the owner's is the same afterwards.

    `unless`: how whoever has the right may be refused all the same, since they do not see the whole account.
    `own`: how the owner is answered, where that is not a 2xx.
    """

    make: Make
    body: Any
    unless: Sequence[int] = ()
    own: int | None = None


Probe = Reach | Run | Show | Beside | Change
Table = dict[str, list[Probe]]
