"""From raw text files to a shuffled stream of token ids on disk, with what was left out counted and written down.

One stage each, as in the paper: read, drop what may not be trained on, de-duplicate, hold out, shuffle, encode.
"""

import argparse
import csv
import hashlib
import json
import random
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hunmin_text.artefact import load

HELD_OUT_PERCENT = 1
NOT_A_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Document:
    """A piece of text and the source it came from."""

    source: str
    text: str


def is_held_out(text: str) -> bool:
    """Tell whether a review belongs to the held-out 1 %: by hash, so that every run and every tool agrees."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 100 < HELD_OUT_PERCENT


def duplicate_key(text: str) -> str:
    """Reduce a text to what must differ for it to count as another: letters and digits, compatibility forms folded.

    A text of punctuation alone is its own key.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return NOT_A_WORD.sub("", folded) or folded


def read_lines(path: Path) -> Iterator[str]:
    """Yield the stripped, non-empty lines of a text file."""
    with path.open(encoding="utf-8") as file:
        yield from filter(None, (line.strip() for line in file))


def read_ratings(path: Path) -> Iterator[str]:
    """Yield the stripped reviews of an NSMC file (TSV: id, document, label; header; no quoting)."""
    with path.open(encoding="utf-8") as file:
        next(file)
        for line in file:
            review = line.rstrip("\n").split("\t")[1].strip()
            if review:
                yield review


def read_chat(path: Path) -> Iterator[str]:
    """Yield question-answer pairs (CSV: Q, A, label) in the plain chat template, so the model learns it."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield f"질문: {row['Q'].strip()}\n답변: {row['A'].strip()}"


def select(
    documents: Iterable[Document], *, excluded: set[str], repeat: dict[str, int]
) -> tuple[list[str], list[str], Counter[str]]:
    """Split documents into training texts and held-out reviews, each text once.

    `excluded` holds duplicate keys that may not be trained on. A source named in `repeat` is written that many times.
    Returns (training texts, held-out reviews, counts of what happened to the documents).
    """
    unique: dict[str, Document] = {}
    counts: Counter[str] = Counter()
    for document in documents:
        key = duplicate_key(document.text)
        counts[f"{document.source}.read"] += 1
        if key in excluded:
            counts[f"{document.source}.in_test_set"] += 1
        elif key in unique:
            counts[f"{document.source}.duplicate"] += 1
        else:
            unique[key] = document
    train: list[str] = []
    held_out: list[str] = []
    for document in unique.values():
        if document.source != "chat" and is_held_out(document.text):
            held_out.append(document.text)
            counts["held_out"] += 1
        else:
            train += [document.text] * repeat.get(document.source, 1)
            counts[f"{document.source}.kept"] += 1
    return train, held_out, counts


def encode(texts: list[str], tokenizer_folder: Path) -> np.ndarray:
    """Return one uint16 stream: every text followed by the end-of-text token, shape [tokens]."""
    tokenizer = load(tokenizer_folder)
    if tokenizer.vocab_size > np.iinfo(np.uint16).max + 1:
        raise SystemExit(f"the corpus format holds 65,536 ids at most, the tokenizer has {tokenizer.vocab_size}")
    ids: list[np.ndarray] = []
    for number, text in enumerate(texts):
        ids.append(np.array([*tokenizer.encode(text), tokenizer.eos_id], dtype=np.uint16))
        if number % 50_000 == 0:
            print(f"encoded {number:,} of {len(texts):,} texts", file=sys.stderr)
    return np.concatenate(ids)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hunmin-train corpus`."""
    paths: dict[str, Any] = {"type": Path, "action": "append", "default": []}
    parser.add_argument("--reviews", **paths, help="text file, one review a line")
    parser.add_argument("--ratings", **paths, help="NSMC file: its reviews, not its labels")
    parser.add_argument("--chat", **paths, help="CSV of question-answer pairs (Q, A)")
    parser.add_argument("--exclude", **paths, help="NSMC file that must not be trained on")
    parser.add_argument("--chat-repeat", type=int, default=3, help="how often each chat pair stands in one pass")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for train.bin, held_out.txt, corpus.json")


def run(args: argparse.Namespace) -> None:
    """Write `train.bin` (uint16 ids), `held_out.txt` (a review a line) and `corpus.json` (what went in)."""
    readers = [
        ("reviews", read_lines, args.reviews),
        ("ratings", read_ratings, args.ratings),
        ("chat", read_chat, args.chat),
    ]
    documents = (Document(source, text) for source, read, paths in readers for path in paths for text in read(path))
    excluded = {duplicate_key(review) for path in args.exclude for review in read_ratings(path)}
    train, held_out, counts = select(documents, excluded=excluded, repeat={"chat": args.chat_repeat})
    random.Random(args.seed).shuffle(train)  # noqa: S311  a shuffle, not a secret
    stream = encode(train, args.tokenizer)
    args.out.mkdir(parents=True, exist_ok=True)
    stream.tofile(args.out / "train.bin")
    (args.out / "held_out.txt").write_text("".join(f"{text}\n" for text in held_out), encoding="utf-8")
    facts = {
        "tokens": len(stream),
        "bytes": sum(len(text.encode()) for text in train),
        "tokenizer": load(args.tokenizer).digest,
        "sha256": hashlib.sha256(stream.tobytes()).hexdigest(),
        "seed": args.seed,
        "counts": dict(sorted(counts.items())),
    }
    (args.out / "corpus.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts))
