"""Attention for packed batches of many sequences, registered with transformers, and the batch over the KV pool.

Decoding copies no key and no value: each block of the pool is multiplied, where it lies, with the query of the sequence
that owns it, and only scores and partial outputs move. Must not know models, schedules or text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from hunmin_modeling.kv_pool import KvPool

ATTENTION = "hunmin_batch"


class AttentionBatch(Protocol):
    """What a forward pass is given as `batch`: the sequences whose tokens are packed into one row."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Return what T packed queries attend to in `layer`, [1, T, heads, head_dim].

        `query` [1, heads, T, head_dim], `key` and `value` [1, kv_heads, T, head_dim].
        """
        ...


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of one sequence: positions `start` to `start + count`; `blocks` hold it from position 0 on."""

    blocks: Sequence[int]
    start: int
    count: int


@dataclass(frozen=True)
class _Decode:
    """How the single queries of n sequences meet N rows of blocks: row r is block `select[r]`, or `first + r`."""

    queries: int
    select: Tensor | None
    first: int
    owner: Tensor  # [N] the sequence of each block row
    to_sequence: Tensor  # [n * m] the block row of place (sequence, nth block); any row where there is none
    to_block: Tensor  # [N] the place of each block row
    mask: Tensor  # [n, 1, m, block_size] 0 where a key is, else -inf
    membership: Tensor  # [n, N] 1 where the block is the sequence's


@dataclass(frozen=True)
class _Prefill:
    """A chunk at rows `begin` to `end` of the batch; `blocks` and `mask` are None if no earlier key is in the pool."""

    begin: int
    end: int
    length: int
    blocks: Tensor | None
    mask: Tensor | None  # [count, length] true where a query may see a key


