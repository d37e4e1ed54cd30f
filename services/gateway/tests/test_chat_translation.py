"""Chat completions: from OpenAI's request to ours, from our events to OpenAI's answer. No I/O."""

import json

import openai.types.chat
import pytest
from hunmin_contracts.generation import ChunkEvent, Message, PromptEvent, TokenLogprob, TopToken, UsageEvent
from hunmin_contracts.ids import AccountId
from hunmin_gateway.openai.chat import ChatCompletionRequest, ChatWriter
from hunmin_gateway.openai.head import Head, Usage
from pydantic import ValidationError

HEAD = Head(id="chatcmpl-1", created=1_700_000_000, model="starter")
HELLO = [{"role": "user", "content": "안녕?"}]

ACCOUNT = AccountId("acct_1")


def request(**fields: object) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"model": "starter", "messages": HELLO} | fields)


class TestRequest:
    def test_defaults_to_as_many_tokens_as_fit(self):
        (asked,) = request().generate_requests(ACCOUNT)
        assert (asked.max_tokens, asked.n, asked.logprobs, asked.sampling.temperature) == (None, 1, None, 1.0)
        assert asked.prompt == [Message(role="user", content="안녕?")]

    def test_null_means_the_default(self):
        nulls = dict.fromkeys(ChatCompletionRequest.model_fields.keys() - {"model", "messages"})
        assert request(**nulls).generate_requests(ACCOUNT) == request().generate_requests(AccountId("acct_1"))

    def test_reads_developer_as_system_and_joins_text_parts(self):
        parts = [{"type": "text", "text": "안"}, {"type": "text", "text": "녕"}]
        messages = [{"role": "developer", "content": "짧게"}, {"role": "user", "content": parts}]
        (asked,) = request(messages=messages).generate_requests(ACCOUNT)
        assert asked.prompt == [Message(role="system", content="짧게"), Message(role="user", content="안녕")]

    def test_takes_back_an_assistant_s_message_as_the_client_dumps_it(self):
        said = openai.types.chat.ChatCompletionMessage(role="assistant", content="네", annotations=[]).model_dump()
        (asked,) = request(messages=[*HELLO, said, *HELLO]).generate_requests(ACCOUNT)
        assert asked.prompt[1] == Message(role="assistant", content="네")

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    def test_takes_both_names_of_the_token_limit(self, name):
        assert request(**{name: 5}).generate_requests(ACCOUNT)[0].max_tokens == 5
        assert request(max_tokens=5, max_completion_tokens=5).generate_requests(ACCOUNT)[0].max_tokens == 5

    @pytest.mark.parametrize(("fields", "expected"), [({}, 0), ({"top_logprobs": 0}, 0), ({"top_logprobs": 20}, 20)])
    def test_asks_for_as_many_logprobs_as_wanted(self, fields, expected):
        assert request(logprobs=True, **fields).generate_requests(ACCOUNT)[0].logprobs == expected

    @pytest.mark.parametrize(
        "harmless",
        [
            {"user": "u"},
            {"metadata": {"a": "b"}},
            {"store": False},
            {"service_tier": "auto"},
            {"modalities": ["text"]},
            {"response_format": {"type": "text"}},
            {"tools": []},
            {"tool_choice": "none"},
            {"parallel_tool_calls": True},
            {"logprobs": False},
        ],
        ids=str,
    )
    def test_what_asks_for_nothing_is_accepted(self, harmless):
        assert request(**harmless).generate_requests(ACCOUNT) == request().generate_requests(AccountId("acct_1"))

    @pytest.mark.parametrize(
        ("refused", "path"),
        [
            ({"tools": [{"type": "function"}]}, ("tools",)),
            ({"tool_choice": "auto"}, ("tool_choice",)),
            ({"functions": [{}]}, ("functions",)),
            ({"response_format": {"type": "json_object"}}, ("response_format",)),
            ({"audio": {}}, ("audio",)),
            ({"modalities": ["text", "audio"]}, ("modalities",)),
            ({"store": True}, ("store",)),
            ({"service_tier": "flex"}, ("service_tier",)),
            ({"prediction": {}}, ("prediction",)),
            ({"reasoning_effort": "high"}, ("reasoning_effort",)),
            ({"web_search_options": {}}, ("web_search_options",)),
            ({"logit_bias": {"1": 1}}, ("logit_bias",)),
            ({"top_logprobs": 3}, ("top_logprobs",)),
            ({"logprobs": True, "top_logprobs": 21}, ("top_logprobs",)),
            ({"max_completion_tokens": 5, "max_tokens": 6}, ("max_tokens",)),
            ({"max_completion_tokens": 0}, ("max_completion_tokens",)),
            ({"echo": True}, ("echo",)),
            ({"prompt": "가"}, ("prompt",)),
            ({"messages": []}, ("messages",)),
            ({"messages": [{"role": "tool", "content": "가"}]}, ("messages", 0, "role")),
            ({"messages": [{"role": "user", "content": None}]}, ("messages", 0, "content")),
            ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, ("messages", 0, "content")),
            ({"messages": [{"role": "user", "content": "가", "name": "나"}]}, ("messages", 0, "name")),
            ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, ("messages", 0, "tool_calls")),
        ],
        ids=str,
    )
    def test_what_cannot_be_served_is_refused_at_its_path(self, refused, path):
        with pytest.raises(ValidationError) as refusal:
            request(**refused)
        (error,) = refusal.value.errors()
        assert error["loc"] == path


