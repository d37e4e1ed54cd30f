"""`huggingface_hub`'s client, unmodified, against a gateway on a real port; and the TGI dialect byte by byte."""

import json
from urllib.parse import quote

import pytest
import pytest_asyncio
from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import GenerationError, OverloadedError, ValidationError

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"


@pytest_asyncio.fixture(loop_scope="session")
async def client(studio):
    """The client, before the default model."""
    async with AsyncInferenceClient(model=studio.url, token=studio.key, timeout=10) as client:
        yield client


async def events(studio, path, body):
    async with studio.http.stream("POST", path, json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line[5:]) async for line in response.aiter_lines() if line]


class TestGenerate:
    async def test_whole(self, studio, client):
        assert await client.text_generation("가나다", max_new_tokens=4) == "가나다가"
        asked = studio.parrot.requests[-1]
        assert (asked.model, asked.max_tokens, asked.sampling.temperature, asked.logprobs) == (MODEL, 4, 0, None)

    async def test_details(self, client):
        answer = await client.text_generation(
            "가나", max_new_tokens=3, details=True, decoder_input_details=True, top_n_tokens=2
        )
        details = answer.details
        assert answer.generated_text == "가나가"
        assert (details.finish_reason, details.generated_tokens, details.seed) == ("length", 3, None)
        assert [(token.id, token.text) for token in details.prefill] == [(ord("가"), "가"), (ord("나"), "나")]
        assert [token.logprob for token in details.prefill] == [None, -1.0]
        assert [(token.text, token.logprob, token.special) for token in details.tokens] == [
            ("가", -0.5, False), ("나", -0.5, False), ("가", -0.5, False),
        ]  # fmt: skip
        assert [len(tops) for tops in details.top_tokens] == [2, 2, 2]

    async def test_the_end_token_is_reported_as_special(self, client):
        answer = await client.text_generation("!end", max_new_tokens=3, details=True)
        assert answer.generated_text == "!e"
        assert (answer.details.finish_reason, answer.details.generated_tokens) == ("eos_token", 3)
        assert [(token.text, token.special) for token in answer.details.tokens][-1] == ("<|end|>", True)

    async def test_the_stop_sequence_ends_the_text(self, client):
        answer = await client.text_generation("가나", max_new_tokens=2, stop=["끝", "다"], details=True)
        assert (answer.generated_text, answer.details.finish_reason) == ("가나끝", "stop_sequence")

    async def test_the_prompt_is_there_if_asked_for(self, client):
        assert await client.text_generation("가나", max_new_tokens=2, return_full_text=True) == "가나가나"

    async def test_the_best_of_several_is_returned_with_the_others(self, studio, client):
        answer = await client.text_generation("가나", max_new_tokens=2, best_of=2, do_sample=True, details=True)
        (other,) = answer.details.best_of_sequences
        assert (answer.generated_text, other.generated_text) == ("나가", "가나")
        assert answer.details.seed == other.seed + 1 == studio.parrot.requests[-1].sampling.seed + 1

    async def test_the_generate_path_answers_an_object_and_the_root_a_list(self, studio):
        body = {"inputs": "가나", "parameters": {"max_new_tokens": 2}}
        one = await studio.http.post("/generate", json=body)
        several = await studio.http.post("/", json=body)
        assert [one.json()] == several.json() == [{"generated_text": "가나"}]
        assert (one.headers["x-prompt-tokens"], one.headers["x-generated-tokens"]) == ("2", "2")

    async def test_what_is_left_out_has_the_default_of_tgi(self, studio):
        (await studio.http.post("/generate", json={"inputs": "!slow"})).raise_for_status()
        asked = studio.parrot.requests[-1]
        assert (asked.max_tokens, asked.sampling.temperature, asked.stop) == (100, 0, [])


class TestSampling:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({}, (0.0, 0, 1.0)),
            ({"temperature": 1.0}, (0.0, 0, 1.0)),  # TGI samples only if something tells it to
            ({"do_sample": True}, (1.0, 0, 1.0)),
            ({"do_sample": True, "temperature": 0.5}, (0.5, 0, 1.0)),
            ({"temperature": 0.5}, (0.5, 0, 1.0)),
            ({"top_k": 5}, (1.0, 5, 1.0)),
            ({"top_p": 0.9}, (1.0, 0, 0.9)),
        ],
    )
    async def test_is_what_tgi_makes_of_it(self, studio, client, given, expected):
        answer = await client.text_generation("가", max_new_tokens=1, details=True, **given)
        sampling = studio.parrot.requests[-1].sampling
        assert (sampling.temperature, sampling.top_k, sampling.top_p) == expected
        assert answer.details.seed == sampling.seed
        assert (sampling.seed is None) == (expected[0] == 0)

    async def test_a_seed_is_passed_on_and_told(self, studio, client):
        answer = await client.text_generation("가", max_new_tokens=1, details=True, do_sample=True, seed=7)
        assert answer.details.seed == studio.parrot.requests[-1].sampling.seed == 7

    async def test_a_repetition_penalty_is_passed_on(self, studio, client):
        await client.text_generation("가", max_new_tokens=1, repetition_penalty=1.3)
        assert studio.parrot.requests[-1].sampling.repetition_penalty == 1.3


