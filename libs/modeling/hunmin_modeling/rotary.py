"""Rotary positions (RoFormer, arXiv 2104.09864) and the ways to stretch them: linear, Llama 3's, YaRN."""

import math

import torch
from torch import Tensor, nn

from hunmin_modeling.config import ModelConfig, RopeParameters

Angles = tuple[Tensor, Tensor]  # cosines and sines, [T, 1, width]


class Rotary(nn.Module):
    """The angles of a model: each position turns pairs of a head's first numbers by them."""

    frequencies: Tensor

    def __init__(self, config: ModelConfig, rope: RopeParameters) -> None:
        """Compute the frequencies of `rope` for a head of `config`."""
        super().__init__()
        frequencies, self._factor = _frequencies(rope, config.rotary_width, config.max_position_embeddings)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def angles(self, positions: Tensor, dtype: torch.dtype) -> Angles:
        """Return cosines and sines [T, 1, width] of tokens at `positions` [T]."""
        turned = positions[:, None].float() * self.frequencies  # [T, width / 2]
        both = torch.cat([turned, turned], dim=-1)[:, None]
        return (both.cos() * self._factor).to(dtype), (both.sin() * self._factor).to(dtype)


def turn(heads: Tensor, angles: Angles) -> Tensor:
    """Return `heads` [T, n, head_dim], queries or keys, turned by the angles of their tokens."""
    cosines, sines = angles
    width = cosines.shape[-1]
    turning = heads[..., :width]
    first, second = turning.chunk(2, dim=-1)
    turned = turning * cosines + torch.cat([-second, first], dim=-1) * sines
    return turned if width == heads.shape[-1] else torch.cat([turned, heads[..., width:]], dim=-1)


def _frequencies(rope: RopeParameters, width: int, context_length: int) -> tuple[Tensor, float]:
    """Return the angle per position of each pair [width / 2], and what cosines and sines are multiplied by."""
    plain = 1.0 / rope.rope_theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    trained = rope.original_max_position_embeddings or context_length
    if rope.rope_type == "linear":
        return plain / rope.factor, 1.0
    if rope.rope_type == "llama3":
        return _llama3(rope, plain, trained), 1.0
    if rope.rope_type == "yarn":
        return _yarn(rope, plain, trained)
    return plain, 1.0


def _llama3(rope: RopeParameters, plain: Tensor, trained: int) -> Tensor:
    """Stretch long waves only, and those between in part (Llama 3.1's reference code)."""
    factor, low, high = rope.factor, rope.low_freq_factor, rope.high_freq_factor
    turns = trained * plain / (2 * math.pi)  # over the trained length
    # 0: stretched wholly, 1: not at all.
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - share) * plain / factor + share * plain


def _yarn(rope: RopeParameters, plain: Tensor, trained: int) -> tuple[Tensor, float]:
    """Stretch by parts, and sharpen attention (YaRN, arXiv 2309.00071, sections 3.2 and 3.4)."""
    factor, width = rope.factor, 2 * len(plain)

    def pair(turns: float) -> float:
        return width * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(rope.rope_theta))

    low, high = pair(rope.beta_fast or 32), pair(rope.beta_slow or 1)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = ((torch.arange(len(plain)) - low) / (high - low or 0.001)).clamp(0, 1)
    stretched = plain / factor * ramp + plain * (1 - ramp)

    def scale(weight: float = 1.0) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if rope.attention_factor is not None:
        return stretched, rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return stretched, scale(rope.mscale) / scale(rope.mscale_all_dim)
    return stretched, scale()
