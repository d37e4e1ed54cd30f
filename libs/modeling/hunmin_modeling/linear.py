"""Linear layers with their weights laid out once for oneDNN, those of one input joined in one product.

`F.linear` re-lays a weight out at each call, which at a few rows costs as much as the product itself: packed, 8 rows of
bfloat16 take 0.55 of the time and 32 rows 0.7 (110M parameters). Must not know models, only their linear modules.
"""

import threading
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

# oneDNN picks the layout for a number of rows; the layout for 16 was as fast as any other from 1 to 256 rows.
_ROWS_HINT = 16
# The names that transformers gives to linear modules of one input.
_JOINT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class _Product(torch.autograd.Function):
    """The product with its gradient to the input alone: the weight is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
        ctx.packed = packed
        return _multiply(x, packed, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # Unpacking takes 0.25 ms for 768 x 2048, a hundredth of the product at 1,024 rows: no second copy is kept.
        return gradient @ ctx.packed.to_dense(), None, None


class PackedLinear(nn.Module):
    """`x @ weight.T + bias` with a weight in oneDNN's own layout; it has a gradient to `x` only."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Pack `weight` [out, in], in float32 or bfloat16 on the CPU."""
        super().__init__()
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), _ROWS_HINT)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out] for `x` [..., in]."""
        if x.requires_grad:
            result: Tensor = _Product.apply(x, self.packed, self.bias)
            return result
        return _multiply(x, self.packed, self.bias)


class _Joint:
    """One product for linear modules of one input, made when the first of them is called."""

    def __init__(self, modules: list[nn.Linear]) -> None:
        bias = None if modules[0].bias is None else torch.cat([module.bias for module in modules])
        self._linear = PackedLinear(torch.cat([module.weight for module in modules]), bias)
        self._sizes = [module.out_features for module in modules]
        self._last = threading.local()  # decoding and gradients run in threads of their own

    def part(self, number: int, x: Tensor) -> Tensor:
        """Return the output of module `number` for `x`; the modules are called in their order."""
        if number == 0:
            self._last.parts = self._linear(x).split(self._sizes, dim=-1)
        result: Tensor = self._last.parts[number]
        if number == len(self._sizes) - 1:
            self._last.parts = None
        return result


class JointLinear(nn.Module):
    """One of the modules that a joint product stands for."""

    def __init__(self, joint: _Joint, number: int) -> None:
        super().__init__()
        self._joint, self._number = joint, number

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out] for `x` [..., in]."""
        return self._joint.part(self._number, x)


def pack_linears(model: nn.Module) -> None:
    """Replace every linear module of `model` by its packed form, where this machine's torch has oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for parent in list(model.modules()):
        for names in _JOINT:
            modules = [getattr(parent, name, None) for name in names]
            linears = [module for module in modules if isinstance(module, nn.Linear)]
            if len(linears) == len(names) and len({module.bias is None for module in linears}) == 1:
                joint = _Joint(linears)
                for number, name in enumerate(names):
                    setattr(parent, name, JointLinear(joint, number))
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, PackedLinear(child.weight, child.bias))
            elif isinstance(child, Conv1D):
                setattr(parent, name, PackedLinear(child.weight.t(), child.bias))  # Conv1D keeps [in, out]


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return result