class TestStream:
    async def test_texts_of_tokens(self, client):
        stream = await client.text_generation("가🙂", max_new_tokens=3, stream=True)
        assert [text async for text in stream] == ["가", "🙂", "가"]

    async def test_details_come_with_the_last_token(self, client):
        stream = await client.text_generation("!end", max_new_tokens=3, stream=True, details=True, top_n_tokens=1)
        pieces = [piece async for piece in stream]
        assert [piece.index for piece in pieces] == [1, 2, 3]
        assert [piece.token.text for piece in pieces] == ["!", "e", "<|end|>"]
        assert [piece.generated_text for piece in pieces] == [None, None, "!e"]
        assert all(len(piece.top_tokens) == 1 for piece in pieces)
        details = pieces[-1].details
        assert (details.finish_reason, details.generated_tokens, details.input_length) == ("eos_token", 3, 4)

    async def test_both_paths_send_the_same_events(self, studio):
        body = {"inputs": "가나", "parameters": {"max_new_tokens": 2}}
        found = await events(studio, "/generate_stream", body)
        assert found == await events(studio, "/", body | {"stream": True})
        assert found[-1] == {
            "index": 2,
            "token": {"id": ord("나"), "text": "나", "logprob": -0.5, "special": False},
            "generated_text": "가나",
            "details": None,
        }

    async def test_a_failure_after_the_first_token_is_an_error_of_the_stream(self, client):
        stream = await client.text_generation("!break", max_new_tokens=9, stream=True)
        texts = []

        async def read():
            async for text in stream:
                texts.append(text)

        with pytest.raises(GenerationError, match="The engine stopped"):
            await read()
        assert texts == ["!", "b"]

    async def test_a_client_that_leaves_is_charged_what_was_generated(self, studio, client):
        stream = await client.text_generation("!slow", max_new_tokens=1000, stream=True)
        assert await anext(stream) == "!"
        await stream.aclose()
        while not (rows := await studio.usage()):
            pass
        assert rows[0]["status"] == "cancelled"
        assert 1 <= rows[0]["completion_tokens"] <= studio.parrot.generated


class TestUsage:
    async def test_is_settled_before_the_last_token(self, studio):
        for path in ("/generate", "/generate_stream"):
            body = {"inputs": "가나다", "parameters": {"max_new_tokens": 4}}
            (await studio.http.post(path, json=body)).raise_for_status()
            row = (await studio.usage())[0]
            assert (row["endpoint"], row["model"], row["status"]) == (path, MODEL, "succeeded")
            assert (row["prompt_tokens"], row["completion_tokens"]) == (3, 4)


class TestModels:
    async def test_a_url_names_one(self, studio):
        for path in ("", "/generate", "/generate_stream"):
            found = await studio.http.post(
                f"/models/{MODEL}{path}", json={"inputs": "가", "parameters": {"max_new_tokens": 1}}
            )
            assert found.status_code == 200
        async with AsyncInferenceClient(model=f"{studio.url}/models/{MODEL}", token=studio.key) as client:
            assert await client.text_generation("가나", max_new_tokens=3) == "가나가"

    async def test_an_unknown_one_is_not_found(self, studio):
        response = await studio.http.post("/models/gpt-4", json={"inputs": "가", "parameters": {"max_new_tokens": 1}})
        assert (response.status_code, response.json()["error_type"]) == (404, "validation")
        assert "gpt-4" in response.json()["error"]

    async def test_a_name_of_control_characters_is_refused(self, studio):
        response = await studio.http.post(f"/models/{quote(chr(0))}/generate", json={"inputs": "가"})
        assert (response.status_code, response.json()["error_type"]) == (422, "validation")

    async def test_an_adapter_is_a_soft_prompt(self, studio, client):
        for model in (studio.url, f"{studio.url}/models/{MODEL}"):
            text = await client.text_generation("가", model=model, max_new_tokens=1, adapter_id="poet@1")
            assert text == "가"
            assert studio.parrot.requests[-1].model == "poet@1"
        assert (await studio.usage())[0]["model"] == "poet@1"

    async def test_an_adapter_of_another_model_than_the_url_s_is_refused(self, studio):
        body = {"inputs": "가", "parameters": {"adapter_id": "poet@1"}}
        response = await studio.http.post("/models/other/generate", json=body)
        assert response.status_code == 422
        assert "adapter_id" in response.json()["error"]

    async def test_is_described(self, studio):
        for path in ("/info", f"/models/{MODEL}/info"):
            found = (await studio.http.get(path)).json()
            assert (found["model_id"], found["max_total_tokens"], found["max_input_tokens"]) == (MODEL, 64, 63)

    async def test_health_needs_no_key(self, studio):
        for path in ("/health", f"/models/{MODEL}/health"):
            response = await studio.http.get(path, headers={"Authorization": ""})
            assert (response.status_code, response.content) == (200, b"")
        response = await studio.http.get("/models/none/health")
        assert response.json() == {"error": "unhealthy", "error_type": "healthcheck"}


