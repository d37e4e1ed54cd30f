"""What all routes of the Studio dialect have in common. A module for each noun adds its own."""

from fastapi import APIRouter, Depends
from hunmin_contracts.errors import Problem

from hunmin_gateway.authentication import BEARER, KeyedRoute

PREFIX = "/studio/v1"


def studio_router() -> APIRouter:
    """Return a router for keyed routes under the prefix."""
    return APIRouter(
        prefix=PREFIX,
        tags=["Studio"],
        route_class=KeyedRoute,
        dependencies=[Depends(BEARER)],
        responses={"4XX": {"model": Problem, "description": "What is wrong with the request"}},
    )
