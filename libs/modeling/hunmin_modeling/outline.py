"""What can be known of a checkpoint folder without running it: shape, digest, token embeddings.

For models that another server computes: that server has the weights in memory, this process maps one tensor of them.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedModel

from hunmin_modeling.weights import digest_of, weight_files


@dataclass(frozen=True)
class Outline:
    """A checkpoint's facts, as of `Checkpoint`. `embeddings` [vocab, d_model] is what each token is to the model."""

    config: PretrainedConfig
    digest: str
    embeddings: Tensor
    end_ids: frozenset[int]
    created: int
    architecture: str

    @property
    def context_length(self) -> int:
        """How many tokens the model takes in all."""
        return int(self.config.max_position_embeddings)

    @property
    def vocab_size(self) -> int:
        """How many ids its logits cover."""
        return int(self.config.vocab_size)

    @property
    def d_model(self) -> int:
        """Its width."""
        return int(self.embeddings.shape[1])


def outline(folder: Path) -> Outline:
    """Read the facts of the checkpoint in `folder`; a HunminError names the folder and its fault."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _refused(folder, f"its config.json is missing or not valid ({error}).") from error
    files = weight_files(folder)
    return Outline(
        config=config,
        digest=digest_of(files),
        embeddings=_embeddings(folder, files, model),
        end_ids=_end_ids(folder, config),
        created=int(max(file.stat().st_mtime for file in files)),
        architecture=type(model).__name__,
    )


def _embeddings(folder: Path, files: list[Path], model: PreTrainedModel) -> Tensor:
    """Map the token embeddings, whose name in the files the model definition tells."""
    table = model.get_input_embeddings().get_parameter("weight")
    name = next(name for name, parameter in model.named_parameters() if parameter is table)
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for found in tensors.keys():  # noqa: SIM118  # no dict
                # A file of the bare model leaves out the prefix that the head's model adds.
                if found == name or name.endswith(f".{found}"):
                    tensor: Tensor = tensors.get_tensor(found)
                    return tensor
    raise _refused(folder, f"its files hold no tensor {name}.")


def _end_ids(folder: Path, config: PretrainedConfig) -> frozenset[int]:
    ids = config.eos_token_id
    if (folder / "generation_config.json").is_file():
        own = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
        ids = ids if own is None else own
    if ids is None:
        return frozenset()
    return frozenset(ids if isinstance(ids, list) else [ids])


def _refused(folder: Path, reason: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_REQUEST, f"The checkpoint {folder} cannot be used: {reason}")
