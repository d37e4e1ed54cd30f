"""LangChain's clients for CLOVA Studio, unmodified: only the base URL and the key are ours."""

import asyncio
import warnings
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from httpx_sse import SSEError
from langchain_naver import ChatClovaX as NaverChat
from langchain_naver import ClovaXEmbeddings as NaverEmbeddings

with warnings.catch_warnings():
    # Said at import: its maintainers have left it. What it sends is what older programs send.
    warnings.filterwarnings("ignore", message="`langchain-community` is being sunset", category=DeprecationWarning)
    from langchain_community.chat_models import ChatClovaX as CommunityChat
    from langchain_community.embeddings import ClovaXEmbeddings as CommunityEmbeddings

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"
SAID = [("system", "s"), ("human", "가나")]
PROMPT = "system:s\nuser:가나\n"


@pytest.fixture(params=["by the older header", "as a bearer"])
def key(studio, request: pytest.FixtureRequest) -> str:
    """The account's key, as it is, or as NAVER's keys begin, by which the client chooses the header."""
    return studio.key if request.param == "by the older header" else f"nv-{studio.key}"


class Opened:
    """The HTTP clients that the LangChain clients of a test hold, which close none."""

    def __init__(self) -> None:
        self._clients: list[Any] = []

    def add(self, *clients: Any) -> None:
        self._clients += clients

    async def close(self) -> None:
        for client in self._clients:
            closing = client.aclose() if hasattr(client, "aclose") else client.close()
            if closing is not None:
                await closing


@pytest_asyncio.fixture(loop_scope="session")
async def opened() -> AsyncIterator[Opened]:
    clients = Opened()
    yield clients
    await clients.close()


class TestCommunity:
    @pytest.fixture(autouse=True)
    def _keep(self, opened: Opened) -> None:
        self.opened = opened

    def chat(self, studio, key: str | None = None, **fields: Any) -> CommunityChat:
        given = {"model": MODEL, "max_tokens": 5, "timeout": 10} | fields
        chat = CommunityChat(base_url=studio.url, api_key=key or studio.key, **given)
        self.opened.add(chat.client, chat.async_client)
        return chat

    @pytest.mark.parametrize("service_app", [False, True])
    async def test_invokes(self, studio, key, service_app):
        chat = self.chat(studio, key, service_app=service_app, include_ai_filters=True)
        for message in (await asyncio.to_thread(chat.invoke, SAID), await chat.ainvoke(SAID)):
            assert message.content == PROMPT[:5]
            assert message.usage_metadata["input_tokens"] == len(PROMPT)
            assert message.usage_metadata["output_tokens"] == 5
            assert message.response_metadata["stop_reason"] == "length"
            assert message.response_metadata["ai_filter"] == []

    @pytest.mark.parametrize("service_app", [False, True])
    async def test_streams(self, studio, key, service_app):
        chat = self.chat(studio, key, service_app=service_app, seed=7)
        pieces = await asyncio.to_thread(lambda: list(chat.stream(SAID)))
        async_pieces = [piece async for piece in chat.astream(SAID)]
        for chunks in (pieces, async_pieces):
            assert "".join(chunk.content for chunk in chunks) == PROMPT[:5]
            (told,) = [chunk.response_metadata for chunk in chunks if "stop_reason" in chunk.response_metadata]
            assert (told["input_length"], told["output_length"], told["seed"]) == (len(PROMPT), 5, 7)

    async def test_asks_with_its_defaults(self, studio):
        await self.chat(studio).ainvoke(SAID, stop=["끝"])
        sampling = studio.parrot.requests[-1].sampling
        assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.8, 0)
        assert sampling.repetition_penalty == pytest.approx(1.1)

    async def test_stops_before_its_stop_strings(self, studio):
        message = await self.chat(studio, stop=["끝"]).ainvoke(SAID)
        assert message.response_metadata["stop_reason"] == "stop_before"
        assert studio.parrot.requests[-1].stop == ["끝"]

    async def test_raises_what_is_refused_with_its_code(self, studio):
        with pytest.raises(httpx.HTTPStatusError, match="40080"):
            await self.chat(studio, model="nothing").ainvoke(SAID)
        with pytest.raises(httpx.HTTPStatusError, match="40104"):
            await asyncio.to_thread(self.chat(studio, "hm_wrong").invoke, SAID)

    async def test_raises_what_fails_within_a_stream(self, studio):
        pieces = self.chat(studio).astream([("human", "!break")])
        assert [(await anext(pieces)).content for _ in range(2)] == ["u", "s"]
        with pytest.raises(SSEError, match="50300"):
            await anext(pieces)

    async def test_embeds(self, studio):
        embeddings = CommunityEmbeddings(base_url=studio.url, api_key=f"nv-{studio.key}", model=MODEL)
        self.opened.add(embeddings.client, embeddings.async_client)
        assert await asyncio.to_thread(embeddings.embed_query, "가나") == [1.0]
        assert await embeddings.aembed_documents(["가", "나"]) == [[1.0], [1.0]]


