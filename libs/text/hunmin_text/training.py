"""Learns a vocabulary from texts, by one of the three methods that the HyperCLOVA paper compares (section 3.3).

It knows no files: texts come in as an iterable, a `tokenizers.Tokenizer` goes out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from hunmin_contracts.errors import ErrorCode, HunminError
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from hunmin_text.pieces import is_hangul, split_morphemes, split_runs

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
UNKNOWN = "<unk>"
SPECIALS = [END_OF_TEXT, PAD]  # ids 0 and 1
BYTES = 256
LEXICON_WORDS = 50_000  # more than half of the distinct words of new text in the same field, in 0.7 MB
CHARACTER_COVERAGE = 0.9995  # SentencePiece's advice for languages with many characters

# The ByteLevel pattern of GPT-2, for the method that has no byte alphabet.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class Method(StrEnum):
    """How text becomes tokens.

    `morpheme`: byte-level BPE inside morphemes. `byte`: byte-level BPE inside GPT-2's words. `character`: BPE over
    characters; a character that was too rare in training becomes `<unk>` and is lost, as in the paper's comparison.
    """

    MORPHEME = "morpheme"
    BYTE = "byte"
    CHARACTER = "character"


@dataclass(frozen=True, slots=True)
class Learnt:
    """What training gives: the vocabulary, and for `morpheme` the frequent words, each as MeCab cuts it."""

    backend: Tokenizer
    lexicon: list[str]


def train(method: Method, texts: Iterable[str], *, vocab_size: int) -> Learnt:
    """Learn `vocab_size` entries from texts, specials included; `character` reads the texts into memory."""
    smallest = BYTES + len(SPECIALS)
    if vocab_size < smallest:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"vocab_size is {vocab_size}: at least {smallest} are needed.",
            param="vocab_size",
        )
    if method is Method.CHARACTER:
        return Learnt(_train_character(list(texts), vocab_size), [])
    learner = Tokenizer(models.BPE())
    learner.decoder = decoders.ByteLevel()
    splits = method is Method.BYTE
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splits)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    if splits:
        learner.train_from_iterator(texts, trainer)
        return Learnt(learner, [])
    counts: Counter[str] = Counter()
    learner.train_from_iterator(_morpheme_pieces(texts, counts), trainer)
    return Learnt(learner, _frequent_words(counts))


def _morpheme_pieces(texts: Iterable[str], counts: Counter[str]) -> Iterator[list[str]]:
    """Pieces of each text; every run is counted, and analysed once, since natural text repeats its words."""
    known: dict[str, list[str]] = {}
    for text in texts:
        pieces: list[str] = []
        runs = split_runs(text)
        counts.update(runs)
        for run in runs:
            found = known.get(run)
            if found is None:
                found = known[run] = split_morphemes(run)
            pieces += found
        yield pieces


def _frequent_words(run_counts: Counter[str]) -> list[str]:
    words: Counter[str] = Counter()
    for run, count in run_counts.items():
        if is_hangul(run):
            words[run.removeprefix(" ")] += count
    return [" ".join(split_morphemes(word)) for word, _ in words.most_common(LEXICON_WORDS)]


def _train_character(texts: list[str], vocab_size: int) -> Tokenizer:
    learner = Tokenizer(models.BPE(unk_token=UNKNOWN))
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(_GPT2), "isolated")
    learner.decoder = decoders.Fuse()
    specials = [*SPECIALS, UNKNOWN]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        limit_alphabet=min(_frequent_characters(texts), vocab_size - len(specials)),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    return learner


def _frequent_characters(texts: list[str]) -> int:
    """How many of the most frequent characters make up `CHARACTER_COVERAGE` of the texts."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    wanted = CHARACTER_COVERAGE * counts.total()
    covered = 0
    for number, (_, count) in enumerate(counts.most_common(), start=1):
        covered += count
        if covered >= wanted:
            return number
    return len(counts)
