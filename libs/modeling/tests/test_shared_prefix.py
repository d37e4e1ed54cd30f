"""The shared prefix changes nothing but the time: losses, gradients and greedy texts equal the plain way."""

import random

import pytest
import torch
import torch.nn.functional as F
from hunmin_modeling.checkpoint import Checkpoint, load_checkpoint
from hunmin_modeling.config import MODEL_TYPES
from hunmin_modeling.gradient import Example, Gradients, Wanted
from hunmin_modeling.greedy import greedy_texts
from hunmin_modeling.linear import frozen_weights
from hunmin_modeling.shared_prefix import PackedPrompts, target_logits
from hunmin_modeling.testing import save_tiny_checkpoint
from torch import Tensor

N_VIRTUAL, WIDTH = 5, 32
CPU = torch.device("cpu")

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=sorted(MODEL_TYPES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(save_tiny_checkpoint(tmp_path_factory.mktemp(request.param), request.param))


@pytest.fixture(scope="module")
def rows() -> Tensor:
    return torch.randn(N_VIRTUAL, WIDTH, generator=torch.Generator().manual_seed(3)) * 0.4


def tokens(rng: random.Random, least: int, most: int) -> list[int]:
    return [rng.randrange(97) for _ in range(rng.randint(least, most))]


def batches() -> dict[str, list[Example]]:
    rng = random.Random(1)  # noqa: S311  # prompts, not secrets
    prefix = [7, 8, -1, -2, -3, 9]
    return {
        "prefix": [Example([*prefix, *tokens(rng, 1, 25), -4, -5, 11], tokens(rng, 1, 4)) for _ in range(9)],
        "nothing shared": [Example([n, -1, *tokens(rng, 1, 9)], tokens(rng, 1, 3)) for n in range(5)],
        "the same prompt": [Example([3, -1, -2, 5], tokens(rng, 1, 5)) for _ in range(4)],
        "a prompt that others begin with": [Example([1, -1, 2], [3]), Example([1, -1, 2, 4, -2], [5, 6])],
        "alone": [Example([1, -1, 2], [3, 4])],
        "one token": [Example([-1], [3]), Example([-1], [5, 6]), Example([-1, 4], [5])],
    }


@pytest.mark.parametrize("name", batches())
def test_equals_sequences_by_themselves(checkpoint: Checkpoint, rows: Tensor, name: str) -> None:
    examples = batches()[name]
    plain = Gradients(checkpoint, examples, rows, Wanted(), max_tokens=1)  # one at a time
    list(plain.run())
    leaf = rows.clone().requires_grad_()
    prompts = PackedPrompts(examples, device=CPU)
    loss = F.cross_entropy(target_logits(checkpoint, prompts, leaf), prompts.targets, reduction="sum")
    loss.backward()
    assert loss.item() == pytest.approx(plain.loss, rel=1e-5)
    assert float((leaf.grad - plain.rows).norm()) <= 1e-5 * float(plain.rows.norm())


def test_the_prefix_goes_through_once() -> None:
    examples = batches()["prefix"]
    prompts = PackedPrompts(examples, device=CPU)
    assert prompts.batch.prefix == 6
    assert len(prompts.ids) == sum(example.length for example in examples) - 8 * 6


@pytest.mark.parametrize("name", batches())
def test_greedy_texts_equal_a_pass_for_each_token(checkpoint: Checkpoint, rows: Tensor, name: str) -> None:
    prompts = [example.prompt for example in batches()[name]]
    expected = []
    for prompt in prompts:
        text: list[int] = []
        while len(text) < 6:
            with torch.no_grad():
                packed = PackedPrompts([Example([*prompt, *text], [0])], device=CPU)
                token = int(target_logits(checkpoint, packed, rows).argmax())
            if token in (11, 12, 13):
                break
            text.append(token)
        expected.append(text)
    assert greedy_texts(checkpoint, prompts, rows, max_tokens=6, end_ids={11, 12, 13}) == expected


def test_every_weight_is_among_the_frozen_ones(checkpoint: Checkpoint) -> None:
    counted = sum(value.numel() for name, value in frozen_weights(checkpoint.model))
    assert counted >= checkpoint.parameters
