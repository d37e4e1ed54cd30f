"""Errors in TGI's shape, so that its clients raise their typed exceptions."""

from hunmin_contracts.errors import Problem
from pydantic import BaseModel
from starlette.responses import Response

PATHS = frozenset({"/", "/generate", "/generate_stream", "/info", "/health"})
PREFIX = "/models/"
_INCOMPLETE = 500
_GENERATION = 424
_VALIDATION = 422


class ErrorBody(BaseModel):
    """The body of every error. Its text ends with the request id."""

    error: str
    error_type: str


def is_tgi(path: str) -> bool:
    """Tell whether a path belongs to this dialect."""
    return path in PATHS or path.startswith(PREFIX)


def error_response(problem: Problem, path: str) -> Response:
    """Return the answer to a request that failed before its first byte."""
    if path.endswith("/health"):
        body, status = ErrorBody(error="unhealthy", error_type="healthcheck"), problem.status
    else:
        body, status = error_body(problem), _status(problem)
    return Response(body.model_dump_json(), status_code=status, media_type="application/json")


def error_event(problem: Problem) -> bytes:
    """Return the last event of a stream that failed."""
    return b"data:" + error_body(problem).model_dump_json().encode() + b"\n\n"


def error_body(problem: Problem) -> ErrorBody:
    """Return `problem` in TGI's shape."""
    kinds = {401: "unauthenticated", 403: "forbidden", 429: "overloaded", 424: "generation"}
    kind = kinds.get(_status(problem), "validation" if problem.status < 500 else "incomplete_generation")
    return ErrorBody(error=f"{problem.detail} (request {problem.request_id})", error_type=kind)


def status_of(status: int) -> int:
    """Return what a status of ours is in TGI's numbers."""
    if status == 400:
        return _VALIDATION
    return _GENERATION if status >= 500 else status


def _status(problem: Problem) -> int:
    if problem.status >= 500 and problem.details.get("incomplete"):
        return _INCOMPLETE
    return status_of(problem.status)
