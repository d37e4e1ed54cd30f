"""The OpenAPI file of a service, made from the declarations of its endpoints alone."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hunmin_kit.testing import Running, running
from kit_sample import echo

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMAS = "#/components/schemas/"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Running]:
    async with running(echo.SERVICE) as services:
        yield services


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(service: Running) -> dict[str, Any]:
    found: dict[str, Any] = (await service.http("echo").get("/openapi.json")).json()
    return found


def content(part: dict[str, Any], media_type: str) -> Any:
    assert list(part["content"]) == [media_type]
    return part["content"][media_type]


async def test_a_call_has_its_request_and_its_response(document):
    operation = document["paths"]["/v1/echo"]["post"]
    assert content(operation["requestBody"], "application/json") == {"schema": {"$ref": SCHEMAS + "EchoRequest"}}
    response = content(operation["responses"]["200"], "application/json")
    assert response == {"schema": {"$ref": SCHEMAS + "EchoResponse"}}
    schema = document["components"]["schemas"]["EchoRequest"]
    assert (schema["required"], schema["additionalProperties"]) == (["text"], False)


async def test_fields_in_a_path_or_a_query_are_parameters(document):
    read = document["paths"]["/v1/folders/{folder}"]["get"]
    assert [(each["name"], each["in"], each["required"]) for each in read["parameters"]] == [
        ("folder", "path", True),
        ("limit", "query", False),
        ("tags", "query", False),
    ]
    assert "requestBody" not in read
    put = document["paths"]["/v1/folders/{folder}"]["put"]
    assert [each["name"] for each in put["parameters"]] == ["folder"]
    assert list(content(put["requestBody"], "application/json")["schema"]["properties"]) == ["limit", "tags"]


async def test_an_upload_has_a_head_and_a_file(document):
    operation = document["paths"]["/v1/folders/{folder}/file"]["put"]
    schema = content(operation["requestBody"], "application/octet-stream")["schema"]
    assert (schema["format"], schema["x-head"]["required"]) == ("binary", ["title"])
    assert "folder" not in schema["x-head"]["properties"]
    assert "415" not in operation["responses"]


async def test_a_stream_has_its_events_and_the_error_that_may_end_it(document):
    answer = document["paths"]["/v1/count"]["post"]["responses"]["200"]
    event, error = content(answer, "text/event-stream")["itemSchema"]["anyOf"]
    assert event["properties"]["data"]["contentSchema"] == {"$ref": SCHEMAS + "CountEvent"}
    assert error["properties"]["data"]["contentSchema"] == {"$ref": SCHEMAS + "Problem"}
    assert error["properties"]["event"] == {"const": "error"}


async def test_errors_are_problem_documents_with_every_status_that_there_may_be(document):
    responses = document["paths"]["/v1/echo"]["post"]["responses"]
    assert list(responses) == ["200", "400", "409", "413", "415", "500", "503", "504"]
    for status in ("400", "409", "503"):
        assert content(responses[status], "application/problem+json") == {"schema": {"$ref": SCHEMAS + "Problem"}}
    assert "413" not in document["paths"]["/v1/state"]["get"]["responses"]


async def test_headers_are_those_that_an_answer_has(document):
    responses = document["paths"]["/v1/echo"]["post"]["responses"]
    assert all("x-request-id" in response["headers"] for response in responses.values())
    assert [status for status, response in responses.items() if "Retry-After" in response["headers"]] == ["503"]


async def test_no_schema_is_missing_and_none_is_there_for_nothing(document):
    schemas = document["components"]["schemas"]
    text = str(document)
    referred = {part.split("'")[0] for part in text.split(SCHEMAS)[1:]}
    assert referred == set(schemas)


async def test_a_wrong_method_is_told_every_right_one(service):
    answer = await service.http("echo").post("/v1/folders/a")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, PUT")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The request has no body. Send a JSON object."),
        (b"{bad", "The body is not valid JSON. Correct it and send it again."),
        (b"[]", "The request is not valid: Input should be an object."),
    ],
)
async def test_what_is_wrong_with_a_body_as_a_whole_is_said(service, body: bytes, said: str):
    answer = await service.http("echo").post("/v1/echo", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (400, said)


@pytest.mark.parametrize("head", [b"{bad\n", b"[]\n"])
async def test_what_is_wrong_with_the_head_of_a_file_is_no_wrong_media_type(service, head: bytes):
    headers = {"content-type": "application/octet-stream"}
    answer = await service.http("echo").put("/v1/folders/a/file", content=head, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("body", [{"n": "1"}, {"n": True}, {"n": 1, "pause_s": "0"}])
@pytest.mark.parametrize("path", ["/v1/sleep", "/v1/count"])
async def test_a_body_has_the_types_that_the_file_says(service, path: str, body: dict[str, Any]):
    answer = await service.http("echo").post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
