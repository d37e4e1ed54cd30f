"""The caller."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from hunmin_contracts.errors import HunminError
from hunmin_contracts.schema import Empty, Schema
from hunmin_kit.data import SessionDep
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.web import Client, serve
from pydantic import Field
from sqlalchemy import text

from kit_sample.contract import (
    COUNT,
    ECHO,
    NOTE,
    NOTES,
    RELAY,
    RELAY_COUNT,
    CountEvent,
    CountRequest,
    EchoRequest,
    EchoResponse,
    NoteRequest,
    NoteResponse,
)
from kit_sample.echo import CALLER


class FrontSettings(Settings):
    port: int = 18080
    level: int = 1
    token: str = ""
    colours: list[str] = []


class Inner(Schema):
    temperature: float = Field(default=1, ge=0)


class Turn(Schema):
    role: str
    content: str


class Native(Schema):
    """A body that FastAPI itself parses, as the gateway's are."""

    prompt: str | list[int] | list[Turn]
    sampling: Inner = Inner()
    anything: Any = None


def routes(echo: Client) -> APIRouter:
    router = APIRouter()

    @serve(router, RELAY)
    async def relay(request: EchoRequest) -> EchoResponse:
        CALLER.set("leaked")
        return await echo.call(ECHO, request)

    @serve(router, RELAY_COUNT)
    async def relay_count(request: CountRequest) -> AsyncIterator[CountEvent]:
        async with echo.stream(COUNT, request) as events:
            async for event in events:
                yield event

    @serve(router, NOTE)
    async def note(request: NoteRequest, session: SessionDep) -> NoteResponse:
        await session.execute(text("INSERT INTO notes (name) VALUES (:name)"), {"name": request.name})
        if request.fail == "after":
            raise HunminError("conflict", "No. Try another name.")
        if request.fail == "commit":
            await session.execute(
                text("INSERT INTO links (note) VALUES (-1)")
            )  # a deferred constraint: fails at commit
        return NoteResponse(count=await session.scalar(text("SELECT count(*) FROM notes")))

    @serve(router, NOTES)
    async def notes(request: Empty, session: SessionDep) -> NoteResponse:
        return NoteResponse(count=await session.scalar(text("SELECT count(*) FROM notes")))

    @router.post("/native")
    async def native(request: Native) -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/native/{number}")
    async def native_get(number: int, limit: int = 1) -> dict[str, int]:
        return {"number": number, "limit": limit}

    return router


@asynccontextmanager
async def build(platform: Platform, settings: FrontSettings) -> AsyncIterator[FastAPI]:
    app = platform.app(title="Front")
    app.include_router(routes(platform.client("echo")))

    async def announce(url: str) -> str:
        return f"front is at {url}"

    platform.on_ready(announce)
    yield app


SERVICE = Service(
    name="front",
    settings=FrontSettings,
    build=build,
    needs=("echo",),
    migrations="kit_sample.migrations",
    public=True,
)
