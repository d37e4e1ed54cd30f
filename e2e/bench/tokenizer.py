"""`make bench-tokenizer`: speed of the morpheme method beside plain byte-level BPE, and what each method's tokens cost.

All vocabularies are learnt here, from the same film reviews, at the same size. Speed: one thread, alternating rounds,
each on reviews that neither tokenizer has seen, medians of the rounds. The baseline is the faster of the library's two
calls. HUNMIN_DATA names the folder of Korean test data.
"""

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from hunmin_text.artefact import TrainingData, load, save
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.training import Method, train
from hunmin_training.corpus import is_held_out, read_lines
from report import Metric, Target, report

VOCAB_SIZE = 8192
LEARNT_FROM = 100_000  # reviews
WARMED_BY = 100_000  # reviews that fill the caches before a round, as a service's earlier traffic does
ROUNDS = 9
ROUND = 6_000  # reviews, about half a megabyte


Metrics = dict[str, Metric]
Encode = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True)
class Reviews:
    """Distinct reviews, shuffled and dealt out so that no two uses share one."""

    learnt: list[str]
    warming: list[str]
    rounds: list[list[str]]
    held_out: list[str]


@dataclass(frozen=True)
class Round:
    """Megabytes a second in one round."""

    warm: float
    cold: float
    plain: float
    plain_batch: float

    @property
    def baseline(self) -> float:
        """The faster of the library's two calls."""
        return max(self.plain, self.plain_batch)


def main() -> None:
    """Measure, print, write the results."""
    if "HUNMIN_DATA" not in os.environ:
        sys.exit(
            "bench-tokenizer: HUNMIN_DATA is not set. It names the folder of Korean test data (text/movie_reviews.txt)."
        )
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread, also for the library's batches
    reviews = deal(read_lines(Path(os.environ["HUNMIN_DATA"]) / "text" / "movie_reviews.txt"))
    with tempfile.TemporaryDirectory() as folder:
        folders = {method: learn(method, reviews.learnt, Path(folder) / method) for method in Method}
        metrics = speed(folders, reviews) | cost({method: load(folders[method]) for method in Method}, reviews.held_out)
    print(f"{'':<46}{'ours':>8}{'baseline':>10}{'ratio':>8}")
    for name, metric in metrics.items():
        print(f"{name:<46}{metric['ours']:>8.3f}{metric['baseline']:>10.3f}{metric['ratio']:>8.2f}  {metric['unit']}")
    report("tokenizer", metrics, [Target("encode, caches warmed by other text", least=0.5)])


def deal(lines: Iterable[str]) -> Reviews:
    """Deal the reviews out."""
    held_out: list[str] = []
    others: list[str] = []
    for line in dict.fromkeys(lines):
        (held_out if is_held_out(line) else others).append(line)
    random.Random(0).shuffle(others)  # noqa: S311  a shuffle, not a secret
    dealt: Iterator[str] = iter(others)
    learnt, warming, *rounds = (
        [next(dealt) for _ in range(count)] for count in (LEARNT_FROM, WARMED_BY, *[ROUND] * ROUNDS)
    )
    return Reviews(learnt, warming, rounds, held_out)


def learn(method: Method, texts: list[str], folder: Path) -> Path:
    """Learn a vocabulary, return its folder."""
    print(f"learning {VOCAB_SIZE:,} entries by the {method} method from {len(texts):,} reviews", file=sys.stderr)
    data = TrainingData(description="film reviews, for comparison", lines=len(texts), sha256="")
    save(train(method, texts, vocab_size=VOCAB_SIZE), folder, method=method, training_data=data)
    return folder


def speed(folders: dict[Method, Path], reviews: Reviews) -> Metrics:
    """Measure encoding, text by text (the library also in one batch)."""
    ours = load(folders[Method.MORPHEME])
    plain = tokenizers.Tokenizer.from_file(str(folders[Method.BYTE] / "tokenizer.json"))
    print(f"warming both with {len(reviews.warming):,} other reviews", file=sys.stderr)
    ours.encode_batch(reviews.warming)
    plain.encode_batch_fast(reviews.warming, add_special_tokens=False)
    contenders: dict[str, Encode] = {
        "warm": ours.encode_batch,
        "plain": lambda texts: [plain.encode(text, add_special_tokens=False).ids for text in texts],
        "plain_batch": lambda texts: [
            encoding.ids for encoding in plain.encode_batch_fast(texts, add_special_tokens=False)
        ],
    }
    rounds = []
    for number, texts in enumerate(reviews.rounds):
        contenders["cold"] = load(folders[Method.MORPHEME]).encode_batch
        names = sorted(contenders)
        order = names[number % len(names) :] + names[: number % len(names)]
        rounds.append(Round(**{name: megabytes_per_second(contenders[name], texts) for name in order}))
    return {
        "encode, caches warmed by other text": paired(rounds, lambda r: r.warm, lambda r: r.baseline),
        "encode, caches empty": paired(rounds, lambda r: r.cold, lambda r: r.baseline),
        "encode, warmed, beside plain text by text": paired(rounds, lambda r: r.warm, lambda r: r.plain),
        "encode, empty, beside plain text by text": paired(rounds, lambda r: r.cold, lambda r: r.plain),
    }


def megabytes_per_second(encode: Encode, texts: list[str]) -> float:
    """Time one call."""
    size = sum(len(text.encode()) for text in texts)
    started = time.perf_counter()
    encode(texts)
    return size / (time.perf_counter() - started) / 1e6


def paired(rounds: list[Round], ours: Callable[[Round], float], baseline: Callable[[Round], float]) -> Metric:
    """Summarise rounds by medians; the ratio is the median of the rounds' ratios."""
    return {
        "ours": statistics.median(map(ours, rounds)),
        "baseline": statistics.median(map(baseline, rounds)),
        "ratio": statistics.median(ours(r) / baseline(r) for r in rounds),
        "unit": "MB/s",
    }


def cost(methods: dict[Method, Tokenizer], texts: list[str]) -> Metrics:
    """Count tokens per character of each method on held-out reviews, and the characters that `character` loses."""
    characters = sum(map(len, texts))
    encoded = {method: tokenizer.encode_batch(texts) for method, tokenizer in methods.items()}
    tokens = {method: sum(map(len, ids)) / characters for method, ids in encoded.items()}
    ours = tokens[Method.MORPHEME]
    unknown = methods[Method.CHARACTER].vocabulary.texts.index("<unk>")
    lost = sum(ids.count(unknown) for ids in encoded[Method.CHARACTER]) / characters
    metrics: Metrics = {
        f"tokens per character, morpheme beside {method}": {
            "ours": ours,
            "baseline": tokens[method],
            "ratio": ours / tokens[method],
            "unit": "tokens/character",
        }
        for method in (Method.BYTE, Method.CHARACTER)
    }
    metrics["characters lost, morpheme beside character"] = {
        "ours": 0.0,
        "baseline": 1000 * lost,
        "ratio": 0.0,
        "unit": "of 1,000 characters",
    }
    return metrics


if __name__ == "__main__":
    main()
