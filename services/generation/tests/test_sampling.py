"""Sampling: the right distribution, reproducible, and the same whoever else is in the batch."""

import math
from array import array

import pytest
import torch
from hunmin_contracts.generation import Sampling
from hunmin_generation.engine.sampler import Draw, sample, score, uniform
from hunmin_generation.engine.sequence import Sequence

GREEDY = Sampling(temperature=0)
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


def draw(
    sampling: Sampling, *, seed: int = 0, prompt: list[int] | None = None, completion: list[int] | None = None
) -> Draw:
    tokens = [*(prompt or [0]), *(completion or [])]
    return Draw(Sequence(tokens=array("q", tokens), prompt_length=len(prompt or [0]), max_length=100), sampling, seed)


def tokens(logits: torch.Tensor, draws: list[Draw]) -> list[int | None]:
    return [choice.token for choice in sample(logits, draws)]


def frequencies(logits: torch.Tensor, sampling: Sampling, *, count: int = 4000) -> torch.Tensor:
    """Draw once with each of `count` seeds and return how often each token came."""
    found = tokens(logits.expand(count, -1), [draw(sampling, seed=seed) for seed in range(count)])
    return torch.bincount(torch.tensor(found), minlength=len(logits)) / count


class TestDistribution:
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
    def test_follows_the_softmax_at_each_temperature(self, temperature: float) -> None:
        found = frequencies(LOGITS, Sampling(temperature=temperature))
        assert (found - (LOGITS / temperature).softmax(-1)).abs().max() < 4 * 0.5 / math.sqrt(4000)

    def test_top_k_keeps_the_k_best_in_proportion(self) -> None:
        found = frequencies(LOGITS, Sampling(top_k=2))
        assert found[2:].sum() == 0
        assert abs(found[0] - LOGITS[:2].softmax(-1)[0]) < 4 * 0.5 / math.sqrt(4000)

    def test_top_p_keeps_the_least_that_reach_it(self) -> None:
        cumulative = LOGITS.softmax(-1).cumsum(-1)
        just_two = (cumulative[0] + cumulative[1]).item() / 2
        found = frequencies(LOGITS, Sampling(top_p=just_two))
        assert found[2:].sum() == 0
        assert abs(found[0] - LOGITS[:2].softmax(-1)[0]) < 4 * 0.5 / math.sqrt(4000)

    def test_a_tiny_top_p_is_greedy(self) -> None:
        assert frequencies(LOGITS, Sampling(top_p=1e-6), count=100)[0] == 1

    def test_top_p_counts_within_top_k(self) -> None:
        pair = LOGITS[:2].softmax(-1)
        assert frequencies(LOGITS, Sampling(top_k=2, top_p=pair[0].item() - 0.01), count=200)[0] == 1
        assert frequencies(LOGITS, Sampling(top_k=2, top_p=pair[0].item() + 0.01), count=200)[1] > 0

    def test_a_top_k_above_the_vocabulary_is_none_also_where_rounding_misses_top_p(self) -> None:
        logits = torch.randn(200, 290, generator=torch.Generator().manual_seed(0))
        found = {
            top_k: tokens(logits, [draw(Sampling(top_k=top_k, top_p=1 - 1e-12), seed=seed) for seed in range(200)])
            for top_k in (0, 290, 1000)
        }
        assert found[1000] == found[290] == found[0]
        assert min(found[1000]) >= 0

    @pytest.mark.parametrize("top_k", [0, 3])
    def test_a_tiny_temperature_is_greedy(self, top_k: int) -> None:
        assert frequencies(LOGITS, Sampling(temperature=1e-40, top_k=top_k), count=100)[0] == 1

    @pytest.mark.parametrize("top_k", [0, 300, 2000])
    def test_a_flat_distribution_needs_more_than_the_first_candidates(self, top_k: int) -> None:
        logits = torch.linspace(1, 0, 1000)
        found = frequencies(logits, Sampling(top_p=0.9, top_k=top_k), count=2000)
        kept = logits[: top_k or 1000].softmax(-1)
        allowed = int((kept.cumsum(-1) - kept < 0.9).sum())
        assert found[allowed:].sum() == 0
        assert found[256:allowed].sum() > 0

    def test_random_numbers_are_even_and_differ_by_seed_and_place(self) -> None:
        numbers = [uniform(seed, place) for seed in (-5, 0, 1, 2**62) for place in range(1000)]
        assert all(0 <= number < 1 for number in numbers)
        assert len(set(numbers)) == len(numbers)
        assert abs(sum(numbers) / len(numbers) - 0.5) < 0.02


