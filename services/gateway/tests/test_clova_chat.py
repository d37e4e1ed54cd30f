"""Chats of the CLOVA Studio dialect, in both versions: what is asked of the model, and what is told of it."""

import json

import httpx
import pytest
from hunmin_contracts.generation import Message
from hunmin_contracts.quotas import LimitName
from hunmin_gateway.quotas.limits import Limits
from hunmin_gateway.tables import Account
from sqlalchemy import select

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"
STREAM = {"Accept": "text/event-stream"}
SAID = [{"role": "system", "content": "s"}, {"role": "user", "content": "가나"}]
PROMPT = "system:s\nuser:가나\n"
FIRST, THIRD = f"/v1/chat-completions/{MODEL}", f"/v3/chat-completions/{MODEL}"


def events_of(response: httpx.Response) -> list[tuple[str, str, dict]]:
    """Return (id, name, data) of each event."""
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


async def chat(studio, path: str, headers: dict | None = None, **fields: object) -> httpx.Response:
    response = await studio.http.post(path, json={"messages": SAID, "maxTokens": 5} | fields, headers=headers)
    assert response.status_code == 200, response.text
    return response


class TestWhole:
    async def test_the_first_version_tells_lengths_and_why_it_stopped(self, studio):
        answer = (await chat(studio, FIRST, seed=7)).json()
        assert answer == {
            "status": {"code": "20000", "message": "OK"},
            "result": {
                "message": {"role": "assistant", "content": PROMPT[:5]},
                "inputLength": len(PROMPT),
                "outputLength": 5,
                "stopReason": "length",
                "seed": 7,
            },
        }

    async def test_the_third_version_tells_usage_and_a_finish_reason(self, studio):
        result = (await chat(studio, THIRD, seed=7)).json()["result"]
        created = result.pop("created")
        assert 1_700_000_000 < created < 10**11  # seconds
        assert result == {
            "message": {"role": "assistant", "content": PROMPT[:5]},
            "finishReason": "length",
            "seed": 7,
            "usage": {"promptTokens": len(PROMPT), "completionTokens": 5, "totalTokens": len(PROMPT) + 5},
        }

    async def test_a_stop_string_has_a_name_in_each_version(self, studio):
        first = (await chat(studio, FIRST, stopBefore=["", "끝"])).json()["result"]
        third = (await chat(studio, THIRD, stop=["끝"])).json()["result"]
        assert (first["stopReason"], third["finishReason"]) == ("stop_before", "stop")
        assert [request.stop for request in studio.parrot.requests] == [["끝"], ["끝"]]

    async def test_filters_are_listed_if_they_are_asked_for(self, studio):
        for path in (FIRST, THIRD):
            assert (await chat(studio, path, includeAiFilters=True)).json()["result"]["aiFilter"] == []
            assert "aiFilter" not in (await chat(studio, path, includeAiFilters=False)).json()["result"]

    async def test_a_seed_that_was_drawn_is_told_and_used(self, studio):
        for fields in ({}, {"seed": 0}, {"seed": None}):
            told = (await chat(studio, FIRST, **fields)).json()["result"]["seed"]
            assert 1 <= told < 2**32
            assert studio.parrot.requests[-1].sampling.seed == told
        assert len({request.sampling.seed for request in studio.parrot.requests}) == 3


