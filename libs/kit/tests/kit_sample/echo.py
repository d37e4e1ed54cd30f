"""The callee."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import BinaryIO

from fastapi import APIRouter, FastAPI
from hunmin_contracts.errors import HunminError
from hunmin_contracts.schema import Empty
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.web import current_request_id, serve

from kit_sample.contract import (
    COUNT,
    ECHO,
    IN_FOLDER,
    PUT_FILE,
    PUT_FOLDER,
    READ_FILE,
    SLEEP,
    STATE,
    WATCH,
    CountEvent,
    CountRequest,
    Done,
    EchoRequest,
    EchoResponse,
    FileRequest,
    FileResponse,
    NotesRequest,
    StateResponse,
    Tick,
)

CALLER = ContextVar("caller", default="nothing")


class EchoSettings(Settings):
    port: int = 18081
    start_s: float = 0


class Open:
    """How many calls run, as the callee sees it."""

    def __init__(self) -> None:
        self.calls = 0
        self.produced = 0

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        self.calls += 1
        try:
            yield
        finally:
            await asyncio.sleep(0)  # a finally may await, also after a cancel
            self.calls -= 1


def fail(kind: str | None) -> None:
    if kind == "expected":
        raise HunminError("overloaded", "Too much. Wait.", retry_after_s=7)
    if kind == "unexpected":
        raise RuntimeError("비밀 prompt text inside an exception")


def routes(open_: Open) -> APIRouter:
    router = APIRouter()

    @serve(router, ECHO)
    async def echo(request: EchoRequest) -> EchoResponse:
        fail(request.fail)
        return EchoResponse(text=request.text, request_id=current_request_id(), caller_context=CALLER.get())

    @serve(router, SLEEP)
    async def sleep(request: CountRequest) -> Done:
        async with open_.call():
            await asyncio.sleep(request.pause_s)
        return Done()

    @serve(router, COUNT)
    async def count(request: CountRequest) -> AsyncIterator[CountEvent]:
        async with open_.call():
            await asyncio.sleep(request.before_s)
            for i in range(request.n):
                open_.produced += 1
                if i == request.fail_at:
                    fail(request.fail)
                yield CountEvent(Tick(i=i, text="가\u2028나\u0085" + "x" * request.pad))
                await asyncio.sleep(request.pause_s)
            yield CountEvent(Done())

    @serve(router, WATCH)
    async def watch(request: CountRequest) -> AsyncIterator[CountEvent]:
        async for event in count(request):
            yield event

    @serve(router, STATE)
    async def state(request: Empty) -> StateResponse:
        return StateResponse(calls=open_.calls, produced=open_.produced)

    @serve(router, IN_FOLDER)
    async def in_folder(request: NotesRequest) -> NotesRequest:
        return request

    @serve(router, PUT_FOLDER)
    async def put_folder(request: NotesRequest) -> NotesRequest:
        return request

    @serve(router, PUT_FILE)
    async def put_file(request: FileRequest, file: BinaryIO) -> FileResponse:
        fail(request.fail)
        content = file.read()
        return FileResponse(request=request, size=len(content), sha256=hashlib.sha256(content).hexdigest())

    @serve(router, READ_FILE)
    async def read_file(request: FileRequest, file: BinaryIO) -> AsyncIterator[CountEvent]:
        fail(request.fail)
        for number, line in enumerate(file):
            yield CountEvent(Tick(i=number, text=line.decode()))
            await asyncio.sleep(0)

    return router


@asynccontextmanager
async def build(platform: Platform, settings: EchoSettings) -> AsyncIterator[FastAPI]:
    await asyncio.sleep(settings.start_s)
    app = platform.app(title="Echo", upload_paths=["/v1/folders/large/file"])
    app.include_router(routes(Open()))
    yield app


SERVICE = Service(name="echo", settings=EchoSettings, build=build)
