"""Prompt encoders: what they give, and that a seed fixes it."""

import pytest
import torch
from hunmin.tuning import LstmPromptEncoder, MlpPromptEncoder

pytestmark = pytest.mark.parametrize("kind", [LstmPromptEncoder, MlpPromptEncoder])


def test_rows_are_as_large_as_embeddings(kind):
    rows = kind(5, 33, scale=0.02)()
    assert rows.shape == (5, 33)
    assert rows.detach().std(dim=1) == pytest.approx([0.02] * 5, rel=0.05)


def test_a_seed_fixes_the_weights_and_leaves_other_random_numbers_alone(kind):
    state = torch.random.get_rng_state()
    first, again, other = kind(4, 16, scale=1, seed=7), kind(4, 16, scale=1, seed=7), kind(4, 16, scale=1, seed=8)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first(), again())
    assert not torch.equal(first(), other())


def test_every_weight_learns(kind):
    encoder = kind(4, 16, scale=1)
    (encoder() * torch.randn(4, 16)).sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in encoder.parameters())
