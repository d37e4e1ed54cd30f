"""A tokenizer folder comes back as it was saved, or is refused with the reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_text.artefact import LEXICON, MANIFEST, Manifest, load
from hunmin_text.morphemes import analyser_version
from hunmin_text.pieces import split_morphemes
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.training import LEXICON_WORDS, Method, train

from .conftest import NOTHING_SPECIAL, SENTENCES, STARTER, build

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def edited(tokenizers: dict[Method, Tokenizer], folders: Path, tmp_path: Path) -> Callable[[Method, Edit], Path]:
    """Copy a tokenizer folder and edit its manifest."""

    def edit(method: Method, change: Edit) -> Path:
        folder = tmp_path / "edited"
        shutil.copytree(folders / tokenizers[method].method, folder)
        manifest = json.loads((folder / MANIFEST).read_text())
        change(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))
        return folder

    return edit


@pytest.mark.parametrize("method", list(Method))
def test_a_saved_tokenizer_loads_as_the_same(
    tokenizers: dict[Method, Tokenizer], folders: Path, method: Method
) -> None:
    loaded = load(folders / method)
    saved = tokenizers[method]
    assert (loaded.name, loaded.method, loaded.digest) == (str(method), str(method), saved.digest)
    assert [loaded.encode(text) for text in SENTENCES] == [saved.encode(text) for text in SENTENCES]


def test_the_manifest_pins_what_decides_where_text_is_cut(morpheme: Tokenizer, folders: Path) -> None:
    manifest = Manifest.model_validate_json((folders / "morpheme" / MANIFEST).read_bytes())
    assert manifest.training_data == NOTHING_SPECIAL
    assert (manifest.vocab_size, manifest.eos_id, manifest.pad_id) == (morpheme.vocab_size, 0, 1)
    assert manifest.analysis is not None
    assert manifest.analysis.dictionary_version == analyser_version().dictionary_version


def test_training_again_gives_the_same_digest(morpheme: Tokenizer, tmp_path: Path) -> None:
    assert build(Method.MORPHEME, tmp_path).digest == morpheme.digest


@pytest.mark.parametrize("part", ["analyser_version", "dictionary_version"])
def test_another_analyser_or_dictionary_is_refused(edited: Callable[[Method, Edit], Path], part: str) -> None:
    folder = edited(Method.MORPHEME, lambda manifest: manifest["analysis"].update({part: "0.0.1"}))
    with pytest.raises(HunminError, match=r"trained with .*0\.0\.1.*installed is") as caught:
        load(folder)
    assert caught.value.code is ErrorCode.CONFLICT


def test_a_lexicon_that_is_not_the_manifests_is_refused(edited: Callable[[Method, Edit], Path]) -> None:
    folder = edited(Method.MORPHEME, lambda manifest: None)
    with (folder / LEXICON).open("a") as file:
        file.write("영 화\n")
    with pytest.raises(HunminError, match=r"lexicon\.txt is not the file"):
        load(folder)


def test_the_lexicon_says_what_the_analyser_says() -> None:
    cuts = (STARTER / LEXICON).read_text(encoding="utf-8").splitlines()
    assert len(cuts) == LEXICON_WORDS
    assert all(cut.split(" ") == split_morphemes(cut.replace(" ", "")) for cut in cuts)


def test_a_method_without_analysis_asks_for_no_analyser(edited: Callable[[Method, Edit], Path]) -> None:
    assert load(edited(Method.BYTE, lambda manifest: manifest.update(analysis=None))).method == "byte"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format"),
        ({"method": "sentencepiece"}, "method"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"vocab_size": 399}, "manifest says 399"),
        ({"method": "morpheme", "analysis": None}, "analysis"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    edited: Callable[[Method, Edit], Path], change: dict[str, Any], said: str
) -> None:
    folder = edited(Method.BYTE, lambda manifest: manifest.update(change))
    with pytest.raises(HunminError, match=said):
        load(folder)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HunminError, match=r"tokenizer\.json does not exist") as caught:
        load(tmp_path)
    assert caught.value.code is ErrorCode.NOT_FOUND


def test_a_relative_folder_is_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HunminError, match=f" {tmp_path}/none/tokenizer"):
        load(Path("none"))


def test_a_vocabulary_smaller_than_the_bytes_is_refused() -> None:
    with pytest.raises(HunminError, match="at least 258"):
        train(Method.MORPHEME, SENTENCES, vocab_size=257)


def test_the_starter_is_the_one_that_the_model_was_trained_with(starter: Tokenizer) -> None:
    assert starter.digest == "8e569259fdc423badb61f5c0057e2ad9fa87ea53661c9b4f70c68bb5dc761dab"
    assert (starter.vocab_size, starter.eos_id, starter.pad_id) == (8192, 0, 1)
    assert [starter.token_text(i) for i in starter.encode("이 영화는 정말")] == ["이", " 영화", "는", " 정말"]
