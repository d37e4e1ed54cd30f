"""Text completions: from OpenAI's request to ours, from our events to OpenAI's answer. No I/O."""

import json

import openai.types
import pytest
from hunmin_contracts.generation import ChunkEvent, PromptEvent, TokenLogprob, TopToken, UsageEvent
from hunmin_contracts.ids import AccountId
from hunmin_gateway.openai.completion import CompletionRequest, CompletionWriter
from hunmin_gateway.openai.head import Head, Usage
from pydantic import ValidationError

HEAD = Head(id="cmpl-1", created=1_700_000_000, model="starter")
EWE = "예".encode()  # three bytes, so that a token can be a part of a character

ACCOUNT = AccountId("acct_1")


def request(**fields: object) -> CompletionRequest:
    return CompletionRequest.model_validate({"model": "starter", "prompt": "이 영화는"} | fields)


def token(raw: bytes, logprob: float | None, *top: tuple[bytes, float]) -> TokenLogprob:
    candidates = [TopToken(id=1, text=t.decode(errors="replace"), bytes=list(t), logprob=p) for t, p in top]
    return TokenLogprob(id=1, text=raw.decode(errors="replace"), bytes=list(raw), logprob=logprob, top=candidates)


def answer(asked: CompletionRequest, *events: tuple[int, object]) -> openai.types.Completion:
    """Return the whole answer as the official client types it, after checking that it equals the streamed one."""
    writer = CompletionWriter(asked, HEAD)
    pieces = [piece for number, event in events for piece in writer.pieces(number, event)]
    whole = writer.whole(pieces, Usage.of(prompt_tokens=1, completion_tokens=2))
    streamed: dict[int, str] = {}
    for piece in pieces:
        chunk = json.loads(writer.chunk([piece]).model_dump_json())
        assert "usage" not in chunk
        for choice in chunk["choices"]:
            streamed[choice["index"]] = streamed.get(choice["index"], "") + choice["text"]
    assert streamed == {choice.index: choice.text for choice in whole.choices}
    return openai.types.Completion.construct(**json.loads(whole.model_dump_json()))


