"""The boundary rule: no token of the morpheme method holds parts of two morphemes.

A token lies inside one piece; a piece is one morpheme with at most one space before it, or a run of one other script,
or spaces. So the only thing that a token may hold besides (part of) a morpheme is the space in front of it.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hunmin_text.morphemes import MAX_RUN
from hunmin_text.pieces import analyse, split_pieces, split_runs
from hunmin_text.tokenizer import Tokenizer
from hypothesis import given

from .conftest import SENTENCES
from .strategies import HARD


def crossings(tokenizer: Tokenizer, texts: Iterable[str]) -> list[tuple[str, str]]:
    """Find tokens that cover characters of more than one morpheme, or of one and of something else than a space."""
    found = []
    for text in texts:
        morphemes = analyse(text)
        owner = {place: number for number, m in enumerate(morphemes) for place in range(m.start, m.end)}
        for start, end in tokenizer.encode_with_offsets(text).offsets:
            owners = {owner.get(place) for place in range(start, end)}
            after_space = {owner.get(place) for place in range(start + (text[start] == " "), end)}
            if len(owners) > 1 and len(after_space) > 1:
                found.append((text[start:end], text))
    return found


@given(text=HARD)
def test_pieces_partition_any_text(text: str) -> None:
    assert "".join(split_runs(text)) == text
    assert "".join(split_pieces(text)) == text
    assert all(0 < len(piece) <= MAX_RUN + 1 for piece in split_pieces(text))


@given(text=HARD)
def test_morphemes_are_the_pieces_without_their_spaces(text: str) -> None:
    morphemes = analyse(text)
    assert all(text[m.start : m.end] == m.surface and m.pos for m in morphemes)
    pieces = [piece.removeprefix(" ") for piece in split_pieces(text)]
    assert [m.surface for m in morphemes] == [piece for piece in pieces if piece and not piece.isspace()]


@given(text=HARD)
def test_no_token_crosses_a_morpheme_boundary(morpheme: Tokenizer, text: str) -> None:
    assert crossings(morpheme, [text]) == []


def test_plain_byte_level_bpe_does_cross(tokenizers: dict[str, Tokenizer]) -> None:
    assert crossings(tokenizers["byte"], SENTENCES) != []


def test_the_starter_crosses_none_on_held_out_reviews(starter: Tokenizer, data: Path) -> None:
    with (data / "nsmc" / "ratings_test.txt").open(encoding="utf-8") as file:
        reviews = [line.split("\t")[1] for line, _ in zip(file, range(3000), strict=False)]
    assert crossings(starter, reviews) == []


def test_a_sentence_is_cut_where_mecab_cuts_each_word() -> None:
    assert split_pieces("극장에서는 영화가 좋았다!") == ["극장", "에서", "는", " 영화", "가", " 좋", "았", "다", "!"]
    assert [m.pos for m in analyse("극장에서는 영화가 좋았다!")] == [
        "NNG",
        "JKB",
        "JX",
        "NNG",
        "JKS",
        "VA",
        "EP",
        "EC",
        "SF",
    ]


def test_a_word_is_cut_alike_wherever_it_stands() -> None:
    alone = split_pieces(" 나는")
    assert split_pieces("하늘을 나는")[-len(alone) :] == alone


@pytest.mark.parametrize("length", [63, 64, 65, 128, 129, 5000])
def test_a_run_without_spaces_is_cut_at_64(length: int) -> None:
    text = "영" * length
    assert "".join(split_pieces(text)) == text
    assert [len(run) for run in split_runs(text)] == [64] * (length // 64) + [length % 64] * (length % 64 > 0)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ab가나12ㅋㅋ?!", ["ab", "가나", "12", "ㅋㅋ", "?!"]),
        ("1234567", ["123", "456", "7"]),
        ("a  b", ["a", " ", " b"]),
        ("a\n\n b", ["a", "\n\n", " b"]),
        ("끝  ", ["끝", "  "]),
        ("café", ["café"]),
        ("\x1f 가", ["\x1f", " 가"]),
    ],
)
def test_each_script_and_spaces_stand_apart(text: str, pieces: list[str]) -> None:
    assert split_pieces(text) == pieces
