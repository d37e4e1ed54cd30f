"""What all routes of the Studio dialect have in common. A module for each noun adds its own."""

from fastapi import APIRouter
from hunmin_contracts.errors import Problem

from hunmin_gateway.authentication import KeyedRoute

PREFIX = "/studio/v1"


def studio_router(route_class: type[KeyedRoute] = KeyedRoute) -> APIRouter:
    """Return a router for keyed routes under the prefix; each says what it requires."""
    return APIRouter(
        prefix=PREFIX,
        tags=["Studio"],
        route_class=route_class,
        responses={"4XX": {"model": Problem, "description": "What is wrong with the request"}},
    )
