"""Attention for packed batches of many sequences, and the batch over the KV pool.

Decoding copies no key and no value: each block of keys is multiplied, where it lies, with the query of the sequence
that owns it, and each value is weighted and summed where it lies. Must not know models, schedules or text.
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
    """How the single queries of n sequences meet N rows of keys, each a block: those of `stretches`, then of `copied`.

    A stretch is read where it lies, with the blocks of others in it; a block that several sequences hold is copied out
    for all but one. Place p of n * m is block p % m of sequence p // m. Values are summed head by head, sequence by
    sequence, token by token: T tokens in all.
    """

    queries: int
    stretches: list[tuple[int, int]]  # first block and end in the pool
    copied: Tensor | None
    owner: Tensor  # [N] the sequence of each row; any for a block that is nobody's here
    to_sequence: Tensor  # [n * m] the row of each place; any row where there is none
    mask: Tensor  # [n, 1, m, block_size] 0 where a key is, else -inf
    values: Tensor  # [heads * T] which row of a layer's values is summed, each of head_dim
    weights: Tensor  # [heads * T] where its weight lies in [n, heads, m, block_size]
    begins: Tensor  # [heads * n] the first of each sum


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

    Made once a step and read by every layer. Single-token spans that come first are decoded together in a few products,
    if there are two at least; every other span runs alone.
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
        if singles == 1:
            singles = 0
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
            # A single query is four times faster in float32 than in SDPA's kernel for bfloat16, copying included.
            dtype = torch.float32 if chunk.count == 1 else query.dtype
            if chunk.blocks is None:
                keys, values = key[0, :, rows].to(dtype), value[0, :, rows].to(dtype)
            else:
                keys, values = self.pool.read(layer, chunk.blocks, chunk.length, dtype=dtype)
            result[0, rows] = _attend_chunk(query[0, :, rows].to(dtype), keys, values, chunk, scaling).transpose(0, 1)
        return result


def _decode(spans: Sequence[Span], pool: KvPool) -> _Decode:
    size = pool.block_size
    used = [span.blocks[: span.start // size + 1] for span in spans]
    counts = np.array([len(blocks) for blocks in used])
    n, most = len(spans), int(counts.max())
    blocks = np.concatenate([np.asarray(b, dtype=np.int64) for b in used])
    sequence = np.repeat(np.arange(n), counts)
    place = sequence * most + np.arange(len(blocks)) - np.repeat(np.cumsum(counts) - counts, counts)
    stretches, row, copied = _layout(blocks)
    width = sum(end - first for first, end in stretches) + len(copied)
    owner = np.zeros(width, np.int64)
    owner[row] = sequence
    to_sequence = np.zeros(n * most, np.int64)
    to_sequence[place] = row
    lengths = np.array([span.start + 1 for span in spans])
    values, weights, begins = _sums(blocks, counts, lengths, pool)
    mask = np.where(np.arange(most * size) < lengths[:, None], np.float32(0), np.float32("-inf"))
    return _Decode(
        queries=n,
        stretches=stretches,
        copied=torch.from_numpy(blocks[copied]) if len(copied) else None,
        owner=torch.from_numpy(owner),
        to_sequence=torch.from_numpy(to_sequence),
        mask=torch.from_numpy(mask).view(n, 1, most, size),
        values=torch.from_numpy(values),
        weights=torch.from_numpy(weights),
        begins=torch.from_numpy(begins),
    )


def _sums(blocks: _Integers, counts: _Integers, lengths: _Integers, pool: KvPool) -> tuple[_Integers, ...]:
    """Return `values`, `weights` and `begins` of sequences with so many of `blocks`, and so many tokens in them."""
    size, kv_heads = pool.block_size, pool.kv_heads
    heads = np.arange(pool.query_heads)[:, None]
    firsts = np.cumsum(lengths) - lengths
    sequence = np.repeat(np.arange(len(lengths)), lengths)  # [T]
    position = np.arange(len(sequence)) - firsts[sequence]
    block = blocks[(np.cumsum(counts) - counts)[sequence] + position // size]
    values = (block * kv_heads + heads * kv_heads // pool.query_heads) * size + position % size  # [heads, T]
    weights = (sequence * pool.query_heads + heads) * (counts.max() * size) + position
    return values.ravel(), weights.ravel(), (heads * len(sequence) + firsts).ravel()


# Each stretch is a product of its own, which costs some microseconds a layer: so few, and none that copying matches.
_MOST_STRETCHES = 4
_LEAST_STRETCH = 8
_LONGEST_GAP = 2


def _layout(blocks: _Integers) -> tuple[list[tuple[int, int]], Any, Any]:
    """Return the stretches to read in place, the row of each of `blocks`, and which of them are to be copied out."""
    distinct, first_at = np.unique(blocks, return_index=True)
    breaks = np.flatnonzero(np.diff(distinct) > _LONGEST_GAP + 1) + 1
    runs = np.split(np.arange(len(distinct)), breaks)
    if len(runs) > 1:
        runs = sorted((run for run in runs if len(run) >= _LEAST_STRETCH), key=len, reverse=True)[:_MOST_STRETCHES]
    stretches: list[tuple[int, int]] = []
    row = np.full(len(blocks), -1, np.int64)
    width = 0
    for run in runs:
        first, end = int(distinct[run[0]]), int(distinct[run[-1]]) + 1
        row[first_at[run]] = width + distinct[run] - first
        stretches.append((first, end))
        width += end - first
    copied = np.flatnonzero(row < 0)
    row[copied] = width + np.arange(len(copied))
    return stretches, row, copied


# Up to here plain products take half of the time of SDPA's kernel; past it the scores leave the cache.
_SMALL_COUNT, _SMALL_SCORES = 128, 20_000


def _chunk(span: Span, begin: int, size: int) -> _Chunk:
    length, end = span.start + span.count, begin + span.count
    is_first, is_lone = span.start == 0, span.count == 1
    bias = mask = None
    if not is_lone:
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
    n, rows = plan.queries, plan.owner.shape[0]
    heads, width = query.shape[1], query.shape[3]
    kv_heads, size = pool.keys[layer].shape[1:3]
    groups = heads // kv_heads
    queries = query[0, :, :n].transpose(0, 1).index_select(0, plan.owner)  # [N, heads, head_dim]
    queries = queries.view(rows * kv_heads, groups, width)
    scores = _multiply(queries, pool.keys[layer], plan)  # [N * kv_heads, groups, block_size]
    scores = scores.view(rows, heads * size).index_select(0, plan.to_sequence)
    scores = scores.view(n, -1, heads, size).transpose(1, 2)  # [n, heads, m, block_size]
    weights = torch.add(plan.mask, scores, alpha=scaling).flatten(2).softmax(-1)  # float32 [n, heads, m * block_size]
    # The fastest of torch's ways to sum rows: half of the time of products of blocks, and no row is read in vain.
    result = F.embedding_bag(
        plan.values,
        pool.values[layer].view(-1, width),
        plan.begins,
        per_sample_weights=weights.to(query.dtype).view(-1).index_select(0, plan.weights),
        mode="sum",
    )
    return result.view(heads, n, width).transpose(0, 1)


def _multiply(left: Tensor, pool: Tensor, plan: _Decode) -> Tensor:
    """Multiply `left` [N * kv_heads, groups, head_dim] with the keys in `pool` [blocks, kv_heads, size, head_dim]."""
    parts = [pool[first:end] for first, end in plan.stretches]
    if plan.copied is not None:
        parts.append(pool.index_select(0, plan.copied))
    matrices = [part.flatten(0, 1).transpose(1, 2) for part in parts]  # [rows * kv_heads, head_dim, block_size]
    if len(matrices) == 1:
        return torch.bmm(left, matrices[0])
    result = left.new_empty(left.shape[0], left.shape[1], matrices[0].shape[2])
    begin = 0
    for matrix in matrices:
        end = begin + matrix.shape[0]
        torch.bmm(left[begin:end], matrix, out=result[begin:end])
        begin = end
    return result
