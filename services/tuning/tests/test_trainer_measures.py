"""How answers are judged and steps are made, against what was counted by hand or by the library that defines it."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import sacrebleu
from hunmin_tuning.trainer.answers import Answer
from hunmin_tuning.trainer.evaluation import evaluate
from hunmin_tuning.trainer.order import epoch_batches, learning_rate
from hunmin_tuning.trainer.preparation import Question
from hypothesis import given
from hypothesis import strategies as st


def judged(wanted: list[str], given: list[str], *, are_labels: bool = False):
    questions = [Question([1], [2, 3], reference) for reference in wanted]
    return evaluate(questions, [Answer(3.0, 2, text) for text in given], are_labels=are_labels)


class TestEvaluation:
    def test_of_labels_is_accuracy_and_macro_f1(self) -> None:
        found = judged(["a", "a", "a", "b", "b", "c"], ["a", "a", "b", "b", "c", "c"], are_labels=True)
        # a: precision 1, recall 2/3; b: 1/2 and 1/2; c: 1/2 and 1.
        assert found.macro_f1 == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
        assert found.accuracy == pytest.approx(4 / 6)
        assert (found.rows, found.loss, found.exact_match, found.bleu) == (6, 1.5, None, None)

    def test_counts_labels_that_are_only_given_or_only_wanted(self) -> None:
        assert judged(["a", "a", "b"], ["a", "c", "c"], are_labels=True).macro_f1 == pytest.approx((2 / 3 + 0 + 0) / 3)

    def test_of_texts_is_exact_match_less_space_at_the_ends(self) -> None:
        found = judged(["영화가 좋다", "나쁘다", "보통이다"], [" 영화가 좋다\n", "나쁘다!", "보통 이다"])
        assert (found.exact_match, found.accuracy, found.macro_f1) == (pytest.approx(1 / 3), None, None)

    def test_bleu_is_that_of_sacrebleu_over_morphemes(self) -> None:
        wanted = ["영화가 정말 재미있었다", "배우가 연기를 잘했다", "음악이 좋았다"]
        given = ["영화가 재미있었다", "배우가 노래를 잘했다", "음악이 좋았다"]
        cut = {
            "영화가 정말 재미있었다": "영화 가 정말 재미있 었 다",
            "배우가 연기를 잘했다": "배우 가 연기 를 잘 했 다",
            "음악이 좋았다": "음악 이 좋 았 다",
            "영화가 재미있었다": "영화 가 재미있 었 다",
            "배우가 노래를 잘했다": "배우 가 노래 를 잘 했 다",
        }
        told = sacrebleu.corpus_bleu(
            [cut[text] for text in given], [[cut[text] for text in wanted]], tokenize="none", force=True
        )
        assert 20 < told.score < 90
        assert judged(wanted, given).bleu == pytest.approx(told.score)
        assert judged(wanted, wanted).bleu == pytest.approx(100)


class TestLearningRate:
    def test_rises_then_falls_to_a_tenth(self) -> None:
        rates = [learning_rate(step, 20, peak=1.0, warmup=0.25) for step in range(21)]
        assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
        assert [one - other for one, other in pairwise(rates[5:])] == pytest.approx([0.06] * 15)
        assert rates[20] == pytest.approx(0.1)  # which a step behind the last would have

    @pytest.mark.parametrize(("warmup", "first", "last"), [(0.0, 1.0, 0.19), (1.0, 0.1, 1.0)])
    def test_may_only_fall_or_only_rise(self, warmup: float, first: float, last: float) -> None:
        rates = [learning_rate(step, 10, peak=1.0, warmup=warmup) for step in range(10)]
        assert (rates[0], rates[-1]) == (pytest.approx(first), pytest.approx(last))


class TestOrder:
    @given(st.lists(st.integers(1, 300), min_size=1, max_size=300), st.integers(1, 17), st.integers(0, 9))
    def test_has_every_row_once_in_steps_of_one_size(self, lengths: list[int], size: int, epoch: int) -> None:
        batches = epoch_batches(lengths, size, seed=7, epoch=epoch)
        assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
        assert len(batches) == -(-len(lengths) // size)
        assert sorted(len(batch) for batch in batches)[1:] == [size] * (len(batches) - 1)

    def test_puts_rows_of_like_length_together_in_random_order(self) -> None:
        lengths = [(number * 37) % 64 for number in range(64)]
        batches = [[lengths[row] for row in batch] for batch in epoch_batches(lengths, 4, seed=0, epoch=0)]
        assert sorted(batches) == [list(range(start, start + 4)) for start in range(0, 64, 4)]
        assert batches != sorted(batches)

    def test_sorts_a_part_at_a_time_so_that_an_epoch_mixes_them_anew(self) -> None:
        lengths = list(range(256))
        batches = [sorted(batch) for batch in epoch_batches(lengths, 4, seed=0, epoch=0)]
        assert max(batch[-1] - batch[0] for batch in batches) < 64  # at random it is 154 on average
        assert any(batch[-1] - batch[0] > 3 for batch in batches)

    @pytest.mark.parametrize("other", [{"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1}])
    def test_is_a_function_of_seed_and_epoch(self, other: dict[str, int]) -> None:
        lengths = [number % 50 for number in range(200)]
        order: Callable[..., list[list[int]]] = epoch_batches
        assert order(lengths, 8, seed=0, epoch=0) == order(lengths, 8, seed=0, epoch=0) != order(lengths, 8, **other)
