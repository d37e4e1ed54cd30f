"""Greedy texts for a batch of prompts that begin alike, as an evaluation needs them. Serving has an engine instead."""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hunmin_modeling.checkpoint import Checkpoint
from hunmin_modeling.gradient import Example
from hunmin_modeling.shared_prefix import PackedPrompts, SharedPrefixBatch


class _GrowingBatch:
    """Keeps the keys and values of sequences with a shared prefix, then takes one token of each at a time."""

    def __init__(self, packed: SharedPrefixBatch, lengths: Sequence[int], *, room: int) -> None:
        self._packed = packed
        self._lengths = torch.tensor(lengths, device=packed.positions.device)  # [count], without the prefix
        self._room = room
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._step = -1  # the prompts themselves

    @property
    def positions(self) -> Tensor:
        """Those of the tokens that are taken next [count]."""
        return self._packed.prefix + self._lengths + self._step

    def advance(self) -> None:
        """Go on to the next token of each."""
        self._step += 1
        places = torch.arange(self._packed.prefix + self._packed.longest + self._room, device=self.positions.device)
        self._mask = (places[None] <= self.positions[:, None])[:, None, None]  # [count, 1, 1, places]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Return what the prompts, or one token of each, attend to, as `AttentionBatch` says."""
        if self._step < 0:
            kept = (F.pad(self._packed.beside_prefix(part), (0, 0, 0, self._room)) for part in (key, value))
            self._kept[layer] = (next(kept), next(kept))
            return self._packed.attend(layer, query, key, value, scaling)
        keys, values = self._kept[layer]  # [count, kv_heads, places, head_dim]
        number = torch.arange(len(keys), device=keys.device)
        keys[number, :, self.positions] = key[0].transpose(0, 1)
        values[number, :, self.positions] = value[0].transpose(0, 1)
        attended = F.scaled_dot_product_attention(
            query[0].transpose(0, 1)[:, :, None],
            keys,
            values,
            attn_mask=self._mask,
            scale=scaling,
            enable_gqa=query.shape[1] != keys.shape[1],
        )
        return attended[:, :, 0][None]  # [1, count, heads, head_dim]


@torch.no_grad()
def greedy_texts(
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    rows: Tensor | None,
    *,
    max_tokens: int,
    end_ids: Collection[int],
) -> list[list[int]]:
    """Return the most likely next tokens of each prompt, up to one of `end_ids`, which is left out, or `max_tokens`.

    In prompts -1 - k stands for row k of `rows` [n_virtual, d_model]. `max_tokens` must fit the context of each.
    """
    device = checkpoint.device
    packed = PackedPrompts([Example(prompt, [0]) for prompt in prompts], device=device)
    lengths = [len(prompt) - packed.batch.prefix for prompt in prompts]
    batch = _GrowingBatch(packed.batch, lengths, room=max_tokens)
    logits, _ = checkpoint.forward(
        packed.embed(checkpoint, rows), packed.batch.positions, batch, rows=packed.sources
    )  # [count, vocab]
    texts: list[list[int]] = [[] for _ in prompts]
    running = set(range(len(prompts)))
    for number in range(max_tokens):
        ids = logits.argmax(-1)
        for one in sorted(running):
            token = int(ids[one])
            if token in end_ids:
                running.discard(one)
            else:
                texts[one].append(token)
        if not running or number == max_tokens - 1:
            break
        batch.advance()
        logits, _ = checkpoint.forward(
            checkpoint.embed(ids), batch.positions, batch, rows=torch.arange(len(ids), device=device)
        )
    return texts
