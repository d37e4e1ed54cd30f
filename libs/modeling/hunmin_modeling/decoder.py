"""A decoder-only transformer over packed tokens, of every family that we serve; its weights are frozen.

Whoever calls it brings the attention (`AttentionBatch`): over a KV pool, over whole sequences, over a shared prefix.
Must not know text, files or schedules.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hunmin_modeling.attention import AttentionBatch
from hunmin_modeling.config import Activation, ModelConfig
from hunmin_modeling.linear import FrozenLinear
from hunmin_modeling.rotary import Angles, Rotary, turn
from hunmin_modeling.weights import Names, Tensors, names_of

Linear = Callable[[Tensor, Tensor | None], FrozenLinear]  # of a weight [out, in] and a bias [out]

_GELU_TANH = partial(F.gelu, approximate="tanh")
_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_fast": _GELU_TANH,
    "gelu_new": _GELU_TANH,
    "gelu_pytorch_tanh": _GELU_TANH,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}


class Decoder(nn.Module):
    """Layers between an embedding table and a head. `embedding` [vocab, d_model] is what each token is to it."""

    embedding: Tensor
    positions: Tensor | None

    def __init__(self, config: ModelConfig, tensors: Tensors, linear: Linear, *, activation_dtype: torch.dtype) -> None:
        """Take the weights from `tensors`, those of projections laid out by `linear`."""
        super().__init__()
        self.activation_dtype = activation_dtype
        names = names_of(config)
        self.config = config
        embedding, head = _tables(config, tensors, names)
        self.register_buffer("embedding", embedding)
        learned = None
        if config.rope is None:
            shape = config.max_position_embeddings, config.hidden_size
            learned = tensors.take(f"{names.prefix}{names.positions}.weight", *shape)
        self.register_buffer("positions", learned)
        self._rotary = None if config.rope is None else Rotary(config, config.rope)
        self.layers = nn.ModuleList(
            _Layer(config, number, _Part(tensors, names, f"{names.prefix}{names.layers}{number}."), linear)
            for number in range(config.num_hidden_layers)
        )
        self.norm = _Part(tensors, names, names.prefix).norm(config, names.norm)
        self.head = linear(head, None)
        for module in self.modules():
            if isinstance(module, _Norm):
                module.to(activation_dtype)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.embedding.device

    def forward(
        self, embeddings: Tensor, positions: Tensor, batch: AttentionBatch, *, rows: Tensor, with_hidden: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Run T packed tokens; `Checkpoint.forward` says what goes in and comes out."""
        hidden = embeddings * self.config.embedding_multiplier if self.config.embedding_multiplier != 1 else embeddings
        if self.positions is not None:
            hidden = hidden + self.positions[positions]
        angles = None if self._rotary is None else self._rotary.angles(positions, hidden.dtype)
        *layers, last = self.layers
        for layer in layers:
            hidden = layer(hidden, angles, batch)
        # After the last attention only what is asked for goes on.
        hidden = self.norm(last(hidden, angles, batch, rows=None if with_hidden else rows))
        logits = self.head(hidden[rows] if with_hidden else hidden)
        if self.config.logits_scaling != 1:
            logits = logits * self.config.logits_scaling
        return logits, hidden if with_hidden else None


