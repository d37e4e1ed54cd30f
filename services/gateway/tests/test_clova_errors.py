"""What goes wrong in the CLOVA Studio dialect has NAVER's codes of five digits, in its envelope, whatever it is."""

import json
from datetime import timedelta

import pytest
from hunmin_contracts.quotas import LimitName
from hunmin_contracts.tenancy import KeyKind, Role
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.quotas.limits import Limits
from hunmin_gateway.tables import Account
from sqlalchemy import select

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"
FIRST, THIRD = f"/testapp/v1/chat-completions/{MODEL}", f"/serviceapp/v3/chat-completions/{MODEL}"
COMPLETIONS, TOOLS = f"/v1/completions/{MODEL}", "/v1/api-tools"
SAID = [{"role": "user", "content": "가나"}]
BODY = {"messages": SAID, "maxTokens": 3}
TEXT = {"text": "가나", "maxTokens": 3}
IMAGE = {"type": "image_url", "imageUrl": {"url": "https://example.com/a.png"}}


def refused(response, status: int, code: str, named: str = "") -> dict:
    """Check that an answer is a refusal with that status and code, whose message holds `named`; return its envelope."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert (response.status_code, body["status"]["code"]) == (status, code), body
    assert named in body["status"]["message"]
    assert response.headers["x-request-id"] in body["status"]["message"]
    assert body.keys() == {"status"}
    return body


@pytest.mark.parametrize("path", [FIRST, THIRD, COMPLETIONS, f"{TOOLS}/embedding/{MODEL}", "/tuning/v2/tasks"])
@pytest.mark.parametrize(
    ("headers", "code", "named"),
    [
        ({"authorization": ""}, "40100", "no API key"),
        ({"authorization": "", "x-ncp-apigw-api-key": "hm_x"}, "40100", "X-NCP-CLOVASTUDIO-API-KEY"),
        ({"authorization": "Basic eDp5"}, "40102", "Bearer"),
        ({"authorization": "Bearer hm_wrong"}, "40104", "mistyped"),
        ({"authorization": "", "x-ncp-clovastudio-api-key": "nv-x"}, "40104", "mistyped"),
    ],
)
async def test_a_key_that_is_missing_or_wrong(studio, path, headers, code, named):
    refused(await studio.http.post(path, json={"nonsense": 1}, headers=headers), 401, code, named)


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_key_that_is_no_longer_valid(studio, how):
    async with studio.parts.database.session() as session:
        ring = KeyRing(session, pepper=studio.parts.pepper)
        lifetime = timedelta(seconds=-1) if how == "expired" else None
        key, key_id = await ring.create(f"account of a key {how}", "test", lifetime=lifetime)
        if how == "revoked":
            await ring.revoke(key_id)
    for headers in ({"authorization": f"Bearer {key}"}, {"authorization": "", "x-ncp-clovastudio-api-key": key}):
        refused(await studio.http.post(FIRST, json=BODY, headers=headers), 401, "40104", how)


@pytest.mark.parametrize(
    ("kind", "allowed"), [(KeyKind.TEST, ["", "/testapp"]), (KeyKind.SERVICE, ["", "/testapp", "/serviceapp"])]
)
async def test_a_test_key_opens_no_service_app(studio, kind, allowed):
    async with studio.parts.database.session() as session:
        key, _ = await KeyRing(session, pepper=studio.parts.pepper).create(f"account of {kind} keys", kind, kind=kind)
    for header in ({"authorization": f"Bearer {key}"}, {"authorization": "", "x-ncp-clovastudio-api-key": key}):
        for app in ("", "/testapp", "/serviceapp"):
            for path, body in (
                (f"/v3/chat-completions/{MODEL}", BODY),
                (f"{TOOLS}/chat-tokenize/{MODEL}", {"messages": SAID}),
            ):
                response = await studio.http.post(f"{app}{path}", json=body, headers=header)
                if app in allowed:
                    assert response.status_code == 200
                else:
                    refused(response, 403, "40300", "test key")


async def test_a_key_without_the_scope_of_a_route(studio):
    async with studio.parts.database.session() as session:
        key, _ = await KeyRing(session, pepper=studio.parts.pepper).create("account of a viewer", "v", role=Role.VIEWER)
    headers = {"authorization": "", "x-ncp-clovastudio-api-key": key}
    refused(await studio.http.post(FIRST, json=BODY, headers=headers), 403, "40300", "the scope generate")
    counted = await studio.http.post(f"{TOOLS}/chat-tokenize/{MODEL}", json={"messages": SAID}, headers=headers)
    assert counted.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "code", "named"),
    [
        (FIRST, {"maxTokens": 3}, "40001", "messages"),
        (FIRST, BODY | {"temperature": "warm"}, "40001", "temperature"),
        (FIRST, BODY | {"temperature": 1.1}, "40001", "temperature"),
        (FIRST, BODY | {"topK": 129}, "40001", "topK"),
        (FIRST, BODY | {"topP": 0}, "40001", "topP"),
        (FIRST, BODY | {"repeatPenalty": 10.5}, "40001", "repeatPenalty"),
        (FIRST, BODY | {"maxTokens": 0}, "40001", "maxTokens"),
        (FIRST, BODY | {"maxTokens": 4097}, "40001", "maxTokens"),
        (FIRST, BODY | {"seed": 2**32}, "40001", "seed"),
        (FIRST, BODY | {"stopBefore": "끝"}, "40001", "stopBefore"),
        (FIRST, BODY | {"includeAiFilters": "yes"}, "40001", "includeAiFilters"),
        (FIRST, BODY | {"messages": [{"role": "tool", "content": "a"}]}, "40001", "messages.0.role"),
        (FIRST, BODY | {"messages": [{"role": "user"}]}, "40001", "messages.0.content"),
        (FIRST, BODY | {"messages": [*SAID, *[{"role": "system", "content": "s"}] * 2]}, "40001", "messages.2.role"),
        (THIRD, BODY | {"maxCompletionTokens": 3}, "40001", "maxCompletionTokens"),
        (THIRD, BODY | {"repetitionPenalty": 2.1}, "40001", "repetitionPenalty"),
        (THIRD, BODY | {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "40001", "content.0.text"),
        (THIRD, BODY | {"messages": [{"role": "user", "content": 1}]}, "40001", "messages.0.content"),
        (FIRST, BODY | {"repetitionPenalty": 1.1}, "40002", "repetitionPenalty"),
        (THIRD, BODY | {"repeatPenalty": 5.0}, "40002", "repeatPenalty"),
        (FIRST, BODY | {"max_tokens": 3}, "40002", "max_tokens"),
        (COMPLETIONS, TEXT | {"messages": SAID}, "40002", "messages"),
        (FIRST, BODY | {"messages": [{"role": "user", "content": "가" * 70}]}, "40003", "76 tokens"),
        (COMPLETIONS, TEXT | {"maxTokens": 63}, "40003", "63"),
        (FIRST, BODY | {"messages": []}, "40004", "messages"),
        (THIRD, BODY | {"messages": [{"role": "user", "content": []}]}, "40004", "messages"),
        (FIRST, BODY | {"messages": [{"role": "user", "content": ""}]}, "40004", "messages"),
        (COMPLETIONS, TEXT | {"text": ""}, "40004", "text"),
        (f"{TOOLS}/embedding/{MODEL}", {"text": ""}, "40004", "text"),
        (THIRD, BODY | {"messages": [{"role": "user", "content": [IMAGE]}]}, "40009", "messages.0.content.0"),
        (THIRD, BODY | {"tools": [{"type": "function"}]}, "40009", "tools"),
        (THIRD, BODY | {"toolChoice": "auto"}, "40009", "toolChoice"),
        (THIRD, BODY | {"thinking": {"effort": "low"}}, "40009", "thinking"),
        (THIRD, BODY | {"responseFormat": {"type": "json"}}, "40009", "responseFormat"),
        ("/v1/chat-completions/nothing", BODY, "40080", "nothing"),
        ("/v1/chat-completions/poet@2", BODY, "40080", "poet@2"),
        (f"{TOOLS}/chat-tokenize/nothing", {"messages": SAID}, "40080", "nothing"),
        (f"{TOOLS}/sliding/chat-messages/nothing", BODY, "40080", "nothing"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_is_not_valid(studio, path, body, code, named, stream):
    headers = {"Accept": "text/event-stream"} if stream else {}
    refused(await studio.http.post(path, json=body, headers=headers), 400, code, named)


class TestBodies:
    @pytest.mark.parametrize("content", [b"{", b"[1]", b"", b'{"temperature": NaN}'])
    async def test_that_are_no_json_object(self, studio, content):
        headers = {"Content-Type": "application/json"}
        refused(await studio.http.post(FIRST, content=content, headers=headers), 400, "40000")

    async def test_that_are_not_declared_as_json(self, studio):
        headers = {"Content-Type": "text/plain"}
        sent = json.dumps(BODY)
        refused(await studio.http.post(FIRST, content=sent, headers=headers), 415, "41500", "application/json")

    async def test_that_are_too_large(self, studio):
        text = "가" * (6 * 2**20)
        refused(await studio.http.post(COMPLETIONS, json=TEXT | {"text": text}), 413, "41300")


class TestPaths:
    @pytest.mark.parametrize("path", ["/testapp/v1/nothing", "/v3/nothing", "/v1/tasks/x/nothing", "/v1/api-tools/x"])
    async def test_that_lead_nowhere(self, studio, path):
        refused(await studio.http.post(path, json=BODY), 404, "40400", "Check the URL")

    async def test_that_take_no_get(self, studio):
        refused(await studio.http.get(FIRST), 405, "40500", "Allow")


class TestLimits:
    async def test_of_the_account(self, studio):
        async with studio.parts.database.session() as session:
            account = await session.scalar(select(Account.name).where(Account.id == studio.account_id))
            await Limits(session).set(account, LimitName.TOKENS_PER_MONTH, 9)
        response = await studio.http.post(COMPLETIONS, json=TEXT | {"maxTokens": 8})
        refused(response, 429, "42901", "tokens_per_month")
        assert response.headers["x-ratelimit-limit-tokens"] == "9"
        assert (await studio.http.post(COMPLETIONS, json=TEXT)).status_code == 200

    @pytest.mark.parametrize("stream", [False, True])
    async def test_of_the_model(self, studio, stream):
        body = TEXT | {"text": "!overloaded", "stream": stream}
        response = await studio.http.post(COMPLETIONS, json=body)
        refused(response, 429, "42902", "queue is full")
        assert response.headers["retry-after"] == "7"


class TestTheServer:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_that_crashes_shows_nothing_of_itself(self, studio, stream):
        body = refused(
            await studio.http.post(COMPLETIONS, json=TEXT | {"text": "!crash", "stream": stream}), 500, "50000"
        )
        assert "secret" not in body["status"]["message"]

    async def test_whose_engine_is_away(self, studio):
        response = await studio.http.post(COMPLETIONS, json=TEXT | {"text": "!break"})
        refused(response, 503, "50300", "engine stopped")
        assert response.headers["retry-after"] == "3"

    async def test_whose_engine_goes_away_within_a_stream(self, studio):
        headers = {"Accept": "text/event-stream"}
        response = await studio.http.post(COMPLETIONS, json=TEXT | {"text": "!break"}, headers=headers)
        *tokens, last = response.text.strip().split("\n\n")
        assert [token.split("\n")[1] for token in tokens] == ["event: token"] * 2
        event_id, name, data = last.split("\n")
        status = json.loads(data.removeprefix("data: "))["status"]
        assert (event_id, name) == (f"id: {response.headers['x-request-id']}-error", "event: error")
        assert status["code"] == "50300"
        assert "engine stopped" in status["message"]
        (row,) = await studio.usage()
        assert (row["status"], row["completion_tokens"]) == ("failed", 0)
