"""The first step of every keyed request: who sends it, and whether they may. It runs before the body is looked at.

One credential decides, by what it is: an API key, an access token, or a browser's session where no other was sent. One
that is refused is never passed over for another.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from typing import Annotated, Any, ClassVar

from fastapi import Depends, Request, Response, Security, params
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.security import HTTPBearer
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import ProjectId
from hunmin_contracts.tenancy import Scope
from hunmin_kit.identity import Identity
from hunmin_kit.run.errors import StartError
from hunmin_kit.web import current_request_id
from starlette.routing import BaseRoute

from hunmin_gateway.idempotency.once import answer_once
from hunmin_gateway.login import cookies
from hunmin_gateway.login.doors import login_of
from hunmin_gateway.parts import parts_of
from hunmin_gateway.principal import Principal
from hunmin_gateway.tenancy import principals

OPERATOR = "operator"  # what a route above all accounts requires, in place of a scope
PROJECT_HEADER = "x-hunmin-project"  # in which of their projects a person acts; a key has one
_DOTS_OF_TOKEN = 2  # header.claims.signature
# Only describes the header in the OpenAPI file; what it would refuse was refused before it runs.
BEARER = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer hm_…`.")


def requires(scope: Scope) -> params.Security:
    """Return what a route declares among its `dependencies`: the one scope that its caller needs."""
    return _required(scope)


def requires_operator() -> params.Security:
    """Return what a route above all accounts declares."""
    return _required(OPERATOR)


def _required(right: str) -> params.Security:
    security: params.Security = Security(BEARER, scopes=[right])
    return security


async def _forget_keys(request: Request) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        if request.method != "GET":
            parts_of(request).authentication.forget()


# Of a route that may change what keys may do. It stands before what the route itself depends on, so that it ends after
# the route's transaction, and before the answer is sent.
_Forgets = Depends(_forget_keys, scope="function")


class KeyedRoute(APIRoute):
    """A route that only a caller with a valid API key and the declared scope reaches. One that declares none is a bug.

    Its router may declare what its routes need; what a route declares itself goes before that. A request that comes
    twice is made once (idempotency/).
    """

    key_headers: ClassVar[Sequence[str]] = ("authorization",)  # without them a browser's session is looked for

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        dependencies: Sequence[params.Depends] | None = None,
        **options: Any,
    ) -> None:
        declared = [one for one in dependencies or () if isinstance(one, params.Security) and one.scopes]
        if not declared:
            raise LookupError(f"The route {path} declares no scope. Add requires(Scope.…) to its dependencies.")
        self.required = next(iter(declared[-1].scopes or ()))
        others = [one for one in dependencies or () if one not in declared and one is not _Forgets]
        changes = [_Forgets] if self.required in (Scope.MANAGE, OPERATOR) else []
        super().__init__(path, endpoint, dependencies=[declared[-1], *changes, *others], **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler behind the check of the key."""
        answer = super().get_route_handler()
        required = self.required

        async def answer_principal(request: Request) -> Response:
            principal = await _authenticate(self, request)
            if required == OPERATOR:
                principal.require_operator()
            else:
                principal.require(Scope(required))
            request.state.principal = principal
            admitted = await self.admit(request, principal)
            return await answer_once(admitted, principal, parts_of(request).idempotency, answer)

        return answer_principal

    async def admit(self, request: Request, principal: Principal) -> Request:
        """Return the request to be answered, now that its sender is known; its body has not come yet."""
        return request

    def key_of(self, request: Request) -> str:
        """Return the key that `request` carries, or refuse it. A dialect may know other headers."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise HunminError(
                ErrorCode.UNAUTHENTICATED, "The request has no API key. Send the header Authorization: Bearer YOUR_KEY."
            )
        return key.strip()


def principal_of(request: Request) -> Principal:
    """Return who sent `request`, on a KeyedRoute."""
    principal: Principal = request.state.principal
    return principal


def check_declared(routes: Sequence[BaseRoute], *, open_paths: Collection[str]) -> None:
    """Raise a StartError if anybody reaches a route that is not among `open_paths`."""
    for context in iter_route_contexts(routes):
        route = context.original_route
        if isinstance(route, APIRoute) and not isinstance(route, KeyedRoute) and context.path not in open_paths:
            raise StartError(f"The route {context.path} is open to the world. Give it a KeyedRoute's router.")


async def _principal_of(request: Request) -> Principal:  # FastAPI runs what is not async in a thread
    return principal_of(request)


PrincipalDep = Annotated[Principal, Depends(_principal_of)]


async def _authenticate(route: KeyedRoute, request: Request) -> Principal:
    if cookies.SESSION in request.cookies and not any(header in request.headers for header in route.key_headers):
        session = await login_of(request).browsers.session_of(request)
        return await _principal(request, session.login.identity)
    credential = route.key_of(request)
    if credential.count(".") == _DOTS_OF_TOKEN:  # no key has one
        return await _principal(request, await login_of(request).provider.verify_bearer(credential))
    return await parts_of(request).authentication.principal_of(credential)


async def _principal(request: Request, identity: Identity) -> Principal:
    wanted = request.headers.get(PROJECT_HEADER)
    parts = parts_of(request)
    async with parts.database.session() as session:
        try:
            return await principals.principal_of(
                session,
                parts.events,
                identity,
                wanted_project=None if wanted is None else ProjectId(wanted),
                request_id=current_request_id(),
            )
        except HunminError as error:  # what was noted of them stays: an admin adds them by it
            refused = error
    raise refused
