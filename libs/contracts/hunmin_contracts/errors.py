"""Every error of the platform in one table: the code fixes the HTTP status, the reference page is generated from it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hunmin_contracts.schema import Schema


class ErrorCode(StrEnum):
    """What went wrong, as a caller's program reads it."""

    INVALID_REQUEST = "invalid_request"
    INVALID_PARAMETER = "invalid_parameter"
    UNKNOWN_PARAMETER = "unknown_parameter"
    PROMPT_TOO_LONG = "prompt_too_long"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    PERMISSION_DENIED = "permission_denied"
    ACCOUNT_SUSPENDED = "account_suspended"
    NOT_FOUND = "not_found"
    MODEL_NOT_FOUND = "model_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    OVERLOADED = "overloaded"
    QUOTA_EXCEEDED = "quota_exceeded"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"


@dataclass(frozen=True)
class ErrorKind:
    """One row of the table: HTTP status, title, and what the caller can do."""

    status: int
    title: str
    remedy: str


ERRORS: dict[ErrorCode, ErrorKind] = {
    ErrorCode.INVALID_REQUEST: ErrorKind(400, "The request is not valid", "Correct the body as the message says."),
    ErrorCode.INVALID_PARAMETER: ErrorKind(400, "A parameter is not valid", "Correct the parameter that is named."),
    ErrorCode.UNKNOWN_PARAMETER: ErrorKind(400, "A parameter is unknown", "Remove the parameter that is named."),
    ErrorCode.PROMPT_TOO_LONG: ErrorKind(
        400, "Prompt and completion do not fit the model", "Shorten the prompt, or ask for fewer tokens."
    ),
    ErrorCode.UNAUTHENTICATED: ErrorKind(401, "No valid credential", "Send a valid key: Authorization: Bearer KEY."),
    ErrorCode.FORBIDDEN: ErrorKind(403, "Not allowed", "Do what the message says."),
    ErrorCode.PERMISSION_DENIED: ErrorKind(403, "A right is missing", "Use a credential that has the right named."),
    ErrorCode.ACCOUNT_SUSPENDED: ErrorKind(403, "The account is suspended", "Ask the operator of this server."),
    ErrorCode.NOT_FOUND: ErrorKind(404, "Not found", "Check the path and the id."),
    ErrorCode.MODEL_NOT_FOUND: ErrorKind(404, "No such model", "List the models with GET /v1/models."),
    ErrorCode.METHOD_NOT_ALLOWED: ErrorKind(405, "Method not allowed", "Use a method that the Allow header names."),
    ErrorCode.CONFLICT: ErrorKind(409, "Conflict with the present state", "Read the present state and try again."),
    ErrorCode.TOO_LARGE: ErrorKind(413, "The request is too large", "Send less in one request."),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: ErrorKind(415, "Unsupported media type", "Send application/json."),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: ErrorKind(
        422, "The Idempotency-Key came with another request", "Send every request with a key of its own."
    ),
    ErrorCode.OVERLOADED: ErrorKind(429, "Too many requests at present", "Retry after the seconds in Retry-After."),
    ErrorCode.QUOTA_EXCEEDED: ErrorKind(
        429, "A quota has no room for it", "Retry after the seconds in Retry-After; without that header, ask for less."
    ),
    ErrorCode.INTERNAL: ErrorKind(500, "Internal error", "Report the request id to the operator."),
    ErrorCode.UNAVAILABLE: ErrorKind(503, "A service is not available", "Retry after the seconds in Retry-After."),
    ErrorCode.DEADLINE_EXCEEDED: ErrorKind(504, "The deadline passed", "Ask for less, or allow more time."),
}


class HunminError(Exception):
    """An error that a caller may see; `details` go along in the problem document (e.g. `param`, `retry_after_s`)."""

    def __init__(self, code: ErrorCode | str, message: str, /, **details: Any) -> None:
        super().__init__(message)
        self.code = ErrorCode(code)
        self.message = message
        self.details = details

    @property
    def status(self) -> int:
        """The HTTP status that the code fixes."""
        return ERRORS[self.code].status

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Problem(Schema):
    """The body of every error between services: RFC 9457 `application/problem+json`, with our code and request id."""

    type: str
    title: str
    status: int
    code: ErrorCode
    detail: str
    request_id: str | None = None
    trace_id: str | None = None
    details: dict[str, Any] = {}

    @classmethod
    def of(cls, error: HunminError, *, request_id: str | None = None, trace_id: str | None = None) -> "Problem":
        """Describe `error` for the wire."""
        kind = ERRORS[error.code]
        return cls(
            type=f"urn:hunmin:error:{error.code}",
            title=kind.title,
            status=kind.status,
            code=error.code,
            detail=error.message,
            request_id=request_id,
            trace_id=trace_id,
            details=error.details,
        )

    def error(self) -> HunminError:
        """Return the error that this document describes, to be raised at the caller's end."""
        return HunminError(self.code, self.detail, **self.details)


def reference_page() -> str:
    """Render the table of errors as Markdown, for docs/errors.md."""
    rows = [f"| `{code}` | {kind.status} | {kind.title} | {kind.remedy} |" for code, kind in ERRORS.items()]
    head = ["# Errors", "", "Generated from `hunmin_contracts.errors`.", ""]
    return "\n".join([*head, "| code | HTTP status | meaning | what to do |", "|---|---|---|---|", *rows, ""])
