"""Whatever a client sends is refused by the dialect, or is a request that the generation service takes. No I/O."""

import json

import pytest
from hunmin_contracts.generation import GenerateRequest
from hunmin_contracts.ids import AccountId
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


def bodies(kind: type, **likely: st.SearchStrategy) -> st.SearchStrategy[dict]:
    """Bodies with some of the parameters of `kind`, the likely ones mostly right, the others mostly not."""
    names = st.sampled_from(sorted(kind.model_fields))
    return st.builds(
        lambda some, good: {"model": "m"} | good | some,
        st.dictionaries(names, VALUES, max_size=2),
        st.fixed_dictionaries({}, optional=likely),
    )


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CompletionRequest, bodies(CompletionRequest, prompt=VALUES | st.text(), n=st.integers(1, 16))),
        (ChatCompletionRequest, bodies(ChatCompletionRequest, messages=MESSAGES, logprobs=st.booleans())),
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
