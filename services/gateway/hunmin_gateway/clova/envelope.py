"""The envelope of every answer of the CLOVA Studio dialect, errors included: five digits, a message, a result."""

from typing import Generic, TypeVar

from hunmin_contracts.errors import ErrorCode, Problem
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from hunmin_gateway.public_schema import absent

PREFIXES = ("/tuning/v2/",)
# Where CLOVA Studio has a number of its own for it; everything else is the HTTP status and two zeros.
_CODES = {
    ErrorCode.INVALID_PARAMETER: "40001",
    ErrorCode.UNKNOWN_PARAMETER: "40002",
    ErrorCode.PROMPT_TOO_LONG: "40003",
    ErrorCode.MODEL_NOT_FOUND: "40080",
}

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


def error_response(problem: Problem) -> Response:
    """Return the answer to a request that failed."""
    code = _CODES.get(problem.code, f"{problem.status}00")
    message = f"{problem.detail} (request {problem.request_id})"
    body = Envelope[None](status=Outcome(code=code, message=message))
    return Response(body.model_dump_json(), status_code=int(code[:3]), media_type="application/json")
