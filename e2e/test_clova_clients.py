"""LangChain's clients for CLOVA Studio, unmodified, and its API tools, in both ways to run."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from langchain_naver import ChatClovaX as NaverChat
from langchain_naver import ClovaXEmbeddings

with warnings.catch_warnings():
    # Said at import: its maintainers have left it. What it sends is what older programs send.
    warnings.filterwarnings("ignore", message="`langchain-community` is being sunset", category=DeprecationWarning)
    from langchain_community.chat_models import ChatClovaX as CommunityChat

SAID = [("system", "짧게 답한다."), ("human", "영화 좋아해?")]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what the clients leave open."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture(params=[False, True], ids=["testapp", "serviceapp"])
def community(studio, stack: ExitStack, request: pytest.FixtureRequest) -> CommunityChat:
    """The client of the native paths."""
    chat = CommunityChat(
        base_url=studio.url, api_key=studio.key, model=studio.model, max_tokens=12, service_app=request.param, seed=7
    )
    stack.callback(chat.client.close)
    return chat


def test_the_native_client_streams_what_it_invokes(community):
    whole = community.invoke(SAID)
    pieces = list(community.stream(SAID))
    assert whole.content
    assert "".join(piece.content for piece in pieces) == whole.content
    (told,) = [piece.response_metadata for piece in pieces if "stop_reason" in piece.response_metadata]
    assert told["stop_reason"] == whole.response_metadata["stop_reason"]
    assert told["input_length"] == whole.usage_metadata["input_tokens"]
    assert told["seed"] == 7


def test_the_native_client_raises_an_error_with_its_five_digits(community):
    with pytest.raises(httpx.HTTPStatusError, match="40003"):
        community.invoke([("human", "가나다라마바사 " * 20_000)])


def test_the_other_client_chats_and_embeds(studio, stack: ExitStack):
    base_url = f"{studio.url}/v1/openai"
    chat = NaverChat(base_url=base_url, api_key=studio.key, model=studio.model, max_tokens=12, temperature=0)
    stack.callback(chat.root_client.close)
    whole = chat.invoke(SAID)
    assert "".join(piece.content for piece in chat.stream(SAID)) == whole.content
    embeddings = ClovaXEmbeddings(base_url=base_url, api_key=studio.key, model=studio.model)
    stack.callback(embeddings.client._client.close)
    same, again, other = embeddings.embed_documents(["재미있는 영화", "재미있는 영화", "돈이 아까운 졸작"])
    assert same == again != other
    with studio.client() as openai:
        ours = openai.embeddings.create(model=studio.model, input="재미있는 영화", encoding_format="float")
    assert same == pytest.approx(ours.data[0].embedding, abs=1e-5)


def test_a_chat_that_was_shortened_fits(studio):
    turns = [("user", "이 영화는 어때? " * 8), ("assistant", "배우가 참 좋았어요. " * 8)] * 60
    messages = [{"role": role, "content": content} for role, content in [("system", "짧게 답한다."), *turns]]
    messages.append({"role": "user", "content": "끝"})
    body = {"messages": messages, "maxTokens": 10}
    with studio.http() as http:
        chat = f"/v1/chat-completions/{studio.model}"
        assert http.post(chat, json=body).json()["status"]["code"] == "40003"
        answer = http.post(f"/v1/api-tools/sliding/chat-messages/{studio.model}", json=body)
        kept = answer.json()["result"]["messages"]
        assert kept == [messages[0], *messages[len(messages) - len(kept) + 1 :]]
        assert http.post(chat, json=body | {"messages": kept}).json()["status"]["code"] == "20000"
        one_more = [messages[0], *messages[len(messages) - len(kept) - 1 :]]
        assert http.post(chat, json=body | {"messages": one_more}).json()["status"]["code"] == "40003"


def test_counts_tokens_as_the_tokenizer_does(studio):
    texts = ["짧게 답한다.", "이 영화는 정말 재미있었어요"]
    messages = [{"role": role, "content": text} for role, text in zip(("system", "user"), texts, strict=True)]
    with studio.http() as http:
        answer = http.post(f"/v1/api-tools/chat-tokenize/{studio.model}", json={"messages": messages})
        counted = http.post(f"/studio/v1/tokenizers/{studio.model}/count", json={"texts": texts})
    told = answer.json()["result"]["messages"]
    assert [message["count"] for message in told] == counted.json()["counts"]
