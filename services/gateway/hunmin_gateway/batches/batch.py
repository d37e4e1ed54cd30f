"""What is known of a batch and of its lines, apart from the tables. Pure: no I/O."""

from dataclasses import dataclass
from typing import Protocol

from hunmin_contracts.errors import HunminError
from hunmin_contracts.ids import AccountId, BatchId, ProjectId

from hunmin_gateway.batches.states import Status
from hunmin_gateway.principal import Principal

WINDOW_S = 24 * 3600  # in which a batch is run; then it expires
MAX_LINES = 50_000  # OpenAI's
MAX_FILE_BYTES = 200_000_000  # OpenAI's
MAX_LINE_BYTES = 16 * 2**20  # as a request's body
MAX_ERRORS = 100  # that a file is told of at once


@dataclass(frozen=True)
class Line:
    """A request of a file: its line, from 1, and the body as JSON."""

    number: int
    custom_id: str
    body: str


@dataclass(frozen=True)
class LineError:
    """What is wrong with a file, in which line; None: with all of it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True)
class ClaimedBatch:
    """A batch to be validated, or whose files are to be written, by whoever has that claim."""

    id: BatchId
    claim: str
    account_id: AccountId
    project_id: ProjectId
    endpoint: str
    input_file_id: str
    status: Status
    ends_as: str  # empty: not known yet
    has_run: bool  # its lines were let run
    attempts: int  # this one too


@dataclass(frozen=True)
class ClaimedLine:
    """A line to be run by whoever has that claim."""

    batch_id: BatchId
    number: int
    claim: str
    endpoint: str
    body: str
    attempts: int  # this one too
    principal: Principal


@dataclass(frozen=True)
class LineResult:
    """The answer to a line: what the same request would have got by HTTP."""

    request_id: str
    status_code: int
    response: str  # JSON


class Dialect(Protocol):
    """The requests that a batch can hold, in a dialect's own code."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The paths of those requests."""

    def check(self, endpoint: str, body: str) -> None:
        """Raise the HunminError that a request with this body would be refused by without being made."""

    async def answer(self, endpoint: str, body: str, principal: Principal) -> str:
        """Make the request; return the body of its answer, or raise what went wrong."""

    def failure(self, endpoint: str, error: Exception) -> tuple[int, str]:
        """Return status and body of the answer to a request that failed so."""

    def code_of(self, error: HunminError) -> str:
        """Return the dialect's name for an error."""
