"""The truth test of gradients: equal to local autograd of the same transformers model, in float32."""

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hunmin_modeling.checkpoint import Checkpoint, load_checkpoint
from hunmin_modeling.config import MODEL_TYPES
from hunmin_modeling.gradient import Example, Gradients, Wanted
from hunmin_modeling.linear import frozen_weights
from hunmin_modeling.testing import save_tiny_checkpoint
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

N_VIRTUAL, WIDTH = 7, 32
RELATIVE = 1e-5

torch.set_num_threads(1)  # tiny products, and a machine that may be busy

Reference = tuple[Tensor, Tensor, list[Tensor], list[Tensor]]


@pytest.fixture(scope="module", params=sorted(MODEL_TYPES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return load_checkpoint(folder)


@pytest.fixture(scope="module")
def local(folder: Path) -> PreTrainedModel:
    """The model as a developer loads it at home."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").requires_grad_(False).eval()


@pytest.fixture(scope="module")
def rows(local: PreTrainedModel) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(N_VIRTUAL, WIDTH, generator=generator) * local.get_input_embeddings().weight.std()


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Slots at several places, rows that come twice or in no order, targets of one token and of several, weights."""
    rng = random.Random(5)  # noqa: S311  # prompts, not secrets

    def tokens(least: int, most: int) -> list[int]:
        return [rng.randrange(97) for _ in range(rng.randint(least, most))]

    made = [
        Example([*range(-1, -N_VIRTUAL - 1, -1), *tokens(5, 20)], tokens(1, 1)),
        Example([*tokens(1, 9), -1, -2, -3, *tokens(3, 30), -4, -5, -6, -7], tokens(4, 4), weight=2.5),
        Example([-3, -3, *tokens(1, 5), -1, -3], tokens(2, 6), weight=0.25),
        Example([-7], tokens(1, 3)),
        Example(tokens(8, 8), tokens(3, 3), weight=3.0),
        Example([-2, *tokens(10, 10)], tokens(2, 2), weight=0.0),
    ]
    return made + [Example([-1, -2, *tokens(1, 40), -5], tokens(1, 8), weight=rng.random() * 2) for _ in range(6)]


def autograd(model: PreTrainedModel, examples: list[Example], rows: Tensor, *, divisor: float) -> Reference:
    """Return loss, gradient at the rows, log-probabilities, and the gradient at each prompt, one example at a time."""
    embedding = model.get_input_embeddings().weight
    rows = rows.clone().requires_grad_()
    loss, logprobs, prompts = torch.zeros(()), [], []
    for example in examples:
        whole = [*example.prompt, *example.target]
        embedded = torch.stack([rows[-1 - token] if token < 0 else embedding[token] for token in whole])
        embedded.retain_grad() if embedded.requires_grad else embedded.requires_grad_()
        prompts.append(embedded)
        logits = model(inputs_embeds=embedded[None]).logits[0, len(example.prompt) - 1 : -1]
        targets = torch.tensor(example.target)
        loss = loss + example.weight * F.cross_entropy(logits, targets, reduction="sum") / divisor
        logprobs.append(logits.detach().log_softmax(-1).gather(1, targets[:, None])[:, 0])
    loss.backward()
    return (
        loss.detach(),
        rows.grad,
        logprobs,
        [each.grad[: len(e.prompt)] for each, e in zip(prompts, examples, strict=True)],
    )


def computed(
    checkpoint: Checkpoint, examples: list[Example], rows: Tensor | None, *, max_tokens: int, **wanted
) -> Gradients:
    run = Gradients(checkpoint, examples, rows, Wanted(**wanted), max_tokens=max_tokens)
    for _ in run.run():
        pass
    return run


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Compare relative to the size of the whole tensor."""
    assert found.shape == expected.shape
    assert float((found - expected).norm()) <= RELATIVE * float(expected.norm())


def targets(examples: list[Example]) -> int:
    return sum(len(example.target) for example in examples)


class TestEqualsLocalAutograd:
    @pytest.mark.parametrize("max_tokens", [10_000, 60, 1])
    def test_batched(self, checkpoint, local, examples, rows, max_tokens: int) -> None:
        divisor = targets(examples)
        loss, gradient, logprobs, _ = autograd(local, examples, rows, divisor=divisor)
        found = computed(checkpoint, examples, rows, max_tokens=max_tokens, divisor=divisor)
        assert found.loss == pytest.approx(float(loss), rel=RELATIVE)
        assert_close(found.rows, gradient)
        for outcome, expected in zip(found.outcomes, logprobs, strict=True):
            assert_close(torch.tensor(outcome.logprobs), expected)
        assert found.tokens == sum(example.length for example in examples)

    def test_alone(self, checkpoint, local, examples, rows) -> None:
        for example in examples:
            loss, gradient, _, _ = autograd(local, [example], rows, divisor=1)
            found = computed(checkpoint, [example], rows, max_tokens=10_000)
            assert found.loss == pytest.approx(float(loss), rel=RELATIVE)
            assert_close(found.rows, gradient if gradient is not None else torch.zeros_like(rows))

    def test_saliency_and_candidates(self, checkpoint, local, examples, rows) -> None:
        examples, positions = [example for example in examples if len(example.prompt) > 3], (0, 3)
        _, _, _, prompts = autograd(local, examples, rows, divisor=1)
        found = computed(checkpoint, examples, rows, max_tokens=60, saliency=True, positions=positions)
        embedding = local.get_input_embeddings().weight
        for example, outcome, gradient in zip(examples, found.outcomes, prompts, strict=True):
            embedded = torch.stack([rows[-1 - t] if t < 0 else embedding[t] for t in example.prompt])
            expected = (gradient * embedded).sum(-1)
            rounding = RELATIVE * float((gradient.norm(dim=1) * embedded.norm(dim=1)).norm())  # terms cancel
            assert float((torch.tensor(outcome.saliency) - expected).norm()) <= rounding
        summed = torch.stack([sum(gradient[position] for gradient in prompts) for position in positions])
        scores, ids = found.candidates(5, vocab_size=97)
        expected = (-summed @ embedding.T).topk(5)
        assert_close(scores, expected.values)
        assert ids.tolist() == expected.indices.tolist()

    def test_without_a_soft_prompt(self, checkpoint, local, examples, rows) -> None:
        plain = [Example([t for t in e.prompt if t >= 0] or [1], e.target, e.weight) for e in examples]
        loss, *_ = autograd(local, plain, rows, divisor=1)
        found = computed(checkpoint, plain, None, max_tokens=60)
        assert found.loss == pytest.approx(float(loss), rel=RELATIVE)
        assert found.rows.shape == (0, WIDTH)


class TestBounds:
    def test_a_micro_batch_holds_the_budget_or_one_example(self, checkpoint, examples, rows) -> None:
        run = Gradients(checkpoint, examples, rows, Wanted(), max_tokens=50)
        batches = list(run.micro_batches)
        assert [number for batch in batches for number in batch] == list(range(len(examples)))
        assert all(len(batch) == 1 or sum(examples[n].length for n in batch) <= 50 for batch in batches)
        assert len(batches) < len(examples)

    def test_pauses_at_every_layer_both_ways_and_ends_when_told(self, checkpoint, examples, rows) -> None:
        pauses = 0

        def pause() -> None:
            nonlocal pauses
            pauses += 1
            if pauses > 6:
                raise KeyboardInterrupt

        steps = Gradients(checkpoint, examples, rows, Wanted(), max_tokens=1).run(pause)
        next(steps)
        assert pauses == 2 * 2  # layers, and ways
        with pytest.raises(KeyboardInterrupt):
            next(steps)

    def test_changes_no_weight_and_keeps_no_gradient(self, checkpoint, local, examples, rows) -> None:
        before = {name: value.clone() for name, value in frozen_weights(checkpoint.model)}
        computed(checkpoint, examples, rows, max_tokens=60)
        after = dict(frozen_weights(checkpoint.model))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert not any(weight.requires_grad or weight.grad is not None for weight in after.values())


class TestBfloat16:
    def test_is_close_to_float32(self, folder: Path, checkpoint, examples, rows) -> None:
        small = load_checkpoint(folder, dtype=torch.bfloat16)
        expected, found = (
            computed(model, examples, rows, max_tokens=60, divisor=targets(examples)) for model in (checkpoint, small)
        )
        assert found.loss == pytest.approx(expected.loss, rel=0.05)
        assert float(F.cosine_similarity(found.rows.flatten(), expected.rows.flatten(), dim=0)) > 0.95
