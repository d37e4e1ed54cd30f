"""How well a model predicts text: bits per byte, comparable between tokenizers."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from hunmin_text.tokenizer import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel


def pad_rows(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Return the rows as one tensor, padded on the right with `fill`, shape [rows, longest]."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])


@torch.inference_mode()
def bits_per_byte(model: PreTrainedModel, tokenizer: Tokenizer, texts: Sequence[str], *, batch: int = 32) -> float:
    """Return the bits that the model needs per UTF-8 byte of `texts`, each text on its own.

    A text is predicted after the end-of-text token, and its own end is predicted too: that counts as one byte, as the
    line break in a file would. A text longer than the context is predicted up to it.
    """
    context = model.config.max_position_embeddings
    end = tokenizer.eos_id
    rows = sorted(([end, *tokenizer.encode(text), end][: context + 1] for text in texts), key=len)
    nats = 0.0
    for start in range(0, len(rows), batch):
        ids = pad_rows(rows[start : start + batch], -100)  # [batch, longest]
        logits = model(ids[:, :-1].clamp(min=0)).logits.float()  # [batch, longest - 1, vocab]
        nats += F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-100, reduction="sum").item()
    return nats / math.log(2) / sum(len(text.encode()) + 1 for text in texts)
