"""Checkpoint folders as transformers writes them: checked, hashed, loaded with frozen weights onto our attention.

Reads config.json and safetensors from a local folder only: no network, no pickle, no code from the folder.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from hunmin_modeling.attention import ATTENTION, AttentionBatch
from hunmin_modeling.linear import pack_linears

# Those whose output the truth test compares with `generate`. Another may hold what our attention leaves out
# (sliding windows, ALiBi, soft caps), and would load and answer wrongly.
MODEL_TYPES = frozenset({"gpt2", "gpt_neox", "hyperclovax", "llama"})
# Rotary kinds whose angles depend on the length of the batch mix sequences that have nothing to do with each other.
ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to run, and what must be known of it. `digest`: sha256 of the weight files, in order of name."""

    model: PreTrainedModel
    digest: str
    dtype: torch.dtype
    context_length: int
    vocab_size: int
    end_ids: frozenset[int]
    created: int
    parameters: int

    @property
    def config(self) -> PretrainedConfig:
        """The model's shape, as transformers read it."""
        return self.model.config

    @property
    def architecture(self) -> str:
        """The class of the model definition, such as `GPT2LMHeadModel`."""
        return type(self.model).__name__

    def embed(self, ids: Tensor) -> Tensor:
        """Return what tokens `ids` [T] are to the model, [T, d_model]."""
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        return embedded

    def forward(
        self, embeddings: Tensor, positions: Tensor, batch: AttentionBatch, *, rows: Tensor, with_hidden: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Run T packed tokens, given as `embeddings` [T, d_model] with their `positions` [T].

        Returns the logits [R, vocab] after those at `rows` [R], and if asked for the last layer's hidden states of all,
        [T, d_model].
        """
        output = self.model(
            inputs_embeds=embeddings[None],
            position_ids=positions[None],
            use_cache=False,
            logits_to_keep=rows,
            output_hidden_states=with_hidden,
            batch=batch,
        )
        return output.logits[0], output.hidden_states[-1][0] if with_hidden else None


def load_checkpoint(
    folder: Path, *, dtype: torch.dtype = torch.float32, int8: bool = False, device: str = "cpu"
) -> Checkpoint:
    """Load the checkpoint in `folder`; a HunminError names the folder and the fault of one that cannot be served.

    `int8` quantises the linear layers; everything else stays in `dtype`. Weights are packed on the CPU alone.
    """
    config = _config(folder)
    files = weight_files(folder)
    model = _model(folder, config, dtype)
    parameters = model.num_parameters()  # packed weights are no longer counted
    if device == "cpu":
        pack_linears(model, int8=int8)
    else:
        torch.nn.Module.to(model, device)
    return Checkpoint(
        model=model,
        digest=digest_of(files),
        dtype=dtype,
        context_length=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        end_ids=_end_ids(model),
        created=int(max(file.stat().st_mtime for file in files)),
        parameters=parameters,
    )


def _refused(folder: Path, reason: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_REQUEST, f"The checkpoint {folder} cannot be loaded: {reason}")


def _config(folder: Path) -> PretrainedConfig:
    if not folder.is_dir():
        raise HunminError(ErrorCode.NOT_FOUND, f"There is no checkpoint folder {folder}: correct the path.")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _refused(folder, f"its config.json is missing or not valid ({error}).") from error
    if config.model_type not in MODEL_TYPES:
        raise _refused(folder, f"model type {config.model_type} is not one of {', '.join(sorted(MODEL_TYPES))}.")
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in ROPE_TYPES:
        raise _refused(folder, f"rotary type {rope['rope_type']} is not one of {', '.join(sorted(ROPE_TYPES))}.")
    if not isinstance(config, PretrainedConfig):
        raise _refused(folder, "its config.json does not describe a transformers model.")
    return config


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of `folder`, each seen to be whole; HunminError if one is missing or damaged."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _refused(folder, f"{index.name} is not a valid index ({error}).") from error
    else:
        names = ["model.safetensors"]
    files = [folder / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
        found = f" (found {', '.join(pickles)}: pickle is never read, convert it to safetensors)" if pickles else ""
        raise _refused(folder, f"{', '.join(missing)} is missing{found}.")
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise _refused(folder, f"{file.name} is damaged ({error}): copy it again.") from error
    return files


def _model(folder: Path, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=ATTENTION,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported, and refused below with their names
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise _refused(folder, f"transformers refuses it ({error}).") from error
    model: PreTrainedModel
    model, report = loaded
    # transformers fills what the file lacks with random numbers and only warns.
    for problem in ("missing_keys", "mismatched_keys"):
        if report[problem]:
            raise _refused(folder, f"{problem.replace('_', ' ')}: {', '.join(map(str, sorted(report[problem])[:4]))}.")
    model.requires_grad_(False)
    return model


def digest_of(files: list[Path]) -> str:
    """Return the sha256 of `files` together, in hex."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _end_ids(model: PreTrainedModel) -> frozenset[int]:
    ids = model.generation_config.eos_token_id
    if ids is None:
        ids = model.config.eos_token_id
    if ids is None:
        return frozenset()
    return frozenset(ids if isinstance(ids, list) else [ids])
