"""Datasets through the gateway: forms in, each call on the account of its key, problems as they come."""

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/studio/v1/datasets"
TEMPLATE = {"prompt": "{text}<|VIRTUAL_PROMPT_0|>", "answer": "{label}", "verbalizers": {"1": "긍정", "0": "부정"}}


async def post(
    studio: Any, content: bytes = b"text,label\n", filename: str = "리뷰.csv", **fields: str
) -> httpx.Response:
    return await studio.http.post(PATH, data={"name": "reviews"} | fields, files={"file": (filename, content)})


async def test_a_form_is_passed_on(studio):
    response = await post(studio, format="tsv")
    assert response.status_code == 201, response.text
    info = response.json()
    assert (info["id"], info["name"], info["format"]) == (f"ds_{studio.account_id}", "reviews", "tsv")
    assert info["columns"] == ["리뷰.csv"]
    assert (await studio.http.get(f"{PATH}/reviews@1")).json() == info
    page = (await studio.http.get(PATH)).json()
    assert page == {"data": [info], "next_cursor": info["id"]}
    assert (await studio.http.get(PATH, params={"cursor": info["id"]})).json() == {"data": [], "next_cursor": None}


async def test_a_file_may_be_larger_than_another_request(studio):
    response = await post(studio, b"x" * (17 * 2**20))
    assert (response.status_code, response.json()["size_bytes"]) == (201, 17 * 2**20)


async def test_what_is_wrong_with_a_file_comes_with_its_line(studio):
    response = await post(studio, b"bad")
    problem = response.json()
    assert (response.status_code, problem["code"]) == (400, "invalid_request")
    assert (problem["details"], problem["detail"]) == ({"param": "file", "line": 7}, "Line 7: no.")


@pytest.mark.parametrize(
    ("fields", "param"), [({"name": "Reviews"}, "name"), ({"format": "xlsx"}, "format"), ({"title": "x"}, "title")]
)
async def test_a_form_that_is_wrong_is_refused(studio, fields, param):
    response = await post(studio, **fields)
    assert (response.status_code, response.json()["details"]["param"]) == (400, param)
    two_files = await studio.http.post(PATH, data={"name": "reviews"}, files=[("file", b"a,b"), ("file", b"a,b")])
    assert (two_files.status_code, two_files.json()["details"]["param"]) == (400, "file")
    assert (await studio.http.post(PATH, data={"name": "reviews"})).json()["details"]["param"] == "file"


async def test_a_report_rows_and_the_end(studio):
    await post(studio)
    report = await studio.http.post(f"{PATH}/reviews/report", json={"template": TEMPLATE, "seed": 5, "slots": [3]})
    assert report.status_code == 200, report.text
    body = report.json()
    assert (body["rows"], body["tokens"]["total"], body["labels"]) == (5, 3, {"1": 1, "0": 1})
    rows = await studio.http.get(f"{PATH}/reviews/rows", params={"offset": 4, "limit": 2, "seed": 9})
    assert rows.json() == {"rows": [{"line": 4, "fields": {"limit": "2", "seed": "9"}}]}
    assert (await studio.http.get(f"{PATH}/reviews/rows", params={"limit": 201})).status_code == 400
    assert (await studio.http.get(f"{PATH}/reviews/rows", params={"offset": 10**20})).status_code == 400
    wrong = await studio.http.post(f"{PATH}/reviews/report", json={"template": {"prompt": "{text}"}})
    assert (wrong.status_code, wrong.json()["details"]["param"]) == (400, "template.answer")
    assert (await studio.http.delete(f"{PATH}/reviews")).status_code == 204
    for call in (studio.http.get, studio.http.delete):
        assert (await call(f"{PATH}/reviews")).status_code == 404


async def test_a_key_is_needed(studio):
    async with httpx.AsyncClient(base_url=studio.url) as http:
        assert (await http.get(PATH)).status_code == 401
        assert (await http.post(PATH, files={"file": b"x"})).status_code == 401