class TestErrors:
    @pytest.mark.parametrize(
        ("parameters", "named"),
        [
            ({"typical_p": 0.5}, "typical_p"),
            ({"truncate": 5}, "truncate"),
            ({"watermark": True}, "watermark"),
            ({"frequency_penalty": 0.5}, "frequency_penalty"),
            ({"grammar": {"type": "regex", "value": "a"}}, "grammar"),
            ({"top_p": 1.0}, "top_p"),
            ({"top_k": 0}, "top_k"),
            ({"temperature": 0.0}, "temperature"),
            ({"max_new_tokens": 0}, "max_new_tokens"),
            ({"best_of": 2}, "best_of"),
            ({"best_of": 2, "do_sample": True, "seed": 1}, "seed"),
            ({"top_n_tokens": 21}, "top_n_tokens"),
            ({"stop": ["가"] * 17}, "stop"),
            ({"adapter_id": "none"}, "none"),
        ],
    )
    async def test_what_cannot_be_done_is_refused_by_name(self, studio, client, parameters, named):
        with pytest.raises(ValidationError, match=named):
            await client.text_generation("가", **parameters)
        assert studio.parrot.generated == 0

    @pytest.mark.parametrize("name", ["best_of", "decoder_input_details"])
    async def test_what_cannot_be_streamed_is_refused_before_the_stream(self, studio, name):
        parameters = {"best_of": 2, "do_sample": True} if name == "best_of" else {name: True}
        response = await studio.http.post("/generate_stream", json={"inputs": "가", "parameters": parameters})
        assert (response.status_code, response.json()["error_type"]) == (422, "validation")
        assert name in response.json()["error"]

    @pytest.mark.parametrize(
        ("body", "status"),
        [({"inputs": ""}, 422), ({"inputs": "가", "params": {}}, 422), ({"inputs": ["가"]}, 422), ([], 422)],
    )
    async def test_a_malformed_body_is_a_validation_error(self, studio, body, status):
        for path in ("/", "/generate", "/generate_stream"):
            response = await studio.http.post(path, json=body)
            assert (response.status_code, response.json()["error_type"]) == (status, "validation")

    async def test_a_prompt_too_long_names_both_lengths(self, client):
        with pytest.raises(ValidationError, match=r"65 tokens.*64"):
            await client.text_generation("가" * 65, max_new_tokens=1)

    async def test_a_full_queue_is_overloaded(self, studio, client):
        with pytest.raises(OverloadedError, match="queue is full"):
            await client.text_generation("!overloaded", max_new_tokens=9)
        response = await studio.http.post(
            "/generate_stream", json={"inputs": "!overloaded", "parameters": {"max_new_tokens": 9}}
        )
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")

    async def test_a_bug_is_a_generation_error_that_shows_nothing(self, client):
        with pytest.raises(GenerationError) as failure:
            await client.text_generation("!crash", max_new_tokens=9)
        assert "secret" not in str(failure.value)

    async def test_an_answer_that_breaks_off_is_incomplete(self, studio):
        response = await studio.http.post("/generate", json={"inputs": "!early", "parameters": {"max_new_tokens": 9}})
        assert (response.status_code, response.json()["error_type"]) == (500, "incomplete_generation")

    async def test_without_a_key_nothing_is_told_but_that(self, studio):
        for path in ("/", "/generate", "/generate_stream", f"/models/{MODEL}"):
            response = await studio.http.post(path, content=b"{", headers={"Authorization": "Bearer hm_wrong"})
            assert response.status_code == 401
            assert set(response.json()) == {"error", "error_type"}
            assert response.headers["www-authenticate"].startswith("Bearer")
