"""Draws the labelled reviews that ship with the product "sentiment": as many of each label, in an order by hash.

They come from a file that `corpus` was told to exclude, so a model of ours has seen none of them, however they are
divided into training and test.
"""

import argparse
import hashlib
from pathlib import Path

from hunmin_text.personal_data import find_personal_data

from hunmin_training.corpus import duplicate_key
from hunmin_training.evaluate import read_labelled

_LOOKS_LIKE_A_FORMULA = ("=", "+", "-", "@")


def draw(labelled: list[tuple[str, int]], rows: int) -> list[tuple[str, int]]:
    """Return `rows` reviews, as many of each label, each text once, without personal data and spreadsheet formulas."""
    unique: dict[str, tuple[str, int]] = {}
    for review, label in labelled:
        if not review.startswith(_LOOKS_LIKE_A_FORMULA) and not find_personal_data(review):
            unique.setdefault(duplicate_key(review), (review, label))
    ordered = sorted(unique.values(), key=lambda row: hashlib.sha256(row[0].encode()).digest())
    labels = sorted({label for _, label in ordered})
    drawn = [[row for row in ordered if row[1] == label][: rows // len(labels)] for label in labels]
    if sum(map(len, drawn)) < rows:
        raise SystemExit(f"of {rows:,} rows there are {sum(map(len, drawn)):,}, as many of each label")
    kept = {row for rows_of_label in drawn for row in rows_of_label}
    return [row for row in ordered if row in kept]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hunmin-train sample`."""
    parser.add_argument("ratings", type=Path, help="NSMC file that no model was trained on: ratings_test.txt")
    parser.add_argument("--rows", type=int, default=6_500)
    parser.add_argument("--out", type=Path, required=True, help="TSV file to write: document, label")


def run(args: argparse.Namespace) -> None:
    """Write the sample, the same for the same file."""
    rows = draw(read_labelled(args.ratings), args.rows)
    lines = ["document\tlabel", *(f"{review}\t{label}" for review, label in rows)]
    args.out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{args.out}: {len(rows):,} reviews, {args.out.stat().st_size:,} bytes")
