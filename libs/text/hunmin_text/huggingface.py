"""Loads the tokenizer folder of any Hugging Face model, behind the same interface as ours. It reads local files only.

The round trip is as good as that tokenizer's: many normalise text or drop its first space.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from hunmin_contracts.errors import ErrorCode, HunminError

from hunmin_text.bytelevel import LETTER_BYTES, byte_offsets
from hunmin_text.tokenizer import Encoding, Tokenizer, Vocabulary, refuse_surrogates

METHOD = "huggingface"
MODEL = "tokenizer.json"
_SIDE_FILES = ("tokenizer_config.json", "special_tokens_map.json", "config.json", "generation_config.json")
_FALLBACK_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class HuggingFaceTokenizer(Tokenizer):
    """Any tokenizer that the `tokenizers` library can read."""

    def __init__(
        self, source: str, vocabulary: Vocabulary, *, name: str, digest: str, chat_template: str | None = None
    ) -> None:
        super().__init__(vocabulary, name=name, method=METHOD, digest=digest, chat_template=chat_template)
        self._source = source
        self._backend = _backend(source, encode_special_tokens=True)
        with_specials = self._backend.encode("a").ids
        plain = self._backend.encode("a", add_special_tokens=False).ids
        starts = [place for place in range(len(with_specials)) if with_specials[place : place + len(plain)] == plain]
        self.prefix_ids = with_specials[: starts[0]] if starts else []

    @cached_property
    def _marked_backend(self) -> tokenizers.Tokenizer:
        """A second backend, made when a chat first needs it; to switch the first to and fro would not suit threads."""
        return _backend(self._source, encode_special_tokens=False)

    def encode(self, text: str) -> list[int]:
        refuse_surrogates(text)
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_marked(self, text: str) -> list[int]:
        refuse_surrogates(text)
        return self._marked_backend.encode(text, add_special_tokens=False).ids

    def encode_with_offsets(self, text: str) -> Encoding:
        refuse_surrogates(text)
        found = self._backend.encode(text, add_special_tokens=False)
        spelt = [self.vocabulary.bytes_of[token_id] for token_id in found.ids]
        if b"".join(spelt) == text.encode():  # exact spans where bytes are kept: the library's may leave spaces out
            return Encoding(found.ids, byte_offsets(text, [len(part) for part in spelt]))
        return Encoding(found.ids, found.offsets)


def load(folder: Path, *, name: str) -> HuggingFaceTokenizer:
    """Load the `tokenizer.json` of a folder, with the special tokens that its configuration files name."""
    path = folder / MODEL
    if not path.is_file():
        raise HunminError(
            ErrorCode.NOT_FOUND,
            f"{path.absolute()} does not exist. "
            "Name a folder with a tokenizer.json (a `fast` tokenizer saved by transformers).",
        )
    source = path.read_text(encoding="utf-8")
    side = {file: _read_json(folder / file) for file in _SIDE_FILES if (folder / file).is_file()}
    return HuggingFaceTokenizer(
        source,
        _vocabulary(source, _read_json(path), side, folder),
        name=name,
        digest=hashlib.sha256(source.encode()).hexdigest(),
        chat_template=_chat_template(folder, side),
    )


def _backend(source: str, *, encode_special_tokens: bool) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer.from_str(source)
    backend.encode_special_tokens = encode_special_tokens
    backend.no_truncation()  # either would change a text in silence
    backend.no_padding()
    return backend


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HunminError(ErrorCode.CONFLICT, f"{path} is not JSON ({error}): copy the folder again.") from None
    return content


def _vocabulary(source: str, description: dict[str, Any], side: dict[str, dict[str, Any]], folder: Path) -> Vocabulary:
    id_of = tokenizers.Tokenizer.from_str(source).get_vocab(with_added_tokens=True)
    texts = [""] * (max(id_of.values()) + 1)  # ids may have gaps
    for text, token_id in id_of.items():
        texts[token_id] = text
    eos_id = _named_id("eos", side, id_of)
    if eos_id is None:
        raise HunminError(
            ErrorCode.CONFLICT,
            f"No file in {folder} names an end-of-text token: put eos_token into tokenizer_config.json.",
        )
    pad_id = _named_id("pad", side, id_of)
    added = {token["id"]: token for token in description["added_tokens"]}
    special = {token_id for token_id, token in added.items() if token["special"]} | {eos_id}
    spelling = _Spelling(description.get("decoder"), folder)
    spelt = [text.encode() if token_id in added else spelling.bytes_of(text) for token_id, text in enumerate(texts)]
    return Vocabulary(
        texts,
        [b"" if token_id in special else part for token_id, part in enumerate(spelt)],
        frozenset(special),
        eos_id,
        eos_id if pad_id is None else pad_id,
        strips_space=spelling.strips_space,
        bos_id=_named_id("bos", side, id_of),
    )


def _named_id(role: str, side: dict[str, dict[str, Any]], id_of: dict[str, int]) -> int | None:
    """Find the token of a role: by text in the tokenizer's files, else by id in the model's."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        token = side.get(file, {}).get(f"{role}_token")
        text = token["content"] if isinstance(token, dict) else token
        if text in id_of:
            return id_of[text]
    for file in ("generation_config.json", "config.json"):
        found = side.get(file, {}).get(f"{role}_token_id")
        candidates = found if isinstance(found, list) else [found]
        for token_id in candidates:
            if isinstance(token_id, int) and token_id in id_of.values():
                return token_id
    return None


