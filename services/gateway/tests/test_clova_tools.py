"""CLOVA Studio's API tools: vectors, counts of tokens, and chats that are shortened until they fit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import APIRouter, FastAPI
from hunmin_contracts.schema import Empty
from hunmin_contracts.tokenization import TOKENIZERS, TokenizerList
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.parts import parts_of_app
from hunmin_gateway.service import SERVICE
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.testing import running
from hunmin_kit.web import serve
from pydantic import Field

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"  # holds 64 tokens; a message takes its role, its content and 2 more
SYSTEM = {"role": "system", "content": "s"}  # 9


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


async def result(studio, path: str, body: dict) -> dict:
    response = await studio.http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()["result"]


@pytest.mark.parametrize("app", ["", "/testapp", "/serviceapp"])
async def test_embeds_a_text_and_is_metered(studio, app):
    told = await result(studio, f"{app}/v1/api-tools/embedding/{MODEL}", {"text": "가나"})
    assert told == {"embedding": [1.0], "inputTokens": 2}
    (row,) = await studio.usage()
    assert (row["endpoint"], row["prompt_tokens"], row["status"]) == ("/v1/api-tools/embedding", 2, "succeeded")


class TestCounting:
    async def test_counts_the_content_of_each_message(self, studio):
        body = {"messages": [SYSTEM, user("가나")]}
        told = await result(studio, f"/testapp/v1/api-tools/chat-tokenize/{MODEL}", body)
        assert told == {"messages": [{**SYSTEM, "count": 1}, {**user("가나"), "count": 2}]}

    async def test_counts_each_part_in_the_third_version(self, studio):
        parts = [{"type": "text", "text": "가나"}, {"type": "text", "text": "다"}]
        body = {"messages": [SYSTEM, {"role": "user", "content": parts}]}
        told = await result(studio, f"/v3/api-tools/chat-tokenize/{MODEL}", body)
        counted = [{"type": "text", "text": "가나", "count": 2}, {"type": "text", "text": "다", "count": 1}]
        assert told["messages"] == [
            {"role": "system", "content": [{"type": "text", "text": "s", "count": 1}]},
            {"role": "user", "content": counted},
        ]

    async def test_a_soft_prompt_has_the_tokens_of_its_model(self, studio):
        told = await result(studio, "/v1/api-tools/chat-tokenize/poet@1", {"messages": [user("가나")]})
        assert [message["count"] for message in told["messages"]] == [2]

    async def test_is_not_metered_and_knows_no_longest_chat(self, studio):
        told = await result(studio, f"/v1/api-tools/chat-tokenize/{MODEL}", {"messages": [user("가" * 1000)]})
        assert told["messages"][0]["count"] == 1000
        assert await studio.usage() == []

    async def test_says_so_where_the_tokenizer_service_lacks_the_model_s(self, neighbours):
        others = [service for service in neighbours if service.name != "tokenizer"]
        async with running(SERVICE, *others, _no_tokenizers()) as up:
            parts = parts_of_app(up.app("gateway"))
            async with parts.database.session() as session:
                key, _ = await KeyRing(session, pepper=parts.pepper).create("account", "test")
            response = await up.http("gateway").post(
                f"/v1/api-tools/chat-tokenize/{MODEL}",
                json={"messages": [user("가")]},
                headers={"Authorization": f"Bearer {key}"},
            )
        assert response.json()["status"]["code"] == "40400"
        assert "HUNMIN_TOKENIZER_MODELS" in response.json()["status"]["message"]


class ServiceSettings(Settings):
    port: int = Field(default=0)


def _no_tokenizers() -> Service[ServiceSettings]:
    router = APIRouter()

    @serve(router, TOKENIZERS)
    async def tokenizers(_: Empty) -> TokenizerList:
        return TokenizerList(tokenizers=[])

    @asynccontextmanager
    async def build(platform: Platform, _: ServiceSettings) -> AsyncIterator[FastAPI]:
        app = platform.app(title="tokenizer")
        app.include_router(router)
        yield app

    return Service(name="tokenizer", settings=ServiceSettings, build=build)


class TestSliding:
    async def test_leaves_a_chat_that_fits_as_it_is(self, studio):
        messages = [SYSTEM, user("가"), assistant("나"), user("다")]
        told = await result(
            studio, f"/v1/api-tools/sliding/chat-messages/{MODEL}", {"messages": messages, "maxTokens": 3}
        )
        assert told == {"messages": messages}

    # The system's message takes 9 tokens, a turn with its answer 19, the last one 7.
    @pytest.mark.parametrize(("tokens", "left_out"), [(10, 0), (11, 1), (29, 1), (30, 2), (48, 2)])
    async def test_leaves_out_as_few_of_the_oldest_turns_as_is_enough(self, studio, tokens, left_out):
        turns = [(user("가"), assistant("나")), (user("다"), assistant("라")), (user("마"),)]
        body = {"messages": [SYSTEM, *(message for turn in turns for message in turn)], "maxTokens": tokens}
        told = await result(studio, f"/testapp/v1/api-tools/sliding/chat-messages/{MODEL}", body)
        assert told["messages"] == [SYSTEM, *(message for turn in turns[left_out:] for message in turn)]

    async def test_takes_an_answer_before_any_question_for_a_turn(self, studio):
        chat = [assistant("어서"), SYSTEM, user("가" * 30), user("나")]
        body = {"messages": chat, "maxTokens": 20}
        told = await result(studio, f"/v1/api-tools/sliding/chat-messages/{MODEL}", body)
        assert told["messages"] == [SYSTEM, user("나")]

    async def test_keeps_the_last_turn_and_says_so_where_that_does_not_fit(self, studio):
        body = {"messages": [user("가"), assistant("나"), user("다" * 70)], "maxTokens": 1}
        response = await studio.http.post(f"/v1/api-tools/sliding/chat-messages/{MODEL}", json=body)
        assert (response.status_code, response.json()["status"]["code"]) == (400, "40003")

    async def test_of_many_turns_measures_only_some(self, studio):
        chat = [message for n in range(100) for message in (user(chr(0xAC00 + n)), assistant("네"))]
        body = {"messages": [SYSTEM, *chat, user("끝")], "maxTokens": 5}
        told = await result(studio, f"/v1/api-tools/sliding/chat-messages/{MODEL}", body)
        assert told["messages"] == [SYSTEM, *chat[-4:], user("끝")]
        assert len(studio.parrot.measured) <= 9
        assert await studio.usage() == []
