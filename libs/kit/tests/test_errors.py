"""What a caller sees when a request is wrong, and that nothing a caller can send becomes a 500."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from hunmin_contracts.errors import HunminError, Problem
from hunmin_kit.run import Platform, Service
from hunmin_kit.testing import running
from hunmin_kit.web import EventStream, current_request_id
from kit_sample import echo, front

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def front_http() -> AsyncIterator[httpx.AsyncClient]:
    service = replace(front.SERVICE, migrations=None)
    async with running(echo.SERVICE, service, env={"HUNMIN_BODY_LIMIT_BYTES": "100000"}) as services:
        yield services.http("front")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"prompt": "x", "temprature": 1}, "unknown_parameter", "temprature"),
        ({"prompt": "x", "sampling": {"top": 1}}, "unknown_parameter", "sampling.top"),
        ({"prompt": "x", "sampling": {"temperature": -1}}, "invalid_parameter", "sampling.temperature"),
        ({"prompt": "x", "sampling": {"temperature": "hot"}}, "invalid_parameter", "sampling.temperature"),
        ({}, "invalid_parameter", "prompt"),
        ({"prompt": None}, "invalid_parameter", "prompt"),
        ({"prompt": [1, 2, "x"]}, "invalid_parameter", "prompt.2"),
        ({"prompt": [{"role": "user", "content": "x", "name": "y"}]}, "unknown_parameter", "prompt.0.name"),
        ({"prompt": [{"role": "user"}]}, "invalid_parameter", "prompt.0.content"),
        ([], "invalid_request", None),
        ("text", "invalid_request", None),
    ],
)
async def test_wrong_parameter_is_named_by_its_path(
    front_http: httpx.AsyncClient, body: object, code: str, param: str | None
) -> None:
    reply = await front_http.post("/native", json=body)
    assert reply.status_code == 400
    assert reply.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(reply.content)
    assert (problem.code, problem.details.get("param")) == (code, param)
    assert problem.request_id == reply.headers["x-request-id"]
    assert param is None or param in problem.detail


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"text": "x", "txet": 1}, "unknown_parameter", "txet"),
        ({"text": 1}, "invalid_parameter", "text"),
        ({}, "invalid_parameter", "text"),
        ([], "invalid_request", None),
    ],
)
async def test_served_endpoint_names_it_too(
    front_http: httpx.AsyncClient, body: object, code: str, param: str | None
) -> None:
    reply = await front_http.post("/v1/relay", json=body)
    assert reply.status_code == 400
    assert (reply.json()["code"], reply.json()["details"].get("param")) == (code, param)


@pytest.mark.parametrize("path", ["/native", "/v1/relay"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"prompt": }',
        b"\xff\xfe",
        b'"\xed\xa0\x80"',
        b"[" * 20_000,
        b'{"prompt": ' + b"9" * 5000 + b"}",
        b"\x00",
        b"null",
        '{"prompt": "\\ud800"}'.encode("utf-16"),
        b'{"prompt": "x", "anything": NaN}',
        b'{"prompt": "x", "anything": [-Infinity]}',
        b'{"prompt": "x", "anything": "\\ud800"}',
        b'{"prompt": "x", "anything": "\\udc00\\ud800"}',
        b'{"prompt": "x", "\\ud83d": 1}',
        b'{"text": "\\ud800"}',
        b'{"text": "\xed\xa0\x80"}',
        b'{"text": "x", "\\ud83d": 1}',
    ],
)
async def test_body_that_is_no_json_text_is_the_callers_fault(
    front_http: httpx.AsyncClient, path: str, body: bytes
) -> None:
    reply = await front_http.post(path, content=body, headers=JSON)
    assert reply.status_code == 400
    assert reply.json()["code"] in {"invalid_request", "invalid_parameter", "unknown_parameter"}


@pytest.mark.parametrize("body", [b"[" * 20_000, b'{"text": ' + b"9" * 5000 + b"}", b'{"text": "\xff"}'])
async def test_body_that_python_cannot_read_is_told_what_it_may_be(front_http: httpx.AsyncClient, body: bytes) -> None:
    reply = await front_http.post("/native", content=body, headers=JSON)
    assert "nested too deeply" in reply.json()["detail"]


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "\\ud83d\\ude00", "a \x00 b", "\U0001f600", "\\\\ud800", "\ud7ff\ue000"]
)
async def test_text_that_only_looks_suspicious_passes(front_http: httpx.AsyncClient, text: str) -> None:
    body = '{"text": "' + text.replace("\x00", "\\u0000") + '"}'
    reply = await front_http.post("/v1/relay", content=body, headers=JSON)
    assert reply.status_code == 200
    assert reply.json()["text"] == json.loads(body)["text"]


@pytest.mark.parametrize("path", ["/native", "/v1/relay"])
async def test_body_not_declared_as_json_is_415(front_http: httpx.AsyncClient, path: str) -> None:
    reply = await front_http.post(path, content=b'{"text": "x"}', headers=FORM)
    assert (reply.status_code, reply.json()["code"]) == (415, "unsupported_media_type")


async def test_path_and_query_are_named_too(front_http: httpx.AsyncClient) -> None:
    assert (await front_http.get("/native/x")).json()["details"] == {"param": "number"}
    assert (await front_http.get("/native/1?limit=x")).json()["details"] == {"param": "limit"}


async def test_no_such_path_and_no_such_method(front_http: httpx.AsyncClient) -> None:
    reply = await front_http.get("/nowhere")
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
    reply = await front_http.delete("/native")
    assert (reply.status_code, reply.json()["code"], reply.headers["allow"]) == (405, "method_not_allowed", "POST")


async def test_body_over_the_limit_is_413(front_http: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * 1000

    for content in (b"x" * 200_000, chunks()):
        reply = await front_http.post("/v1/relay", content=content, headers=JSON)
        assert (reply.status_code, reply.json()["code"], reply.json()["details"]) == (
            413,
            "too_large",
            {"limit": 100_000},
        )


async def test_body_over_the_limit_is_413_over_a_socket() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(500):
            yield b"x" * 1000

    async with running(echo.SERVICE, network=True, env={"HUNMIN_BODY_LIMIT_BYTES": "100000"}) as services:
        for content in (b"x" * 500_000, chunks()):
            reply = await services.http("echo").post("/v1/echo", content=content, headers=JSON)
            assert (reply.status_code, reply.json()["code"]) == (413, "too_large")
        assert (await services.http("echo").post("/v1/echo", json={"text": "x"})).status_code == 200


@pytest.mark.parametrize("network", [False, True])
async def test_large_files_are_taken_where_they_are_meant_to_be(network: bool) -> None:
    env = {"HUNMIN_BODY_LIMIT_BYTES": "1000", "HUNMIN_UPLOAD_LIMIT_BYTES": "100000"}
    file = {"content-type": "application/octet-stream"}

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"title": ""}\n'
        for _ in range(200):
            yield b"x" * 1000

    async with running(echo.SERVICE, network=network, env=env) as services:
        http = services.http("echo")
        taken = await http.put("/v1/folders/large/file", content=b'{"title": ""}\n' + b"x" * 50_000, headers=file)
        assert (taken.status_code, taken.json()["size"]) == (200, 50_000)
        for folder, content, headers, limit in (
            ("small", b'{"title": ""}\n' + b"x" * 50_000, file, 1000),
            ("large", b'{"title": ""}\n' + b"x" * 200_000, file, 100_000),
            ("large", chunks(), file, 100_000),
            ("large", b"x" * 50_000, JSON, 1000),  # held in memory
        ):
            reply = await http.put(f"/v1/folders/{folder}/file", content=content, headers=headers)
            assert (reply.status_code, reply.json()["details"]) == (413, {"limit": limit})


@pytest.mark.parametrize("header", ["req_0123", "a", "A.b-c:9_" + "x" * 56])
async def test_request_id_of_the_caller_is_kept(front_http: httpx.AsyncClient, header: str) -> None:
    reply = await front_http.post("/v1/relay", json={"text": "x"}, headers={"x-request-id": header})
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == header


@pytest.mark.parametrize("header", ["", "x" * 65, "a b", "-a", "한글".encode(), "a\tb", '"'])
async def test_request_id_that_is_not_well_formed_is_replaced(
    front_http: httpx.AsyncClient, header: str | bytes
) -> None:
    reply = await front_http.post("/v1/relay", json={"text": "x"}, headers={"x-request-id": header})
    assert reply.headers["x-request-id"].startswith("req_")


def test_request_id_outside_a_request_is_a_mistake() -> None:
    with pytest.raises(LookupError):
        current_request_id()


@asynccontextmanager
async def build_dialect(platform: Platform, settings: front.FrontSettings) -> AsyncIterator[FastAPI]:
    def render(request: Request, problem: Problem) -> Response:
        return JSONResponse(
            {"error": {"message": problem.detail, "path": request.url.path}}, status_code=problem.status
        )

    app = platform.app(title="Dialect", render_error=render)

    @app.get("/expected")
    async def expected() -> None:
        raise HunminError("overloaded", "Too much.", retry_after_s=2.4)

    @app.get("/unexpected")
    async def unexpected() -> None:
        raise KeyError("비밀")

    @app.get("/unauthenticated")
    async def unauthenticated() -> None:
        raise HTTPException(401, headers={"x-own": "1"})

    @app.get("/stream")
    async def stream(fail_at: int) -> EventStream:
        async def chunks() -> AsyncIterator[bytes]:
            for i in range(3):
                if i == fail_at:
                    raise HunminError("conflict", "No.")
                yield f"data: {i}\n\n".encode()

        return EventStream(chunks(), on_error=lambda problem: f"data: {problem.code}\n\n".encode())

    yield app


async def test_service_renders_every_error_in_its_dialect() -> None:
    service = Service(name="dialect", settings=front.FrontSettings, build=build_dialect)
    async with running(service) as services:
        http = services.http("dialect")
        reply = await http.get("/expected")
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "2")
        assert reply.json() == {"error": {"message": "Too much.", "path": "/expected"}}
        reply = await http.get("/unexpected")
        assert (reply.status_code, reply.json()["error"]["path"]) == (500, "/unexpected")
        assert "비밀" not in reply.text
        reply = await http.get("/unauthenticated")
        assert (reply.status_code, reply.headers["www-authenticate"], reply.headers["x-own"]) == (401, "Bearer", "1")
        assert (await http.get("/nowhere")).json()["error"]["path"] == "/nowhere"
        assert (await http.get("/stream?fail_at=0")).status_code == 409
        reply = await http.get("/stream?fail_at=2")
        assert (reply.status_code, reply.text) == (200, "data: 0\n\ndata: 1\n\ndata: conflict\n\n")
        assert reply.headers["content-type"].startswith("text/event-stream")
