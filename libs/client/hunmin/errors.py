"""What can go wrong for a caller, as exceptions. The server's codes are those of docs/errors.md."""

import json
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import httpx


class StudioError(Exception):
    """The base of everything that this library raises."""


class MissingKeyError(StudioError):
    """No API key was given, and HUNMIN_API_KEY is not set."""


class UnreachableError(StudioError):
    """No answer came: the studio cannot be reached, the connection broke, or the time ran out."""


class UnexpectedAnswerError(StudioError):
    """The answer is not one that this version of the library understands."""


class ApiError(StudioError):
    """The studio refused or failed the request.

    `code` is the studio's own, or empty if something between answered (a proxy); `retry_after_s` is what it asked for.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        request_id: str | None = None,
        details: dict[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.request_id = request_id
        self.details = details or {}
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        asked = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.code or 'error'}: {self.message}{asked}"


class InvalidRequestError(ApiError):
    """400, 413, 415, 422: the request has to be changed."""


class AuthenticationError(ApiError):
    """401: no valid API key."""


class ForbiddenError(ApiError):
    """403: the key may not do that."""


class NotFoundError(ApiError):
    """404: there is no such thing, or it is another account's."""


class ConflictError(ApiError):
    """409: it does not fit the present state."""


class OverloadedError(ApiError):
    """429: too many requests at present."""


class ServerError(ApiError):
    """5xx: the studio failed."""


class UnavailableError(ServerError):
    """503: the studio, or a part of it, is not there at present."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: OverloadedError,
    503: UnavailableError,
}


def error_of(response: httpx.Response) -> ApiError:
    """Return the exception for an answer that is an error: a problem document (RFC 9457), or anything else."""
    problem = _document(response)
    kind = _BY_STATUS.get(response.status_code, ServerError if response.is_server_error else ApiError)
    details = problem.get("details")
    return kind(
        str(problem.get("detail") or response.reason_phrase),
        status=response.status_code,
        code=str(problem.get("code", "")),
        request_id=problem.get("request_id") or response.headers.get("x-request-id"),
        details=details if isinstance(details, dict) else None,
        retry_after_s=retry_after_s(response),
    )


def retry_after_s(response: httpx.Response) -> float | None:
    """Return the seconds that the header Retry-After asks for, written as a number or as a date (RFC 9110, 10.2.3)."""
    header = response.headers.get("retry-after", "")
    if header.isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except ValueError:
        return None


def _document(response: httpx.Response) -> dict[str, Any]:
    try:
        document = json.loads(response.content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
