"""A stream of tokens, decoded one by one, gives the text of the whole, as early as UTF-8 allows."""

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.training import Method
from hypothesis import given
from hypothesis import strategies as st

from .strategies import HARD

ANY_IDS = st.lists(st.integers(0, 399), max_size=30)


@pytest.mark.parametrize("method", list(Method))
@given(ids=ANY_IDS)
def test_pushes_join_to_the_text_even_of_ids_that_are_no_utf8(
    tokenizers: dict[Method, Tokenizer], method: Method, ids: list[int]
) -> None:
    tokenizer = tokenizers[method]
    ids = [token_id % tokenizer.vocab_size for token_id in ids]
    decoder = tokenizer.decoder()
    pushed = "".join([decoder.push(token_id) for token_id in ids]) + decoder.flush()
    whole = b"".join(tokenizer.token_bytes(token_id) for token_id in ids).decode("utf-8", "replace")
    assert pushed == tokenizer.decode(ids) == whole


@given(text=HARD)
def test_every_finished_character_is_out_at_once(morpheme: Tokenizer, text: str) -> None:
    encoding = morpheme.encode_with_offsets(text)
    decoder = morpheme.decoder()
    out = ""
    begun = b""
    for token_id in encoding.ids:
        out += decoder.push(token_id)
        begun += morpheme.token_bytes(token_id)
        assert out == begun.decode("utf-8", "ignore")
    assert decoder.flush() == ""


def test_only_an_unfinished_character_waits(morpheme: Tokenizer) -> None:
    decoder = morpheme.decoder()
    byte_ids = [morpheme.vocabulary.bytes_of.index(bytes([byte])) for byte in " 가".encode()]
    assert [decoder.push(token_id) for token_id in byte_ids] == [" ", "", "", "가"]
    assert decoder.push(byte_ids[1]) == ""
    assert decoder.flush() == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("token_id", [-1, 400, 10**9])
def test_an_id_outside_the_vocabulary_is_refused(morpheme: Tokenizer, token_id: int) -> None:
    with pytest.raises(HunminError, match="not in the vocabulary") as caught:
        morpheme.decode([2, token_id])
    assert caught.value.code is ErrorCode.INVALID_REQUEST
