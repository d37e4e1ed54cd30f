"""The network that is trained: a prompt encoder of the client library, or the rows themselves."""

import torch
from hunmin.tuning import LstmPromptEncoder, MlpPromptEncoder
from hunmin_contracts.tuning import EncoderKind
from hunmin_modeling.checkpoint import Checkpoint
from torch import Tensor, nn


class DirectPrompt(nn.Module):
    """The rows as parameters: prompt tuning (Lester et al. 2021, arXiv 2104.08691), from random tokens' embeddings."""

    def __init__(self, rows: Tensor) -> None:
        """Begin with `rows` [n_virtual, d_model]."""
        super().__init__()
        self.rows = nn.Parameter(rows.float().clone())

    def forward(self) -> Tensor:
        """Return the soft prompt [n_virtual, d_model]."""
        return self.rows


def new_encoder(kind: EncoderKind, checkpoint: Checkpoint, *, n_virtual: int, seed: int) -> nn.Module:
    """Return a fresh encoder, the same for the same seed; called without arguments it gives [n_virtual, d_model]."""
    device = checkpoint.device
    embedding = checkpoint.embedding
    if kind == "direct":
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(checkpoint.vocab_size, (n_virtual,), generator=generator)
        return DirectPrompt(checkpoint.embed(ids.to(device))).to(device)
    network = LstmPromptEncoder if kind == "lstm" else MlpPromptEncoder
    return network(n_virtual, checkpoint.config.hidden_size, scale=float(embedding.float().std()), seed=seed).to(device)
