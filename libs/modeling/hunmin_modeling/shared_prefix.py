"""Sequences that begin alike: what they share goes through a frozen model once, beside the rest, without padding.

Differentiable in the rows of a soft prompt, which a batch usually begins with; no weight ever requires a gradient.
Must not know text, jobs or optimisers.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from hunmin_modeling.checkpoint import Checkpoint
from hunmin_modeling.gradient import Example


class SharedPrefixBatch:
    """A row of `prefix` tokens and then sequences of `lengths`: each attends to the prefix and to itself."""

    def __init__(self, prefix: int, lengths: Sequence[int], *, device: torch.device) -> None:
        """Lay out the tokens; the first of each sequence has the position `prefix`."""
        own = [torch.arange(length) for length in lengths]
        self.positions = torch.cat([torch.arange(prefix), *(each + prefix for each in own)]).to(device)  # [T]
        self.prefix = prefix
        self.longest = max(lengths)
        self.count = len(lengths)
        # Attention alone is padded: place i of sequence b in [count, longest], and back.
        begins = torch.tensor([prefix, *accumulate(lengths, initial=prefix)][1:-1])
        places = torch.arange(self.longest)[None].minimum(torch.tensor(lengths)[:, None] - 1)
        self._padded = (begins[:, None] + places).flatten().to(device)  # [count * longest]
        self._packed = torch.cat([each + number * self.longest for number, each in enumerate(own)]).to(device)
        # What pads a sequence comes after it, so that causality hides it: one mask serves all.
        seen = torch.ones(self.longest, prefix + self.longest, dtype=torch.bool).tril(prefix)
        self._mask = seen.to(device)  # [longest, prefix + longest]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Return what each query attends to, as `AttentionBatch` says."""
        heads, _, width = query.shape[1:]
        is_grouped = heads != key.shape[1]
        keys, values = self.beside_prefix(key), self.beside_prefix(value)
        rest = F.scaled_dot_product_attention(
            self._apart(query), keys, values, attn_mask=self._mask, scale=scaling, enable_gqa=is_grouped
        )
        rest = rest.transpose(1, 2).reshape(-1, heads, width).index_select(0, self._packed)[None]
        if self.prefix == 0:
            return rest
        shared = slice(0, self.prefix)
        first = F.scaled_dot_product_attention(
            query[:, :, shared],
            key[:, :, shared],
            value[:, :, shared],
            is_causal=True,
            scale=scaling,
            enable_gqa=is_grouped,
        )
        return torch.cat([first.transpose(1, 2), rest], dim=1)

    def beside_prefix(self, part: Tensor) -> Tensor:
        """Return [count, kv_heads, prefix + longest, head_dim] of keys or values [1, kv_heads, T, head_dim]."""
        return torch.cat([part[:, :, : self.prefix].expand(self.count, -1, -1, -1), self._apart(part)], dim=2)

    def _apart(self, part: Tensor) -> Tensor:
        """Return [count, heads, longest, head_dim] of the sequences in `part` [1, heads, T, head_dim]."""
        chosen = part[0].transpose(0, 1).index_select(0, self._padded)
        return chosen.view(self.count, self.longest, *chosen.shape[1:]).transpose(1, 2)


class PackedPrompts:
    """Examples laid out for one pass: `ids` [T], and `sources` [R], after which each target token is predicted."""

    def __init__(self, examples: Sequence[Example], *, device: torch.device) -> None:
        """Find what the prompts share, but for the last token of each; their targets follow without their last one."""
        prompts = [list(each.prompt) for each in examples]
        prefix = _shared(prompts)
        whole = [[*each.prompt, *each.target[:-1]] for each in examples]
        ids = [*whole[0][:prefix], *(token for each in whole for token in each[prefix:])]
        lengths = [len(each) - prefix for each in whole]
        ends = list(accumulate(lengths, initial=prefix))[1:]
        sources = [
            place for end, each in zip(ends, examples, strict=True) for place in range(end - len(each.target), end)
        ]
        self.batch = SharedPrefixBatch(prefix, lengths, device=device)
        self.ids = torch.tensor(ids, device=device)
        self.sources = torch.tensor(sources, device=device)
        self.targets = torch.tensor([token for each in examples for token in each.target], device=device)  # [R]
        virtual = torch.tensor([place for place, token in enumerate(ids) if token < 0], dtype=torch.long, device=device)
        self._virtual = virtual, -1 - self.ids[virtual]

    def embed(self, checkpoint: Checkpoint, rows: Tensor | None) -> Tensor:
        """Return what stands at each place [T, d_model]; it has a gradient to `rows` [n_virtual, d_model]."""
        with torch.no_grad():
            embeddings = checkpoint.embed(self.ids.clamp(min=0))
        if rows is None:
            return embeddings
        places, numbers = self._virtual
        return embeddings.index_copy(0, places, rows[numbers].to(embeddings.dtype))


def target_logits(checkpoint: Checkpoint, prompts: PackedPrompts, rows: Tensor | None) -> Tensor:
    """Return the logits [R, vocab] that predict the target tokens, with a gradient to `rows` [n_virtual, d_model]."""
    logits, _ = checkpoint.forward(
        prompts.embed(checkpoint, rows), prompts.batch.positions, prompts.batch, rows=prompts.sources
    )
    return logits


def _shared(prompts: Sequence[list[int]]) -> int:
    """Return how many tokens all prompts begin with, less than the shortest has. A single one shares nothing."""
    if len(prompts) == 1:
        return 0
    first, last = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    return next((n for n in range(most) if first[n] != last[n]), most)
