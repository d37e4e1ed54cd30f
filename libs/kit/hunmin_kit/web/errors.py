"""From an exception to the problem document that the caller sees. The only place that decides what is expected."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from hunmin_contracts.errors import ERRORS, ErrorCode, HunminError, Problem
from starlette.exceptions import HTTPException

from hunmin_kit.observe.tracing import current_trace_id
from hunmin_kit.web.request_id import current_or_new_request_id

ErrorRenderer = Callable[[Request, Problem], Response]

_log = structlog.get_logger()
_JSON_FAILED = "There was an error parsing the body"  # FastAPI's word where the JSON reader gave up
_OTHER_STATUS = {501: ErrorCode.METHOD_NOT_ALLOWED, 503: ErrorCode.UNAVAILABLE, 504: ErrorCode.DEADLINE_EXCEEDED}


def problem_of(error: Exception) -> Problem:
    """Describe `error` for the caller. One that nobody foresaw is logged here at ERROR, and shows nothing of itself."""
    known = as_hunmin_error(error)
    if known is None:
        _log.error("http.request.crashed", exc_info=error)
        known = HunminError(
            ErrorCode.INTERNAL,
            "The service failed unexpectedly. Report the request id to the operator of the platform.",
        )
    return Problem.of(known, request_id=current_or_new_request_id(), trace_id=current_trace_id())


def respond(request: Request, problem: Problem, render: ErrorRenderer | None) -> Response:
    """Return `problem` as a response: rendered by the service if it has a dialect, else as application/problem+json."""
    response = (
        render(request, problem)
        if render is not None
        else Response(problem.model_dump_json(), status_code=problem.status, media_type="application/problem+json")
    )
    retry_after_s = problem.details.get("retry_after_s")
    if isinstance(retry_after_s, int | float):
        response.headers.setdefault("Retry-After", str(max(1, round(retry_after_s))))
    if problem.status == 401:
        response.headers.setdefault("WWW-Authenticate", "Bearer")
    return response


def as_hunmin_error(error: Exception) -> HunminError | None:
    """Return `error` as one that the caller may see, or None if nobody foresaw it."""
    if isinstance(error, HunminError):
        return error
    if isinstance(error, RequestValidationError):
        return invalid_request(error.errors(), error.body)
    if isinstance(error, HTTPException):
        return HunminError(_code_of(error.status_code), _message_of(error))
    return None


def invalid_request(errors: Sequence[Any], body: Any) -> HunminError:
    """Return the one error to show of pydantic's list: the first parameter at fault, at its deepest path.

    A union reports every branch that did not match, each under the branch's own label; the branch that was followed
    furthest is the one the caller meant. `body` is the input, along which the path is walked so that labels drop out.
    """
    paths = [_path(item, body) for item in errors]
    found = zip(paths, errors, strict=True)
    path, item = max((pair for pair in found if pair[0][:1] == paths[0][:1]), key=lambda pair: len(pair[0]))
    kind, message = item["type"], str(item["msg"]).removeprefix("Value error, ")
    if kind == "json_invalid":
        return HunminError(ErrorCode.INVALID_REQUEST, "The body is not valid JSON. Correct it and send it again.")
    if not path:
        return HunminError(ErrorCode.INVALID_REQUEST, f"The request is not valid: {message}.")
    param = ".".join(path).encode("utf-8", "backslashreplace").decode()
    if kind == "extra_forbidden":
        return HunminError(ErrorCode.UNKNOWN_PARAMETER, f"Unknown parameter: {param}. Remove it.", param=param)
    if kind == "missing":
        return HunminError(ErrorCode.INVALID_PARAMETER, f"Parameter {param} is missing. Add it.", param=param)
    return HunminError(ErrorCode.INVALID_PARAMETER, f"Parameter {param}: {message}.", param=param)


def _path(item: Any, body: Any) -> list[str]:
    source, *loc = item["loc"] or ("body",)
    if source != "body":
        return [str(part) for part in loc]
    path = []
    for depth, part in enumerate(loc, start=1):
        if (isinstance(body, Mapping) and part in body) or (  # a form is no dict
            isinstance(body, list) and isinstance(part, int) and part < len(body)
        ):
            body = body[part]
        elif not (item["type"] == "missing" and depth == len(loc)):
            continue
        path.append(str(part))
    return path


def _code_of(status: int) -> ErrorCode:
    for code, kind in ERRORS.items():
        if kind.status == status:
            return code
    return _OTHER_STATUS.get(status, ErrorCode.INVALID_REQUEST if status < 500 else ErrorCode.INTERNAL)


def _message_of(error: HTTPException) -> str:
    if error.status_code == 400 and error.detail != _JSON_FAILED:  # Starlette's word for a form
        return f"The form cannot be read: {error.detail.rstrip('.')}. Correct it."
    if error.status_code == 400:
        return "The body cannot be read: it is not UTF-8, is nested too deeply, or holds an endless number. Correct it."
    if error.status_code == 404:
        return "There is nothing at this path. Check the URL."
    if error.status_code == 405:
        return "This path does not answer that method. See the Allow header."
    return str(error.detail)