class TestRequest:
    def test_has_openai_s_defaults(self):
        (asked,) = request().generate_requests(ACCOUNT)
        assert (asked.max_tokens, asked.n, asked.sampling.temperature, asked.sampling.top_p) == (16, 1, 1.0, 1.0)
        assert (asked.logprobs, asked.echo, asked.stop, asked.sampling.seed) == (None, False, [], None)

    def test_null_means_the_default(self):
        nulls = dict.fromkeys(CompletionRequest.model_fields.keys() - {"model", "prompt"})
        assert request(**nulls).generate_requests(ACCOUNT) == request().generate_requests(AccountId("acct_1"))

    def test_carries_every_parameter(self):
        (asked,) = request(
            n=3,
            max_tokens=0,
            stop=["\n", "끝"],
            logprobs=5,
            echo=True,
            temperature=0,
            top_p=0.5,
            seed=-7,
            frequency_penalty=-2,
            presence_penalty=2,
            top_k=40,
            repetition_penalty=1.3,
        ).generate_requests(ACCOUNT)
        assert asked.model_dump() == {
            "account_id": ACCOUNT,
            "model": "starter",
            "prompt": "이 영화는",
            "n": 3,
            "max_tokens": 0,
            "stop": ["\n", "끝"],
            "logprobs": 5,
            "echo": True,
            "sampling": {
                "temperature": 0.0,
                "top_p": 0.5,
                "top_k": 40,
                "repetition_penalty": 1.3,
                "frequency_penalty": -2.0,
                "presence_penalty": 2.0,
                "seed": -7,
            },
            "origin": None,
            "priority": "interactive",
        }

    @pytest.mark.parametrize(
        ("prompt", "prompts"),
        [
            ("가", ["가"]),
            ("", [""]),
            (None, [""]),
            (["가", "나"], ["가", "나"]),
            ([1, 2], [[1, 2]]),
            ([[1, 2], [3]], [[1, 2], [3]]),
        ],
    )
    def test_takes_four_shapes_of_prompt(self, prompt, prompts):
        assert [asked.prompt for asked in request(prompt=prompt).generate_requests(ACCOUNT)] == prompts

    def test_a_single_stop_string_is_a_list_of_one_and_an_empty_one_stops_nothing(self):
        assert request(stop="끝").stops() == ["끝"]
        assert request(stop="").stops() == []
        assert request(stop=["", "끝"]).stops() == ["끝"]

    @pytest.mark.parametrize(
        "harmless", [{"user": "u1"}, {"best_of": 1}, {"suffix": ""}, {"logit_bias": {}}, {"stream": False}]
    )
    def test_what_asks_for_nothing_is_accepted(self, harmless):
        assert request(**harmless).generate_requests(ACCOUNT) == request().generate_requests(AccountId("acct_1"))

    @pytest.mark.parametrize(
        "refused",
        [
            {"best_of": 2},
            {"best_of": True},
            {"suffix": "끝"},
            {"logit_bias": {"1": 5}},
            {"n": 0},
            {"n": 17},
            {"n": "2"},
            {"n": 1.5},
            {"max_tokens": -1},
            {"temperature": 2.1},
            {"temperature": float("nan")},
            {"temperature": "1"},
            {"top_p": 0},
            {"top_k": -1},
            {"top_k": 2**31},
            {"model": "a\0b"},
            {"repetition_penalty": 0},
            {"repetition_penalty": 1e-39},
            {"logprobs": 21},
            {"logprobs": True},
            {"seed": 2**63},
            {"stop": ["a", "b", "c", "d", "e"]},
            {"stop": [1]},
            {"stop": 1},
            {"prompt": []},
            {"prompt": [[]]},
            {"prompt": [1, "가"]},
            {"prompt": [-1]},
            {"n": 3, "prompt": ["가"] * 43},
            {"prompt": [True]},
            {"prompt": {"text": "가"}},
            {"stream_options": {"include_usage": True}},
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            {"messages": []},
            {"model": ""},
            {"echo": "yes"},
        ],
        ids=str,
    )
    def test_what_cannot_be_served_is_refused_at_its_name(self, refused):
        with pytest.raises(ValidationError) as refusal:
            request(**refused)
        (error,) = refusal.value.errors()
        assert error["loc"][0] == list(refused)[-1]


