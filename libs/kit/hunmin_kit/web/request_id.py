"""The id that one request keeps through every service: in a header, in every log line, in every error."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from hunmin_contracts.ids import RequestId, new_request_id

HEADER = "x-request-id"

_WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_current: ContextVar[RequestId | None] = ContextVar("hunmin_request_id", default=None)


def current_request_id() -> RequestId:
    """Return the id of the request being served; a LookupError outside of one."""
    request_id = _current.get()
    if request_id is None:
        raise LookupError("There is no request here: enter request_context() first.")
    return request_id


def accept_request_id(header: str | None) -> RequestId:
    """Return the caller's id if it is well formed (at most 64 safe characters), else a fresh one."""
    if header is not None and _WELL_FORMED.fullmatch(header):
        return RequestId(header)
    return new_request_id()


def current_or_new_request_id() -> RequestId:
    """Return the current id, or a fresh one for work that no request asked for."""
    return _current.get() or new_request_id()


@contextmanager
def request_context(request_id: RequestId) -> Iterator[None]:
    """Make `request_id` the current one; for the HTTP edge, and for workers that act for a request."""
    token = _current.set(request_id)
    try:
        yield
    finally:
        _current.reset(token)
