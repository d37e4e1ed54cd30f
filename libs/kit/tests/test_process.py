"""One process from start to exit, as the operating system sees it."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from hunmin_command import main
from hunmin_kit.run.cli import opened
from hunmin_kit.testing import running
from kit_sample import echo, front
from kit_sample.command import Command, free_port

Start = Callable[..., Command]


def ticks(response: httpx.Response) -> Iterator[str]:
    return (line for line in response.iter_lines() if line.startswith("data:"))


def refuses_connections(url: str) -> bool:
    try:
        httpx.get(f"{url}/livez", timeout=1, trust_env=False)
    except httpx.TransportError:
        return True
    return False


def test_sigterm_drains(hunmin: Start, http: httpx.Client) -> None:
    command = hunmin("run", "echo", HUNMIN_DRAIN_DELAY_S="1").ready()
    url = command.url("echo")
    assert http.get(f"{url}/readyz").status_code == 200
    with http.stream("POST", f"{url}/v1/count", json={"n": 8, "pause_s": 0.3}) as response:
        lines = ticks(response)
        next(lines)
        command.process.send_signal(signal.SIGTERM)
        signalled = time.monotonic()
        time.sleep(0.2)
        assert http.get(f"{url}/readyz").status_code == 503  # told apart from dead, and still serving
        assert http.get(f"{url}/livez").status_code == 200
        answer = http.post(f"{url}/v1/echo", json={"text": "x"})
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"  # no later request comes by a connection that is about to end
        time.sleep(max(0, signalled + 1.5 - time.monotonic()))
        assert refuses_connections(url)
        assert list(lines)[-1] == 'data: {"type":"done"}'  # what ran when the ports closed runs to its end
    assert command.process.wait(timeout=10) == 0
    assert [line["event"] for line in command.events()][-3:] == [
        "http.request.finished",
        "service.stopped",
        "process.stopped",
    ]


def test_request_longer_than_the_grace_period_is_cut(hunmin: Start, http: httpx.Client) -> None:
    command = hunmin("run", "echo", HUNMIN_DRAIN_S="0.3").ready()
    with http.stream("POST", f"{command.url('echo')}/v1/count", json={"n": 5, "pause_s": 30}) as response:
        lines = ticks(response)
        next(lines)
        started = time.monotonic()
        assert command.stop() == 0
        assert time.monotonic() - started < 5
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)


def test_second_signal_exits_at_once(hunmin: Start, http: httpx.Client) -> None:
    command = hunmin("run", "echo").ready()
    with http.stream("POST", f"{command.url('echo')}/v1/count", json={"n": 5, "pause_s": 30}) as response:
        lines = ticks(response)
        next(lines)
        command.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert command.process.poll() is None
        command.process.send_signal(signal.SIGTERM)
        assert command.process.wait(timeout=2) == 1


def test_signal_during_the_start_ends_it(hunmin: Start) -> None:
    command = hunmin("run", "echo", HUNMIN_ECHO_START_S="60", HUNMIN_LOG_LEVEL="DEBUG")
    deadline = time.monotonic() + 20
    while refuses_connections_at_all(command.ports["echo"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert command.stop() == 0
    assert command.events()[-1]["event"] == "process.stopped"


def refuses_connections_at_all(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def refusal(site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `hunmin` in this process, and return the line that it wrote instead of starting."""
    monkeypatch.syspath_prepend(str(site))

    def run(*arguments: str, **env: str) -> str:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


def test_unknown_setting_is_one_line(refusal: Callable[..., str]) -> None:
    hint = "Did you mean HUNMIN_ECHO_START_S?"
    expected = f"hunmin: HUNMIN_ECHO_STRT_S is set, but nothing here reads it. {hint}"
    assert refusal("run", "echo", HUNMIN_ECHO_STRT_S="1") == expected


def test_ill_typed_setting_is_one_line(refusal: Callable[..., str]) -> None:
    assert refusal("run", "echo", HUNMIN_ECHO_START_S="soon").startswith("hunmin: HUNMIN_ECHO_START_S is not valid")


def test_unknown_service_is_one_line(refusal: Callable[..., str]) -> None:
    assert refusal("run", "ecko").startswith("hunmin: There is no service 'ecko' here. Did you mean echo?")


def test_port_in_use_is_one_line(refusal: Callable[..., str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = refusal("run", "echo", HUNMIN_ECHO_PORT=str(taken.getsockname()[1]))
    assert line.startswith("hunmin: Port ")
    assert line.endswith("Stop what uses it, or set HUNMIN_ECHO_PORT.")


def test_only_public_ports_are_opened_for_a_whole_platform() -> None:
    assert opened([echo.SERVICE, front.SERVICE], ["all"]) == [front.SERVICE]
    assert opened([echo.SERVICE], ["echo"]) == [echo.SERVICE]


@pytest.mark.parametrize("hangs_up", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("count", b'{"n": 3, "pause_s": 60}'),
        ("count", b'{"n": 3, "before_s": 60}'),
        ("sleep", b'{"n": 0, "pause_s": 60}'),
    ],
    ids=["in a stream", "before a stream's first event", "in a call"],
)
async def test_client_that_vanishes_frees_what_it_used(path: str, body: bytes, hangs_up: bool) -> None:
    async with running(echo.SERVICE, network=True) as services:
        calls = services.http("echo")

        async def until(n: int, *, within_s: float) -> None:
            async with asyncio.timeout(within_s):
                while (await calls.get("/v1/state")).json()["calls"] != n:  # noqa: ASYNC110  # seen from outside
                    await asyncio.sleep(0.01)

        _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(services.url("echo")).port)
        head = f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await until(1, within_s=5)
        if hangs_up:
            writer.transport.abort()
        else:
            writer.close()
        await until(0, within_s=1)


def test_two_processes_are_one_platform(hunmin: Start, http: httpx.Client) -> None:
    ports = {"HUNMIN_ECHO_PORT": str(free_port()), "HUNMIN_FRONT_PORT": str(free_port())}
    ports["HUNMIN_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/nothing"  # unused: no route here needs it
    echo = hunmin("run", "echo", **ports)
    front = hunmin("run", "front", **ports)
    echo.ready()
    front.ready()
    assert front.process.stdout.readline() == f"front is at {front.url('front')}\n"
    reply = http.post(f"{front.url('front')}/v1/relay", json={"text": "안녕"}, headers={"x-request-id": "req_two"})
    assert (reply.json()["text"], reply.json()["request_id"]) == ("안녕", "req_two")
    assert echo.line("http.request.finished")["trace_id"] == front.line("http.request.finished")["trace_id"]
    assert echo.stop() == 0
    reply = http.post(f"{front.url('front')}/v1/relay", json={"text": "x"})
    assert (reply.status_code, reply.json()["code"], reply.headers["retry-after"]) == (503, "unavailable", "1")
    assert front.stop() == 0
