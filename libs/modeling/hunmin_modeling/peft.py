"""Adapter folders of PEFT, both ways. It reads and writes their files, and does not need the library.

A template is no part of PEFT's format, which puts all rows before the prompt. It stays in our manifest, in the metadata
of the same tensor file, where PEFT does not look.
"""

from pathlib import Path

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.peft import CONFIG_FILE, WEIGHTS_FILE, AdapterConfig, adapter_of
from hunmin_contracts.soft_prompts import Manifest
from pydantic import ValidationError
from torch import Tensor

from hunmin_modeling.soft_prompt import SoftPromptContent, read_file, write_file


def read_adapter(folder: Path, *, d_model: int) -> SoftPromptContent:
    """Read the rows of a prompt-tuning or p-tuning adapter, for a model of width `d_model`.

    A folder that holds anything else is an `invalid_request` or an `invalid_parameter` that says what.
    """
    try:
        config = AdapterConfig.model_validate_json((folder / CONFIG_FILE).read_bytes())
        content = (folder / WEIGHTS_FILE).read_bytes()
    except FileNotFoundError as error:
        raise HunminError(
            ErrorCode.NOT_FOUND,
            f"{error.filename} does not exist. Name a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, as PEFT saves it.",
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "its JSON"
        raise HunminError(
            ErrorCode.INVALID_REQUEST,
            f"{folder / CONFIG_FILE} is not of a prompt-tuning or p-tuning adapter of a causal model ({place}: "
            f"{first['msg']}).",
        ) from None
    found = read_file(content, d_model=d_model)
    config.check(n_virtual=len(found.rows), d_model=d_model)
    return found


def write_adapter(folder: Path, rows: Tensor, manifest: Manifest, *, base_model: str | None) -> None:
    """Write rows [n_virtual, d_model] as a prompt-tuning adapter, for `PeftModel.from_pretrained`."""
    content = write_file(rows, manifest)
    config = adapter_of(n_virtual=rows.shape[0], d_model=rows.shape[1], base_model=base_model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(content)
    (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2), encoding="utf-8")
