"""Makes a request once that names an `Idempotency-Key`, and answers it again from what was kept."""

import re
from collections.abc import Awaitable, Callable

import structlog
from fastapi import Request, Response
from hunmin_contracts.errors import ErrorCode, HunminError

from hunmin_gateway.idempotency.fingerprint import fingerprint_of
from hunmin_gateway.idempotency.keys import Claim, IdempotencyKeys, StoredAnswer
from hunmin_gateway.idempotency.recorder import HEADER, slot_of
from hunmin_gateway.principal import Principal

_WELL_FORMED = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")
_log = structlog.get_logger()


async def answer_once(
    request: Request, principal: Principal, keys: IdempotencyKeys, answer: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Return what `answer` does, unless the project sent this request with this key before: then what it got."""
    key = request.headers.get(HEADER)
    if key is None or request.method != "POST":
        return await answer(request)
    if _WELL_FORMED.fullmatch(key) is None:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            "The header Idempotency-Key is to have 1 to 255 printable ASCII characters, such as a UUID.",
            param=HEADER,
        )
    found: Claim | StoredAnswer | None = None
    try:
        found = await keys.claim(principal.account_id, principal.project_id, key, await fingerprint_of(request))
    finally:
        if not isinstance(found, Claim):
            await request.close()  # the form that was read: no route will
    if isinstance(found, StoredAnswer):
        _log.info("idempotency.answer.replayed", status=found.status)
        return _replay(found)
    slot_of(request.scope).hold(keys, found)
    return await answer(request)


def _replay(stored: StoredAnswer) -> Response:
    response = Response(stored.body, status_code=stored.status)
    for name, value in stored.headers:
        response.headers.append(name, value)
    response.headers["Idempotent-Replayed"] = "true"
    return response
