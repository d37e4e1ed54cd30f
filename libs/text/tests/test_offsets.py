"""Each token knows the characters of the text that it covers."""

import pytest
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.training import Method
from hypothesis import given

from .strategies import HARD


@pytest.mark.parametrize("method", [Method.MORPHEME, Method.BYTE])
@given(text=HARD)
def test_the_characters_under_a_token_hold_its_bytes(
    tokenizers: dict[Method, Tokenizer], method: Method, text: str
) -> None:
    tokenizer = tokenizers[method]
    encoding = tokenizer.encode_with_offsets(text)
    assert encoding.ids == tokenizer.encode(text)
    for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        assert tokenizer.token_bytes(token_id) in text[start:end].encode()


@pytest.mark.parametrize("method", list(Method))
@given(text=HARD)
def test_offsets_cover_the_text_in_order(tokenizers: dict[Method, Tokenizer], method: Method, text: str) -> None:
    offsets = tokenizers[method].encode_with_offsets(text).offsets
    covered = 0
    for start, end in offsets:
        assert start < end
        assert start in (covered, covered - 1)  # a token may begin inside the character where the last one ended
        covered = end
    assert covered == len(text)


def test_parts_of_one_character_each_cover_it(morpheme: Tokenizer) -> None:
    encoding = morpheme.encode_with_offsets("a😀b")
    assert encoding.offsets == [(0, 1), (1, 2), (1, 2), (1, 2), (1, 2), (2, 3)]
