"""HTTP between services and to the world: one declaration for both ends, errors, request ids, streams."""

from hunmin_kit.web.client import Client
from hunmin_kit.web.edge import is_json
from hunmin_kit.web.errors import ErrorRenderer, problem_of
from hunmin_kit.web.events import HEARTBEAT_S, EventStream
from hunmin_kit.web.request_id import current_request_id, request_context
from hunmin_kit.web.serve import serve, validated

__all__ = [
    "HEARTBEAT_S",
    "Client",
    "ErrorRenderer",
    "EventStream",
    "current_request_id",
    "is_json",
    "problem_of",
    "request_context",
    "serve",
    "validated",
]
