"""Both clients against a real gateway."""

from datetime import UTC, datetime

import openai
import pytest
import torch
from hunmin import AuthenticationError, Candidates, Client, GradientExample, InvalidRequestError, NotFoundError
from hunmin.tuning import soft_prompt_file

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


class TestGradientsAndScores:
    rows = torch.linspace(-0.1, 0.1, 2 * 256).view(2, 256)
    asked = {
        "model": "starter",
        "examples": [GradientExample(tokens=[-1, 5, -2, 6], target=[7, 8])],
        "soft_prompt": soft_prompt_file(rows),
        "gradient_format": "json",
        "saliency": True,
        "candidates": Candidates(positions=[1], top_k=3),
    }
    scored = {"model": "starter", "prompt": (5, 6), "continuations": (" 최고", " 최악")}

    async def test_are_the_same_blocking_and_awaited(self, studio):
        async with studio.async_client() as client:
            awaited = await client.gradients(**self.asked), await client.score(**self.scored)
        with studio.client() as client:
            blocking = client.gradients(**self.asked), client.score(**self.scored)
        assert awaited[0].gradient_rows == blocking[0].gradient_rows
        assert [one.logprob for one in awaited[1].scores] == pytest.approx([one.logprob for one in blocking[1].scores])

    async def test_bring_what_was_asked_for(self, studio):
        async with studio.async_client() as client:
            reply = await client.gradients(**self.asked)
            scores = (await client.score(**self.scored)).scores
        assert torch.tensor(reply.gradient_rows).shape == self.rows.shape
        assert [token.id for token in reply.examples[0].saliency] == [-1, 5, -2, 6]
        assert [len(best) for best in reply.candidates] == [3]
        assert reply.usage.backward_tokens == 5
        assert len(scores) == 2

    def test_an_impossible_request_is_refused_before_it_is_sent(self):
        client = Client(base_url="http://127.0.0.1:1", api_key="k")
        with client, pytest.raises(ValueError, match="continuations"):
            client.score(model="starter", prompt="가", continuations=[])


class TestErrors:
    def test_tell_code_request_and_details(self, studio):
        with studio.client() as client, pytest.raises(NotFoundError, match="nothing") as refusal:
            client.tokenizers.encode("nothing at?all", TEXT)
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
