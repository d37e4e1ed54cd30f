"""Linear layers with frozen weights, laid out once for oneDNN.

`F.linear` re-lays a weight out at each call, which at a few rows costs as much as the product itself: packed, 8 rows of
bfloat16 take 0.55 of the time and 32 rows 0.7 (110M parameters); in 8-bit integers two thirds of that at any number of
rows. Must not know models.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from hunmin_contracts.errors import ErrorCode, HunminError
from torch import Tensor, nn
from torch.cpu import get_capabilities

# oneDNN picks the layout for a number of rows; the layout for 16 was as fast as any other from 1 to 256 rows.
_ROWS_HINT = 16
_FEW_ROWS = 3  # 4 rows of bfloat16 take 88 ms in torch's product and 64 ms in pieces (110M parameters)
_PIECE = 2**19  # numbers, 2 MiB; a quarter and four times as many were slower
_INT8_MAX = 127
# Without VNNI, oneDNN adds two products of a uint8 and an int8 in 16 bits, which overflows unless inputs have 7 bits.
_INPUT_MAX = (
    127 if {"avx512_vnni", "avx_vnni"} & {name for name, is_there in get_capabilities().items() if is_there} else 63
)
_INPUT_ZERO = _INPUT_MAX + 1
_LEAST_SCALE = 1e-12  # a row of zeros has a scale too


class _Product(torch.autograd.Function):
    """The product with its gradient to the input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: "FrozenLinear") -> Tensor:
        ctx.linear = linear
        return linear.multiply(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # Unpacking takes 0.25 ms for 768 x 2048, a hundredth of the product at 1,024 rows: no second copy is kept.
        return gradient @ ctx.linear.weight(gradient.dtype), None


class FrozenLinear(nn.Module):
    """`x @ weight.T + bias` with a weight in a layout of its own; it has a gradient to `x` only."""

    bias: Tensor | None

    @abstractmethod
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take `weight` [out, in] and `bias` [out]."""
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out] for `x` [..., in]."""
        if x.requires_grad:
            result: Tensor = _Product.apply(x, self)
            return result
        return self.multiply(x)

    @abstractmethod
    def multiply(self, x: Tensor) -> Tensor:
        """Return the product without a gradient."""

    @abstractmethod
    def weight(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in] as it counts in the product."""


class PackedLinear(FrozenLinear):
    """In the dtype of the weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Pack `weight` [out, in], in float32 or bfloat16 on the CPU."""
        super().__init__(weight, bias)
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), _ROWS_HINT)
        self.bias = None if bias is None else bias.detach()

    def multiply(self, x: Tensor) -> Tensor:
        """Return the product without a gradient."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return result

    def weight(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        return self.packed.to_dense().to(dtype)


class Int8Linear(FrozenLinear):
    """In 8-bit integers: a scale for each row of the weight, and one for each row of `x` at each call.

    (`x` in 7 bits on a processor without VNNI.)

    What a row comes to does not depend on the other rows of its batch (LLM.int8(), arXiv 2208.07339, section 3.1;
    without its outlier columns).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Quantise `weight` [out, in], on the CPU."""
        super().__init__(weight, bias)
        exact = weight.detach().float().contiguous()  # oneDNN takes the memory as it lies
        self.scales = exact.abs().amax(1).clamp(min=_LEAST_SCALE) / _INT8_MAX  # [out]
        rounded = (exact / self.scales[:, None]).round().to(torch.int8)
        self.packed: Tensor = torch.ops.onednn.qlinear_prepack(rounded, [_ROWS_HINT, rounded.shape[1]])
        self.bias = None if bias is None else bias.detach()
        self._zeros = torch.zeros(len(rounded), dtype=torch.int32)

    def multiply(self, x: Tensor) -> Tensor:
        """Return the product without a gradient."""
        exact = x.reshape(-1, x.shape[-1]).float()
        scales = exact.abs().amax(1, keepdim=True).clamp_(min=_LEAST_SCALE).div_(_INPUT_MAX)  # [rows, 1]
        rounded = (exact / scales).round_().add_(_INPUT_ZERO).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            rounded,
            1.0,
            _INPUT_ZERO,
            self.packed,
            self.scales,
            self._zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        result: Tensor = product.mul_(scales).to(x.dtype).view(*x.shape[:-1], -1)
        return result if self.bias is None else result + self.bias

    def weight(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in] with its rounding."""
        return (self.packed.to_dense().t().float() * self.scales[:, None]).to(dtype)


class PlainLinear(FrozenLinear):
    """As torch multiplies it: on a GPU, or where oneDNN does not multiply in the dtype of the weight."""

    plain: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Keep `weight` [out, in]."""
        super().__init__(weight, bias)
        self.register_buffer("plain", weight)
        self.register_buffer("bias", bias)

    def multiply(self, x: Tensor) -> Tensor:
        """Return the product without a gradient."""
        return F.linear(x, self.plain, self.bias)

    def weight(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        return self.plain.to(dtype)


class WidenedLinear(PlainLinear):
    """bfloat16 weights on a processor that does not multiply in it; inputs and results are in float32.

    For a few rows torch's own product is the fastest: it reads half as much. For more, pieces of the weight that stay
    in the cache are brought to float32: 32 rows take a quarter of the time, and no second weight is kept.
    """

    def multiply(self, x: Tensor) -> Tensor:
        """Return the product without a gradient."""
        exact = x.reshape(-1, x.shape[-1]).float()
        if len(exact) <= _FEW_ROWS:
            product = F.linear(exact.to(self.plain.dtype), self.plain).float()
        else:
            columns = exact.new_empty(len(self.plain), len(exact))  # [out, rows]
            piece = max(1, _PIECE // self.plain.shape[1])
            for weight, part in zip(torch.split(self.plain, piece), torch.split(columns, piece), strict=True):
                torch.mm(weight.float(), exact.t(), out=part)
            product = columns.t().contiguous()
        result = product.view(*x.shape[:-1], -1)
        return result if self.bias is None else result + self.bias


def frozen_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight and buffer of `model` with its name, packed ones unpacked one by one, to be compared."""
    yield from sorted(model.state_dict().items())
    for name, module in model.named_modules():
        if isinstance(module, FrozenLinear) and not isinstance(module, PlainLinear):
            yield f"{name}.weight", module.weight(torch.float32)
            if module.bias is not None:
                yield f"{name}.bias", module.bias


def multiplies_bfloat16() -> bool:
    """Tell whether oneDNN multiplies in bfloat16 on this processor: without AVX-512 it does not."""
    is_fast: bool = _has_onednn() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return is_fast


def activation_dtype(dtype: torch.dtype, *, device: str) -> torch.dtype:
    """Return what to compute in between linear layers of weights in `dtype`, keys and values included.

    float32 where the processor does not multiply in bfloat16: attention in bfloat16 is as slow there as the layers.
    """
    is_wider = dtype is torch.bfloat16 and device == "cpu" and not multiplies_bfloat16()
    return torch.float32 if is_wider else dtype


def _has_onednn() -> bool:
    is_there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return is_there


def linear_kind(dtype: torch.dtype, *, int8: bool, device: str) -> type[FrozenLinear]:
    """Return the linear layer to use: packed on the CPU, where oneDNN multiplies in `dtype` here.

    `int8` quantises; a HunminError if there is no oneDNN for it.
    """
    if int8 and not _has_onednn():
        raise HunminError(
            ErrorCode.INVALID_PARAMETER, "8-bit weights need a torch with oneDNN, which this one lacks. Leave int8 off."
        )
    if device != "cpu":
        if int8:
            raise HunminError(ErrorCode.INVALID_PARAMETER, "8-bit weights are computed on a CPU alone. Leave int8 off.")
        return PlainLinear
    if int8:
        return Int8Linear
    if activation_dtype(dtype, device=device) is not dtype:
        return WidenedLinear
    return PackedLinear if _has_onednn() else PlainLinear