class TestIndependence:
    KINDS = (
        GREEDY,
        Sampling(),
        Sampling(top_k=5),
        Sampling(top_p=0.7),
        Sampling(top_k=400, top_p=0.99),
        Sampling(temperature=0.3, repetition_penalty=1.3),
        Sampling(temperature=0, frequency_penalty=1.5, presence_penalty=0.5),
    )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_row_gives_the_same_alone_and_among_others(self, dtype: torch.dtype) -> None:
        logits = torch.randn(70, 1000, generator=torch.Generator().manual_seed(3)).mul(2).to(dtype)
        draws = [
            draw(self.KINDS[i % 7], seed=i, prompt=[i, 5, 9], completion=[5, 5, i + 1][: i % 4]) for i in range(70)
        ]
        assert tokens(logits, draws) == [tokens(logits[i : i + 1], [draws[i]])[0] for i in range(70)]

    def test_the_place_in_the_completion_moves_the_draw(self) -> None:
        logits = torch.zeros(1, 1000)
        found = {tokens(logits, [draw(Sampling(), completion=[1] * length)])[0] for length in range(8)}
        assert len(found) > 1


class TestPenalties:
    def penalised(self, sampling: Sampling) -> Draw:
        return draw(sampling, prompt=[0, 4, 4], completion=[1, 1, 2])

    def test_repetition_divides_and_multiplies_what_occurred(self) -> None:
        logits = torch.tensor([[2.0, 1.9, 0.5, 1.5, -1.0, 1.6]])
        assert tokens(logits, [self.penalised(Sampling(temperature=0, repetition_penalty=1.2))]) == [0]
        assert tokens(logits, [self.penalised(Sampling(temperature=0, repetition_penalty=1.5))]) == [5]

    def test_frequency_counts_the_completion_only(self) -> None:
        logits = torch.tensor([[1.0, 1.9, 1.7, 0.0, 0.9, 0.0]])
        assert tokens(logits, [self.penalised(Sampling(temperature=0, frequency_penalty=0.3))]) == [2]
        assert tokens(logits, [self.penalised(Sampling(temperature=0, frequency_penalty=1.0))]) == [0]

    def test_presence_counts_a_token_once(self) -> None:
        logits = torch.tensor([[1.0, 1.9, 1.7, 0.0, 0.9, 0.0]])
        assert tokens(logits, [self.penalised(Sampling(temperature=0, presence_penalty=0.5))]) == [1]

    def test_a_negative_penalty_rewards(self) -> None:
        logits = torch.tensor([[1.0, 0.2, 0.0, 0.0, 0.0, 0.0]])
        assert tokens(logits, [self.penalised(Sampling(temperature=0, frequency_penalty=-0.5))]) == [1]

    def test_the_first_token_has_nothing_to_be_penalised_for(self) -> None:
        assert tokens(LOGITS[None], [draw(Sampling(temperature=0, presence_penalty=2), prompt=[0])]) == [0]


class TestScores:
    def test_are_of_the_model_s_own_distribution(self) -> None:
        sampling = Sampling(temperature=0.1, top_k=1, repetition_penalty=9)
        one = draw(sampling, prompt=[0])
        choice = sample(LOGITS[None], [Draw(one.sequence, sampling, 0, logprobs=2)])[0]
        expected = LOGITS.log_softmax(-1)
        assert choice.token == 1
        assert choice.scored is not None
        assert choice.scored.logprob == pytest.approx(expected[1].item())
        assert [token for token, _ in choice.scored.top] == [0, 1]
        assert [value for _, value in choice.scored.top] == pytest.approx(expected[:2].tolist())

    def test_each_row_gets_as_many_candidates_as_it_asked_for(self) -> None:
        logits = torch.randn(100, 50, generator=torch.Generator().manual_seed(0))
        found = score(logits, [7] * 100, [i % 4 for i in range(100)])
        assert [len(one.top) for one in found] == [i % 4 for i in range(100)]
        assert [one.logprob for one in found] == pytest.approx(logits.log_softmax(-1)[:, 7].tolist(), abs=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_numbers_choose_nothing_for_that_row_alone(value: float) -> None:
    logits = LOGITS.repeat(3, 1)
    logits[1, 3] = value
    assert tokens(logits, [draw(GREEDY), draw(Sampling()), draw(GREEDY)]) == [0, None, 0]
