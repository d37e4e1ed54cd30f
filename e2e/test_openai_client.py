"""The official `openai` client, unmodified, in both ways to run."""

import re

import openai
import pytest

PROMPT = "이 영화는"
GREEDY = {"temperature": 0, "max_tokens": 24}


def test_names_its_models_and_completes_with_exact_usage(studio):
    with studio.client() as client, studio.http() as http:
        assert studio.model in [model.id for model in client.models.list()]
        assert client.models.retrieve(studio.model).id == studio.model
        completion = client.completions.create(model=studio.model, prompt=PROMPT, max_tokens=5, temperature=0)
        name = http.get("/studio/v1/tokenizers").json()["tokenizers"][0]["name"]
        counted = http.post(f"/studio/v1/tokenizers/{name}/count", json={"texts": [PROMPT]}).json()["counts"][0]
    assert completion.object == "text_completion"
    assert completion.choices[0].finish_reason in ("stop", "length")
    assert completion.usage.prompt_tokens == counted
    assert 1 <= completion.usage.completion_tokens <= 5
    assert completion.usage.total_tokens == counted + completion.usage.completion_tokens


def test_a_stream_is_the_whole_answer_in_pieces(studio):
    with studio.client() as client:
        whole = client.completions.create(model=studio.model, prompt=PROMPT, **GREEDY)
        chunks = list(
            client.completions.create(
                model=studio.model, prompt=PROMPT, **GREEDY, stream=True, stream_options={"include_usage": True}
            )
        )
    assert len(chunks) > 3
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage


def test_korean_and_emoji_stream_uncorrupted(studio):
    prompt = "최고의 영화 👨‍👩‍👧‍👦🇰🇷 ㅋㅋㅋ \u1100\u1161\u11a8\t끝"
    with studio.client() as client:
        asked = {"model": studio.model, "prompt": prompt, "max_tokens": 32, "temperature": 0, "echo": True}
        whole = client.completions.create(**asked).choices[0].text
        pieces = [chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)]
    assert whole.startswith(prompt)
    assert "".join(pieces) == whole


def test_echo_and_logprobs_score_the_prompt(studio):
    with studio.client() as client:
        completion = client.completions.create(
            model=studio.model, prompt=PROMPT, max_tokens=3, temperature=0, echo=True, logprobs=3
        )
        scored = client.completions.create(
            model=studio.model, prompt=PROMPT, max_tokens=0, temperature=0, echo=True, logprobs=3
        )
    choice = completion.choices[0]
    count = completion.usage.total_tokens - (choice.finish_reason == "stop")  # the end token has no text to show
    logprobs = choice.logprobs
    assert choice.text.startswith(PROMPT)
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == count
    assert len(logprobs.text_offset) == count
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    for place in range(scored.usage.prompt_tokens, count):
        # Greedy: what was chosen is what was likeliest.
        assert logprobs.token_logprobs[place] == pytest.approx(max(logprobs.top_logprobs[place].values()))
    assert scored.choices[0].text == PROMPT
    assert scored.choices[0].logprobs.token_logprobs[1:] == pytest.approx(
        logprobs.token_logprobs[1 : scored.usage.prompt_tokens], abs=1e-4
    )


def test_numbers_the_choices_of_several_prompts(studio):
    prompts = ["이 영화는", "배우가", "시간이"]
    with studio.client() as client:
        together = client.completions.create(model=studio.model, prompt=prompts, n=2, **GREEDY)
        alone = [client.completions.create(model=studio.model, prompt=prompt, **GREEDY) for prompt in prompts]
    expected = [completion.choices[0].text for completion in alone for _ in range(2)]
    assert [choice.index for choice in together.choices] == list(range(6))
    assert [choice.text for choice in together.choices] == expected
    assert together.usage.prompt_tokens == sum(completion.usage.prompt_tokens for completion in alone)


def test_a_seed_repeats_and_choices_differ(studio):
    asked = {"model": studio.model, "prompt": PROMPT, "max_tokens": 16, "n": 3, "seed": 7, "temperature": 1}
    with studio.client() as client:
        first = [choice.text for choice in client.completions.create(**asked).choices]
        again = [choice.text for choice in client.completions.create(**asked).choices]
        other = [choice.text for choice in client.completions.create(**asked | {"seed": 1000}).choices]
    assert first == again
    assert len({*first, *other}) > 3


