"""Gradients at the gateway: one answer, and a row of usage that is right however the call ends."""

import asyncio
import base64
import json
import time

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/studio/v1/gradients"
WITHIN_S = 5  # a row is there at once on an idle machine


def body(*templates: str | None, **fields: object) -> dict:
    examples = [{"template": template, "target": "가"} for template in templates or (None,)]
    return {"model": "team/parrot", "examples": examples} | fields


async def row_of(studio, status: str) -> dict:
    """Return the newest row once it has that status."""
    deadline = time.monotonic() + WITHIN_S
    while not (rows := await studio.usage(limit="1")) or rows[0]["status"] != status:
        assert time.monotonic() < deadline, rows
        await asyncio.sleep(0.02)
    return rows[0]


class TestGradients:
    async def test_are_answered_at_once_and_metered(self, studio):
        response = await studio.http.post(PATH, json=body(None, None))
        assert response.status_code == 200
        answer = response.json()
        assert answer["loss"] == 2.0
        assert [example["target"][0]["logprob"] for example in answer["examples"]] == [-2.0, -2.0]
        assert answer["usage"] == {"prompt_tokens": 8, "backward_tokens": 20}
        (row,) = await studio.usage()
        assert (row["prompt_tokens"], row["completion_tokens"], row["backward_tokens"]) == (8, 0, 20)
        assert (row["endpoint"], row["model"], row["status"]) == (PATH, "team/parrot", "succeeded")

    @pytest.mark.parametrize(
        ("templates", "status", "code"),
        [
            (["!overloaded"], 429, "overloaded"),
            ([None, "!overloaded"], 429, "overloaded"),
            (["!early"], 503, "unavailable"),
        ],
    )
    async def test_that_fail_cost_nothing(self, studio, templates, status, code):
        response = await studio.http.post(PATH, json=body(*templates))
        assert (response.status_code, response.json()["code"]) == (status, code)
        row = await row_of(studio, "failed")
        assert (row["prompt_tokens"], row["backward_tokens"], row["error_code"]) == (0, 0, code)

    async def test_whose_client_leaves_cost_what_was_computed(self, studio):
        asking = asyncio.create_task(studio.http.post(PATH, json=body(None, "!slow", None)))
        while not studio.parrot.running:  # noqa: ASYNC110  # the parrot counts, it does not signal
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        asking.cancel()
        row = await row_of(studio, "cancelled")
        assert (row["prompt_tokens"], row["backward_tokens"]) == (8, 20)
        assert studio.parrot.running == 0

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"typo": 1}, "typo"),
            ({"account_id": "acct_other"}, "account_id"),
            ({"model": ""}, "model"),
            ({"model": "a\x00"}, "model"),
            ({"examples": []}, "examples"),
            ({"examples": [{"target": ""}]}, "examples.0.target"),
            ({"examples": [{"target": []}]}, "examples.0.target"),
            ({"examples": [{"target": "가", "weight": -1}]}, "examples.0.weight"),
            ({"examples": [{"target": "가", "tokens": [1], "fields": {"a": "b"}}]}, "examples.0"),
            ({"reduction": "none"}, "reduction"),
            ({"gradient_format": "pickle"}, "gradient_format"),
            ({"candidates": {"positions": [-1]}}, "candidates.positions.0"),
            ({"soft_prompt": "no base64!"}, "soft_prompt"),
            ({"soft_prompt": "A" * (2**20 + 4)}, "soft_prompt"),
        ],
    )
    async def test_refuse_what_they_do_not_know(self, studio, fields, param):
        response = await studio.http.post(PATH, json=body() | fields)
        assert (response.status_code, response.json()["details"]["param"]) == (400, param)
        assert response.headers["content-type"] == "application/problem+json"
        assert await studio.usage() == []

    async def test_take_a_soft_prompt_in_the_json_or_beside_it(self, studio):
        file = bytes(range(256))
        response = await studio.http.post(PATH, json=body(soft_prompt=base64.b64encode(file).decode()))
        assert (response.status_code, studio.parrot.soft_prompts.pop()) == (200, file)
        large = file * 2**14
        form = {"data": {"request": json.dumps(body(None, None))}, "files": {"soft_prompt": ("x", large)}}
        response = await studio.http.post(PATH, **form)
        assert (response.status_code, studio.parrot.soft_prompts.pop()) == (200, large)
        assert len(response.json()["examples"]) == 2
        assert (await studio.http.post(PATH, json=body())).status_code == 200
        assert studio.parrot.soft_prompts == []

    @pytest.mark.parametrize(
        ("data", "files", "param"),
        [
            ({}, {"soft_prompt": b"x"}, "request"),
            ({"request": json.dumps(body())}, {"other": b"x"}, "other"),
            ({"request": json.dumps(body())}, {"soft_prompt": b""}, "soft_prompt"),
            ({"request": json.dumps(body(typo=1))}, {"soft_prompt": b"x"}, "typo"),
            ({"request": json.dumps(body(soft_prompt="eA=="))}, {"soft_prompt": b"x"}, "soft_prompt"),
            ({"soft_prompt": "x"}, {"request": b"x"}, "request"),
        ],
    )
    async def test_refuse_a_form_that_is_not_theirs(self, studio, data, files, param):
        sent = {name: ("x", content) for name, content in files.items()}
        response = await studio.http.post(PATH, data=data, files=sent)
        assert (response.status_code, response.json()["details"]["param"]) == (400, param), response.text

    async def test_need_a_key(self, studio):
        async with httpx.AsyncClient(base_url=studio.url) as http:
            assert (await http.post(PATH, json=body())).status_code == 401
