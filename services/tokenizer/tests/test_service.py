"""The service over HTTP, with the starter's tokenizer and a foreign one."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.schema import Empty
from hunmin_contracts.tokenization import (
    COUNT,
    DECODE,
    ENCODE,
    MORPHEMES,
    TOKENIZERS,
    CountRequest,
    DecodeRequest,
    EncodeRequest,
    MorphemesRequest,
)
from hunmin_kit.run.errors import StartError
from hunmin_kit.testing import Running, running
from hunmin_kit.web import Client
from hunmin_text.artefact import load
from hunmin_text.training import Method, train
from hunmin_tokenizer.service import SERVICE

STARTER = Path(__file__).parents[3] / "training" / "models" / "starter"
TEXT = "이 영화는 정말 재미있었습니다! 👍🏽\n\tㅋㅋㅋ \u1112\u1161\u11ab"
SMALL = {
    "HUNMIN_TOKENIZER_MAX_CHARACTERS": "5000",
    "HUNMIN_TOKENIZER_MAX_TEXTS": "3",
    "HUNMIN_TOKENIZER_MAX_IDS": "9000",
}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: plain byte-level BPE."""
    folder = tmp_path_factory.mktemp("foreign")
    train(Method.BYTE, ["영화는 정말 재미있었습니다"] * 9, vocab_size=290).backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


@pytest.fixture
async def service(foreign: Path) -> AsyncIterator[Running]:
    """The service with small limits."""
    models = json.dumps({"starter": str(STARTER), "foreign": str(foreign)})
    async with running(SERVICE, env=SMALL | {"HUNMIN_TOKENIZER_MODELS": models}) as services:
        yield services


@pytest.fixture
def client(service: Running) -> Client:
    """A client of the service."""
    return service.client("tokenizer")


@pytest.fixture
def http(service: Running) -> httpx.AsyncClient:
    """A bare HTTP client on the service."""
    return service.http("tokenizer")


@pytest.mark.parametrize("name", ["starter", "foreign"])
@pytest.mark.parametrize("text", [TEXT, "", " ", "긴 글 " * 1000])
async def test_encode_and_decode_are_a_round_trip(client: Client, name: str, text: str) -> None:
    encoded = await client.call(ENCODE, EncodeRequest(tokenizer=name, text=text))
    decoded = await client.call(DECODE, DecodeRequest(tokenizer=name, ids=encoded.ids))
    assert decoded.text == text
    assert len(encoded.offsets) == len(encoded.ids)


async def test_the_service_says_what_the_library_says(client: Client) -> None:
    expected = load(STARTER).encode_with_offsets(TEXT)
    encoded = await client.call(ENCODE, EncodeRequest(tokenizer="starter", text=TEXT))
    assert (encoded.ids, encoded.offsets) == (expected.ids, expected.offsets)


async def test_counts_come_in_the_order_of_the_texts(client: Client) -> None:
    counted = await client.call(COUNT, CountRequest(tokenizer="starter", texts=[TEXT, "", "영화"]))
    assert counted.counts == [len(load(STARTER).encode(TEXT)), 0, 1]
    assert (await client.call(COUNT, CountRequest(tokenizer="starter", texts=[]))).counts == []


async def test_each_token_has_its_morpheme(client: Client) -> None:
    seen = await client.call(MORPHEMES, MorphemesRequest(tokenizer="starter", text="극장에서는 뷁  좋았다!"))
    rows = [(token.text, token.morpheme, token.pos, token.morpheme_span) for token in seen.tokens]
    assert rows == [
        ("극장", "극장", "NNG", (0, 2)),
        ("에서", "에서", "JKB", (2, 4)),
        ("는", "는", "JX", (4, 5)),
        (" 뷁", "뷁", "NNP", (6, 7)),
        ("뷁", "뷁", "NNP", (6, 7)),
        ("뷁", "뷁", "NNP", (6, 7)),
        (" ", None, None, None),
        (" 좋", "좋", "VA", (9, 10)),
        ("았", "았", "EP", (10, 11)),
        ("다", "다", "EC", (11, 12)),
        ("!", "!", "SF", (12, 13)),
    ]