class TestNaver:
    @pytest.fixture(autouse=True)
    def _keep(self, opened: Opened) -> None:
        self.opened = opened

    def chat(self, studio, **fields: Any) -> NaverChat:
        given = {"model": MODEL, "max_tokens": 5, "timeout": 10, "max_retries": 0} | fields
        chat = NaverChat(base_url=f"{studio.url}/v1/openai", api_key=studio.key, **given)
        self.opened.add(chat.root_client, chat.root_async_client)
        return chat

    async def test_invokes(self, studio):
        chat = self.chat(studio)
        for message in (await asyncio.to_thread(chat.invoke, SAID), await chat.ainvoke(SAID)):
            assert message.content == PROMPT[:5]
            assert message.usage_metadata["total_tokens"] == len(PROMPT) + 5
            assert message.response_metadata["finish_reason"] == "length"
        rows = await studio.usage()
        assert all(row["request_id"].startswith("lcnv-") for row in rows)

    async def test_streams(self, studio):
        chat = self.chat(studio)
        pieces = await asyncio.to_thread(lambda: [chunk.content for chunk in chat.stream(SAID)])
        assert "".join(pieces) == PROMPT[:5]
        assert "".join([chunk.content async for chunk in chat.astream(SAID)]) == PROMPT[:5]

    async def test_samples_as_it_is_told(self, studio):
        await self.chat(studio, temperature=0.3, top_k=5, repetition_penalty=1.3, thinking={"effort": "none"}).ainvoke(
            SAID
        )
        await self.chat(studio, repeat_penalty=10).ainvoke(SAID)
        first, second = (request.sampling for request in studio.parrot.requests)
        assert (first.temperature, first.top_k, first.repetition_penalty) == (0.3, 5, 1.3)
        assert second.repetition_penalty == pytest.approx(1.2)

    async def test_raises_openai_s_errors(self, studio):
        with pytest.raises(openai.NotFoundError):
            await self.chat(studio, model="nothing").ainvoke(SAID)
        with pytest.raises(openai.BadRequestError, match="contradicts repetition_penalty"):
            await self.chat(studio, repeat_penalty=5, repetition_penalty=1.1).ainvoke(SAID)

    async def test_embeds(self, studio):
        embeddings = NaverEmbeddings(base_url=f"{studio.url}/v1/openai", api_key=studio.key, model=MODEL)
        self.opened.add(embeddings.client._client, embeddings.async_client._client)
        assert await asyncio.to_thread(embeddings.embed_query, "가나") == [1.0]
        assert await embeddings.aembed_documents(["가", "나"]) == [[1.0], [1.0]]


class TestTheOpenAITwin:
    async def test_is_all_that_its_paths_say(self, studio):
        async with openai.AsyncOpenAI(base_url=f"{studio.url}/v1/openai", api_key=studio.key, max_retries=0) as client:
            assert [model.id for model in (await client.models.list()).data] == [MODEL]
            assert (await client.models.retrieve("poet")).parent == MODEL
            completion = await client.completions.create(model=MODEL, prompt="가나", max_tokens=3)
            assert completion.choices[0].text == "가나가"

    async def test_has_openai_s_errors_and_naver_s_header(self, studio):
        response = await studio.http.post("/v1/openai/chat/completions", json={"model": MODEL, "messages": [], "x": 1})
        assert response.json()["error"]["type"] == "invalid_request_error"
        assert response.headers["x-ncp-clovastudio-request-id"] == response.headers["x-request-id"]

    async def test_takes_dimensions_without_effect_where_the_openai_dialect_refuses_them(self, studio):
        body = {"model": MODEL, "input": "가", "dimensions": 1024}
        twin = await studio.http.post("/v1/openai/embeddings", json=body)
        assert twin.json()["data"][0]["embedding"] == [1.0]
        refused = await studio.http.post("/v1/embeddings", json=body)
        assert refused.json()["error"]["param"] == "dimensions"
