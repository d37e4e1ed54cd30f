"""Attention for packed batches of many sequences, and the batch over the KV pool.

Decoding copies no key and no value: both are weighted and summed where they lie, blocks that several sequences share
included. Must not know models, schedules or text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hunmin_modeling.kv_pool import KvPool

_Integers = np.ndarray[Any, np.dtype[np.int64]]


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
    """How the single queries of n sequences meet at most m blocks each: all is weighted sums of the pool's rows.

    A head's scores in a block are the sum of the block's head_dim rows of keys, each of block_size, by the query's
    weights. What it attends to is the sum of its sequence's rows of values, each of head_dim, by the softmax's weights.
    """

    queries: int
    mask: Tensor  # [n, 1, m * block_size] 0 where a key is, else -inf
    key_rows: Tensor  # [N * head_dim] of a layer's keys, for N pairs of a head and a block, by sequence, head and block
    key_owner: Tensor  # [N] which row of [n * heads] is the query
    key_begins: Tensor  # [n * heads * m] the first of each sum, which is empty past a sequence's last block
    value_rows: Tensor  # [heads * T] of a layer's values, for T tokens in all, by sequence, head and token
    value_weights: Tensor  # [heads * T] where the weight lies in [n, heads, m * block_size]
    value_begins: Tensor  # [n * heads] the first of each sum


@dataclass(frozen=True)
class _Chunk:
    """Rows `begin` to `end` of the batch, the last of a sequence of `length`; `blocks` hold it, None: they are all."""

    begin: int
    end: int
    length: int
    blocks: slice | Tensor | None
    bias: Tensor | None  # [count, length] 0 where a query may see a key, else -inf; None: SDPA is the better way
    mask: Tensor | None  # [count, length] true where a query may see a key, for SDPA
    is_causal: bool  # for SDPA: query i sees keys up to i

    @property
    def count(self) -> int:
        """How many queries there are."""
        return self.end - self.begin


class PackedBatch:
    """What attention must know of one batch: where each token's key goes, and which keys each query sees.

    Made once a step and read by every layer. Single-token spans that come first are decoded together; every other span
    runs alone.
    """

    def __init__(self, pool: KvPool, spans: Sequence[Span]) -> None:
        """Lay out the tokens of `spans`, in that order."""
        self.pool = pool
        size = pool.block_size
        positions = [np.arange(span.start, span.start + span.count) for span in spans]
        places = [np.asarray(span.blocks)[at // size] for span, at in zip(spans, positions, strict=True)]
        flat = np.concatenate(positions)
        self.positions = torch.from_numpy(flat)  # [T]
        self.offsets = torch.from_numpy(flat % size)  # [T]
        self.blocks = torch.from_numpy(np.concatenate(places))  # [T]
        # A block is cleared before its first token is written: a former owner may have left there what is not a number,
        # and a weight of 0 does not undo that.
        fresh = self.blocks[self.offsets == 0]
        if len(fresh):
            pool.clear(fresh)
        singles = next((i for i, span in enumerate(spans) if span.count > 1), len(spans))
        self.decode = _decode(spans[:singles], pool) if singles else None
        self.chunks: list[_Chunk] = []
        begin = singles
        for span in spans[singles:]:
            self.chunks.append(_chunk(span, begin, size))
            begin += span.count

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Store the keys and values of the batch's tokens in the pool, and return what its queries attend to."""
        self.pool.write(layer, key[0], value[0], blocks=self.blocks, offsets=self.offsets)
        if self.decode is not None and not self.chunks:
            return _attend_decode(self.pool, layer, query, self.decode, scaling).unsqueeze(0)
        heads, tokens, width = query.shape[1:]
        result = query.new_empty(1, tokens, heads, width)
        if self.decode is not None:
            result[0, : self.decode.queries] = _attend_decode(self.pool, layer, query, self.decode, scaling)
        for chunk in self.chunks:
            rows = slice(chunk.begin, chunk.end)
            if chunk.blocks is None:
                keys, values = key[0, :, rows], value[0, :, rows]
            else:
                keys, values = self.pool.read(layer, chunk.blocks, chunk.length, dtype=query.dtype)
            result[0, rows] = _attend_chunk(query[0, :, rows], keys, values, chunk, scaling).transpose(0, 1)
        return result


