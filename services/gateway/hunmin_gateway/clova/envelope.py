"""The envelope of every answer of the CLOVA Studio dialect, errors included: five digits, a message, a result."""

from typing import Any, Generic, TypeVar

from hunmin_contracts.errors import ERRORS, ErrorCode, HunminError, Problem
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from hunmin_gateway.public_schema import absent

PREFIXES = (
    "/testapp/",
    "/serviceapp/",
    "/tuning/v2/",
    "/v1/api-tools/",
    "/v1/chat-completions/",
    "/v1/completions/",
    "/v1/tasks/",
    "/v2/tasks/",
    "/v3/",
)
# NAVER's table of codes (api.ncloud-docs.com, clovastudio-troubleshoot); what it has none for is the HTTP status and
# two zeros.
_CODES = {
    ErrorCode.INVALID_REQUEST: "40000",
    ErrorCode.INVALID_PARAMETER: "40001",
    ErrorCode.UNKNOWN_PARAMETER: "40002",
    ErrorCode.PROMPT_TOO_LONG: "40003",
    ErrorCode.MODEL_NOT_FOUND: "40080",
    ErrorCode.UNAUTHENTICATED: "40104",
    ErrorCode.QUOTA_EXCEEDED: "42901",
    ErrorCode.OVERLOADED: "42902",
}
# Where one of our codes is several of NAVER's: what raises it says which.
TEXT_EMPTY = "40004"
UNSUPPORTED_FUNCTION = "40009"
NO_KEY = "40100"
NO_SUCH_SCHEME = "40102"
_DETAIL = "clova_code"

ResultT = TypeVar("ResultT")


class Camel(BaseModel):
    """A part of an answer, its names in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Outcome(BaseModel):
    """How it went."""

    code: str = "20000"
    message: str = "OK"


class Envelope(BaseModel, Generic[ResultT]):
    """An answer. `result` is missing where there is none."""

    status: Outcome = Outcome()
    result: ResultT | None = Field(default=None, exclude_if=absent)


def is_clova(path: str) -> bool:
    """Say whether a path is of this dialect."""
    return path.startswith(PREFIXES)


def clova_error(code: ErrorCode, number: str, message: str, **details: Any) -> HunminError:
    """Return an error that has a number of its own in this dialect."""
    return HunminError(code, message, **{_DETAIL: number}, **details)


def status_of(code: ErrorCode) -> int:
    """Return the HTTP status that a code of ours has in this dialect."""
    return int(_CODES[code][:3]) if code in _CODES else ERRORS[code].status


def error_body(problem: Problem) -> Envelope[None]:
    """Return `problem` in the envelope."""
    code = problem.details.get(_DETAIL) or _CODES.get(problem.code, f"{problem.status}00")
    return Envelope[None](status=Outcome(code=code, message=f"{problem.detail} (request {problem.request_id})"))


def error_response(problem: Problem) -> Response:
    """Return the answer to a request that failed."""
    body = error_body(problem)
    return Response(body.model_dump_json(), status_code=int(body.status.code[:3]), media_type="application/json")
