"""Byte-level BPE: GPT-2's spelling of bytes as letters, and our two byte-level tokenizers, exact for every text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain

import tokenizers

from hunmin_text.pieces import split_morphemes, split_runs
from hunmin_text.tokenizer import Encoding, Tokenizer, Vocabulary, refuse_surrogates

CACHED_RUNS = 200_000  # young ones; with the older as many again, about 100 MB when full of Korean
CACHED_PIECES = 50_000

Ids = tuple[int, ...]  # not lists: the garbage collector leaves a tuple of numbers alone


def byte_letters() -> dict[int, str]:
    """Map each byte to the letter that spells it in a byte-level vocabulary (`bytes_to_unicode` of GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


LETTER_BYTES = {letter: byte for byte, letter in byte_letters().items()}


def byte_offsets(text: str, lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Turn the byte lengths of consecutive tokens into character spans; part of a character covers all of it."""
    character_at = [place for place, letter in enumerate(text) for _ in range(len(letter.encode()))]
    offsets, start = [], 0
    for length in lengths:
        end = start + length
        offsets.append((character_at[start], character_at[end - 1] + 1))
        start = end
    return offsets


class ByteTokenizer(Tokenizer):
    """Plain byte-level BPE inside GPT-2's words."""

    def __init__(
        self, backend: tokenizers.Tokenizer, vocabulary: Vocabulary, *, name: str, method: str, digest: str
    ) -> None:
        super().__init__(vocabulary, name=name, method=method, digest=digest)
        backend.encode_special_tokens = True  # a typed "<|endoftext|>" stays text; not kept in tokenizer.json
        self._backend = backend

    def encode(self, text: str) -> list[int]:
        refuse_surrogates(text)
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_with_offsets(self, text: str) -> Encoding:
        ids = self.encode(text)
        bytes_of = self.vocabulary.bytes_of
        return Encoding(ids, byte_offsets(text, [len(bytes_of[token_id]) for token_id in ids]))


class MorphemeTokenizer(ByteTokenizer):
    """Byte-level BPE inside morphemes. A run of text is cut and merged once, then remembered.

    The lexicon (see `split_morphemes`) spares the analysis of frequent words, so that a fresh process is fast too.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        vocabulary: Vocabulary,
        lexicon: Mapping[str, str],
        *,
        name: str,
        method: str,
        digest: str,
    ) -> None:
        super().__init__(backend, vocabulary, name=name, method=method, digest=digest)
        self._runs = _RunIds(lexicon, _PieceIds(backend.model, vocabulary))

    def encode(self, text: str) -> list[int]:
        refuse_surrogates(text)
        return list(chain.from_iterable(map(self._runs.__getitem__, split_runs(text))))


class RecentCache(dict[str, Ids], ABC):
    """Computes a missing entry and keeps it, up to `limit` young entries and as many that were young before."""

    def __init__(self, *, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._older: dict[str, Ids] = {}

    @abstractmethod
    def compute(self, text: str) -> Ids:
        """Return the ids of a text that the cache does not have."""

    def __missing__(self, text: str) -> Ids:
        ids = self._older.get(text)
        if ids is None:
            ids = self.compute(text)
        if len(self) >= self._limit:
            self._older = dict(self)
            self.clear()
        self[text] = ids
        return ids


class _PieceIds(RecentCache):
    """Merges the bytes of a piece. The model is asked directly: a whole `encode` builds offsets, twice as slow."""

    def __init__(self, model: tokenizers.models.Model, vocabulary: Vocabulary) -> None:
        super().__init__(limit=CACHED_PIECES + len(vocabulary.texts))
        self._merge = model.tokenize
        self._spelling = str.maketrans({chr(byte): letter for byte, letter in byte_letters().items()})
        for token in vocabulary.bytes_of:  # many pieces of any text are one token: known from the start
            piece = token.decode("utf-8", "ignore")
            self[piece] = self.compute(piece)

    def compute(self, piece: str) -> Ids:
        spelt = piece.encode().decode("latin-1").translate(self._spelling)
        return tuple([token.id for token in self._merge(spelt)])


class _RunIds(RecentCache):
    """Cuts a run into pieces, and joins their ids."""

    def __init__(self, lexicon: Mapping[str, str], pieces: _PieceIds) -> None:
        super().__init__(limit=CACHED_RUNS)
        self._lexicon = lexicon
        self._pieces = pieces

    def compute(self, run: str) -> Ids:
        ids: Ids = ()
        for piece in split_morphemes(run, self._lexicon):
            ids += self._pieces[piece]
        return ids