class TestWhatIsAsked:
    async def test_has_naver_s_defaults(self, studio):
        for path in (FIRST, THIRD):
            await chat(studio, path)
            sampling = studio.parrot.requests[-1].sampling
            assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.8, 0)
            assert sampling.repetition_penalty == pytest.approx(1.1)

    async def test_is_what_the_parameters_say(self, studio):
        given = {"temperature": 0.25, "topP": 0.5, "topK": 3, "seed": 9}
        await chat(studio, FIRST, repeatPenalty=10, **given)
        await chat(studio, THIRD, repetitionPenalty=1.5, **given)
        first, third = (request.sampling for request in studio.parrot.requests)
        assert (first.temperature, first.top_p, first.top_k, first.seed) == (0.25, 0.5, 3, 9)
        assert first.model_copy(update={"repetition_penalty": 1.5}) == third
        assert first.repetition_penalty == pytest.approx(1.2)
        assert studio.parrot.requests[0].prompt == [Message(**message) for message in SAID]

    async def test_is_a_hundred_tokens_unless_the_length_is_given(self, studio):
        refused = await studio.http.post(FIRST, json={"messages": SAID})  # the parrot holds 64
        assert refused.json()["status"]["code"] == "40003"
        assert "max_tokens is 100" in refused.json()["status"]["message"]

    async def test_takes_the_newer_name_of_the_length(self, studio):
        body = {"messages": SAID, "maxCompletionTokens": 4}
        assert (await studio.http.post(THIRD, json=body)).json()["result"]["usage"]["completionTokens"] == 4

    async def test_joins_parts_of_text_and_lets_what_asks_for_nothing_pass(self, studio):
        parts = [{"type": "text", "text": "가"}, {"type": "text", "text": "나"}]
        nothing = {"tools": [], "toolChoice": "none", "thinking": {"effort": "none"}, "responseFormat": None}
        await chat(studio, THIRD, messages=[{"role": "user", "content": parts}], **nothing)
        assert studio.parrot.requests[-1].prompt == [Message(role="user", content="가나")]

    async def test_is_the_soft_prompt_that_the_path_names(self, studio):
        await chat(studio, "/v1/chat-completions/poet@1")
        assert studio.parrot.requests[-1].model == "poet@1"


class TestStreams:
    async def test_of_the_first_version_are_tokens_then_the_result_then_a_signal(self, studio):
        events = events_of(await chat(studio, FIRST, STREAM, seed=7, includeAiFilters=True))
        assert [name for _, name, _ in events] == ["token"] * 5 + ["result", "signal"]
        assert "".join(data["message"]["content"] for _, name, data in events if name == "token") == PROMPT[:5]
        assert events[0][2] == {
            "message": {"role": "assistant", "content": PROMPT[0]},
            "inputLength": len(PROMPT),
            "outputLength": 1,
            "stopReason": None,
        }
        assert events[-2][2] == (await chat(studio, FIRST, seed=7, includeAiFilters=True)).json()["result"]
        assert events[-1][2] == {"data": "[DONE]"}

    async def test_of_the_third_version_tell_usage_at_the_end(self, studio):
        events = events_of(await chat(studio, THIRD, STREAM, seed=7))
        assert [name for _, name, _ in events] == ["token"] * 5 + ["result", "signal"]
        assert {data["usage"] for _, name, data in events if name == "token"} == {None}
        assert events[-2][2]["usage"]["totalTokens"] == len(PROMPT) + 5
        assert events[-2][2]["message"]["content"] == PROMPT[:5]

    async def test_have_an_id_for_each_event_that_names_the_request(self, studio):
        ids = [event_id for event_id, _, _ in events_of(await chat(studio, FIRST, {**STREAM, "x-request-id": "mine"}))]
        assert ids == [f"mine-{number}" for number in range(1, 8)]

    async def test_are_asked_for_by_the_header_or_in_the_body(self, studio):
        assert len(events_of(await chat(studio, FIRST, stream=True))) == 7
        assert len(events_of(await chat(studio, FIRST, {"Accept": "application/json, Text/Event-Stream;q=0.9"}))) == 7
        assert (await chat(studio, FIRST, {"Accept": "*/*"}, stream=False)).json()["result"]


class TestApps:
    async def test_both_prefixes_lead_to_the_same(self, studio):
        for app in ("testapp", "serviceapp"):
            for path in (FIRST, THIRD):
                result = (await chat(studio, f"/{app}{path}")).json()["result"]
                assert result["message"]["content"] == PROMPT[:5]

    async def test_another_prefix_leads_nowhere(self, studio):
        answer = await studio.http.post(f"/otherapp{FIRST}", json={"messages": SAID})
        assert answer.status_code == 404


