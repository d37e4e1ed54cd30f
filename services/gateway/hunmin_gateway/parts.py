"""What the routes share, put together by service.py and reached through the application."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from hunmin_gateway.pipeline import Pipeline
from hunmin_kit.data import Database
from hunmin_kit.web import Client


@dataclass(frozen=True)
class Parts:
    """The service's parts."""

    database: Database
    pepper: bytes
    pipeline: Pipeline
    generation: Client
    tokenizer: Client


def attach(app: FastAPI, parts: Parts) -> None:
    """Give `parts` to the routes of `app`."""
    app.state.parts = parts


def parts_of(request: Request) -> Parts:
    """Return the parts of the application that serves `request`."""
    parts: Parts = request.app.state.parts
    return parts


PartsDep = Annotated[Parts, Depends(parts_of)]
