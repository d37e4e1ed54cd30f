"""CLOVA Studio's header for the id of a request, read and told as another name of ours."""

from hunmin_kit.web.request_id import HEADER
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hunmin_gateway.clova.envelope import is_clova
from hunmin_gateway.clova.openai_twin import PREFIX as TWIN

NAME = "x-ncp-clovastudio-request-id"


class ClovaRequestId:
    """ASGI middleware around the edge, which takes an id that is well formed, and else makes one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not (is_clova(scope["path"]) or scope["path"].startswith(f"{TWIN}/")):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(NAME)
        if given is not None:
            others = [(name, value) for name, value in scope["headers"] if name != HEADER.encode()]
            scope = {**scope, "headers": [*others, (HEADER.encode(), given.encode("latin-1"))]}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[NAME] = headers[HEADER]
            await send(message)

        await self._app(scope, receive, send_with_id)