class _Layer(nn.Module):
    def __init__(self, config: ModelConfig, number: int, part: "_Part", linear: Linear) -> None:
        super().__init__()
        names = part.names
        self.number, self._config = number, config
        self._scaling = config.attention_scaling[number]
        self._activate = _ACTIVATIONS[config.activation]
        hidden, inner = config.hidden_size, config.intermediate_size
        attended = config.num_attention_heads * config.head_dim
        kept = config.num_key_value_heads * config.head_dim
        self.attention_norm = part.norm(config, names.attention_norm)
        self.qkv = linear(*part.queries_keys_values(config, (attended, kept, kept)))
        self.attention_out = linear(*part.joint((names.attention_out,), (hidden,), attended, config.attention_bias))
        self.mlp_norm = part.norm(config, names.mlp_norm)
        self.up = linear(*part.joint(names.up, (inner,) * len(names.up), hidden, config.mlp_bias))
        self.down = linear(*part.joint((names.down,), (hidden,), inner, config.mlp_bias))
        self.post_norms = nn.ModuleList(
            part.norm(config, name) if config.has_post_norm else nn.Identity() for name in names.post_norms
        )

    def forward(
        self, hidden: Tensor, angles: Angles | None, batch: AttentionBatch, *, rows: Tensor | None = None
    ) -> Tensor:
        """Return [T, d_model] for `hidden` of that shape, or of its `rows` alone."""
        attended = self._attend(self.attention_norm(hidden), angles, batch)
        if rows is not None:
            hidden, attended = hidden[rows], attended[rows]
        attended = self._scaled(self.post_norms[0](self.attention_out(attended)))
        if self._config.is_parallel:
            return hidden + (self._scaled(self.post_norms[1](self._mlp(hidden))) + attended)
        hidden = hidden + attended
        return hidden + self._scaled(self.post_norms[1](self._mlp(hidden)))

    def _attend(self, hidden: Tensor, angles: Angles | None, batch: AttentionBatch) -> Tensor:
        heads, kv_heads = self._config.num_attention_heads, self._config.num_key_value_heads
        found = self.qkv(hidden).view(len(hidden), -1, self._config.head_dim)  # [T, heads + 2 kv_heads, head_dim]
        turning, value = found.split([heads + kv_heads, kv_heads], dim=1)
        if angles is not None:
            turning = turn(turning, angles)
        query, key = turning.split([heads, kv_heads], dim=1)
        query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))  # [1, heads, T, head_dim]
        return batch.attend(self.number, query, key, value, self._scaling).reshape(len(hidden), -1)

    def _mlp(self, hidden: Tensor) -> Tensor:
        inner = self.up(self.mlp_norm(hidden))
        if self._config.is_gated:
            gate, factor = inner.chunk(2, dim=-1)
            return self.down(self._activate(gate) * factor)  # type: ignore[no-any-return]
        return self.down(self._activate(inner))  # type: ignore[no-any-return]

    def _scaled(self, part: Tensor) -> Tensor:
        return part if self._config.residual_multiplier == 1 else part * self._config.residual_multiplier


class _Norm(nn.Module):
    """LayerNorm, or without a bias RMSNorm."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, eps: float) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., d_model]."""
        if self.bias is None:
            return F.rms_norm(x, self.weight.shape, self.weight, self._eps)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self._eps)


def _tables(config: ModelConfig, tensors: Tensors, names: Names) -> tuple[Tensor, Tensor]:
    """Return the embeddings and the head's weight, both [vocab, d_model]; where tied, one of them may be left out."""
    shape = config.vocab_size, config.hidden_size
    embedding = f"{names.prefix}{names.embedding}.weight"
    head = next((name for name in names.heads if tensors.has(f"{name}.weight")), names.heads[0]) + ".weight"
    if not config.tie_word_embeddings:
        return tensors.take(embedding, *shape), tensors.take(head, *shape)
    if not tensors.has(embedding) and tensors.has(head):
        embedding = head
    table = tensors.take(embedding, *shape)
    # As in transformers, what a file keeps apart is apart, whatever its configuration says.
    if tensors.has(head) and not tensors.equals(head, table):
        return table, tensors.take(head, *shape)
    return table, table


class _Part:
    """The tensors whose names begin alike."""

    def __init__(self, tensors: Tensors, names: Names, prefix: str) -> None:
        self.names = names
        self._tensors, self._prefix = tensors, prefix

    def norm(self, config: ModelConfig, name: str) -> _Norm:
        weight = self._tensors.take(f"{self._prefix}{name}.weight", config.hidden_size)
        bias = None if config.is_rms_norm else self._tensors.take(f"{self._prefix}{name}.bias", config.hidden_size)
        return _Norm(weight, bias, config.norm_eps)

    def joint(
        self, modules: tuple[str, ...], sizes: tuple[int, ...], width: int, has_bias: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return weight [sum of sizes, width] and bias of linear modules of one input, each of a size."""
        weights, biases = [], []
        for module, size in zip(modules, sizes, strict=True):
            shape = (width, size) if self.names.is_transposed else (size, width)
            weight = self._tensors.take(f"{self._prefix}{module}.weight", *shape)
            weights.append(weight.t() if self.names.is_transposed else weight)
            if has_bias:
                biases.append(self._tensors.take(f"{self._prefix}{module}.bias", size))
        return torch.cat(weights), torch.cat(biases) if has_bias else None

    def queries_keys_values(self, config: ModelConfig, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of the three projections, of which a family may keep a single module."""
        modules = self.names.qkv
        rows = (sum(sizes),) if len(modules) == 1 else sizes
        weight, bias = self.joint(modules, rows, config.hidden_size, config.attention_bias)
        if not self.names.is_interleaved:
            return weight, bias
        heads = config.num_attention_heads
        return _side_by_side(weight, heads), None if bias is None else _side_by_side(bias, heads)


def _side_by_side(part: Tensor, heads: int) -> Tensor:
    """Return all queries, all keys, all values of `part` [heads * 3 * head_dim, ...], where they lie head by head."""
    return part.view(heads, 3, -1, *part.shape[1:]).transpose(0, 1).flatten(0, 2)
