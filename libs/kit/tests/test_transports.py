"""One suite for both transports: a caller cannot tell which of them carries it."""

import asyncio
import hashlib
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import RequestId
from hunmin_contracts.schema import Empty
from hunmin_kit.run.server import bind, listening, url_of
from hunmin_kit.testing import Running, running
from hunmin_kit.web import Client, request_context
from hunmin_kit.web.inprocess import InProcessTransport
from hunmin_kit.web.network import NetworkTransport
from hunmin_kit.web.transport import Unreachable
from kit_sample import echo, front
from kit_sample.contract import (
    COUNT,
    ECHO,
    IN_FOLDER,
    PUT_FILE,
    PUT_FOLDER,
    READ_FILE,
    RELAY,
    SLEEP,
    STATE,
    WATCH,
    CountEvent,
    CountRequest,
    Done,
    EchoRequest,
    FileRequest,
    NotesRequest,
    Tick,
)
from opentelemetry import trace

SERVE = sys.modules["hunmin_kit.web.serve"]  # the function has its name
NETWORK = pytest.mark.parametrize("network", [False, True], ids=["in-process", "network"])


@pytest.fixture(params=[False, True], ids=["in-process", "network"])
async def services(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    async with running(echo.SERVICE, network=request.param) as running_:
        yield running_


@pytest.fixture
def client(services: Running) -> Client:
    return services.client("echo")


async def until(check: Callable[[], Awaitable[bool]], *, within_s: float) -> float:
    """Return how long it took until `check` held."""
    started = time.monotonic()
    while not await check():
        if time.monotonic() - started > within_s:
            pytest.fail(f"not so within {within_s} s")
        await asyncio.sleep(0.01)
    return time.monotonic() - started


def calls(client: Client, n: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return (await client.call(STATE, Empty())).calls == n

    return check


async def test_call_brings_the_reply(client: Client) -> None:
    text = "안녕 👋🏽 \u2028\u0000\t 가나"
    assert (await client.call(ECHO, EchoRequest(text=text))).text == text


async def test_large_bodies_pass_both_ways(client: Client) -> None:
    text = "가나다라 마바사 " * 250_000  # 5.5 MB
    assert (await client.call(ECHO, EchoRequest(text=text))).text == text


async def test_path_and_query_carry_the_fields_of_a_get(client: Client) -> None:
    request = NotesRequest(folder="한글 & ?x=1", limit=3, tags=["a b", "나"])
    assert await client.call(IN_FOLDER, request) == request
    assert await client.call(PUT_FOLDER, request) == request


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_upload_carries_fields_and_file(client: Client) -> None:
    request = FileRequest(folder="한글 & ?", title="훈민\n정음" * 3000, tags=["가", "b"], colours={"빨강": 1})
    parts = [b"\n\0{", bytes(70_000), b"", "가".encode() * 2_000_000]
    reply = await client.upload(PUT_FILE, request, pieces(*parts))
    content = b"".join(parts)
    assert reply.request == request
    assert (reply.size, reply.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    empty = await client.upload(PUT_FILE, FileRequest(folder="a", title="b"), pieces())
    assert empty.size == 0


async def test_upload_is_refused_as_a_call_is(services: Running, client: Client) -> None:
    with pytest.raises(HunminError) as caught:
        await client.upload(PUT_FILE, FileRequest(folder="a", title="b", fail="expected"), pieces(b"x"))
    assert (caught.value.code, caught.value.details) == (ErrorCode.OVERLOADED, {"retry_after_s": 7})
    with pytest.raises(HunminError) as caught:
        await client.upload(PUT_FILE, FileRequest(folder="a", title="b"), pieces(*[bytes(2**20)] * 17))
    assert caught.value.code == ErrorCode.TOO_LARGE
    http = services.http("echo")
    for body, said in [
        (b"no line", "no line of JSON"),
        (b"{\n", "not valid JSON"),
        (b'{"x": 1}\n', "title is missing"),
    ]:
        reply = await http.put("/v1/folders/a/file", content=body)
        assert (reply.status_code, said in reply.json()["detail"]) == (400, True), reply.text


async def test_a_stream_may_take_a_file(client: Client) -> None:
    request = FileRequest(folder="a", title="훈민\n정음" * 3000)
    async with client.stream(READ_FILE, request, pieces(b"1\n", b"2", b"\n3")) as events:
        assert [event.root.text async for event in events] == ["1\n", "2\n", "3"]
    async with client.stream(READ_FILE, request) as events:
        assert [event async for event in events] == []
    with pytest.raises(HunminError) as caught:
        async with client.stream(READ_FILE, FileRequest(folder="a", title="b", fail="expected"), pieces(b"x")):
            pass
    assert caught.value.code == ErrorCode.OVERLOADED


async def test_stream_arrives_event_by_event(client: Client) -> None:
    times = []
    async with client.stream(COUNT, CountRequest(n=3, pause_s=0.15)) as events:
        async for event in events:
            times.append((time.monotonic(), event))
    assert [type(event.root) for _, event in times] == [Tick, Tick, Tick, Done]
    assert times[0][1].root.text == "가\u2028나\u0085"  # no separator of Unicode's cuts an event in two
    assert times[-1][0] - times[0][0] > 0.4


async def test_stream_without_events_is_empty(client: Client) -> None:
    async with client.stream(COUNT, CountRequest(n=0)) as events:
        assert [event async for event in events] == [CountEvent(Done())]


async def test_slow_reader_holds_the_callee_back(client: Client) -> None:
    async with client.stream(COUNT, CountRequest(n=600, pad=64_000)) as events:
        await anext(events)
        await asyncio.sleep(0.3)
        early = (await client.call(STATE, Empty())).produced
        await asyncio.sleep(0.2)
        assert (await client.call(STATE, Empty())).produced == early < 400
        assert len([event async for event in events]) == 600


@pytest.mark.parametrize("before_s", [0, 30], ids=["after its first event", "before its first event"])
async def test_leaving_a_stream_reaches_the_callee_at_once(client: Client, before_s: float) -> None:
    async def consume() -> None:
        async with client.stream(COUNT, CountRequest(n=3, pause_s=30, before_s=before_s)) as events:
            async for _ in events:
                pass

    task = asyncio.create_task(consume())
    await until(calls(client, 1), within_s=2)
    task.cancel()
    await until(calls(client, 0), within_s=1)


async def test_breaking_out_of_a_stream_reaches_the_callee_at_once(client: Client) -> None:
    async with client.stream(COUNT, CountRequest(n=3, pause_s=30)) as events:
        async for _ in events:
            break
    await until(calls(client, 0), within_s=1)


async def test_cancelling_a_call_reaches_the_callee_at_once(client: Client) -> None:
    task = asyncio.create_task(client.call(SLEEP, CountRequest(n=0, pause_s=30)))
    await until(calls(client, 1), within_s=2)
    task.cancel()
    await until(calls(client, 0), within_s=1)


async def test_expected_error_is_raised_as_the_callee_raised_it(client: Client) -> None:
    with pytest.raises(HunminError) as caught:
        await client.call(ECHO, EchoRequest(text="x", fail="expected"))
    assert (caught.value.code, caught.value.details) == (ErrorCode.OVERLOADED, {"retry_after_s": 7})
    assert caught.value.message == "Too much. Wait."


async def test_unexpected_error_shows_nothing_of_itself(services: Running, client: Client) -> None:
    with pytest.raises(HunminError) as caught:
        await client.call(ECHO, EchoRequest(text="x", fail="unexpected"))
    assert caught.value.code == ErrorCode.INTERNAL
    assert "비밀" not in str(caught.value)
    reply = await services.http("echo").post("/v1/echo", json={"text": "x", "fail": "unexpected"})
    assert reply.status_code == 500
    assert "비밀" not in reply.text
    assert "RuntimeError" not in reply.text


@pytest.mark.parametrize(("kind", "code"), [("expected", "overloaded"), ("unexpected", "internal")])
async def test_error_before_the_first_event_is_a_status(
    services: Running, client: Client, kind: str, code: str
) -> None:
    with pytest.raises(HunminError) as caught:
        async with client.stream(COUNT, CountRequest(n=3, fail_at=0, fail=kind)):
            pytest.fail("entered a stream that failed at once")
    assert caught.value.code == code
    reply = await services.http("echo").post("/v1/count", json={"n": 3, "fail_at": 0, "fail": kind})
    assert reply.status_code == {"expected": 429, "unexpected": 500}[kind]
    assert reply.headers.get("retry-after") == {"expected": "7"}.get(kind)


@pytest.mark.parametrize(("kind", "code"), [("expected", "overloaded"), ("unexpected", "internal")])
async def test_error_after_the_first_event_ends_the_stream(client: Client, kind: str, code: str) -> None:
    seen = []

    async def consume() -> None:
        async with client.stream(COUNT, CountRequest(n=3, fail_at=1, fail=kind)) as events:
            async for event in events:
                seen.append(event)

    with pytest.raises(HunminError) as caught:
        await consume()
    assert len(seen) == 1
    assert caught.value.code == code
    assert "비밀" not in str(caught.value)
    await until(calls(client, 0), within_s=1)


async def test_many_streams_at_once_each_get_their_own(client: Client) -> None:
    async def consume(n: int) -> int:
        async with client.stream(COUNT, CountRequest(n=n, pause_s=0.001)) as events:
            return len([event async for event in events])

    assert await asyncio.gather(*map(consume, range(40))) == [n + 1 for n in range(40)]


async def test_request_id_is_forwarded(client: Client) -> None:
    with request_context(RequestId("req_from_the_edge")):
        reply = await client.call(ECHO, EchoRequest(text="x"))
    assert reply.request_id == "req_from_the_edge"


@NETWORK
async def test_callee_sees_none_of_the_callers_context(network: bool) -> None:
    async with running(echo.SERVICE, front.SERVICE, network=network) as services:
        reply = await services.client("front").call(RELAY, EchoRequest(text="x"))
    assert reply.caller_context == "nothing"


@NETWORK
async def test_deadline_that_passes_is_an_error_of_its_own(network: bool) -> None:
    env = {"HUNMIN_CALL_DEADLINE_S": "0.2", "HUNMIN_STREAM_DEADLINE_S": "0.3"}
    async with running(echo.SERVICE, network=network, env=env) as services:
        client = services.client("echo")
        with pytest.raises(HunminError) as caught:
            await client.call(SLEEP, CountRequest(n=0, pause_s=30))
        assert caught.value.code == ErrorCode.DEADLINE_EXCEEDED
        async with client.stream(COUNT, CountRequest(n=3, pause_s=30)) as events:
            await anext(events)
            with pytest.raises(HunminError) as caught:
                await anext(events)
        assert caught.value.code == ErrorCode.DEADLINE_EXCEEDED
        await until(calls(client, 0), within_s=1)


@NETWORK
async def test_a_call_that_is_long_has_the_deadline_of_a_stream(network: bool) -> None:
    async with running(echo.SERVICE, network=network, env={"HUNMIN_CALL_DEADLINE_S": "0.05"}) as services:
        done = await services.client("echo").call(replace(SLEEP, is_long=True), CountRequest(n=0, pause_s=0.2))
    assert done == Done()


async def watched(client: Client, request: CountRequest) -> list[str]:
    async with client.stream(WATCH, request) as events:
        return [event.root.type async for event in events]


@NETWORK
class TestEndlessStreams:
    async def test_no_deadline_ends_one(self, network: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SERVE, "HEARTBEAT_S", 0.05)
        env = {"HUNMIN_STREAM_DEADLINE_S": "0.3", "HUNMIN_STREAM_SILENCE_S": "2"}
        async with running(echo.SERVICE, network=network, env=env) as services:
            client = services.client("echo")
            assert await watched(client, CountRequest(n=2, before_s=2.5, pause_s=2.5)) == ["tick", "tick", "done"]

    async def test_one_that_falls_silent_is_unavailable(self, network: bool) -> None:
        async with running(echo.SERVICE, network=network, env={"HUNMIN_STREAM_SILENCE_S": "0.3"}) as services:
            client = services.client("echo")
            for request in (CountRequest(n=1, before_s=30), CountRequest(n=2, pause_s=30)):
                with pytest.raises(HunminError, match="fell silent") as caught:
                    await watched(client, request)
                assert caught.value.code == ErrorCode.UNAVAILABLE
            await until(calls(client, 0), within_s=2)

    async def test_errors_come_as_ever(self, network: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SERVE, "HEARTBEAT_S", 0.05)
        async with running(echo.SERVICE, network=network) as services:
            client = services.client("echo")
            for before_s, fail_at in ((0, 0), (0.3, 0), (0.3, 1)):
                with pytest.raises(HunminError, match="Too much") as caught:
                    await watched(client, CountRequest(n=2, before_s=before_s, fail_at=fail_at))
                assert caught.value.details == {"retry_after_s": 7}

    async def test_leaving_one_reaches_the_callee_at_once(self, network: bool) -> None:
        async with running(echo.SERVICE, network=network) as services:
            client = services.client("echo")
            async with client.stream(WATCH, CountRequest(n=10**6, pause_s=0.01)) as events:
                await anext(events)
            await until(calls(client, 0), within_s=2)


@asynccontextmanager
async def raw_client(app: object, *, network: bool) -> AsyncIterator[Client]:
    """A client of a bare ASGI application, which has no edge of the kit's around it."""
    if not network:
        client = Client("raw", InProcessTransport(lambda: app), tracer=trace.NoOpTracer(), base_url="http://raw")
        yield client
        await client.aclose()
        return
    listener = bind("127.0.0.1", 0, variable="")
    async with listening(app, listener, drain_s=1):
        transport = NetworkTransport(max_connections=10, connect_s=2)
        client = Client("raw", transport, tracer=trace.NoOpTracer(), base_url=url_of(listener))
        yield client
        await client.aclose()


@NETWORK
async def test_answer_that_breaks_off_is_unavailable(network: bool) -> None:
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        event = CountEvent(Tick(i=0)).model_dump_json().encode()
        await send({"type": "http.response.body", "body": b"data: " + event + b"\n\n", "more_body": True})
        raise RuntimeError("died")

    async with raw_client(app, network=network) as client, client.stream(COUNT, CountRequest(n=3)) as events:
        assert (await anext(events)).root.i == 0
        with pytest.raises(HunminError) as caught:
            await anext(events)
    assert caught.value.code == ErrorCode.UNAVAILABLE


@NETWORK
@pytest.mark.parametrize(("status", "code"), [(503, "unavailable"), (418, "internal")])
async def test_status_of_something_else_is_told_apart(network: bool, status: int, code: str) -> None:
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>"})

    async with raw_client(app, network=network) as client:
        with pytest.raises(HunminError) as caught:
            await client.call(ECHO, EchoRequest(text="x"))
    assert caught.value.code == code


async def test_a_server_that_hangs_up_is_unavailable_and_was_asked_once() -> None:
    asked = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"}"))
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    transport = NetworkTransport(max_connections=1, connect_s=2)
    client = Client("rude", transport, tracer=trace.NoOpTracer(), base_url=url)
    async with server:
        with pytest.raises(HunminError, match="broke off") as caught:
            await client.call(ECHO, EchoRequest(text="x"))
        await client.aclose()
    assert caught.value.code == ErrorCode.UNAVAILABLE
    assert len(asked) == 1


async def test_who_gets_no_connection_finds_the_service_unavailable() -> None:
    async with running(echo.SERVICE, network=True) as services:
        transport = NetworkTransport(max_connections=1, connect_s=0.1)
        client = Client("echo", transport, tracer=trace.NoOpTracer(), base_url=services.url("echo"))
        async with client.stream(COUNT, CountRequest(n=3, pause_s=30)) as events:
            await anext(events)
            with pytest.raises(HunminError, match="than there are connections") as caught:
                await client.call(ECHO, EchoRequest(text="x"))
            assert caught.value.code == ErrorCode.UNAVAILABLE
        assert (await client.call(ECHO, EchoRequest(text="x"))).text == "x"
        await client.aclose()


async def test_closing_a_client_ends_what_it_still_reads(services: Running) -> None:
    client = services.client("echo")
    async with client.stream(COUNT, CountRequest(n=3, pause_s=30)) as events:
        await anext(events)
        reading = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
        await client.aclose()
        with pytest.raises(HunminError) as caught:
            await asyncio.wait_for(reading, 2)
        assert caught.value.code == ErrorCode.UNAVAILABLE


async def test_service_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        client = Client(
            "gone", NetworkTransport(max_connections=1, connect_s=2), tracer=trace.NoOpTracer(), base_url=url
        )
        with pytest.raises(HunminError) as caught:
            await client.call(ECHO, EchoRequest(text="x"))
        await client.aclose()
    assert (caught.value.code, caught.value.details) == (ErrorCode.UNAVAILABLE, {"retry_after_s": 1})

    def find_app() -> None:
        raise Unreachable("not up")

    client = Client("gone", InProcessTransport(find_app), tracer=trace.NoOpTracer(), base_url="http://gone")
    with pytest.raises(HunminError) as caught:
        await client.call(ECHO, EchoRequest(text="x"))
    assert caught.value.code == ErrorCode.UNAVAILABLE


@pytest.mark.parametrize("folder", ["", ".", "..", "a/b", "../folders/a", "/"])
async def test_a_value_in_a_path_leads_to_no_other_path(client: Client, folder: str) -> None:
    with pytest.raises(HunminError) as caught:
        await client.call(IN_FOLDER, NotesRequest(folder=folder))
    assert (caught.value.code, caught.value.details) == (ErrorCode.NOT_FOUND, {"param": "folder"})


@pytest.mark.parametrize("folder", ["...", "%2e%2e", "%2F", "a?b#c", "가 나;x=1"])
async def test_a_value_in_a_path_arrives_as_it_is(client: Client, folder: str) -> None:
    assert (await client.call(IN_FOLDER, NotesRequest(folder=folder))).folder == folder