class PackedBatch:
    """What attention must know of one batch: where each token's key goes, and which keys each query sees.

    Made once a step and read by every layer. Single-token spans that come first are decoded together in a few products;
    every other span runs alone.
    """

    def __init__(self, pool: KvPool, spans: Sequence[Span], *, dtype: torch.dtype) -> None:
        """Lay out the tokens of `spans`, in that order."""
        self.pool = pool
        size = pool.block_size
        positions = [np.arange(span.start, span.start + span.count) for span in spans]
        places = [np.asarray(span.blocks)[at // size] for span, at in zip(spans, positions, strict=True)]
        flat = np.concatenate(positions)
        self.positions = torch.from_numpy(flat)  # [T]
        self.offsets = torch.from_numpy(flat % size)  # [T]
        self.blocks = torch.from_numpy(np.concatenate(places))  # [T]
        singles = next((i for i, span in enumerate(spans) if span.count > 1), len(spans))
        self.decode = _decode(spans[:singles], size, dtype) if singles else None
        self.prefills: list[_Prefill] = []
        begin = singles
        for span in spans[singles:]:
            self.prefills.append(_prefill(span, begin, size))
            begin += span.count

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Store the keys and values of the batch's tokens in the pool, and return what its queries attend to."""
        self.pool.write(layer, key[0], value[0], blocks=self.blocks, offsets=self.offsets)
        if self.decode is not None and not self.prefills:
            return _attend_decode(self.pool, layer, query, self.decode, scaling).unsqueeze(0)
        heads, tokens, width = query.shape[1:]
        result = query.new_empty(1, tokens, heads, width)
        if self.decode is not None:
            result[0, : self.decode.queries] = _attend_decode(self.pool, layer, query, self.decode, scaling)
        for chunk in self.prefills:
            rows = slice(chunk.begin, chunk.end)
            if chunk.blocks is None:
                keys, values = key[0, :, rows], value[0, :, rows]
            else:
                keys, values = self.pool.read(layer, chunk.blocks, chunk.length)
            attended = F.scaled_dot_product_attention(
                query[:, :, rows],
                keys[None],
                values[None],
                attn_mask=chunk.mask,
                is_causal=chunk.mask is None,
                scale=scaling,
                enable_gqa=heads != keys.shape[0],
            )
            result[:, rows] = attended.transpose(1, 2)
        return result


def _decode(spans: Sequence[Span], size: int, dtype: torch.dtype) -> _Decode:
    used = [span.blocks[: span.start // size + 1] for span in spans]
    counts = np.array([len(blocks) for blocks in used])
    n, most, total = len(spans), int(counts.max()), int(counts.sum())
    blocks = np.concatenate([np.asarray(b) for b in used])
    sequence = np.repeat(np.arange(n), counts)
    nth = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    first, last = int(blocks.min()), int(blocks.max()) + 1
    # A stretch of the pool with other blocks in between is read whole while that costs less than copying ours out.
    scattered = last - first > 2 * total
    rows = np.arange(total) if scattered else blocks - first
    width = total if scattered else last - first
    owner, to_block = np.zeros(width, np.int64), np.zeros(width, np.int64)
    owner[rows], to_block[rows] = sequence, sequence * most + nth
    to_sequence = np.zeros(n * most, np.int64)
    to_sequence[sequence * most + nth] = rows
    membership = np.zeros((n, width), np.float32)
    membership[sequence, rows] = 1
    lengths = np.array([span.start + 1 for span in spans])
    mask = np.where(np.arange(most * size) < lengths[:, None], np.float32(0), np.float32("-inf"))
    return _Decode(
        queries=n,
        select=torch.from_numpy(blocks) if scattered else None,
        first=first,
        owner=torch.from_numpy(owner),
        to_sequence=torch.from_numpy(to_sequence),
        to_block=torch.from_numpy(to_block),
        mask=torch.from_numpy(mask).view(n, 1, most, size),
        membership=torch.from_numpy(membership).to(dtype),
    )


def _prefill(span: Span, begin: int, size: int) -> _Prefill:
    length = span.start + span.count
    if span.start == 0:
        return _Prefill(begin=begin, end=begin + span.count, length=length, blocks=None, mask=None)
    query, key = torch.arange(span.start, length), torch.arange(length)
    return _Prefill(
        begin=begin,
        end=begin + span.count,
        length=length,
        blocks=torch.as_tensor(span.blocks[: (length - 1) // size + 1]),
        mask=key[None] <= query[:, None],
    )


def batch_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    batch: AttentionBatch,
    **_: Any,
) -> tuple[Tensor, None]:
    """Let `batch`, a keyword argument of the model's forward, attend; as transformers' AttentionInterface calls it."""
    layer: Any = module.layer_idx
    if not isinstance(layer, int):
        raise TypeError(f"layer_idx of {type(module).__name__} is not an integer")
    return batch.attend(layer, query, key, value, scaling), None


def _attend_decode(pool: KvPool, layer: int, query: Tensor, plan: _Decode, scaling: float) -> Tensor:
    """Return [n, heads, head_dim] for the first n queries of `query` [1, heads, T, head_dim]."""
    n, rows = plan.queries, plan.owner.shape[0]
    keys, values = pool.keys[layer], pool.values[layer]
    if plan.select is None:
        keys, values = keys[plan.first : plan.first + rows], values[plan.first : plan.first + rows]
    else:
        keys, values = keys[plan.select], values[plan.select]
    _, kv_heads, size, width = keys.shape
    heads = query.shape[1]
    groups = heads // kv_heads
    queries = query[0, :, :n].transpose(0, 1).index_select(0, plan.owner)  # [N, heads, head_dim]
    scores = torch.bmm(
        queries.view(rows * kv_heads, groups, width), keys.reshape(rows * kv_heads, size, width).transpose(1, 2)
    )  # [N * kv_heads, groups, block_size]
    scores = scores.view(rows, heads * size).index_select(0, plan.to_sequence)
    scores = scores.view(n, -1, heads, size).transpose(1, 2)  # [n, heads, m, block_size]
    weights = torch.add(plan.mask, scores, alpha=scaling).flatten(2).softmax(-1)  # float32 [n, heads, m * block_size]
    weights = weights.to(query.dtype).view(n, heads, -1, size).transpose(1, 2).reshape(-1, heads * size)
    weights = weights.index_select(0, plan.to_block)  # [N, heads * block_size]
    partial = torch.bmm(
        weights.view(rows * kv_heads, groups, size), values.reshape(rows * kv_heads, size, width)
    )  # [N * kv_heads, groups, head_dim]
    return (plan.membership @ partial.view(rows, heads * width)).view(n, heads, width)


AttentionInterface.register(ATTENTION, batch_attention)
