"""What every tokenizer here does: text to ids and back, offsets, decoding token by token. It knows no files.

A token stands for bytes; text is the UTF-8 reading of the bytes in a row. Special tokens stand for no bytes: they come
in and go out by id only, and text that looks like one is ordinary text.
"""

from __future__ import annotations

import codecs
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hunmin_contracts.errors import ErrorCode, HunminError


@dataclass(frozen=True, slots=True)
class Encoding:
    """Ids of a text, and for each the characters `[start, end)` of the text that it covers, wholly or in part."""

    ids: list[int]
    offsets: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What each id means. `special_ids` have no bytes; `strips_space` drops one space that begins a decoded text."""

    texts: Sequence[str]
    bytes_of: Sequence[bytes]
    special_ids: frozenset[int]
    eos_id: int
    pad_id: int
    strips_space: bool = False
    bos_id: int | None = None


class Tokenizer(ABC):
    """A tokenizer of one vocabulary. Safe to call from several threads."""

    def __init__(
        self, vocabulary: Vocabulary, *, name: str, method: str, digest: str, chat_template: str | None = None
    ) -> None:
        self.vocabulary = vocabulary
        self.name = name
        self.method = method
        self.digest = digest
        self.chat_template = chat_template
        self.prefix_ids: list[int] = []  # what stands before every prompt, such as a begin-of-text token
        by_length = sorted((vocabulary.texts[token_id] for token_id in vocabulary.special_ids), key=len, reverse=True)
        self._specials = re.compile("|".join(map(re.escape, by_length)))

    @property
    def vocab_size(self) -> int:
        """Number of ids, specials included."""
        return len(self.vocabulary.texts)

    @property
    def eos_id(self) -> int:
        """Id of the token that ends a text."""
        return self.vocabulary.eos_id

    @property
    def pad_id(self) -> int:
        """Id of the token that fills a batch."""
        return self.vocabulary.pad_id

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Encode a text, without special tokens. A lone surrogate is an `invalid_request`."""

    @abstractmethod
    def encode_with_offsets(self, text: str) -> Encoding:
        """Encode a text as `encode` does, with the characters that each token covers."""

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Encode several texts, each as `encode` does."""
        return [self.encode(text) for text in texts]

    def encode_marked(self, text: str) -> list[int]:
        """Encode a text that a chat template made: a special token written in it becomes that token's id."""
        ids: list[int] = []
        start = 0
        for found in self._specials.finditer(text):
            ids += self.encode(text[start : found.start()])
            ids.append(self.vocabulary.texts.index(found.group()))
            start = found.end()
        return ids + self.encode(text[start:])

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids; bytes that are not UTF-8 become U+FFFD. An id outside the vocabulary is an `invalid_request`."""
        decoder = self.decoder()
        return decoder.push_all(ids) + decoder.flush()

    def decoder(self) -> IncrementalDecoder:
        """Start decoding a stream of ids."""
        return IncrementalDecoder(self)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for; none for a special token."""
        if not 0 <= token_id < self.vocab_size:
            raise HunminError(
                ErrorCode.INVALID_REQUEST, f"Token id {token_id} is not in the vocabulary of {self.vocab_size} tokens."
            )
        return self.vocabulary.bytes_of[token_id]

    def token_text(self, token_id: int) -> str:
        """Return a token as text for people: bytes that are not UTF-8 as U+FFFD, a special token by its name."""
        found = self.token_bytes(token_id)
        if token_id in self.vocabulary.special_ids:
            return self.vocabulary.texts[token_id]
        return found.decode("utf-8", "replace")


class IncrementalDecoder:
    """Decodes one stream of ids. What `push` and `flush` return joins to `decode` of all the ids; only the bytes of an
    unfinished UTF-8 sequence are held back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strips_space = tokenizer.vocabulary.strips_space

    def push(self, token_id: int) -> str:
        """Take the next id, return the text that is complete with it."""
        return self._text(self._tokenizer.token_bytes(token_id))

    def push_all(self, ids: Iterable[int]) -> str:
        """Take several ids at once."""
        return self._text(b"".join(map(self._tokenizer.token_bytes, ids)))

    def flush(self) -> str:
        """End the stream: return what was held back, as U+FFFD."""
        return self._utf8.decode(b"", final=True)

    def _text(self, found: bytes) -> str:
        if self._strips_space and found:
            self._strips_space = False
            found = found.removeprefix(b" ")
        return self._utf8.decode(found)


def refuse_surrogates(text: str) -> None:
    """Raise `invalid_request` where a text holds a lone surrogate, which has no UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HunminError(
            ErrorCode.INVALID_REQUEST,
            f"The text has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}. "
            "Send well-formed Unicode.",
        ) from None
