"""Foreign tokenizer folders: byte-level BPE, SentencePiece's spelling with byte fallback, WordPiece."""

import json
from pathlib import Path
from typing import Any

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_text.artefact import load
from hunmin_text.chat import encode_chat
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from .conftest import SENTENCES
from .strategies import HARD


def write(folder: Path, backend: Tokenizer, **files: Any) -> Path:
    """Write a tokenizer folder; `files` by name without `.json`."""
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def byte_level() -> Tokenizer:
    """A tokenizer in GPT-2's and Llama 3's manner."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    backend.post_processor = processors.TemplateProcessing("<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    return backend


def sentencepiece() -> Tokenizer:
    """A tokenizer in Llama 2's manner: `▁` for spaces, one put in front, bytes for unknown characters."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for letter in ["▁", *dict.fromkeys("영화가 정말재미있다abc.".replace(" ", ""))]:
        vocabulary[letter] = len(vocabulary)
    merges = [("영", "화"), ("▁", "영화"), ("재", "미")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return backend


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory):
    """A byte-level folder that names its tokens as transformers does."""
    folder = tmp_path_factory.mktemp("gpt")
    config = {"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>", "special": True}}
    return load(write(folder, byte_level(), tokenizer_config=config))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory):
    """A SentencePiece-like folder whose end token only the model's configuration names."""
    folder = tmp_path_factory.mktemp("llama")
    return load(write(folder, sentencepiece(), config={"eos_token_id": [2], "pad_token_id": 0}))


@given(text=HARD)
def test_byte_level_is_exact(gpt, text: str) -> None:
    encoding = gpt.encode_with_offsets(text)
    assert gpt.decode(encoding.ids) == text
    assert all(
        gpt.token_bytes(token_id) in text[start:end].encode()
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
    )


@given(text=HARD.filter(lambda text: "▁" not in text))
def test_byte_fallback_is_exact_but_for_its_own_space_letter(llama, text: str) -> None:
    assert llama.decode(llama.encode(text)) == text


@given(ids=st.lists(st.integers(0, 275), max_size=20))
def test_sentencepiece_streams_as_it_decodes(llama, ids: list[int]) -> None:
    decoder = llama.decoder()
    assert "".join([decoder.push(token_id) for token_id in ids]) + decoder.flush() == llama.decode(ids)


def test_sentencepiece_decodes_as_the_library_does(llama) -> None:
    backend = sentencepiece()
    for text in ["영화가 정말", " 영화", "  두 칸", "뷁 😀", "a b", ""]:
        ids = llama.encode(text)
        assert ids == backend.encode(text, add_special_tokens=False).ids
        assert llama.decode(ids) == backend.decode(ids) == text


def test_sentencepiece_streams_syllables_of_bytes_and_no_first_space(llama) -> None:
    decoder = llama.decoder()
    pushed = [decoder.push(token_id) for token_id in llama.encode("영화 뷁")]
    assert pushed == ["영화", " ", "", "", "뷁"]


def test_special_tokens_come_from_the_files(gpt, llama) -> None:
    assert (gpt.method, gpt.eos_id, gpt.pad_id, gpt.prefix_ids) == ("huggingface", 1, 1, [0])
    assert (llama.eos_id, llama.pad_id, llama.prefix_ids) == (2, 0, [1])
    assert gpt.decode([0, *gpt.encode("영화"), 1]) == "영화"


def test_typed_special_tokens_are_text_unless_a_template_wrote_them(gpt) -> None:
    text = "<|end|>영화"
    assert gpt.decode(gpt.encode(text)) == text
    assert gpt.encode_marked(text) == [1, *gpt.encode("영화")]


def test_truncation_and_padding_in_the_file_are_ignored(tmp_path: Path) -> None:
    backend = byte_level()
    backend.enable_truncation(4)
    backend.enable_padding(length=50)
    tokenizer = load(write(tmp_path, backend, config={"eos_token_id": 1}))
    assert tokenizer.decode(tokenizer.encode(SENTENCES[0])) == SENTENCES[0]


def test_wordpiece_streams_words(tmp_path: Path) -> None:
    vocabulary = {"[UNK]": 0, "[SEP]": 1, "영화": 2, "##가": 3, "좋다": 4}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.add_special_tokens(["[UNK]", "[SEP]"])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    tokenizer = load(write(tmp_path, backend, special_tokens_map={"eos_token": "[SEP]"}))
    ids = tokenizer.encode("영화가 좋다")
    decoder = tokenizer.decoder()
    assert [decoder.push(token_id) for token_id in ids] == ["영화", "가", " 좋다"]
    assert tokenizer.encode_with_offsets("영화가 좋다").offsets == [(0, 2), (2, 3), (4, 6)]


def test_a_lone_surrogate_is_refused(gpt, llama) -> None:
    for tokenizer in (gpt, llama):
        with pytest.raises(HunminError, match="lone surrogate"):
            tokenizer.encode("\ud800")


def test_a_folder_without_an_end_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HunminError, match="end-of-text token") as caught:
        load(write(tmp_path, byte_level(), config={"eos_token_id": 100_000}))
    assert caught.value.code is ErrorCode.CONFLICT


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    write(tmp_path, byte_level())
    (tmp_path / "config.json").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(HunminError, match=r"config\.json is not JSON"):
        load(tmp_path)


def test_a_folder_brings_its_chat_template(tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    config = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "chat_template": template}
    tokenizer = load(write(tmp_path, byte_level(), tokenizer_config=config))
    ids = encode_chat(tokenizer, [{"role": "user", "content": "영화"}])
    assert ids == [0, *tokenizer.encode("영화"), 1]
    with pytest.raises(HunminError, match="reserves"):
        encode_chat(tokenizer, [{"role": "user", "content": "영화<|end|>"}])


def test_a_decoder_that_cannot_stream_is_refused(tmp_path: Path) -> None:
    backend = byte_level()
    backend.decoder = decoders.CTC()
    with pytest.raises(HunminError, match="CTC"):
        load(write(tmp_path, backend, config={"eos_token_id": 1}))
