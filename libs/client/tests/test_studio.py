"""Both clients against a real gateway."""

from datetime import UTC, datetime

import openai
import pytest
from hunmin import AuthenticationError, Client, InvalidRequestError, NotFoundError

TEXT = "이 영화는 정말 재미있었다."


class TestTokenizers:
    def test_blocking(self, studio):
        with studio.client() as client:
            (info,) = client.tokenizers.list().tokenizers
            encoded = client.tokenizers.encode(info.name, TEXT)
            assert client.tokenizers.decode(info.name, encoded.ids).text == TEXT
            assert client.tokenizers.count(info.name, [TEXT, ""]).counts == [len(encoded.ids), 0]
            tokens = client.tokenizers.morphemes(info.name, TEXT).tokens
        assert "".join(token.text for token in tokens) == TEXT
        assert encoded.offsets[-1][1] == len(TEXT)

    async def test_awaited(self, studio):
        async with studio.async_client() as client:
            (info,) = (await client.tokenizers.list()).tokenizers
            encoded = await client.tokenizers.encode(info.name, TEXT)
            assert (await client.tokenizers.decode(info.name, encoded.ids)).text == TEXT
            assert (await client.tokenizers.count(info.name, [TEXT, ""])).counts == [len(encoded.ids), 0]
            tokens = (await client.tokenizers.morphemes(info.name, TEXT)).tokens
        assert "".join(token.text for token in tokens) == TEXT


class TestErrors:
    def test_tell_code_request_and_details(self, studio):
        with studio.client() as client, pytest.raises(NotFoundError, match="nothing") as refusal:
            client.tokenizers.encode("nothing/at?all", TEXT)
        assert (refusal.value.status, refusal.value.code) == (404, "not_found")
        assert refusal.value.request_id in str(refusal.value)

    async def test_are_the_same_awaited(self, studio):
        async with studio.async_client() as client:
            with pytest.raises(InvalidRequestError) as refusal:
                await client.tokenizers.decode("starter", [-1])
        assert refusal.value.code == "invalid_parameter"
        assert refusal.value.details["param"] == "ids.0"

    def test_of_a_wrong_key(self, studio):
        with Client(base_url=studio.url, api_key="hm_wrong") as client, pytest.raises(AuthenticationError):
            client.tokenizers.list()


class TestUsage:
    def test_is_iterated_over_pages(self, studio):
        with studio.client() as client:
            since = datetime.now(UTC)
            with openai.OpenAI(base_url=f"{studio.url}/v1", api_key=studio.key) as other:
                for _ in range(3):
                    other.completions.create(model="starter", prompt=TEXT, max_tokens=1)
            rows = list(client.usage(since=since, page_size=2))
            assert [row.model for row in rows] == ["starter"] * 3
            assert list(client.usage(until=since, page_size=200)) == [
                row for row in client.usage() if row.started_at < since
            ]
