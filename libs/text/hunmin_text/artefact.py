"""The tokenizer folder: `tokenizer.json`, a lexicon, and a manifest that pins whatever decides where text is cut.

Loading reads the folder and nothing else: no network, no other version of the analyser or its dictionary.
"""

from __future__ import annotations

import hashlib
from operator import itemgetter
from pathlib import Path
from typing import Literal, Self

import tokenizers
from hunmin_contracts.errors import ErrorCode, HunminError
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hunmin_text import huggingface, pieces
from hunmin_text.bytelevel import LETTER_BYTES, ByteTokenizer, MorphemeTokenizer
from hunmin_text.characters import CharacterTokenizer
from hunmin_text.morphemes import analyser_version
from hunmin_text.tokenizer import Tokenizer, Vocabulary
from hunmin_text.training import END_OF_TEXT, PAD, UNKNOWN, Learnt, Method

MANIFEST = "hunmin_tokenizer.json"
MODEL = "tokenizer.json"
LEXICON = "lexicon.txt"  # a word a line, cut into morphemes by spaces: analyses that need not be made again


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingData(_Part):
    """What a vocabulary was learnt from: how many lines, and the sha256 of them, each followed by a line feed."""

    description: str
    lines: int
    sha256: str


class Analysis(_Part):
    """Everything outside `tokenizer.json` that decides where the morpheme method cuts, and the lexicon's sha256."""

    analyser: str
    analyser_version: str
    dictionary: str
    dictionary_version: str
    pieces_version: int
    lexicon_sha256: str


class Manifest(_Part):
    """The content of `hunmin_tokenizer.json`."""

    format: Literal[1] = 1
    method: Method
    vocab_size: int
    eos_id: int
    pad_id: int
    analysis: Analysis | None
    training_data: TrainingData

    @model_validator(mode="after")
    def _pins_the_analysis(self) -> Self:
        if (self.analysis is not None) != (self.method is Method.MORPHEME):
            raise ValueError("analysis belongs to the morpheme method, and to it alone")
        return self


def installed_analysis(*, lexicon_sha256: str) -> Analysis:
    """Describe the analyser, the dictionary and the cutting rules of this installation, for that lexicon."""
    found = analyser_version()
    return Analysis(
        analyser=found.analyser,
        analyser_version=found.analyser_version,
        dictionary=found.dictionary,
        dictionary_version=found.dictionary_version,
        pieces_version=pieces.VERSION,
        lexicon_sha256=lexicon_sha256,
    )


def save(learnt: Learnt, folder: Path, *, method: Method, training_data: TrainingData) -> Tokenizer:
    """Write what was learnt as a tokenizer folder, and load it."""
    folder.mkdir(parents=True, exist_ok=True)
    learnt.backend.save(str(folder / MODEL))
    analysis = None
    if method is Method.MORPHEME:
        lexicon = "".join(f"{word}\n" for word in learnt.lexicon).encode()
        (folder / LEXICON).write_bytes(lexicon)
        analysis = installed_analysis(lexicon_sha256=hashlib.sha256(lexicon).hexdigest())
    manifest = Manifest(
        method=method,
        vocab_size=learnt.backend.get_vocab_size(),
        eos_id=learnt.backend.token_to_id(END_OF_TEXT),
        pad_id=learnt.backend.token_to_id(PAD),
        analysis=analysis,
        training_data=training_data,
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return load(folder)


def load(folder: Path | str, *, name: str | None = None) -> Tokenizer:
    """Load a tokenizer folder, ours or a Hugging Face one; it bears the folder's name unless `name` is given."""
    folder = Path(folder)
    name = name or folder.resolve().name
    if not (folder / MANIFEST).is_file():
        return huggingface.load(folder, name=name)
    return _load_ours(folder, name)


def _load_ours(folder: Path, name: str) -> Tokenizer:
    manifest = _read_manifest(folder)
    backend = tokenizers.Tokenizer.from_file(str(folder / MODEL))
    if backend.get_vocab_size() != manifest.vocab_size:
        raise HunminError(
            ErrorCode.CONFLICT,
            f"{folder / MODEL} has {backend.get_vocab_size()} entries, its manifest says {manifest.vocab_size}. "
            "The two files do not belong together: copy the folder again.",
        )
    named = {"name": name, "method": str(manifest.method), "digest": folder_digest(folder)}
    texts = [token for token, _ in sorted(backend.get_vocab().items(), key=itemgetter(1))]
    if manifest.method is Method.CHARACTER:
        return CharacterTokenizer(backend, _character_vocabulary(texts, manifest), **named)
    vocabulary = _byte_vocabulary(texts, manifest)
    if manifest.analysis is None:
        return ByteTokenizer(backend, vocabulary, **named)
    return MorphemeTokenizer(backend, vocabulary, _read_lexicon(folder, manifest.analysis), **named)


def folder_digest(folder: Path) -> str:
    """Compute the sha256 over the names and contents of manifest and vocabulary; the manifest holds the lexicon's."""
    total = hashlib.sha256()
    for file in (MANIFEST, MODEL):
        total.update(f"{file} {hashlib.sha256((folder / file).read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _read_lexicon(folder: Path, analysis: Analysis) -> dict[str, str]:
    content = (folder / LEXICON).read_bytes() if (folder / LEXICON).is_file() else b""
    if hashlib.sha256(content).hexdigest() != analysis.lexicon_sha256:
        raise HunminError(
            ErrorCode.CONFLICT, f"{folder / LEXICON} is not the file that the manifest names: copy the folder again."
        )
    installed = installed_analysis(lexicon_sha256=analysis.lexicon_sha256)
    if analysis != installed:
        raise HunminError(
            ErrorCode.CONFLICT,
            f"The tokenizer in {folder} was trained with {_said(analysis)}; installed is {_said(installed)}, "
            "which may cut words elsewhere. Install the first, or train anew.",
        )
    return {line.replace(" ", ""): line for line in content.decode().splitlines()}


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "as a whole"
        raise HunminError(
            ErrorCode.CONFLICT, f"{path} is not a manifest of format 1: {place}: {first['msg']}."
        ) from None


def _said(analysis: Analysis) -> str:
    return (
        f"{analysis.analyser} {analysis.analyser_version}, {analysis.dictionary} {analysis.dictionary_version} "
        f"and pieces version {analysis.pieces_version}"
    )


def _byte_vocabulary(texts: list[str], manifest: Manifest) -> Vocabulary:
    special = frozenset({manifest.eos_id, manifest.pad_id})
    spelt = [b"" if i in special else bytes(LETTER_BYTES[letter] for letter in text) for i, text in enumerate(texts)]
    return Vocabulary(texts, spelt, special, manifest.eos_id, manifest.pad_id)


def _character_vocabulary(texts: list[str], manifest: Manifest) -> Vocabulary:
    special = frozenset({manifest.eos_id, manifest.pad_id})
    lost = {UNKNOWN: "\N{REPLACEMENT CHARACTER}"}
    spelt = [b"" if i in special else lost.get(text, text).encode() for i, text in enumerate(texts)]
    return Vocabulary(texts, spelt, special, manifest.eos_id, manifest.pad_id)
