"""Puts what was told of the limits on the answer, whatever its dialect: whole, streamed, or an error."""

from collections.abc import Mapping
from contextvars import ContextVar

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_told: ContextVar[dict[str, str] | None] = ContextVar("hunmin_gateway_quota_headers", default=None)


def tell(headers: Mapping[str, str]) -> None:
    """Let the answer to the request that is being served have these headers; for work of no request, do nothing."""
    told = _told.get()
    if told is not None:
        told.update(headers)


class QuotaHeaders:
    """ASGI middleware. A stream's headers go out with its first chunk, when it has long been told of."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[str, str] = {}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        token = _told.set(headers)
        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            _told.reset(token)