class TestKeys:
    async def test_come_by_the_older_pair_of_headers_whatever_the_second_holds(self, studio):
        async with httpx.AsyncClient(base_url=studio.url) as http:
            for second in ({}, {"X-NCP-APIGW-API-KEY": "any"}):
                headers = {"X-NCP-CLOVASTUDIO-API-KEY": studio.key, **second}
                response = await http.post(FIRST, json={"messages": SAID, "maxTokens": 1}, headers=headers)
                assert response.status_code == 200

    async def test_may_begin_as_naver_s_do(self, studio):
        async with httpx.AsyncClient(base_url=studio.url) as http:
            for header in (
                {"Authorization": f"Bearer nv-{studio.key}"},
                {"X-NCP-CLOVASTUDIO-API-KEY": f"nv-{studio.key}"},
            ):
                response = await http.post(FIRST, json={"messages": SAID, "maxTokens": 1}, headers=header)
                assert response.status_code == 200

    async def test_in_the_older_header_open_no_other_dialect(self, studio):
        async with httpx.AsyncClient(base_url=studio.url) as http:
            response = await http.get("/v1/models", headers={"X-NCP-CLOVASTUDIO-API-KEY": studio.key})
        assert response.json()["error"]["code"] == "invalid_api_key"


class TestRequestIds:
    async def test_are_taken_from_naver_s_header_and_returned_in_both(self, studio):
        response = await chat(studio, FIRST, {"X-NCP-CLOVASTUDIO-REQUEST-ID": "lcnv-1"})
        assert response.headers["x-ncp-clovastudio-request-id"] == response.headers["x-request-id"] == "lcnv-1"
        (row,) = await studio.usage()
        assert row["request_id"] == "lcnv-1"

    async def test_are_made_where_none_came_or_one_that_is_not_well_formed(self, studio):
        for headers in ({}, {"X-NCP-CLOVASTUDIO-REQUEST-ID": "<id>"}):
            response = await chat(studio, FIRST, headers)
            made = response.headers["x-ncp-clovastudio-request-id"]
            assert made == response.headers["x-request-id"]
            assert made.startswith("req_")

    async def test_are_in_errors_too(self, studio):
        response = await studio.http.post(FIRST, json={}, headers={"X-NCP-CLOVASTUDIO-REQUEST-ID": "lcnv-2"})
        assert response.headers["x-ncp-clovastudio-request-id"] == "lcnv-2"
        assert response.json()["status"]["message"].endswith("(request lcnv-2)")

    async def test_have_that_name_in_this_dialect_alone(self, studio):
        response = await studio.http.get("/v1/models", headers={"X-NCP-CLOVASTUDIO-REQUEST-ID": "lcnv-3"})
        assert "x-ncp-clovastudio-request-id" not in response.headers
        assert response.headers["x-request-id"] != "lcnv-3"


class TestAccounting:
    async def test_a_call_is_a_row_of_usage_and_takes_of_the_limits(self, studio):
        async with studio.parts.database.session() as session:
            account = await session.scalar(select(Account.name).where(Account.id == studio.account_id))
            await Limits(session).set(account, LimitName.TOKENS_PER_MONTH, 100)
        response = await chat(studio, f"/testapp{FIRST}")
        assert response.headers["x-ratelimit-limit-tokens"] == "100"
        await chat(studio, THIRD, STREAM)
        rows = await studio.usage()
        assert [(row["endpoint"], row["prompt_tokens"], row["completion_tokens"]) for row in rows] == [
            ("/v3/chat-completions", len(PROMPT), 5),
            ("/v1/chat-completions", len(PROMPT), 5),
        ]
        (quota,) = (await studio.http.get("/studio/v1/quotas")).json()["data"]
        assert (quota["used"], quota["reserved"]) == (2 * (len(PROMPT) + 5), 0)
