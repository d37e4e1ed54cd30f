"""What goes into the training text, and what must never."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hunmin_training.corpus import Document, duplicate_key, is_held_out, read_chat, read_lines, read_ratings, select


def reviews(*texts: str) -> list[Document]:
    return [Document("reviews", text) for text in texts]


def first_text(claim: Callable[[str], bool]) -> str:
    return next(text for text in (f"영화 {number}번" for number in range(10_000)) if claim(text))


TRAINED_ON = first_text(lambda text: not is_held_out(text))
HELD_OUT = first_text(is_held_out)


@pytest.mark.parametrize("variant", ["재밌어요", "재밌어요!!", " 재밌 어요 ~", "재밌어요^^"])
def test_texts_that_differ_in_punctuation_and_spaces_alone_count_once(variant: str) -> None:
    train, held_out, _ = select(reviews("재밌어요", variant), excluded=set(), repeat={})
    assert len(train) + len(held_out) == 1


def test_texts_of_punctuation_alone_are_kept_apart() -> None:
    assert duplicate_key("!!!") != duplicate_key("???")


def test_test_reviews_are_left_out_in_any_punctuation() -> None:
    train, held_out, counts = select(reviews(f"{TRAINED_ON}!!"), excluded={duplicate_key(TRAINED_ON)}, repeat={})
    assert (train, held_out, counts["reviews.in_test_set"]) == ([], [], 1)


def test_held_out_reviews_are_not_trained_on() -> None:
    train, held_out, _ = select(reviews(HELD_OUT, TRAINED_ON, HELD_OUT), excluded=set(), repeat={})
    assert (train, held_out) == ([TRAINED_ON], [HELD_OUT])


def test_about_one_percent_is_held_out() -> None:
    assert 60 < sum(is_held_out(f"영화 {number}번") for number in range(10_000)) < 140


def test_chat_pairs_are_repeated_and_never_held_out() -> None:
    train, held_out, _ = select([Document("chat", HELD_OUT)], excluded=set(), repeat={"chat": 3})
    assert (train, held_out) == ([HELD_OUT] * 3, [])


def test_files_are_read_as_published(tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("좋다 \n\n나쁘다\n", encoding="utf-8")
    (tmp_path / "ratings.txt").write_text('id\tdocument\tlabel\n1\t"따옴표\t1\n2\t\t0\n', encoding="utf-8")
    (tmp_path / "chat.csv").write_text('Q,A,label\n"안녕, 너",반가워요.,0\n', encoding="utf-8")
    assert list(read_lines(tmp_path / "reviews.txt")) == ["좋다", "나쁘다"]
    assert list(read_ratings(tmp_path / "ratings.txt")) == ['"따옴표']
    assert list(read_chat(tmp_path / "chat.csv")) == ["질문: 안녕, 너\n답변: 반가워요."]