class TestAnswer:
    def test_joins_the_chunks_of_each_choice_and_numbers_them_by_prompt_and_choice(self):
        completion = answer(
            request(prompt=["가", "나"], n=2),
            (1, PromptEvent(prompt_tokens=1)),
            (0, PromptEvent(prompt_tokens=1)),
            (1, ChunkEvent(index=1, text="d", completion_tokens=1)),
            (0, ChunkEvent(index=0, text="a", completion_tokens=1)),
            (0, ChunkEvent(index=1, text="b", completion_tokens=1, finish_reason="stop")),
            (1, ChunkEvent(index=0, text="c", completion_tokens=1, finish_reason="length")),
            (0, ChunkEvent(index=0, text="A", completion_tokens=2, finish_reason="length")),
            (1, ChunkEvent(index=1, text="", completion_tokens=2, finish_reason="stop")),
            (0, UsageEvent(prompt_tokens=1, completion_tokens=3)),
            (1, UsageEvent(prompt_tokens=1, completion_tokens=3)),
        )
        assert [(c.index, c.text, c.finish_reason) for c in completion.choices] == [
            (0, "aA", "length"),
            (1, "b", "stop"),
            (2, "c", "length"),
            (3, "d", "stop"),
        ]
        assert (completion.id, completion.object, completion.model) == ("cmpl-1", "text_completion", "starter")
        assert completion.usage is not None
        assert completion.usage.total_tokens == 3
        assert completion.choices[0].logprobs is None

    def test_logprobs_are_four_lists_of_one_length(self):
        completion = answer(
            request(logprobs=2),
            (0, PromptEvent(prompt_tokens=1)),
            (
                0,
                ChunkEvent(
                    index=0,
                    text=" 좋",
                    completion_tokens=1,
                    tokens=[token(" 좋".encode(), -1.5, (" 재".encode(), -0.5), (b" a", -1.0))],
                ),
            ),
            (
                0,
                ChunkEvent(
                    index=0,
                    text="다",
                    completion_tokens=2,
                    tokens=[token("다".encode(), -0.25, ("다".encode(), -0.25), (EWE[:2], -2.0))],
                    finish_reason="length",
                ),
            ),
        )
        logprobs = completion.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.tokens == [" 좋", "다"]
        assert logprobs.token_logprobs == [-1.5, -0.25]
        assert logprobs.top_logprobs == [
            {" 재": -0.5, " a": -1.0, " 좋": -1.5},
            {"다": -0.25, "bytes:\\xec\\x98": -2.0},
        ]
        assert logprobs.text_offset == [0, 2]

    def test_logprobs_zero_gives_the_chosen_tokens_alone(self):
        events = [(0, ChunkEvent(index=0, text="a", completion_tokens=1, tokens=[token(b"a", -1.0)]))]
        logprobs = answer(request(logprobs=0), *events).choices[0].logprobs
        assert logprobs is not None
        assert (logprobs.token_logprobs, logprobs.top_logprobs) == ([-1.0], None)

    def test_a_character_of_several_tokens_has_one_offset_and_shows_its_bytes(self):
        pieces = [token(b"a", -1.0), token(EWE[:2], -1.0), token(EWE[2:], -1.0), token(b"b", -1.0)]
        events = [
            (0, ChunkEvent(index=0, text="a", completion_tokens=2, tokens=pieces[:2])),
            (0, ChunkEvent(index=0, text="예b", completion_tokens=4, tokens=pieces[2:], finish_reason="stop")),
        ]
        choice = answer(request(logprobs=1), *events).choices[0]
        assert choice.text == "a예b"
        assert choice.logprobs is not None
        assert choice.logprobs.tokens == ["a", "bytes:\\xec\\x98", "bytes:\\x88", "b"]
        assert choice.logprobs.text_offset == [0, 1, 1, 2]

    def test_echo_puts_the_prompt_before_every_choice(self):
        prompt = PromptEvent(
            prompt_tokens=2, text="가나", tokens=[token("가".encode(), None), token("나".encode(), -3.0)]
        )
        completion = answer(
            request(echo=True, logprobs=1, n=2),
            (0, prompt),
            (0, ChunkEvent(index=0, text="x", completion_tokens=1, tokens=[token(b"x", -1.0)], finish_reason="length")),
            (0, ChunkEvent(index=1, text="y", completion_tokens=1, tokens=[token(b"y", -2.0)], finish_reason="length")),
        )
        assert [choice.text for choice in completion.choices] == ["가나x", "가나y"]
        logprobs = completion.choices[1].logprobs
        assert logprobs is not None
        assert logprobs.tokens == ["가", "나", "y"]
        assert logprobs.token_logprobs == [None, -3.0, -2.0]
        assert logprobs.top_logprobs == [None, {"나": -3.0}, {"y": -2.0}]
        assert logprobs.text_offset == [0, 1, 2]
        assert completion.choices[0].finish_reason == "length"

    def test_a_character_that_the_prompt_leaves_unfinished_ends_with_it(self):
        choice = answer(
            request(echo=True, logprobs=0),
            (0, PromptEvent(prompt_tokens=1, text="\ufffd", tokens=[token(EWE[:2], None)])),
            (0, ChunkEvent(index=0, text="\ufffd", completion_tokens=1, tokens=[token(EWE[2:], -1.0)])),
            (0, ChunkEvent(index=0, text="b", completion_tokens=2, tokens=[token(b"b", -1.0)], finish_reason="length")),
        ).choices[0]
        assert choice.logprobs is not None
        assert (choice.text, choice.logprobs.text_offset) == ("\ufffd\ufffdb", [0, 1, 2])

    def test_without_echo_the_prompt_event_adds_nothing(self):
        writer = CompletionWriter(request(), HEAD)
        assert not list(writer.pieces(0, PromptEvent(prompt_tokens=2)))

    def test_the_last_chunk_of_a_stream_holds_the_usage_and_no_choice(self):
        chunk = CompletionWriter(request(), HEAD).chunk([], Usage.of(prompt_tokens=3, completion_tokens=4))
        assert json.loads(chunk.model_dump_json()) == {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1_700_000_000,
            "model": "starter",
            "choices": [],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        }
