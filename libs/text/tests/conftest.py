"""Small tokenizers of every method, learnt from a page of text, and the strategies that make hard strings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hunmin_text.artefact import TrainingData, load, save
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.training import Method, train
from hypothesis import settings

settings.register_profile("hunmin", deadline=None, max_examples=150)
settings.load_profile("hunmin")

STARTER = Path(__file__).parents[3] / "training" / "models" / "starter"

SENTENCES = [
    "아버지가 방에 들어가신다. 그리고 아무 말도 하지 않으셨다.",
    "이 영화는 정말 재미있었습니다! 배우들의 연기도 좋았어요 ㅋㅋㅋ",
    "기대하지 않고 봤는데, 생각보다 괜찮네요... 10점 만점에 8점 ㅠㅠ",
    "질문: 오늘 날씨가 어때?\n답변: 맑고 따뜻할 거예요.",
    "The quick brown fox jumps over the lazy dog, 1234567 times.",
    "\t탭과  두 칸   세 칸, 그리고 줄바꿈\n\n끝.",
    "극장에서는 사람들이 영화를 보고 극장에서 나왔다. 사람들은 영화가 좋았다고 했다.",
] * 5
NOTHING_SPECIAL = TrainingData(description="a page of sentences", lines=len(SENTENCES), sha256="0" * 64)


def build(method: Method, folder: Path) -> Tokenizer:
    """Train a small tokenizer and write it to a folder."""
    learnt = train(method, SENTENCES, vocab_size=400)
    return save(learnt, folder / method, method=method, training_data=NOTHING_SPECIAL)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds one tokenizer folder per method."""
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="session")
def tokenizers(folders: Path) -> dict[Method, Tokenizer]:
    """A small tokenizer of every method."""
    return {method: build(method, folders) for method in Method}


@pytest.fixture(scope="session")
def morpheme(tokenizers: dict[Method, Tokenizer]) -> Tokenizer:
    """The small morpheme-aware tokenizer."""
    return tokenizers[Method.MORPHEME]


@pytest.fixture(scope="session")
def starter() -> Tokenizer:
    """The vocabulary that the starter model is trained with."""
    return load(STARTER)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of Korean test data, where this machine has it."""
    if "HUNMIN_DATA" not in os.environ:
        pytest.skip("HUNMIN_DATA is not set: it names the folder of Korean test data")
    return Path(os.environ["HUNMIN_DATA"])
