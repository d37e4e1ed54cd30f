"""The tensors of a checkpoint's safetensors files, under the names of their family."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hunmin_modeling.config import ModelConfig, refused

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Names:
    """What transformers calls the tensors of a family; `layers` is followed by a number.

    Those of a projection stand side by side in it. A file of the bare model leaves out `prefix`.
    """

    architecture: str
    prefix: str
    embedding: str
    layers: str
    attention_norm: str
    qkv: tuple[str, ...]
    attention_out: str
    mlp_norm: str
    up: tuple[str, ...]
    down: str
    norm: str
    heads: tuple[str, ...]  # the first that is there
    positions: str = ""
    post_norms: tuple[str, str] = ("", "")
    is_transposed: bool = False  # [in, out]
    is_interleaved: bool = False  # query, key and value of a head lie together


_LLAMA = Names(
    architecture="LlamaForCausalLM",
    prefix="model.",
    embedding="embed_tokens",
    layers="layers.",
    attention_norm="input_layernorm",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention_out="self_attn.o_proj",
    mlp_norm="post_attention_layernorm",
    up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    norm="norm",
    heads=("lm_head",),
)
_NAMES = {
    "llama": _LLAMA,
    "hyperclovax": Names(
        **(vars(_LLAMA) | {"architecture": "HyperCLOVAXForCausalLM", "post_norms": ("post_norm1", "post_norm2")})
    ),
    "gpt2": Names(
        architecture="GPT2LMHeadModel",
        prefix="transformer.",
        embedding="wte",
        positions="wpe",
        layers="h.",
        attention_norm="ln_1",
        qkv=("attn.c_attn",),
        attention_out="attn.c_proj",
        mlp_norm="ln_2",
        up=("mlp.c_fc",),
        down="mlp.c_proj",
        norm="ln_f",
        heads=("lm_head",),
        is_transposed=True,
    ),
    "gpt_neox": Names(
        architecture="GPTNeoXForCausalLM",
        prefix="gpt_neox.",
        embedding="embed_in",
        layers="layers.",
        attention_norm="input_layernorm",
        qkv=("attention.query_key_value",),
        attention_out="attention.dense",
        mlp_norm="post_attention_layernorm",
        up=("mlp.dense_h_to_4h",),
        down="mlp.dense_4h_to_h",
        norm="final_layer_norm",
        heads=("embed_out", "lm_head"),
        is_interleaved=True,
    ),
}


class Tensors:
    """The tensors in `files`, each read when it is taken; what lacks or has another shape is told of at the end."""

    def __init__(self, files: list[Path], *, prefix: str, dtype: torch.dtype, device: str) -> None:
        """Open `files`; names may go without `prefix`. Tensors are brought to `dtype` and `device`."""
        self.parameters = 0  # how many numbers were taken
        self.missing: list[str] = []
        self.mismatched: list[str] = []
        self._prefix, self._dtype, self._device = prefix, dtype, device
        opened: list[Any] = [safe_open(file, framework="pt") for file in files]
        self._file_of = {name: file for file in opened for name in file.keys()}  # noqa: SIM118  # no dict

    def has(self, name: str) -> bool:
        """Tell whether there is a tensor `name`."""
        return self._name(name) is not None

    def equals(self, name: str, tensor: Tensor) -> bool:
        """Tell whether the tensor `name` is `tensor`, in its dtype."""
        return torch.equal(self._read(name).to(tensor), tensor)

    def take(self, name: str, *shape: int) -> Tensor:
        """Return the tensor `name`; zeros of `shape` if it cannot be had."""
        if not self.has(name):
            self.missing.append(name)
            return torch.zeros(shape, dtype=self._dtype)
        tensor = self._read(name)
        if tensor.dtype not in _FLOATS or tensor.shape != shape:
            self.mismatched.append(f"{name} (is {tensor.dtype} {[*tensor.shape]}, should be a plain float {[*shape]})")
            return torch.zeros(shape, dtype=self._dtype)
        self.parameters += tensor.numel()
        # A copy: what is read lies in the mapped file, which somebody may write over while the model runs.
        return tensor.to(self._device, self._dtype, copy=True)

    def _name(self, name: str) -> str | None:
        return next((each for each in (name, name.removeprefix(self._prefix)) if each in self._file_of), None)

    def _read(self, name: str) -> Tensor:
        found = self._name(name)
        tensor: Tensor = self._file_of[found].get_tensor(found)
        return tensor


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of `folder`, each seen to be whole; HunminError if one is missing or damaged."""
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file() and not (folder / names[0]).is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            files = [folder / name for name in names]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise refused(folder, f"{index.name} is not a valid index ({error}).") from error
    files = [folder / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
        found = f" (found {', '.join(pickles)}: pickle is never read, convert it to safetensors)" if pickles else ""
        raise refused(folder, f"{', '.join(missing)} is missing{found}.")
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise refused(folder, f"{file.name} is damaged ({error}): copy it again.") from error
    return files


def digest_of(files: list[Path]) -> str:
    """Return the sha256 of `files` together, in hex."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def names_of(config: ModelConfig) -> Names:
    """Return the names of the family of `config`."""
    return _NAMES[config.model_type]
