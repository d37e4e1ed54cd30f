"""A service that tells events and hears its own, as services have them of their platform."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from hunmin_contracts.endpoint import Endpoint
from hunmin_contracts.events import Topic
from hunmin_contracts.schema import Empty, Schema
from hunmin_kit.data import SessionDep
from hunmin_kit.events import Events, Subscription
from hunmin_kit.events.record import Record
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.web import serve
from sqlalchemy import text

from kit_sample.events import Noted, note

TOPIC = Topic("hunmin.hearing.note.v1", Noted)


class TellRequest(Schema):
    value: int
    act: str = "note"  # "garble": what is told is no event


class EffectsResponse(Schema):
    values: list[int]


TELL = Endpoint("POST", "/v1/tell", TellRequest, Empty)
EFFECTS = Endpoint("GET", "/v1/effects", Empty, EffectsResponse)


class HearingSettings(Settings):
    port: int = 18082


def routes(events: Events) -> APIRouter:
    router = APIRouter()

    @serve(router, TELL)
    async def tell(request: TellRequest, session: SessionDep) -> Empty:
        if request.act == "garble":
            await events.outbox.put(session, Record(TOPIC.name, "key", b"{"))
            return Empty()
        await events.tell(session, TOPIC, Noted(value=request.value, act=request.act), key="key")
        return Empty()

    @serve(router, EFFECTS)
    async def effects(request: Empty, session: SessionDep) -> EffectsResponse:
        return EffectsResponse(values=list(await session.scalars(text("SELECT value FROM effects ORDER BY number"))))

    return router


@asynccontextmanager
async def build(platform: Platform, settings: HearingSettings) -> AsyncIterator[FastAPI]:
    events = platform.events()
    app = platform.app(title="Hearing")
    app.include_router(routes(events))
    async with events.running(Subscription("notes", TOPIC, note())):
        yield app


SERVICE = Service(
    name="hearing", settings=HearingSettings, build=build, migrations="kit_sample.event_migrations", public=True
)
