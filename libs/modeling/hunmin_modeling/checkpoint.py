"""Checkpoint folders as transformers writes them: checked, hashed, loaded with frozen weights onto our attention.

Reads config.json and safetensors from a local folder only: no network, no pickle, no code from the folder.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hunmin_modeling.attention import AttentionBatch
from hunmin_modeling.config import ModelConfig, read_config, read_end_ids, refused
from hunmin_modeling.decoder import Decoder
from hunmin_modeling.linear import activation_dtype, linear_kind
from hunmin_modeling.weights import Tensors, digest_of, names_of, weight_files


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to run, and what must be known of it. `digest`: sha256 of the weight files, in order of name.

    `dtype` is that of its weights.
    """

    model: Decoder
    digest: str
    dtype: torch.dtype
    context_length: int
    vocab_size: int
    end_ids: frozenset[int]
    created: int
    parameters: int

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        return self.model.config

    @property
    def architecture(self) -> str:
        """What transformers calls a model of this family, such as `GPT2LMHeadModel`."""
        return names_of(self.config).architecture

    @property
    def activation_dtype(self) -> torch.dtype:
        """What it computes in. Keys and values are kept in `dtype`."""
        return self.model.activation_dtype

    @property
    def embedding(self) -> Tensor:
        """What each token is to the model, [vocab, d_model]."""
        return self.model.embedding

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    def embed(self, ids: Tensor) -> Tensor:
        """Return what tokens `ids` [T] are to the model, [T, d_model]."""
        return self.embedding[ids].to(self.activation_dtype)

    def forward(
        self, embeddings: Tensor, positions: Tensor, batch: AttentionBatch, *, rows: Tensor, with_hidden: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Run T packed tokens, given as `embeddings` [T, d_model] with their `positions` [T].

        Returns the logits [R, vocab] after those at `rows` [R], and if asked for the last layer's hidden states of all,
        [T, d_model].
        """
        logits, hidden = self.model(embeddings, positions, batch, rows=rows, with_hidden=with_hidden)
        return logits, hidden


def load_checkpoint(
    folder: Path, *, dtype: torch.dtype = torch.float32, int8: bool = False, device: str = "cpu"
) -> Checkpoint:
    """Load the checkpoint in `folder`; a HunminError names the folder and the fault of one that cannot be served.

    `int8` quantises the linear layers; everything else stays in `dtype`. Weights are packed on the CPU alone.
    """
    config = read_config(folder)
    files = weight_files(folder)
    tensors = Tensors(files, prefix=names_of(config).prefix, dtype=dtype, device=device)
    model = Decoder(
        config,
        tensors,
        linear_kind(dtype, int8=int8, device=device),
        activation_dtype=activation_dtype(dtype, device=device),
    ).to(device)
    for problem, found in (("missing keys", tensors.missing), ("mismatched keys", tensors.mismatched)):
        if found:
            raise refused(folder, f"{problem}: {', '.join(sorted(found)[:4])}.")
    return Checkpoint(
        model=model,
        digest=digest_of(files),
        dtype=dtype,
        context_length=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        end_ids=read_end_ids(folder, config),
        created=int(max(file.stat().st_mtime for file in files)),
        parameters=tensors.parameters,
    )