def _chat_template(folder: Path, side: dict[str, dict[str, Any]]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = side.get("tokenizer_config.json", {}).get("chat_template")
    if isinstance(template, list):  # several by name
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    return template


class _Spelling:
    """What the `decoder` of a tokenizer.json does to one token: it stands for bytes, so a stream can be decoded token
    by token. What a decoder tidies across tokens (WordPiece's spaces before full stops) stays as it is."""

    def __init__(self, decoder: dict[str, Any] | None, folder: Path) -> None:
        step = decoder or {"type": None}
        self._steps: list[dict[str, Any]] = step["decoders"] if step["type"] == "Sequence" else [step]
        self.strips_space = any(_strips_space(step) for step in self._steps)
        for step in self._steps:
            if step["type"] not in _KNOWN_STEPS or "Regex" in step.get("pattern", {}):
                raise HunminError(
                    ErrorCode.CONFLICT, f"{folder / MODEL} has a decoder that is not supported: {json.dumps(step)}."
                )

    def bytes_of(self, token: str) -> bytes:
        for step in self._steps:
            kind = step["type"]
            fallback = _FALLBACK_BYTE.fullmatch(token)
            if kind == "ByteLevel" and all(letter in LETTER_BYTES for letter in token):
                return bytes(LETTER_BYTES[letter] for letter in token)
            if kind == "ByteFallback" and fallback:
                return bytes.fromhex(fallback[1])
            token = _step(token, step)
        return token.encode()


_KNOWN_STEPS = {None, "ByteLevel", "ByteFallback", "Fuse", "Strip", "Replace", "Metaspace", "WordPiece", "BPEDecoder"}


def _step(token: str, step: dict[str, Any]) -> str:
    match step["type"]:
        case "Replace":
            return token.replace(step["pattern"]["String"], step["content"])
        case "Metaspace":
            return token.replace(step["replacement"], " ")
        case "WordPiece":
            prefix = step["prefix"]
            return token.removeprefix(prefix) if token.startswith(prefix) else f" {token}"
        case "BPEDecoder":
            suffix = step["suffix"]
            return f"{token.removesuffix(suffix)} " if token.endswith(suffix) else token
        case None:
            return f" {token}"
        case _:
            return token


def _strips_space(step: dict[str, Any]) -> bool:
    match step["type"]:
        case None | "WordPiece":
            return True
        case "Metaspace":
            return bool(step.get("prepend_scheme", "always") != "never")
        case "Strip":
            return bool(step["start"] > 0 and step["content"] == " ")
        case _:
            return False
