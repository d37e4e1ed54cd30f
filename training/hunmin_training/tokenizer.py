"""Trains a tokenizer from files, and writes it as the folder that every other part loads.

Files are streamed: what stays in memory is a digest per text, to leave repetitions out, and the count of each word.
The `character` method, there for comparison, holds the texts themselves.
"""

import argparse
import hashlib
import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from hunmin_text.artefact import TrainingData, save
from hunmin_text.training import Method, train

from hunmin_training.corpus import is_held_out, read_chat, read_lines, read_ratings

PROGRESS_EVERY = 50_000  # texts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hunmin-train tokenizer`."""
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="one text a line; .csv: chat pairs (Q, A)")
    parser.add_argument("--method", type=Method, choices=list(Method), default=Method.MORPHEME)
    parser.add_argument("--vocab-size", type=int, default=8192, help="entries, special tokens included")
    parser.add_argument(
        "--exclude", type=Path, action="append", default=[], help="NSMC file that must not be trained on"
    )
    parser.add_argument("--description", help="what the text is and its licence (default: the names of the files)")
    parser.add_argument("--limit-lines", type=int, help="stop after so many texts")
    parser.add_argument("--out", type=Path, required=True, help="tokenizer folder to write")


def run(args: argparse.Namespace) -> None:
    """Train on what `select` lets through; write the tokenizer folder."""
    excluded = {review for path in args.exclude for review in read_ratings(path)}
    texts = itertools.islice(select(args.files, excluded=excluded), args.limit_lines)
    count = CountedTexts(texts)
    learnt = train(args.method, count, vocab_size=args.vocab_size)
    data = TrainingData(
        description=args.description or ", ".join(path.name for path in args.files),
        lines=count.lines,
        sha256=count.sha256.hexdigest(),
    )
    tokenizer = save(learnt, args.out, method=args.method, training_data=data)
    _say(f"{args.out}: {tokenizer.method}, {tokenizer.vocab_size:,} entries, from {count.texts:,} texts")


def select(paths: Iterable[Path], *, excluded: set[str]) -> Iterator[str]:
    """Yield what may be trained on: each line of a text file once, unless held out; every pair of a chat file.

    Nothing that is, asks or answers an excluded review passes.
    """
    seen: set[bytes] = set()
    for path in paths:
        if path.suffix == ".csv":
            yield from (pair for pair in read_chat(path) if excluded.isdisjoint(_said(pair)))
            continue
        for line in read_lines(path):
            digest = hashlib.sha256(line.encode()).digest()[:16]
            if digest not in seen and line not in excluded and not is_held_out(line):
                seen.add(digest)
                yield line


def _said(pair: str) -> list[str]:
    """What follows `질문: ` and `답변: ` in a pair."""
    return [line.partition(": ")[2] for line in pair.split("\n")]


class CountedTexts:
    """Passes texts on to the trainer; counts them, hashes them (each followed by a line feed), reports progress."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = 0
        self.lines = 0
        self.sha256 = hashlib.sha256()
        self._source = texts

    def __iter__(self) -> Iterator[str]:
        started = time.monotonic()
        for text in self._source:
            yield text
            self.texts += 1
            self.lines += text.count("\n") + 1
            self.sha256.update(f"{text}\n".encode())
            if self.texts % PROGRESS_EVERY == 0:
                _say(f"read {self.texts:,} texts in {time.monotonic() - started:.0f} s")
        _say(f"read {self.texts:,} texts in all; learning merges")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