class TestAnswer:
    EVENTS = (
        PromptEvent(prompt_tokens=4),
        ChunkEvent(index=1, text="반", completion_tokens=1),
        ChunkEvent(index=0, text="네", completion_tokens=1),
        ChunkEvent(index=0, text=".", completion_tokens=2, finish_reason="stop"),
        ChunkEvent(index=1, text="가워", completion_tokens=2, finish_reason="length"),
        UsageEvent(prompt_tokens=4, completion_tokens=4),
    )

    def test_joins_the_chunks_of_each_choice(self):
        writer = ChatWriter(request(n=2), HEAD)
        pieces = [piece for event in self.EVENTS for piece in writer.pieces(0, event)]
        whole = writer.whole(pieces, Usage.of(prompt_tokens=4, completion_tokens=4))
        completion = openai.types.chat.ChatCompletion.model_validate_json(whole.model_dump_json())
        assert [(c.index, c.message.content, c.finish_reason) for c in completion.choices] == [
            (0, "네.", "stop"),
            (1, "반가워", "length"),
        ]
        assert completion.choices[0].message.role == "assistant"
        assert completion.choices[0].logprobs is None
        assert completion.usage is not None
        assert completion.usage.total_tokens == 8

    def test_a_stream_names_the_role_first_and_leaves_out_what_it_does_not_add(self):
        writer = ChatWriter(request(), HEAD)
        chunks = [writer.chunk([piece]) for event in self.EVENTS for piece in writer.pieces(0, event)]
        parsed = [
            openai.types.chat.ChatCompletionChunk.model_validate_json(chunk.model_dump_json()) for chunk in chunks
        ]
        assert parsed[0].choices[0].delta.role == "assistant"
        assert "".join(c.choices[0].delta.content or "" for c in parsed if c.choices[0].index == 0) == "네."
        later = json.loads(chunks[2].model_dump_json())
        assert later["choices"][0]["delta"] == {"content": "네"}
        assert later["choices"][0]["finish_reason"] is None
        assert "usage" not in later

    def test_logprobs_hold_exact_bytes(self):
        part = list("예".encode()[:2])
        top = [TopToken(id=1, text="�", bytes=part, logprob=-0.5), TopToken(id=2, text="네", bytes=[1], logprob=-1.0)]
        chosen = TokenLogprob(id=1, text="�", bytes=part, logprob=-0.5, top=top)
        writer = ChatWriter(request(logprobs=True, top_logprobs=2), HEAD)
        event = ChunkEvent(index=0, text="", completion_tokens=1, tokens=[chosen], finish_reason="length")
        whole = writer.whole(list(writer.pieces(0, event)), Usage.of(prompt_tokens=1, completion_tokens=1))
        completion = openai.types.chat.ChatCompletion.model_validate_json(whole.model_dump_json())
        logprobs = completion.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        (entry,) = logprobs.content
        assert (entry.bytes, entry.logprob) == (part, -0.5)
        assert [(other.token, other.bytes) for other in entry.top_logprobs] == [("�", part), ("네", [1])]
