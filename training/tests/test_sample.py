"""Which reviews ship, and that they are those of a file that no model was trained on."""

import os
from pathlib import Path

import pytest
from hunmin_training.evaluate import read_labelled
from hunmin_training.sample import draw

SHIPPED = Path(__file__).parents[2] / "services/tuning/hunmin_tuning/products/sentiment/sample.tsv"
LABELLED = [(f"영화 {number}번", number % 2) for number in range(100)]


def test_each_label_has_its_half_in_an_order_of_its_own() -> None:
    drawn = draw(LABELLED, 20)
    assert [label for _, label in drawn].count(1) == 10
    assert set(drawn) < set(LABELLED)
    assert drawn == draw(LABELLED[::-1], 20) != sorted(drawn)


def test_doubles_personal_data_and_formulas_stay_out() -> None:
    unfit = [("영화 7번!!", 0), ("010-1234-5678로 전화해", 1), ("=SUM(A1)", 0)]
    assert set(draw(LABELLED + unfit, 100)) == set(LABELLED)
    with pytest.raises(SystemExit, match="of 102 rows there are 100"):
        draw(LABELLED + unfit, 102)


def test_the_sample_that_ships_is_drawn_from_the_excluded_file() -> None:
    if "HUNMIN_DATA" not in os.environ:
        pytest.skip("HUNMIN_DATA does not say where nsmc/ lies")
    rows = read_labelled(Path(os.environ["HUNMIN_DATA"]) / "nsmc" / "ratings_test.txt")
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    assert lines == ["document\tlabel", *(f"{review}\t{label}" for review, label in draw(rows, 6_500))]
