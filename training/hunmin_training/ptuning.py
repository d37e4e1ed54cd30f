"""p-tuning of a frozen model on a two-label task, to judge a pretrained model; the tuning service is another thing.

Liu et al. 2021 (paper, section 4.3): pseudo-token embeddings come from an LSTM prompt encoder, every weight of the
model is frozen, and what is kept at the end is a matrix [n_virtual, d_model].
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Example:
    """Token ids of a text and the number of its label."""

    ids: list[int]
    label: int


class PromptEncoder(nn.Module):
    """Trainable inputs through a bidirectional two-layer LSTM and an MLP, giving [n_virtual, d_model]."""

    def __init__(self, n_virtual: int, d_model: int, *, scale: float) -> None:
        super().__init__()
        self.inputs = nn.Parameter(torch.randn(n_virtual, d_model))
        self.lstm = nn.LSTM(d_model, d_model // 2, num_layers=2, bidirectional=True, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, d_model))
        self.scale = scale  # the size of the model's own embeddings, so that a fresh prompt looks like tokens

    def forward(self) -> Tensor:
        """Return the virtual tokens, shape [n_virtual, d_model]."""
        hidden, _ = self.lstm(self.inputs[None])
        out = self.mlp(hidden)[0]
        return F.layer_norm(out, out.shape[-1:]) * self.scale


@dataclass(frozen=True)
class Task:
    """A frozen model with the label's tokens; the virtual tokens stand half before and half after the text."""

    model: PreTrainedModel
    label_ids: tuple[int, ...]
    max_tokens: int = 160

    def logits(self, prompt: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return the label logits, shape [examples, labels], given virtual tokens [n_virtual, d_model]."""
        embed = self.model.get_input_embeddings()
        half = len(prompt) // 2
        rows = [
            torch.cat([prompt[:half], embed(torch.tensor(example.ids[: self.max_tokens])), prompt[half:]])
            for example in examples
        ]
        last = torch.tensor([len(row) - 1 for row in rows])
