"""The keys and values of every running sequence, in blocks of one pool. Must not know which sequence owns a block."""

import numpy as np
import torch
from torch import Tensor

from hunmin_modeling.config import ModelConfig


class KvPool:
    """Keys and values as [layer][blocks, kv_heads, block_size, head_dim]: a block of a head is one matrix in memory."""

    def __init__(self, config: ModelConfig, *, blocks: int, block_size: int, dtype: torch.dtype) -> None:
        """Reserve `blocks` blocks of `block_size` tokens for a model of that shape."""
        layers, heads, width = _shape(config)
        self.block_size = block_size
        self.kv_heads, self.query_heads = heads, config.num_attention_heads
        # Zeros, not garbage: attention gives weight 0 to places where no token is, and 0 * NaN is NaN. NumPy's take no
        # memory before they are written, torch's all of it at once.
        shape = (layers, 2, blocks, heads, block_size, width)
        self._all = torch.from_numpy(np.zeros((*shape[:-1], width * dtype.itemsize), np.uint8)).view(dtype)
        self.keys, self.values = ([part[which] for part in self._all] for which in range(2))

    def clear(self, blocks: Tensor) -> None:
        """Fill `blocks` with zeros in every layer."""
        self._all.index_fill_(2, blocks, 0)

    def copy(self, source: int, target: int, count: int) -> None:
        """Let block `target` begin with the first `count` tokens of block `source` and be zeros after them."""
        self._all[:, :, target, :, count:] = 0
        self._all[:, :, target, :, :count] = self._all[:, :, source, :, :count]

    def write(self, layer: int, keys: Tensor, values: Tensor, *, blocks: Tensor, offsets: Tensor) -> None:
        """Store `keys`, `values` [kv_heads, T, head_dim] of T tokens, token t at `offsets[t]` of block `blocks[t]`."""
        self.keys[layer][blocks, :, offsets] = keys.transpose(0, 1)  # [T, kv_heads, head_dim]
        self.values[layer][blocks, :, offsets] = values.transpose(0, 1)

    def read(self, layer: int, blocks: slice | Tensor, length: int, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return keys and values [kv_heads, length, head_dim] of one sequence, copied from its blocks in order."""

        def joined(pool: Tensor) -> Tensor:
            found = pool[blocks] if isinstance(blocks, slice) else pool.index_select(0, blocks)
            copied = found.transpose(0, 1).to(dtype, memory_format=torch.contiguous_format)
            return copied.flatten(1, 2)[:, :length]  # of [kv_heads, n, block_size, head_dim]

        return joined(self.keys[layer]), joined(self.values[layer])


def kv_bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Return how many bytes of a pool one token takes in a model of that shape."""
    layers, heads, width = _shape(config)
    return 2 * layers * heads * width * dtype.itemsize


def _shape(config: ModelConfig) -> tuple[int, int, int]:
    """Return layers, key-value heads and the width of a head."""
    return config.num_hidden_layers, config.num_key_value_heads, config.head_dim
