"""What all routes of the OpenAI dialect have in common. A module for each noun adds its own."""

from fastapi import APIRouter

from hunmin_gateway.authentication import KeyedRoute
from hunmin_gateway.openai.errors import ErrorBody

PREFIX = "/v1"


def openai_router(route_class: type[KeyedRoute] = KeyedRoute) -> APIRouter:
    """Return a router for keyed routes under the prefix; each says what it requires."""
    return APIRouter(
        prefix=PREFIX,
        tags=["OpenAI"],
        route_class=route_class,
        responses={"4XX": {"model": ErrorBody, "description": "What is wrong with the request"}},
    )
