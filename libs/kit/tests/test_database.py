"""One request, one transaction; a schema that is brought to head once, by whoever comes first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import httpx
import pytest
from fastapi import APIRouter, FastAPI
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.schema import Empty
from hunmin_kit.data import Database, SessionDep
from hunmin_kit.data import database as database_module
from hunmin_kit.data.migrations import Chain
from hunmin_kit.run import Platform
from hunmin_kit.testing import Running, running
from hunmin_kit.testing.http import AppTransport
from hunmin_kit.testing.postgres import fresh_database
from hunmin_kit.web import serve
from kit_sample import echo, front
from kit_sample.contract import COUNT, NOTE, NOTES, CountEvent, CountRequest, NoteRequest, Tick
from opentelemetry.trace import NoOpTracer
from sqlalchemy import text

CHAIN = "kit_sample.migrations"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with fresh_database() as url_:
        yield url_


@pytest.fixture
async def services(url: str) -> AsyncIterator[Running]:
    async with running(echo.SERVICE, front.SERVICE, env={"HUNMIN_DATABASE_URL": url}) as running_:
        yield running_


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    await Chain("front", CHAIN).upgrade(url)
    database_ = Database(url, schema="front", tracer=NoOpTracer(), pool_size=2)
    yield database_
    await database_.close()


async def count(services: Running) -> int:
    return (await services.client("front").call(NOTES, Empty())).count


async def fetch(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_request_is_committed_before_its_answer_starts(services: Running, url: str) -> None:
    seen: list[object] = []

    async def spy(scope, receive, send):
        async def send_and_look(message):
            if message["type"] == "http.response.start":
                seen.append(await fetch(url, "SELECT count(*) FROM front.notes"))
            await send(message)

        await services.app("front")(scope, receive, send_and_look)

    async with httpx.AsyncClient(transport=AppTransport(lambda: spy), base_url="http://x") as http:
        assert (await http.post("/v1/notes", json={"name": "x"})).status_code == 200
    assert seen == [1]


async def test_request_that_fails_leaves_nothing(services: Running) -> None:
    with pytest.raises(HunminError) as caught:
        await services.client("front").call(NOTE, NoteRequest(name="x", fail="after"))
    assert caught.value.code == ErrorCode.CONFLICT
    assert await count(services) == 0


async def test_commit_that_fails_is_an_error_and_leaves_nothing(services: Running) -> None:
    reply = await services.http("front").post("/v1/notes", json={"name": "x", "fail": "commit"})
    assert (reply.status_code, reply.json()["code"]) == (500, "internal")
    assert await count(services) == 0


async def test_request_whose_client_leaves_leaves_nothing(services: Running, url: str) -> None:
    blocker = await asyncpg.connect(url)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE front.notes")
        task = asyncio.create_task(services.client("front").call(NOTE, NoteRequest(name="x")))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.sleep(0.2)
    await blocker.close()
    assert await count(services) == 0


async def test_more_requests_than_connections_wait_their_turn(services: Running) -> None:
    client = services.client("front")
    await asyncio.gather(*(client.call(NOTE, NoteRequest(name=str(i))) for i in range(40)))
    assert await count(services) == 40


async def test_text_that_postgresql_cannot_hold_is_the_callers_fault(services: Running) -> None:
    with pytest.raises(HunminError) as caught:
        await services.client("front").call(NOTE, NoteRequest(name="a\u0000b"))
    assert caught.value.code == ErrorCode.INVALID_PARAMETER


async def test_stream_cannot_use_the_requests_session() -> None:
    router = APIRouter()

    @serve(router, COUNT)
    async def stream(request: CountRequest, session: SessionDep) -> AsyncIterator[CountEvent]:
        await session.execute(text("SELECT 1"))
        yield CountEvent(Tick(i=0))

    @asynccontextmanager
    async def build(platform: Platform, settings: front.FrontSettings) -> AsyncIterator[FastAPI]:
        app = platform.app(title="Streams")
        app.include_router(router)
        yield app

    service = replace(front.SERVICE, build=build)
    async with running(echo.SERVICE, service) as services:
        reply = await services.http("front").post("/v1/count", json={"n": 1})
    assert reply.status_code == 500  # and not a second transaction that nobody commits


async def test_session_commits_on_a_clean_exit_only(database: Database) -> None:
    async def add(name: str, *, fail: bool) -> None:
        async with database.session() as session:
            await session.execute(text("INSERT INTO notes (name) VALUES (:name)"), {"name": name})
            if fail:
                raise ValueError(name)

    await add("kept", fail=False)
    with pytest.raises(ValueError, match="dropped"):
        await add("dropped", fail=True)
    async with database.session() as session:
        assert (await session.scalars(text("SELECT name FROM notes"))).all() == ["kept"]


async def test_database_that_is_not_there_is_unavailable() -> None:
    database = Database("postgresql://postgres@/postgres?host=/nowhere", schema="x", tracer=NoOpTracer())
    with pytest.raises(HunminError) as caught:
        await database.ping()
    assert (caught.value.code, caught.value.details) == (ErrorCode.UNAVAILABLE, {"retry_after_s": 1})
    await database.close()


async def test_failure_of_the_applications_own_stays_what_it_is(database: Database) -> None:
    async def fail() -> None:
        async with database.session():
            raise FileNotFoundError("a file of the application's")

    with pytest.raises(FileNotFoundError):
        await fail()


async def test_connections_that_the_server_closed_are_replaced(database: Database, url: str) -> None:
    await asyncio.gather(database.ping(), database.ping())
    await fetch(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hunmin-front'")
    await asyncio.gather(database.ping(), database.ping())


async def test_connection_lost_within_a_transaction_is_unavailable(database: Database, url: str) -> None:
    async def lose_it() -> None:
        async with database.session() as session:
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            await fetch(url, f"SELECT pg_terminate_backend({pid})")
            await session.execute(text("SELECT 1"))

    with pytest.raises(HunminError) as caught:
        await lose_it()
    assert caught.value.code == ErrorCode.UNAVAILABLE
    await database.ping()


async def test_transaction_of_a_frozen_process_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await Chain("front", CHAIN).upgrade(url)
    monkeypatch.setattr(database_module, "_IDLE_IN_TRANSACTION_S", 0.3)
    frozen = Database(url, schema="front", tracer=NoOpTracer())

    async def freeze() -> None:
        async with frozen.session() as session:
            await session.execute(text("INSERT INTO notes (name) VALUES ('frozen')"))
            await session.execute(text("LOCK TABLE notes"))
            async with asyncio.timeout(60):  # another one gets to read, without a word from the first
                assert await fetch(url, "SELECT count(*) FROM front.notes") == 0
            await session.execute(text("SELECT 1"))

    with pytest.raises(HunminError) as caught:
        await freeze()
    assert caught.value.code == ErrorCode.UNAVAILABLE
    await frozen.ping()
    await frozen.close()


async def test_several_migrate_at_once_and_one_does_it(url: str) -> None:
    await asyncio.gather(*(Chain("front", CHAIN).upgrade(url) for _ in range(4)))
    assert await fetch(url, "SELECT version_num FROM front.alembic_version") == "0002"
    assert await fetch(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


async def test_chains_of_two_services_do_not_meet(url: str) -> None:
    await Chain("front", CHAIN).upgrade(url)
    await Chain("back", CHAIN).upgrade(url)
    await fetch(url, "INSERT INTO front.notes (name) VALUES ('x')")
    assert await fetch(url, "SELECT count(*) FROM back.notes") == 0


async def test_schema_behind_the_code_is_not_ready_and_one_ahead_is(services: Running, url: str) -> None:
    http = services.http("front")
    assert (await http.get("/readyz")).status_code == 200
    await fetch(url, "UPDATE front.alembic_version SET version_num = '0001'")
    reply = await http.get("/readyz")
    assert reply.status_code == 503
    assert "hunmin migrate" in reply.json()["detail"]
    await fetch(url, "UPDATE front.alembic_version SET version_num = '9999'")  # of a newer release, rolling out
    assert (await http.get("/readyz")).status_code == 200
    await Chain("front", CHAIN).upgrade(url)  # and an older release leaves it alone
    assert await fetch(url, "SELECT version_num FROM front.alembic_version") == "9999"
    await fetch(url, "DROP TABLE front.alembic_version")
    assert (await http.get("/readyz")).status_code == 503
    assert (await http.get("/livez")).status_code == 200
