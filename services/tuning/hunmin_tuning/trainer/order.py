"""Which rows go into which step, and how fast it learns: functions of the step, so that a resume goes on alike."""

import random
from collections.abc import Sequence

_BUCKET = 16  # batches that are sorted by length together


def epoch_batches(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Return the rows of each step of an epoch: all of them once, rows of like length together, in random order."""
    rng = random.Random(f"{seed}:{epoch}")  # noqa: S311  # an order, no secret
    order = list(range(len(lengths)))
    rng.shuffle(order)
    reach = batch_size * _BUCKET
    buckets = [sorted(order[start : start + reach], key=lengths.__getitem__) for start in range(0, len(order), reach)]
    batches = [bucket[start : start + batch_size] for bucket in buckets for start in range(0, len(bucket), batch_size)]
    rng.shuffle(batches)
    return batches


def learning_rate(step: int, steps: int, *, peak: float, warmup: float) -> float:
    """Return the rate of step `step` (from 0) of `steps`: it rises linearly to `peak`, then falls to a tenth of it."""
    rising = round(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (1 - 0.9 * (step - rising) / max(steps - rising, 1))


def evaluation_steps(steps_per_epoch: int, evaluations: int) -> frozenset[int]:
    """Return after which steps (from 1) of an epoch the validation part is evaluated, the last always among them."""
    return frozenset(max(1, round(steps_per_epoch * part / evaluations)) for part in range(1, evaluations + 1))
