"""Errors in OpenAI's shape, so that OpenAI's clients raise their typed exceptions."""

from hunmin_contracts.errors import ErrorCode, Problem
from pydantic import BaseModel
from starlette.responses import Response

# Where OpenAI has a code of its own, clients look for that; everything else keeps ours.
_CODES = {
    ErrorCode.UNAUTHENTICATED: "invalid_api_key",
    ErrorCode.PROMPT_TOO_LONG: "context_length_exceeded",
    ErrorCode.INVALID_PARAMETER: "invalid_value",
    ErrorCode.OVERLOADED: "rate_limit_exceeded",
    ErrorCode.QUOTA_EXCEEDED: "rate_limit_exceeded",
}
_TYPES = {429: "rate_limit_error", 403: "permission_error"}
# What the generation service calls otherwise.
_NAMES = {"/chat/completions": {"prompt": "messages"}, "/embeddings": {"prompt": "input", "inputs": "input"}}


class ErrorDetail(BaseModel):
    """What went wrong. `param` is the path of the parameter at fault; the message ends with the request id."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


def error_body(problem: Problem) -> ErrorBody:
    """Return `problem` in OpenAI's shape."""
    kind = "server_error" if problem.status >= 500 else _TYPES.get(problem.status, "invalid_request_error")
    return ErrorBody(
        error=ErrorDetail(
            message=f"{problem.detail} (request {problem.request_id})",
            type=kind,
            param=_param(problem),
            code=_CODES.get(problem.code, problem.code.value),
        )
    )


def error_response(problem: Problem, path: str) -> Response:
    """Return the answer to a request to `path` that failed before its first byte."""
    body = error_body_at(problem, path)
    return Response(body.model_dump_json(), status_code=problem.status, media_type="application/json")


def error_body_at(problem: Problem, path: str) -> ErrorBody:
    """Return `problem` in OpenAI's shape, with the names that parameters have at `path`."""
    body = error_body(problem)
    for ending, names in _NAMES.items():
        if path.endswith(ending) and body.error.param is not None:
            name, dot, place = body.error.param.partition(".")
            body.error.param = f"{names.get(name, name)}{dot}{place}"
    return body


def error_event(problem: Problem) -> bytes:
    """Return the last event of a stream that failed: OpenAI's clients raise APIError on it."""
    return b"data: " + error_body(problem).model_dump_json().encode() + b"\n\n"


def _param(problem: Problem) -> str | None:
    if problem.code is ErrorCode.MODEL_NOT_FOUND:
        return "model"
    param = problem.details.get("param")
    # The generation service groups what OpenAI keeps flat.
    return param.removeprefix("sampling.") if isinstance(param, str) else None