def test_stops_before_a_stop_string(studio):
    with studio.client() as client:
        whole = client.completions.create(model=studio.model, prompt=PROMPT, **GREEDY).choices[0].text
        stop = whole[4:6]
        stopped = client.completions.create(model=studio.model, prompt=PROMPT, stop=stop, **GREEDY).choices[0]
    assert stopped.text == whole[: whole.index(stop)]
    assert stopped.finish_reason == "stop"


def test_chats(studio):
    messages = [{"role": "system", "content": "짧게 답한다."}, {"role": "user", "content": "영화 좋아해?"}]
    asked = {"model": studio.model, "messages": messages, "max_completion_tokens": 12, "temperature": 0}
    with studio.client() as client:
        whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
        chunks = list(client.chat.completions.create(**asked, stream=True))
    choice = whole.choices[0]
    assert choice.message.role == "assistant"
    end_tokens = choice.finish_reason == "stop"  # one that has no text to show
    assert len(choice.logprobs.content) == whole.usage.completion_tokens - end_tokens
    assert all(len(entry.top_logprobs) == 2 and entry.bytes is not None for entry in choice.logprobs.content)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == choice.message.content
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason


class TestErrors:
    def test_a_wrong_key_is_an_authentication_error_whatever_the_body(self, studio):
        mistyped = studio.key[:-1] + ("a" if studio.key[-1] != "a" else "b")
        for key in (mistyped, "sk-other"):
            with studio.client(key) as client, pytest.raises(openai.AuthenticationError) as refusal:
                client.completions.create(model="nothing", prompt=PROMPT, extra_body={"nonsense": 1})
            assert refusal.value.code == "invalid_api_key"

    def test_an_unknown_model_is_not_found(self, studio):
        with studio.client() as client, pytest.raises(openai.NotFoundError) as refusal:
            client.completions.create(model="gpt-4", prompt=PROMPT)
        assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")

    def test_a_prompt_too_long_names_both_lengths(self, studio):
        long = "가나다라마바사 " * 20_000
        for stream in (False, True):
            with studio.client() as client, pytest.raises(openai.BadRequestError) as refusal:
                client.completions.create(model=studio.model, prompt=long, stream=stream)
            assert refusal.value.code == "context_length_exceeded"
            assert len(re.findall(r"\d+", refusal.value.message.split("(request")[0])) >= 2

    def test_a_parameter_that_is_unknown_or_not_served_is_named(self, studio):
        with studio.client() as client, pytest.raises(openai.BadRequestError) as refusal:
            client.completions.create(model=studio.model, prompt=PROMPT, extra_body={"temprature": 1})
        assert (refusal.value.param, refusal.value.code) == ("temprature", "unknown_parameter")
        assert refusal.value.request_id in refusal.value.message
        tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        messages = [{"role": "user", "content": "안녕"}]
        with studio.client() as client, pytest.raises(openai.BadRequestError) as refusal:
            client.chat.completions.create(model=studio.model, messages=messages, tools=tools)
        assert refusal.value.param == "tools"


def test_embeds_texts_and_scores_continuations(studio):
    texts = ["정말 재미있는 영화", "정말 재미있는 영화", "돈이 아까운 졸작"]
    with studio.client() as client, studio.http() as http:
        packed = client.embeddings.create(model=studio.model, input=texts)  # as base64, the client's default
        plain = client.embeddings.create(model=studio.model, input=texts[2], encoding_format="float")
        with pytest.raises(openai.BadRequestError, match=r"tokens.*tokens") as refusal:
            client.embeddings.create(model=studio.model, input="긴 글 " * 2000)
        assert refusal.value.param == "input.0"
        asked = {"model": studio.model, "prompt": "최고의 감동! 이 영화는", "continuations": [" 재미있다", " 책상다"]}
        scored = http.post("/studio/v1/score", json=asked).json()
        rows = http.get("/studio/v1/usage", params={"limit": 10}).json()["data"]
    same, again, other = (item.embedding for item in packed.data)
    assert same == again != other
    assert other == pytest.approx(plain.data[0].embedding, abs=1e-5)
    assert sum(value * value for value in same) == pytest.approx(1, abs=1e-3)
    assert scored["scores"][0]["mean_logprob"] > scored["scores"][1]["mean_logprob"]
    (row,) = (row for row in rows if row["endpoint"] == "/studio/v1/score")
    assert row["prompt_tokens"] == scored["prompt_tokens"] + scored["continuation_tokens"]
    row = next(row for row in rows if row["endpoint"] == "/v1/embeddings" and row["status"] == "succeeded")
    assert row["prompt_tokens"] == plain.usage.prompt_tokens
