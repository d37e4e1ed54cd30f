"""`decode(encode(text)) == text`, for every text."""

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.training import Method
from hypothesis import given
from hypothesis import strategies as st

from .strategies import HARD

CHOSEN = [
    "",
    " ",
    " " * 1000,
    "  두  칸  ",
    "\t\n\r\n \x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2028\u2029\u3000",
    "ㄱㄴㄷ ㅏㅑ ㅋㅋㅋㅋ ㅠㅠ",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",  # 한글, decomposed
    "\u1112\u1161 \u11ab",
    "👨‍👩‍👧‍👦 🇰🇷 👍🏽 ❤️",
    "한글English漢字かなカナРусский",
    "가" * 1000 + "뷁" * 300,
    "a" * 1000,
    "\x00\x00 \x00가\x00",
    "\ufeff\u200b\u200d\ufffd\uffff\U0010ffff",
]


@pytest.mark.parametrize("method", [Method.MORPHEME, Method.BYTE])
@pytest.mark.parametrize("text", CHOSEN)
def test_chosen_texts_come_back(tokenizers: dict[Method, Tokenizer], method: Method, text: str) -> None:
    tokenizer = tokenizers[method]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("method", [Method.MORPHEME, Method.BYTE])
@given(text=HARD)
def test_any_text_comes_back(tokenizers: dict[Method, Tokenizer], method: Method, text: str) -> None:
    tokenizer = tokenizers[method]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=HARD)
def test_the_character_method_loses_only_rare_characters(tokenizers: dict[Method, Tokenizer], text: str) -> None:
    tokenizer = tokenizers[Method.CHARACTER]
    known = set(tokenizer.vocabulary.texts)
    expected = "".join(letter if letter in known else "\N{REPLACEMENT CHARACTER}" for letter in text)
    assert tokenizer.decode(tokenizer.encode(text)) == expected


@pytest.mark.parametrize("method", list(Method))
def test_a_special_token_that_is_typed_is_ordinary_text(tokenizers: dict[Method, Tokenizer], method: Method) -> None:
    tokenizer = tokenizers[method]
    ids = tokenizer.encode("<|endoftext|> 그리고 <|pad|>")
    assert tokenizer.vocabulary.special_ids.isdisjoint(ids)


@pytest.mark.parametrize("method", [Method.MORPHEME, Method.BYTE])
def test_a_marked_text_has_its_special_tokens_by_id(tokenizers: dict[Method, Tokenizer], method: Method) -> None:
    tokenizer = tokenizers[method]
    marked = tokenizer.encode_marked("영화<|endoftext|> 그리고<|pad|>")
    assert marked == [*tokenizer.encode("영화"), tokenizer.eos_id, *tokenizer.encode(" 그리고"), tokenizer.pad_id]


@pytest.mark.parametrize("method", list(Method))
def test_special_tokens_decode_to_nothing_and_have_fixed_ids(
    tokenizers: dict[Method, Tokenizer], method: Method
) -> None:
    tokenizer = tokenizers[method]
    assert (tokenizer.eos_id, tokenizer.pad_id) == (0, 1)
    assert tokenizer.decode([0, *tokenizer.encode("영화"), 1]) == "영화"
    assert (tokenizer.token_text(0), tokenizer.token_bytes(0)) == ("<|endoftext|>", b"")


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("text", ["\ud800", "가\udc80나", "😀\udfff"])
def test_a_lone_surrogate_is_refused(tokenizers: dict[Method, Tokenizer], method: Method, text: str) -> None:
    for encode in (tokenizers[method].encode, tokenizers[method].encode_with_offsets):
        with pytest.raises(HunminError, match="lone surrogate") as caught:
            encode(text)
        assert caught.value.code is ErrorCode.INVALID_REQUEST


@given(texts=st.lists(HARD, max_size=5))
def test_a_batch_is_its_texts_one_by_one(morpheme: Tokenizer, texts: list[str]) -> None:
    assert morpheme.encode_batch(texts) == [morpheme.encode(text) for text in texts]
