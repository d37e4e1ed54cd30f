"""Logs that tell much and quote nothing, traces that span services, metrics without a tenant."""

import asyncio
import io
import json
import logging
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog
from hunmin_contracts.errors import HunminError
from hunmin_contracts.ids import RequestId
from hunmin_kit.observe import logs
from hunmin_kit.observe.tracing import call_span, tracer_provider
from hunmin_kit.testing import Running, running
from hunmin_kit.web import request_context
from kit_sample import echo, front
from kit_sample.contract import COUNT, NOTE, RELAY, RELAY_COUNT, CountRequest, EchoRequest, NoteRequest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

SECRET = "비밀-프롬프트"


class Lines:
    """The log so far."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter([json.loads(line) for line in self.text.splitlines()])

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self if line["event"] == event]


@pytest.fixture
def log() -> Iterator[Lines]:
    stream = io.StringIO()
    logs.configure(level="DEBUG", form="json", stream=stream)
    yield Lines(stream)
    logs.configure(level="WARNING", form="json")


@pytest.fixture(params=[False, True], ids=["in-process", "network"])
async def services(request: pytest.FixtureRequest, log: Lines) -> AsyncIterator[Running]:
    async with running(echo.SERVICE, front.SERVICE, network=request.param) as running_:
        yield running_


async def provoke(services: Running) -> None:
    """Send text through every way that a request can take or break."""
    client, http = services.client("front"), services.http("front")
    await client.call(RELAY, EchoRequest(text=SECRET))
    await client.call(NOTE, NoteRequest(name=SECRET))
    for kind in ("expected", "unexpected"):
        with pytest.raises(HunminError):
            await client.call(RELAY, EchoRequest(text=SECRET, fail=kind))
    with pytest.raises(HunminError):
        async with client.stream(RELAY_COUNT, CountRequest(n=3, fail_at=1, fail="unexpected")) as events:
            _ = [event async for event in events]
    await http.post("/v1/notes", json={"name": SECRET, "fail": "commit"})
    await http.post("/v1/notes", json={"name": SECRET + "\u0000"})
    await http.post("/native", json={"prompt": {SECRET: SECRET}})
    await http.post("/native", json={SECRET: SECRET})
    await http.post("/native", content=json.dumps({"prompt": SECRET}).encode()[:-3])
    await http.get(f"/{SECRET}?q={SECRET}")


async def test_no_text_of_a_request_is_ever_logged(services: Running, log: Lines) -> None:
    await provoke(services)
    assert len(log.of("http.request.finished")) >= 15
    for part in (SECRET, "비밀", "%EB%B9%84", "\\ube44"):
        assert part not in log.text


async def test_every_line_of_a_request_names_it(services: Running, log: Lines) -> None:
    with request_context(RequestId("req_one")):
        await services.client("front").call(RELAY, EchoRequest(text="x"))
    lines = [line for line in log if line.get("request_id") == "req_one"]
    assert {(line["event"], line["service"], line["route"]) for line in lines} == {
        ("http.request.finished", "front", "/v1/relay"),
        ("http.request.finished", "echo", "/v1/echo"),
    }
    assert {(line["method"], line["status"], line["level"]) for line in lines} == {("POST", 200, "info")}
    assert all(0 < line["duration_s"] < 5 for line in lines)
    assert len({line["trace_id"] for line in lines}) == 1


async def test_unexpected_error_is_logged_once_with_its_stack(services: Running, log: Lines) -> None:
    reply = await services.http("echo").post("/v1/echo", json={"text": "x", "fail": "unexpected"})
    (line,) = log.of("http.request.crashed")
    assert line["level"] == "error"
    assert line["exception"].startswith("builtins.RuntimeError\n")
    assert "kit_sample/echo.py" in line["exception"]
    assert line["request_id"] == reply.headers["x-request-id"] == reply.json()["request_id"]
    assert line["trace_id"] == reply.json()["trace_id"]


async def test_expected_error_is_information(services: Running, log: Lines) -> None:
    await services.http("echo").post("/v1/echo", json={"text": "x", "fail": "expected"})
    assert {line["level"] for line in log} == {"info"}
    assert [(line["status"], line["error"]) for line in log.of("http.request.finished")] == [(429, "overloaded")]


async def test_stream_that_failed_on_its_way_says_so(services: Running, log: Lines) -> None:
    await services.http("echo").post("/v1/count", json={"n": 2, "fail_at": 1})
    assert [(line["status"], line["error"]) for line in log.of("http.request.finished")] == [(200, "overloaded")]


async def test_stream_that_its_client_left_says_so(services: Running, log: Lines) -> None:
    async with services.client("echo").stream(COUNT, CountRequest(n=2, pause_s=30)) as events:
        await anext(events)
    for _ in range(100):
        if log.of("http.request.finished"):
            break
        await asyncio.sleep(0.01)
    assert [line["status"] for line in log.of("http.request.finished")] == [499]


async def test_health_and_metrics_are_neither_logged_nor_traced_nor_counted(services: Running, log: Lines) -> None:
    http = services.http("front")
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await http.get(path)).status_code == 200
    assert log.of("http.request.finished") == []
    assert services.spans("front") == ()
    assert "/livez" not in (await http.get("/metrics")).text


def by_name(spans: tuple[ReadableSpan, ...]) -> dict[str, ReadableSpan]:
    return {f"{span.kind.name} {span.name}": span for span in spans}


async def test_one_request_is_one_trace_over_two_services(services: Running) -> None:
    await services.client("front").call(RELAY, EchoRequest(text="x"))
    front_spans, echo_spans = by_name(services.spans("front")), by_name(services.spans("echo"))
    server, caller = front_spans["SERVER POST /v1/relay"], front_spans["CLIENT POST /v1/echo"]
    callee = echo_spans["SERVER POST /v1/echo"]
    assert caller.parent.span_id == server.context.span_id
    assert callee.parent.span_id == caller.context.span_id
    assert {span.context.trace_id for span in (server, caller, callee)} == {server.context.trace_id}
    assert server.resource.attributes["service.name"] == "hunmin-front"
    assert callee.resource.attributes["service.name"] == "hunmin-echo"


async def test_caller_from_outside_starts_the_trace(services: Running) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await services.http("front").post("/v1/relay", json={"text": "x"}, headers={"traceparent": parent})
    for service in ("front", "echo"):
        (trace_id,) = {span.context.trace_id for span in services.spans(service)}
        assert trace.format_trace_id(trace_id) == "0af7651916cd43dd8448eb211c80319c"


async def test_statements_are_spans_without_their_values(services: Running) -> None:
    await services.client("front").call(NOTE, NoteRequest(name=SECRET))
    spans = by_name(services.spans("front"))
    insert = spans["CLIENT INSERT"]
    assert insert.parent.span_id == spans["SERVER POST /v1/notes"].context.span_id
    assert SECRET not in str(insert.attributes)


@pytest.mark.parametrize("is_sampled", [True, False])
def test_a_call_is_a_span_unless_its_trace_is_not_recorded(is_sampled: bool) -> None:
    exporter = InMemorySpanExporter()
    tracer = tracer_provider("caller", exporter=exporter).get_tracer("test")
    # As an event has it that was told by another process.
    place = trace.SpanContext(7, 8, is_remote=True, trace_flags=trace.TraceFlags(int(is_sampled)))
    with trace.use_span(trace.NonRecordingSpan(place)), call_span(tracer, "call", {}) as span:
        assert span.get_span_context().trace_id == place.trace_id
    assert len(exporter.get_finished_spans()) == is_sampled


async def test_failed_call_is_a_failed_span(services: Running) -> None:
    with pytest.raises(HunminError):
        await services.client("front").call(RELAY, EchoRequest(text="x", fail="unexpected"))
    assert not by_name(services.spans("front"))["CLIENT POST /v1/echo"].status.is_ok
    assert not by_name(services.spans("echo"))["SERVER POST /v1/echo"].status.is_ok


def test_global_provider_is_left_alone() -> None:
    assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"


async def test_metrics_count_by_route_and_class(services: Running) -> None:
    http = services.http("echo")
    for folder in ("a", "b"):
        await http.get(f"/v1/folders/{folder}")
    await http.post("/v1/echo", json={"text": "x", "fail": "unexpected"})
    await http.get("/nowhere/acct_1")
    text = (await http.get("/metrics")).text
    assert (
        'hunmin_http_requests_total{method="GET",route="/v1/folders/{folder}",service="echo",status="2xx"} 2.0' in text
    )
    assert 'hunmin_http_requests_total{method="POST",route="/v1/echo",service="echo",status="5xx"} 1.0' in text
    assert 'hunmin_http_requests_total{method="GET",route="unmatched",service="echo",status="4xx"} 1.0' in text
    labels = 'method="GET",route="/v1/folders/{folder}",service="echo",status="2xx"'
    assert f"hunmin_http_request_duration_seconds_count{{{labels}}} 2.0" in text
    assert "process_cpu_seconds_total" in text
    assert "acct_1" not in text


def test_other_libraries_records_are_lines_too(log: Lines) -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("somebody.else").exception("it %s", "failed")
    structlog.get_logger().info("own.event", count=1)
    first, second = log
    assert (first["event"], first["level"]) == ("it failed", "error")
    assert first["exception"].startswith("builtins.ValueError\n")
    assert (second["event"], second["count"]) == ("own.event", 1)
    assert SECRET not in log.text


def test_terminal_gets_readable_lines() -> None:
    stream = io.StringIO()
    logs.configure(level="INFO", form="console", stream=stream)
    try:
        structlog.get_logger().info("own.event", count=1)
        structlog.get_logger().debug("own.detail")
        structlog.get_logger().error("own.failure", exc_info=OSError("disk full"))
    finally:
        logs.configure(level="WARNING", form="json")
    assert "own.event" in stream.getvalue()
    assert "own.detail" not in stream.getvalue()
    assert "OSError: disk full" in stream.getvalue()


def test_ids_of_traces_leave_the_random_module_alone() -> None:
    before = random.getstate()
    one, other = (tracer_provider("a").get_tracer("test").start_span("span").get_span_context() for _ in range(2))
    assert random.getstate() == before
    assert (one.is_valid, one.trace_id != other.trace_id, one.span_id != other.span_id) == (True, True, True)
