"""Prompt encoders: trainable networks whose output is a soft prompt, [n_virtual, d_model]. They know no model.

Liu et al. 2021 (arXiv 2103.10385, section 3.2): the embeddings of pseudo tokens pass a bidirectional LSTM of two layers
and an MLP, or an MLP alone. Only the output is kept after training.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _PromptEncoder(nn.Module, ABC):
    """Inputs [n_virtual, d_model] through `_mix`, each row then as large as a token's embedding.

    `scale` is the standard deviation of the model's embeddings: without it a fresh prompt looks like no token at all.
    """

    def __init__(self, n_virtual: int, d_model: int, *, scale: float, seed: int) -> None:
        super().__init__()
        self.scale = scale
        with torch.random.fork_rng(devices=()):  # the caller's random numbers stay as they were
            torch.default_generator.manual_seed(seed)
            self.inputs = nn.Parameter(torch.randn(n_virtual, d_model))
            self._build(d_model)

    def forward(self) -> Tensor:
        """Return the soft prompt [n_virtual, d_model]."""
        mixed = self._mix(self.inputs)
        return F.layer_norm(mixed, mixed.shape[-1:]) * self.scale

    @abstractmethod
    def _build(self, d_model: int) -> None:
        """Make the weights that `_mix` needs."""

    @abstractmethod
    def _mix(self, inputs: Tensor) -> Tensor:
        """Return [n_virtual, d_model] of as many inputs."""


class LstmPromptEncoder(_PromptEncoder):
    """A bidirectional LSTM of two layers, then an MLP. The same seed gives the same weights."""

    def __init__(self, n_virtual: int, d_model: int, *, scale: float, seed: int = 0) -> None:
        super().__init__(n_virtual, d_model, scale=scale, seed=seed)

    def _build(self, d_model: int) -> None:
        hidden = -(-d_model // 2)
        self.lstm = nn.LSTM(d_model, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(2 * hidden, d_model), nn.ReLU(), nn.Linear(d_model, d_model))

    def _mix(self, inputs: Tensor) -> Tensor:
        hidden, _ = self.lstm(inputs[None])  # [1, n_virtual, 2 * hidden]
        mixed: Tensor = self.mlp(hidden)[0]
        return mixed


class MlpPromptEncoder(_PromptEncoder):
    """An MLP of three layers, each row by itself. The same seed gives the same weights."""

    def __init__(self, n_virtual: int, d_model: int, *, scale: float, seed: int = 0) -> None:
        super().__init__(n_virtual, d_model, scale=scale, seed=seed)

    def _build(self, d_model: int) -> None:
        self.mlp = nn.Sequential(
            nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, d_model)
        )

    def _mix(self, inputs: Tensor) -> Tensor:
        mixed: Tensor = self.mlp(inputs)
        return mixed
