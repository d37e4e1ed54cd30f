"""What all routes of the CLOVA Studio dialect have in common: whose key it is, by either header; test or service app.

A path has three forms: `/v1/…`, `/testapp/v1/…` and `/serviceapp/v1/…`.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tenancy import KeyKind, Scope

from hunmin_gateway.authentication import KeyedRoute, PrincipalDep, requires
from hunmin_gateway.clova.envelope import NO_KEY, NO_SUCH_SCHEME, Envelope, clova_error
from hunmin_gateway.public_schema import NAME

API_KEY = "x-ncp-clovastudio-api-key"
TEST_APP, SERVICE_APP = "/testapp", "/serviceapp"
_CLIENTS_MARK = "nv-"  # NAVER's own keys begin so, and its clients choose the header by that


class ClovaRoute(KeyedRoute):
    """A route that only a caller with a valid API key reaches, in the one header or the other."""

    key_headers = ("authorization", API_KEY)

    def key_of(self, request: Request) -> str:
        """Return the key; what `x-ncp-apigw-api-key` holds is not looked at: it was a second key of the account."""
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme and scheme.lower() != "bearer":
            raise clova_error(
                ErrorCode.UNAUTHENTICATED,
                NO_SUCH_SCHEME,
                "Keys are sent as Authorization: Bearer YOUR_KEY, and in no other scheme.",
            )
        key = (bearer if scheme else request.headers.get(API_KEY, "")).strip()
        if not key:
            raise clova_error(
                ErrorCode.UNAUTHENTICATED,
                NO_KEY,
                "The request has no API key. Send Authorization: Bearer YOUR_KEY, or X-NCP-CLOVASTUDIO-API-KEY.",
            )
        return key.removeprefix(_CLIENTS_MARK)


def refuse_test_keys(principal: PrincipalDep) -> None:
    """Let service keys alone call what is a service app's."""
    if principal.kind is KeyKind.TEST:
        raise HunminError(
            ErrorCode.PERMISSION_DENIED,
            f"This is a test key, and {SERVICE_APP} takes service keys alone. Call {TEST_APP}, or use a service key.",
        )


def clova_router(prefix: str = "", *, scope: Scope | None = None) -> APIRouter:
    """Return a router for keyed routes under the prefix, which all require that, or say each what they require."""
    return APIRouter(
        prefix=prefix,
        tags=["CLOVA Studio"],
        route_class=ClovaRoute,
        dependencies=[] if scope is None else [requires(scope)],
        responses={"4XX": {"model": Envelope[None], "description": "What is wrong with the request"}},
    )


ModelPath = Annotated[str, Path(max_length=200, pattern=NAME, description="A model, or a soft prompt by its name.")]
