"""The keys and values of every running sequence, in blocks of one pool. Must not know which sequence owns a block."""

import numpy as np
import torch
from torch import Tensor

from hunmin_modeling.config import ModelConfig


class KvPool:
    """`keys` [layer][blocks, kv_heads, head_dim, block_size], `values` [layer][blocks, kv_heads, block_size, head_dim].

    Each lies as attention sums its rows.
    """

    def __init__(self, config: ModelConfig, *, blocks: int, block_size: int, dtype: torch.dtype) -> None:
        """Reserve `blocks` blocks of `block_size` tokens for a model of that shape."""
        layers, self.kv_heads, self.head_dim = _shape(config)
        self.query_heads = config.num_attention_heads
        self.block_size, self.dtype = block_size, dtype
        # Zeros, not garbage: attention gives weight 0 to places where no token is, and 0 * NaN is NaN. NumPy's take no
        # memory before they are written, torch's all of it at once.
        shape = (layers, 2, blocks, self.kv_heads)
        width = self.head_dim * block_size
        self._all = torch.from_numpy(np.zeros((*shape, width * dtype.itemsize), np.uint8)).view(dtype)
        self._keys = self._all[:, 0].view(layers, blocks, self.kv_heads, self.head_dim, block_size)
        self._values = self._all[:, 1].view(layers, blocks, self.kv_heads, block_size, self.head_dim)
        self.keys, self.values = list(self._keys), list(self._values)

    def clear(self, blocks: Tensor) -> None:
        """Fill `blocks` with zeros in every layer."""
        self._all.index_fill_(2, blocks, 0)

    def copy(self, source: int, target: int, count: int) -> None:
        """Let block `target` begin with the first `count` tokens of block `source` and be zeros after them."""
        self._all[:, :, target] = 0
        self._keys[:, target, ..., :count] = self._keys[:, source, ..., :count]
        self._values[:, target, :, :count] = self._values[:, source, :, :count]

    def write(self, layer: int, keys: Tensor, values: Tensor, *, blocks: Tensor, offsets: Tensor) -> None:
        """Store `keys`, `values` [kv_heads, T, head_dim] of T tokens, token t at `offsets[t]` of block `blocks[t]`."""
        self.keys[layer][blocks, :, :, offsets] = keys.transpose(0, 1).to(self.dtype)  # [T, kv_heads, head_dim]
        self.values[layer][blocks, :, offsets] = values.transpose(0, 1).to(self.dtype)

    def read(self, layer: int, blocks: slice | Tensor, length: int, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return keys and values [kv_heads, length, head_dim] of one sequence, copied from its blocks in order."""

        def found(pool: Tensor) -> Tensor:
            return pool[blocks] if isinstance(blocks, slice) else pool.index_select(0, blocks)

        keys = found(self.keys[layer]).permute(1, 2, 0, 3).to(dtype, memory_format=torch.contiguous_format)
        values = found(self.values[layer]).transpose(0, 1).to(dtype, memory_format=torch.contiguous_format)
        return keys.flatten(2)[..., :length].transpose(1, 2), values.flatten(1, 2)[:, :length]


def kv_bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Return how many bytes of a pool one token takes in a model of that shape."""
    layers, heads, width = _shape(config)
    return 2 * layers * heads * width * dtype.itemsize


def _shape(config: ModelConfig) -> tuple[int, int, int]:
    """Return layers, key-value heads and the width of a head."""
    return config.num_hidden_layers, config.num_key_value_heads, config.head_dim
