"""Tiny engines: random checkpoints, loaded as any checkpoint is, and a vocabulary in which each token is a syllable."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hunmin_generation.engine.engine import Engine, EngineLimits
from hunmin_modeling.checkpoint import Checkpoint, load_checkpoint
from hunmin_modeling.kv_pool import kv_bytes_per_token
from hunmin_modeling.testing import save_tiny_checkpoint

torch.set_num_threads(1)  # tiny products, and a machine that may be busy


class Syllables:
    """Token i is the ith Hangul syllable."""

    vocab_size = 97
    eos_id = 0

    def decoder(self) -> "Syllables":
        return self

    def push(self, token_id: int) -> str:
        return chr(0xAC00 + token_id)

    def flush(self) -> str:
        return ""

    def decode(self, ids: list[int]) -> str:
        return "".join(map(self.push, ids))

    def token_text(self, token_id: int) -> str:
        return self.push(token_id)

    def token_bytes(self, token_id: int) -> bytes:
        return self.push(token_id).encode()

    def ids(self, text: str) -> list[int]:
        return [ord(letter) - 0xAC00 for letter in text]


@pytest.fixture(scope="session")
def vocabulary() -> Syllables:
    return Syllables()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """Load a tiny checkpoint of a model type, once per session."""
    loaded: dict[str, Checkpoint] = {}

    def load(model_type: str) -> Checkpoint:
        if model_type not in loaded:
            folder: Path = tmp_path_factory.mktemp(model_type)
            loaded[model_type] = load_checkpoint(save_tiny_checkpoint(folder, model_type))
        return loaded[model_type]

    return load


NewEngine = Callable[..., Engine]


@pytest.fixture
def new_engine(checkpoint: Callable[[str], Checkpoint], vocabulary: Syllables) -> NewEngine:
    """Make an engine whose pool holds `blocks` blocks of 4 tokens; an unexpected error in it fails the test."""

    def make(
        model_type: str = "gpt2",
        *,
        blocks: int = 96,
        max_batch_tokens: int = 64,
        max_running: int = 16,
        prefix_cache: bool = True,
    ) -> Engine:
        model = checkpoint(model_type)
        limits = EngineLimits(
            max_batch_tokens=max_batch_tokens,
            max_running=max_running,
            block_size=4,
            prefix_cache=prefix_cache,
            kv_bytes=blocks * 4 * kv_bytes_per_token(model.config, model.dtype),
        )
        return Engine(model, vocabulary, limits, on_failure=_raise)

    return make


def _raise(error: Exception) -> None:
    raise error
