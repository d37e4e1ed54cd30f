"""What reports need of base models, from their folders: the tokenizer and the context length. It loads no weights."""

import json
from collections.abc import Mapping
from pathlib import Path

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_text.artefact import load

from hunmin_tuning.datasets.library import BaseModel

_CONTEXT_LENGTH = ("n_positions", "max_position_embeddings")  # as GPT-2 calls it, and as every later model does


def load_models(folders: Mapping[str, Path]) -> dict[str, BaseModel]:
    """Read every folder; a HunminError says which cannot be used."""
    return {name: BaseModel(load(folder, name=name), _context_length(folder)) for name, folder in folders.items()}


def _context_length(folder: Path) -> int:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HunminError(ErrorCode.INVALID_REQUEST, f"{folder}/config.json cannot be read: {error}.") from None
    found = [config[key] for key in _CONTEXT_LENGTH if isinstance(config.get(key), int)]
    if not found:
        raise HunminError(ErrorCode.INVALID_REQUEST, f"{folder}/config.json does not tell the context length.")
    return int(found[0])
