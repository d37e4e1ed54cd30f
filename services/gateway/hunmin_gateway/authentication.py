"""The first step of every keyed request. It runs before the body is validated: a wrong key learns nothing but that."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from hunmin_contracts.errors import ErrorCode, HunminError

from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.parts import parts_of
from hunmin_gateway.principal import Principal

# Only describes the header in the OpenAPI file; what it would refuse was refused before it runs.
BEARER = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer hm_…`.")


class KeyedRoute(APIRoute):
    """A route that only a caller with a valid API key reaches."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler behind the check of the key."""
        answer = super().get_route_handler()

        async def answer_principal(request: Request) -> Response:
            request.state.principal = await _authenticate(request)
            return await answer(request)

        return answer_principal


def principal_of(request: Request) -> Principal:
    """Return who sent `request`, on a KeyedRoute."""
    principal: Principal = request.state.principal
    return principal


PrincipalDep = Annotated[Principal, Depends(principal_of)]


async def _authenticate(request: Request) -> Principal:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise HunminError(
            ErrorCode.UNAUTHENTICATED, "The request has no API key. Send the header Authorization: Bearer YOUR_KEY."
        )
    parts = parts_of(request)
    async with parts.database.session() as session:
        return await KeyRing(session, pepper=parts.pepper).authenticate(key.strip())
