"""One process from start to exit, as the operating system sees it."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from hunmin_kit.run.cli import main, opened
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


def test_running_stream_finishes_after_sigterm(hunmin: Start, http: httpx.Client) -> None:
    command = hunmin("run", "echo").ready()
    with http.stream("POST", f"{command.url('echo')}/v1/count", json={"n": 5, "pause_s": 0.3}) as response:
        lines = ticks(response)
        next(lines)
        command.process.send_signal(signal.SIGTERM)
        time.sleep(0.4)
        assert refuses_connections(command.url("echo"))
        assert list(lines)[-1] == 'data: {"type":"done"}'
    assert command.process.wait(timeout=10) == 0
    assert [line["event"] for line in command.events()][-3:] == [
        "http.request.finished",
        "service.stopped",
        "process.stopped",
    ]


def test_readiness_ends_before_the_ports_close(hunmin: Start, http: httpx.Client) -> None:
    command = hunmin("run", "echo", HUNMIN_DRAIN_DELAY_S="1").ready()
    assert http.get(f"{command.url('echo')}/readyz").status_code == 200
    command.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert http.get(f"{command.url('echo')}/readyz").status_code == 503
    assert http.get(f"{command.url('echo')}/livez").status_code == 200
    assert http.post(f"{command.url('echo')}/v1/echo", json={"text": "x"}).status_code == 200
    assert command.process.wait(timeout=10) == 0


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


def test_wrong_setting_is_one_line_and_exit_code_2(hunmin: Start) -> None:
    command = hunmin("run", "echo", HUNMIN_ECHO_STRT_S="1")
    assert command.process.wait(timeout=30) == 2
    hint = "Did you mean HUNMIN_ECHO_START_S?"
    assert command.log.read_text() == f"hunmin: HUNMIN_ECHO_STRT_S is set, but nothing here reads it. {hint}\n"


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


def test_client_that_vanishes_frees_what_it_used(hunmin: Start, http: httpx.Client) -> None:
    command = hunmin("run", "echo").ready()

    def calls() -> int:
        return http.get(f"{command.url('echo')}/v1/state").json()["calls"]

    for path, body in (
        ("count", b'{"n": 3, "pause_s": 60}'),
        ("count", b'{"n": 3, "before_s": 60}'),
        ("sleep", b'{"n": 0, "pause_s": 60}'),
    ):
        with socket.create_connection(("127.0.0.1", command.ports["echo"])) as client:
            head = f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            deadline = time.monotonic() + 2
            while calls() != 1 and time.monotonic() < deadline:
                time.sleep(0.02)
            assert calls() == 1
        left = time.monotonic()
        while calls() != 0:
            assert time.monotonic() - left < 1
            time.sleep(0.02)
    assert command.stop() == 0


def test_two_processes_are_one_platform(hunmin: Start, http: httpx.Client) -> None:
    ports = {"HUNMIN_ECHO_PORT": str(free_port()), "HUNMIN_FRONT_PORT": str(free_port())}
    echo = hunmin("run", "echo", **ports)
    front = hunmin("run", "front", **ports)
    echo.ready()
    front.ready()
    assert front.process.stdout.readline() == f"front is at {front.url('front')}\n"
    reply = http.post(f"{front.url('front')}/v1/relay", json={"text": "안녕"}, headers={"x-request-id": "req_two"})
    assert (reply.json()["text"], reply.json()["request_id"]) == ("안녕", "req_two")
    (far,) = [line for line in echo.events() if line["event"] == "http.request.finished"]
    (near,) = [line for line in front.events() if line["event"] == "http.request.finished"]
    assert far["trace_id"] == near["trace_id"]
    assert echo.stop() == 0
    reply = http.post(f"{front.url('front')}/v1/relay", json={"text": "x"})
    assert (reply.status_code, reply.json()["code"], reply.headers["retry-after"]) == (503, "unavailable", "1")
    assert front.stop() == 0
