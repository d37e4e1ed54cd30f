"""Divides rows into train, validation and test: by seed and row number, each label alike. It knows no row's text.

The order is that of a keyed hash, so that no library's random numbers are part of what a seed means.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import islice

from hunmin_contracts.datasets import Shares
from hunmin_contracts.tuning import SplitName

_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")


def assign(count: int, shares: Shares, seed: int, *, labels: Sequence[str] | None = None) -> list[SplitName]:
    """Return the split of each of `count` rows, every split within one row of its share; with `labels`, in each label.

    (Nearly so in each label: what one label's rows leave over, the next one's settle.)
    """
    wanted = [shares.train, shares.validation, shares.test]
    total = sum(wanted)
    key = seed.to_bytes(8, "big")
    groups: dict[str, list[int]] = {}
    for row in range(count):
        groups.setdefault("" if labels is None else labels[row], []).append(row)
    splits: list[SplitName] = ["train"] * count
    given = [0, 0, 0]
    dealt = 0
    for label in sorted(groups):
        for row in sorted(groups[label], key=lambda row: blake2b(row.to_bytes(8, "big"), key=key).digest()):
            dealt += 1
            # To the split that is furthest behind its share.
            owed = [share * dealt / total - has for share, has in zip(wanted, given, strict=True)]
            index = owed.index(max(owed))
            given[index] += 1
            splits[row] = _NAMES[index]
    return splits


def divided(
    count: int, shares: Shares, seed: int, *, labels: Sequence[str] | None = None, train_rows: int | None = None
) -> list[SplitName | None]:
    """Return what `assign` does, and None for the rows behind the first `train_rows` of the training part."""
    splits: list[SplitName | None] = [*assign(count, shares, seed, labels=labels)]
    if train_rows is not None:
        train = (row for row, split in enumerate(splits) if split == "train")
        for row in list(islice(train, train_rows, None)):
            splits[row] = None
    return splits
