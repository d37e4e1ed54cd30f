"""Sees the answers of requests with an `Idempotency-Key` pass, and keeps them with their key. Knows no database."""

from collections.abc import MutableMapping
from typing import Any

from hunmin_kit.web.edge import ERROR_KEY
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hunmin_gateway.idempotency.keys import Claim, IdempotencyKeys, StoredAnswer

HEADER = "Idempotency-Key"
MAX_BODY_BYTES = 2**20  # of an answer that is kept
_SLOT = "hunmin.idempotency"
_NAME = HEADER.lower().encode()
# What belongs to one connection or one request, and not to the answer.
_OWN = frozenset({"content-length", "connection", "date", "server", "set-cookie", "transfer-encoding", "x-request-id"})


class Slot:
    """Where a route leaves the claim that its request has on its key."""

    def __init__(self) -> None:
        self._held: tuple[IdempotencyKeys, Claim] | None = None
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()
        self._may_be_stored = True

    def hold(self, keys: IdempotencyKeys, claim: Claim) -> None:
        """Record the answer from here on."""
        self._held = (keys, claim)

    async def see(self, message: Message, *, has_error: bool) -> None:
        """Take note of a part of the answer; with the last it is kept, before that is sent on."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._may_be_stored = "no-store" not in Headers(raw=message["headers"]).get("cache-control", "")
            self._headers = [one for one in Headers(raw=message["headers"]).items() if one[0] not in _OWN]
            return
        if self._held is None or message["type"] != "http.response.body":
            return
        if self._may_be_stored and len(self._body) <= MAX_BODY_BYTES:
            self._body += message.get("body", b"")
        if not message.get("more_body", False) and not self._has_failed(has_error):
            (keys, claim), self._held = self._held, None
            can_be_kept = self._may_be_stored and len(self._body) <= MAX_BODY_BYTES
            answer = StoredAnswer(self._status, self._headers, bytes(self._body)) if can_be_kept else None
            await keys.keep(claim, answer)

    def _has_failed(self, has_error: bool) -> bool:
        """Tell whether it failed for no fault of the request's, and may succeed when it is made again."""
        # A stream that failed has the status of success, and an error within.
        return self._status >= 500 or self._status == 429 or (has_error and self._status < 400)

    async def close(self) -> None:
        """Let the key be used again, if no answer was kept with it."""
        if self._held is not None:
            (keys, claim), self._held = self._held, None
            await keys.release(claim)


def slot_of(scope: MutableMapping[str, Any]) -> Slot:
    """Return the slot of a request that has the header."""
    slot: Slot = scope[_SLOT]
    return slot


class Recorder:
    """ASGI middleware. A request without the header passes as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or all(name != _NAME for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return
        scope[_SLOT] = slot = Slot()

        async def send_recorded(message: Message) -> None:
            await slot.see(message, has_error=ERROR_KEY in scope)
            await send(message)

        try:
            await self._app(scope, receive, send_recorded)
        finally:
            await slot.close()
