"""What the routes share, put together by service.py and reached through the application."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from hunmin_kit.blobs import Blobs
from hunmin_kit.data import Database
from hunmin_kit.events import Events
from hunmin_kit.web import Client

from hunmin_gateway.idempotency.keys import IdempotencyKeys
from hunmin_gateway.keys.authentication import Authentication
from hunmin_gateway.pipeline import Pipeline
from hunmin_gateway.quotas.jobs import RunningJobs
from hunmin_gateway.quotas.storage import Storage


@dataclass(frozen=True)
class Parts:
    """The service's parts."""

    database: Database
    pepper: bytes
    authentication: Authentication
    pipeline: Pipeline
    generation: Client
    tokenizer: Client
    tuning: Client
    blobs: Blobs
    events: Events
    idempotency: IdempotencyKeys
    jobs: RunningJobs
    storage: Storage
    tgi_model: str | None  # what the TGI dialect serves where a URL names no model; None: the first one


def attach(app: FastAPI, parts: Parts) -> None:
    """Give `parts` to the routes of `app`."""
    app.state.parts = parts


def parts_of_app(app: FastAPI) -> Parts:
    """Return what was attached to `app`."""
    parts: Parts = app.state.parts
    return parts


def parts_of(request: Request) -> Parts:
    """Return the parts of the application that serves `request`."""
    return parts_of_app(request.app)


async def _parts_of(request: Request) -> Parts:  # FastAPI runs what is not async in a thread
    return parts_of(request)


PartsDep = Annotated[Parts, Depends(_parts_of)]