def _decode(spans: Sequence[Span], pool: KvPool) -> _Decode:
    size, width, heads = pool.block_size, pool.head_dim, pool.query_heads
    lengths = np.array([span.start + 1 for span in spans])
    counts = (lengths - 1) // size + 1
    n, most = len(spans), int(counts.max())
    is_block = np.arange(most) < counts[:, None]  # [n, m]
    is_token = np.arange(most * size) < lengths[:, None]
    blocks = np.zeros((n, most), np.int64)
    blocks[is_block] = np.concatenate([span.blocks[:count] for span, count in zip(spans, counts, strict=True)])
    # By sequence, head and block: where the pool has that block's part of the head, and where there is one.
    parts = blocks[:, None] * pool.kv_heads + np.arange(heads)[:, None] * pool.kv_heads // heads
    is_part = np.repeat(is_block[:, None], heads, axis=1)
    is_value = np.repeat(is_token[:, None], heads, axis=1)
    key_rows = parts[is_part][:, None] * width + np.arange(width)
    value_rows = (parts[..., None] * size + np.arange(size)).reshape(is_value.shape)[is_value]
    return _Decode(
        queries=n,
        mask=torch.from_numpy(np.where(is_token, np.float32(0), np.float32("-inf")))[:, None],
        key_rows=_tensor(key_rows.ravel()),
        key_owner=_tensor(np.nonzero(is_part.reshape(n * heads, most))[0]),
        key_begins=_tensor(_begins(is_part.ravel() * width)),
        value_rows=_tensor(value_rows),
        value_weights=_tensor(np.flatnonzero(is_value)),
        value_begins=_tensor(_begins(np.repeat(lengths, heads))),
    )


def _begins(lengths: _Integers) -> _Integers:
    return np.cumsum(lengths) - lengths


def _tensor(integers: _Integers) -> Tensor:
    """In 32 bits: half as much to read, and a pool of 2**31 rows of a layer is out of reach."""
    return torch.from_numpy(integers.astype(np.int32))


# Up to here plain products take half of the time of SDPA's kernel; past it the scores leave the cache.
_SMALL_COUNT, _SMALL_SCORES = 128, 20_000


def _chunk(span: Span, begin: int, size: int) -> _Chunk:
    length, end = span.start + span.count, begin + span.count
    is_first = span.start == 0
    bias = mask = None
    seen = torch.arange(length)[None] <= torch.arange(span.start, length)[:, None]
    if span.count <= _SMALL_COUNT and span.count * length <= _SMALL_SCORES:
        bias = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))
    elif not is_first:
        mask = seen
    blocks: slice | Tensor | None = None
    if not is_first:
        used = span.blocks[: (length - 1) // size + 1]
        first = used[0]
        are_neighbours = list(used) == list(range(first, first + len(used)))
        blocks = slice(first, first + len(used)) if are_neighbours else torch.as_tensor(used)
    return _Chunk(begin, end, length, blocks, bias=bias, mask=mask, is_causal=is_first and bias is None)


def _attend_chunk(query: Tensor, keys: Tensor, values: Tensor, chunk: _Chunk, scaling: float) -> Tensor:
    """Return [heads, count, head_dim] for `query` of that shape; `keys`, `values` [kv_heads, length, head_dim]."""
    heads, kv_heads = query.shape[0], keys.shape[0]
    if chunk.bias is None:
        return F.scaled_dot_product_attention(
            query[None],
            keys[None],
            values[None],
            attn_mask=chunk.mask,
            is_causal=chunk.is_causal,
            scale=scaling,
            enable_gqa=heads != kv_heads,
        )[0]
    grouped = query.reshape(kv_heads, -1, query.shape[-1])  # [kv_heads, heads / kv_heads * count, head_dim]
    scores = torch.bmm(grouped, keys.transpose(1, 2)).view(heads, chunk.count, -1)
    weights = torch.add(chunk.bias, scores, alpha=scaling).softmax(-1).to(values.dtype)
    return torch.bmm(weights.view(kv_heads, -1, weights.shape[-1]), values).view(heads, chunk.count, -1)


def _attend_decode(pool: KvPool, layer: int, query: Tensor, plan: _Decode, scaling: float) -> Tensor:
    """Return [n, heads, head_dim] for the first n queries of `query` [1, heads, T, head_dim]."""
    n, heads, width = plan.queries, pool.query_heads, pool.head_dim
    queries = query[0, :, :n].transpose(0, 1).reshape(n * heads, width).index_select(0, plan.key_owner)
    # The fastest of torch's ways: no key and no value is copied, and none is read in vain.
    scores = F.embedding_bag(
        plan.key_rows,
        pool.keys[layer].view(-1, pool.block_size),
        plan.key_begins,
        per_sample_weights=queries.to(pool.dtype).view(-1),
        mode="sum",
    ).view(n, heads, -1)
    weights = torch.add(plan.mask, scores, alpha=scaling).softmax(-1)  # float32 [n, heads, m * block_size]
    result = F.embedding_bag(
        plan.value_rows,
        pool.values[layer].view(-1, width),
        plan.value_begins,
        per_sample_weights=weights.to(pool.dtype).view(-1).index_select(0, plan.value_weights),
        mode="sum",
    )
    return result.view(n, heads, width).to(query.dtype)
