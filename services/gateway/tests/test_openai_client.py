"""The official client, unmodified, against a gateway on a real port."""

import openai
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"


class TestModels:
    async def test_are_listed_and_described(self, studio):
        listed = await studio.client.models.list()
        assert [model.id for model in listed.data] == [MODEL]
        one = await studio.client.models.retrieve(MODEL)
        assert (one.id, one.object, one.created) == (MODEL, "model", 1_700_000_000)

    async def test_an_unknown_one_is_not_found(self, studio):
        with pytest.raises(openai.NotFoundError) as refusal:
            await studio.client.models.retrieve("gpt-4")
        assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")


class TestCompletions:
    async def test_whole(self, studio):
        completion = await studio.client.completions.create(model=MODEL, prompt="가나다", max_tokens=4, logprobs=2)
        choice = completion.choices[0]
        assert (choice.text, choice.finish_reason) == ("가나다가", "length")
        assert completion.usage.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"}) == {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "total_tokens": 7,
        }
        assert choice.logprobs.tokens == ["가", "나", "다", "가"]
        assert choice.logprobs.text_offset == [0, 1, 2, 3]

    async def test_streamed_equals_whole(self, studio):
        asked = {"model": MODEL, "prompt": ["가나", "🙂다"], "n": 2, "max_tokens": 3, "echo": True}
        whole = await studio.client.completions.create(**asked)
        texts, usage = {}, None
        stream = await studio.client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + choice.text
        assert texts == {choice.index: choice.text for choice in whole.choices}
        assert texts == {0: "가나가나가", 1: "가나나가나", 2: "🙂다🙂다🙂", 3: "🙂다다🙂다"}
        assert usage == whole.usage
        assert usage.total_tokens == 4 + 12

    async def test_token_ids_are_prompts_too(self, studio):
        completion = await studio.client.completions.create(model=MODEL, prompt=[[44032], [45208, 45796]], max_tokens=2)
        assert [choice.text for choice in completion.choices] == ["가가", "나다"]

    async def test_our_own_parameters_go_in_extra_body(self, studio):
        extra = {"top_k": 5, "repetition_penalty": 1.5}
        await studio.client.completions.create(model=MODEL, prompt="가", extra_body=extra)
        sampling = studio.parrot.requests[-1].sampling
        assert (sampling.top_k, sampling.repetition_penalty) == (5, 1.5)


class TestChat:
    async def test_whole(self, studio):
        completion = await studio.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "안녕"}], max_tokens=4, logprobs=True, top_logprobs=1
        )
        assert completion.choices[0].message.content == "user"
        assert [entry.token for entry in completion.choices[0].logprobs.content] == list("user")
        assert completion.usage.completion_tokens == 4

    async def test_streamed(self, studio):
        stream = await studio.client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "안녕"}],
            max_tokens=6,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "user:안"
        assert chunks[-2].choices[0].finish_reason == "length"
        assert chunks[-1].choices == []
        assert chunks[-1].usage.completion_tokens == 6

    async def test_the_accumulating_helper_of_the_client_works(self, studio):
        messages = [{"role": "user", "content": "안녕"}]
        asked = {"model": MODEL, "messages": messages, "max_tokens": 5, "stop": ["끝"]}
        async with studio.client.chat.completions.stream(**asked) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.content == "user:"


class TestErrors:
    async def test_a_wrong_key_is_an_authentication_error_whatever_the_body(self, studio):
        wrong = studio.client.with_options(api_key="hm_wrong")
        for body in ({"model": MODEL, "prompt": "가"}, {"model": 7, "nonsense": True}):
            with pytest.raises(openai.AuthenticationError) as refusal:
                await wrong.completions.create(**{"model": MODEL, "prompt": "가"}, extra_body=body)
            assert refusal.value.code == "invalid_api_key"
        raw = await studio.http.post("/v1/completions", content=b"{", headers={"Authorization": "Bearer hm_wrong"})
        assert raw.status_code == 401
        assert raw.headers["www-authenticate"].startswith("Bearer")

    async def test_an_unknown_model_is_not_found(self, studio):
        with pytest.raises(openai.NotFoundError) as refusal:
            await studio.client.completions.create(model="gpt-4", prompt="가", stream=True)
        assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")

    async def test_a_prompt_too_long_names_both_lengths(self, studio):
        with pytest.raises(openai.BadRequestError, match=r"70 tokens.*holds 64") as refusal:
            await studio.client.completions.create(model=MODEL, prompt="가" * 70)
        assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "prompt")
        with pytest.raises(openai.BadRequestError, match=r"76 tokens.*holds 64") as refusal:
            await studio.client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "가" * 70}])
        assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "messages")

    @pytest.mark.parametrize(
        ("extra", "param", "code"),
        [
            ({"typo": 1}, "typo", "unknown_parameter"),
            ({"tools": [{"type": "function"}]}, "tools", "invalid_value"),
            ({"temperature": 3}, "temperature", "invalid_value"),
            (
                {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
                "messages.0.content",
                "invalid_value",
            ),
            ({"stream_options": {"include": 1}, "stream": True}, "stream_options.include", "unknown_parameter"),
        ],
    )
    async def test_a_bad_parameter_is_named(self, studio, extra, param, code):
        body = {"model": MODEL, "messages": [{"role": "user", "content": "가"}]} | extra
        response = await studio.http.post("/v1/chat/completions", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["code"]) == (400, param, code)
        assert error["type"] == "invalid_request_error"
        assert param in error["message"]
        assert response.headers["x-request-id"] in error["message"]

    async def test_a_full_queue_says_when_to_come_back(self, studio):
        with pytest.raises(openai.RateLimitError) as refusal:
            await studio.client.completions.create(model=MODEL, prompt="!overloaded")
        assert refusal.value.response.headers["retry-after"] == "7"
        assert refusal.value.code == "rate_limit_exceeded"

    async def test_a_bug_shows_nothing_of_itself(self, studio):
        with pytest.raises(openai.InternalServerError) as refusal:
            await studio.client.completions.create(model=MODEL, prompt="!crash")
        assert "secret" not in str(refusal.value)
        assert refusal.value.type == "server_error"

    async def test_a_failure_after_the_first_byte_is_an_error_of_the_stream(self, studio):
        stream = await studio.client.completions.create(model=MODEL, prompt="!break", stream=True)
        texts = []

        async def read() -> None:
            async for chunk in stream:
                texts.append(chunk.choices[0].text)

        with pytest.raises(openai.APIError, match="The engine stopped") as failure:
            await read()
        assert texts == ["!", "b"]
        assert failure.value.code == "unavailable"

    async def test_a_stream_that_ends_before_its_end_is_an_error(self, studio):
        with pytest.raises(openai.InternalServerError, match="stopped before the end"):
            await studio.client.completions.create(model=MODEL, prompt="!early")

    async def test_one_bad_prompt_of_several_fails_the_request_before_its_first_byte(self, studio):
        prompts = ["가", "!overloaded"]
        with pytest.raises(openai.RateLimitError):
            await studio.client.completions.create(model=MODEL, prompt=prompts, stream=True)
        assert studio.parrot.running == 0

    async def test_an_unknown_path_and_a_wrong_method_keep_the_shape(self, studio):
        for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405)):
            response = await studio.http.request(method, path)
            assert response.status_code == status
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}