async def test_a_token_that_crosses_a_boundary_has_no_morpheme(client: Client) -> None:
    seen = await client.call(MORPHEMES, MorphemesRequest(tokenizer="foreign", text="영화는 정말"))
    assert [(token.text, token.morpheme) for token in seen.tokens] == [("영화는", None), (" 정말", "정말")]


async def test_the_list_names_every_tokenizer(client: Client) -> None:
    listed = (await client.call(TOKENIZERS, Empty())).tokenizers
    assert [(info.name, info.method, info.vocab_size) for info in listed] == [
        ("foreign", "huggingface", 290),
        ("starter", "morpheme", 8192),
    ]
    assert listed[1].digest == load(STARTER).digest


async def test_an_unknown_tokenizer_is_not_found(client: Client) -> None:
    with pytest.raises(HunminError, match="There are: foreign, starter") as caught:
        await client.call(ENCODE, EncodeRequest(tokenizer="other", text="영화"))
    assert caught.value.code is ErrorCode.NOT_FOUND


async def test_an_id_outside_the_vocabulary_is_refused(client: Client) -> None:
    with pytest.raises(HunminError, match="8192") as caught:
        await client.call(DECODE, DecodeRequest(tokenizer="starter", ids=[8192]))
    assert caught.value.code is ErrorCode.INVALID_REQUEST


async def test_too_much_is_refused_with_the_limit(client: Client) -> None:
    for call, said in [
        (client.call(ENCODE, EncodeRequest(tokenizer="starter", text="가" * 5001)), "5,001 characters, at most 5,000"),
        (client.call(MORPHEMES, MorphemesRequest(tokenizer="starter", text="가" * 5001)), "at most 5,000"),
        (client.call(COUNT, CountRequest(tokenizer="starter", texts=["가" * 2501] * 2)), "5,002 characters"),
        (client.call(COUNT, CountRequest(tokenizer="starter", texts=["가"] * 4)), "4 texts, at most 3"),
        (client.call(DECODE, DecodeRequest(tokenizer="starter", ids=[5] * 9001)), "9,001 ids, at most 9,000"),
    ]:
        with pytest.raises(HunminError, match=said) as caught:
            await call
        assert caught.value.code is ErrorCode.TOO_LARGE


@pytest.mark.parametrize("path", ["/v1/encode", "/v1/morphemes"])
async def test_a_lone_surrogate_is_a_400(http: httpx.AsyncClient, path: str) -> None:
    body = '{"tokenizer": "starter", "text": "\\ud800"}'
    reply = await http.post(path, content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert reply.headers["content-type"] == "application/problem+json"


async def test_an_unknown_field_is_a_400_that_names_it(http: httpx.AsyncClient) -> None:
    reply = await http.post("/v1/encode", json={"tokenizer": "starter", "text": "가", "trim": True})
    assert (reply.status_code, reply.json()["code"]) == (400, "unknown_parameter")
    assert "trim" in reply.json()["detail"]


async def test_a_large_text_does_not_hold_up_a_small_one(foreign: Path) -> None:
    large = " ".join(f"낱말{number}에서는" for number in range(30_000))
    models = json.dumps({"starter": str(STARTER)})
    async with running(SERVICE, env={"HUNMIN_TOKENIZER_MODELS": models}) as services:
        client = services.client("tokenizer")
        slow = asyncio.create_task(client.call(COUNT, CountRequest(tokenizer="starter", texts=[large])))
        await asyncio.sleep(0)
        quick = await client.call(COUNT, CountRequest(tokenizer="starter", texts=["영화"]))
        assert quick.counts == [1]
        assert not slow.done()
        assert (await slow).counts[0] > 30_000


async def test_a_folder_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    models = json.dumps({"starter": str(tmp_path)})
    with pytest.raises(StartError, match=r"HUNMIN_TOKENIZER_MODELS.*tokenizer\.json does not exist"):
        async with running(SERVICE, env={"HUNMIN_TOKENIZER_MODELS": models}):
            pytest.fail("the service started")
