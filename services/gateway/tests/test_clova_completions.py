"""Completions of the CLOVA Studio dialect: texts before and after, tokens and probabilities, streams."""

import asyncio
import json
import math
import time

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"
PATH = f"/testapp/v1/completions/{MODEL}"


async def complete(studio, **fields: object) -> dict:
    response = await studio.http.post(PATH, json={"text": "가나", "maxTokens": 3, "seed": 7} | fields)
    assert response.status_code == 200, response.text
    return response.json()["result"]


async def test_tells_the_prompt_what_was_written_and_both_together(studio):
    assert await complete(studio) == {
        "text": "가나가나가",
        "stopReason": "length",
        "inputText": "가나",
        "inputLength": 2,
        "outputText": "가나가",
        "outputLength": 3,
        "seed": 7,
        "aiFilter": [],
        "ok": True,
    }


async def test_puts_start_after_the_prompt_and_restart_after_what_was_written(studio):
    result = await complete(studio, start="\n답: ", restart="\n###")
    assert studio.parrot.requests[-1].prompt == "가나\n답: "
    assert (result["inputText"], result["inputLength"]) == ("가나", 6)
    assert result["outputText"] == "\n답: 가나\n\n###"
    assert result["text"] == result["inputText"] + result["outputText"]


async def test_tells_tokens_and_probabilities_if_asked(studio):
    result = await complete(studio, includeTokens=True, includeProbs=True)
    assert result["inputTokens"] == ["가", "나"]
    assert result["outputTokens"] == ["가", "나", "가"]
    assert result["probs"] == pytest.approx([math.exp(-0.5)] * 3)
    only_probs = await complete(studio, includeProbs=True)
    assert only_probs["probs"] == result["probs"]
    assert not {"inputTokens", "outputTokens"} & only_probs.keys()
    assert [request.echo for request in studio.parrot.requests] == [True, False]


async def test_lists_filters_unless_they_are_not_wanted(studio):
    assert "aiFilter" not in await complete(studio, includeAiFilters=False)


async def test_stops_before_a_stop_string_or_at_the_end_token(studio):
    assert (await complete(studio, stopBefore=["끝"]))["stopReason"] == "stop_before"
    assert studio.parrot.requests[-1].stop == ["끝"]
    ended = await complete(studio, text="!end")
    assert (ended["stopReason"], ended["outputText"]) == ("stop_before", "!e")


async def test_streams(studio):
    body = {"text": "가나", "start": ": ", "maxTokens": 2, "seed": 7}
    headers = {"Accept": "text/event-stream"}
    whole = (await studio.http.post(PATH, json=body)).json()["result"]
    blocks = (await studio.http.post(PATH, json=body, headers=headers)).text.strip().split("\n\n")
    events = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    assert [event["event"] for event in events] == ["token", "token", "result", "signal"]
    token = {"text": "가", "inputLength": 4, "outputLength": 1, "stopReason": None}
    assert json.loads(events[0]["data"]) == token
    assert json.loads(events[2]["data"]) == whole


async def test_is_a_row_of_usage_by_another_name_than_openai_s(studio):
    await complete(studio)
    (row,) = await studio.usage()
    assert (row["endpoint"], row["model"]) == ("/v1/completions/{model}", MODEL)


async def test_of_a_stream_that_its_client_leaves_counts_what_was_generated(studio):
    body = {"text": "!slow", "maxTokens": 2048, "stream": True}
    async with studio.http.stream("POST", PATH, json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("id: ") and line.endswith("-5"):
                break
    deadline = time.monotonic() + 5
    while not (rows := await studio.usage()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert (rows[0]["status"], rows[0]["prompt_tokens"]) == ("cancelled", 5)
    assert 5 <= rows[0]["completion_tokens"] < 100


async def test_the_path_without_a_prefix_is_not_openai_s(studio):
    response = await studio.http.post(f"/v1/completions/{MODEL}", json={"text": "가나", "maxTokens": 1})
    assert response.json()["result"]["outputText"] == "가"
    assert (await studio.client.completions.create(model=MODEL, prompt="가나", max_tokens=1)).choices[0].text == "가"
