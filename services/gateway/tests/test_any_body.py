"""Whatever a client sends is refused by the dialect, or is a request that the generation service takes. No I/O."""

import json

import pytest
from hunmin_contracts.errors import HunminError
from hunmin_contracts.generation import GenerateRequest
from hunmin_contracts.ids import AccountId
from hunmin_gateway.clova.chat import ChatRequest, ThirdChatRequest
from hunmin_gateway.clova.completion import CompletionRequest as ClovaCompletionRequest
from hunmin_gateway.openai.chat import ChatCompletionRequest
from hunmin_gateway.openai.completion import CompletionRequest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 25),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner))
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"])},
        optional={"content": st.text(max_size=5) | VALUES, "name": VALUES, "tool_calls": VALUES},
    ),
    max_size=3,
)

MODEL = {"model": "m"}
SAID = {"messages": [{"role": "user", "content": "a"}]}
PENALTIES = st.floats(0, 10)


def bodies(kind: type, always: dict, **likely: st.SearchStrategy) -> st.SearchStrategy[dict]:
    """Bodies with some of the parameters of `kind`, the likely ones mostly right, the others mostly not."""
    names = st.sampled_from(sorted(field.alias or name for name, field in kind.model_fields.items()))
    return st.builds(
        lambda some, good: always | good | some,
        st.dictionaries(names, VALUES, max_size=2),
        st.fixed_dictionaries({}, optional=likely),
    )


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CompletionRequest, bodies(CompletionRequest, MODEL, prompt=VALUES | st.text(), n=st.integers(1, 16))),
        (ChatCompletionRequest, bodies(ChatCompletionRequest, MODEL, messages=MESSAGES, logprobs=st.booleans())),
    ],
    ids=["completions", "chat"],
)
def test_is_refused_or_is_a_request(kind, body):
    @settings(max_examples=400, deadline=None)
    @given(body)
    def check(sent: dict) -> None:
        try:
            request = kind.model_validate(json.loads(json.dumps(sent)))
        except ValidationError:
            return
        for asked in request.generate_requests(AccountId("acct_1")):
            assert GenerateRequest.model_validate_json(asked.model_dump_json()) == asked

    check()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ChatRequest, bodies(ChatRequest, SAID, messages=MESSAGES, repeatPenalty=PENALTIES)),
        (ThirdChatRequest, bodies(ThirdChatRequest, SAID, messages=MESSAGES, repetitionPenalty=PENALTIES)),
        (ClovaCompletionRequest, bodies(ClovaCompletionRequest, {"text": "a"}, start=st.text(), restart=st.text())),
    ],
    ids=["chat", "chat v3", "completions"],
)
def test_of_clova_studio_is_refused_or_is_a_request(kind, body):
    @settings(max_examples=400, deadline=None)
    @given(body)
    def check(sent: dict) -> None:
        try:
            request = kind.model_validate(json.loads(json.dumps(sent)))
            asked = request.generate_request(AccountId("acct_1"), "m", request.drawn_seed())
        except (ValidationError, HunminError):
            return
        assert GenerateRequest.model_validate_json(asked.model_dump_json()) == asked

    check()
