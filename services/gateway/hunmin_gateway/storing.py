"""Routes that keep a file. One that an account's limit has no room for is refused before it has come, or while it does.

That alone would not be exact: what is kept of it is not known yet. The route then keeps it by `Storage.keep`.
"""

from fastapi import Request
from starlette.types import Message, Receive

from hunmin_gateway.authentication import KeyedRoute
from hunmin_gateway.idempotency.recorder import HEADER
from hunmin_gateway.parts import parts_of
from hunmin_gateway.principal import Principal
from hunmin_gateway.quotas.storage import Standing, refused

_FORM_BYTES = 2**16  # of a form beside its file; more of them pass here, and the file is measured alone afterwards


class StoringRoute(KeyedRoute):
    """A keyed route whose body is a form with a file that is kept."""

    async def admit(self, request: Request, principal: Principal) -> Request:
        """Refuse a body that says that it is too large for what is left, and cut off one that turns out to be."""
        if HEADER in request.headers:  # it may have been kept already, and is then answered as it was
            return request
        standing = await parts_of(request).storage.standing(principal)
        if standing is None:
            return request
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > standing.left + _FORM_BYTES:
            raise refused(standing, int(declared))
        return Request(request.scope, _bounded(request.receive, standing), request._send)


def _bounded(receive: Receive, standing: Standing) -> Receive:
    size = 0

    async def receive_bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > standing.left + _FORM_BYTES:
            raise refused(standing, size)
        return message

    return receive_bounded
