"""Packed linear layers: the product of the plain ones, their gradient to the input, each row for itself."""

import pytest
import torch
import torch.nn.functional as F
from hunmin_modeling import linear as linear_module
from hunmin_modeling.linear import (
    FrozenLinear,
    Int8Linear,
    PackedLinear,
    PlainLinear,
    WidenedLinear,
    activation_dtype,
    linear_kind,
)
from torch import Tensor

WEIGHT, BIAS = torch.randn(24, 16), torch.randn(24)


@pytest.fixture(params=[PackedLinear, PlainLinear, Int8Linear])
def linear(request: pytest.FixtureRequest) -> FrozenLinear:
    return request.param(WEIGHT, BIAS)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


class TestProduct:
    @pytest.mark.parametrize("rows", [1, 3, 40])
    def test_is_that_of_the_plain_layer(self, linear, rows: int) -> None:
        x = torch.randn(1, rows, 16)
        expected = x @ WEIGHT.t() + BIAS
        assert relative(linear(x), expected) < (1e-6 if not isinstance(linear, Int8Linear) else 0.02)
        assert linear(x).shape == expected.shape

    def test_a_row_does_not_depend_on_its_batch_in_integers(self) -> None:
        linear = Int8Linear(WEIGHT, BIAS)
        x = torch.randn(5, 16)
        assert torch.equal(linear(torch.cat([x, 1000 * x]))[:5], linear(x))

    def test_zeros_are_exact_in_integers(self) -> None:
        assert torch.equal(Int8Linear(torch.zeros(24, 16), BIAS)(torch.zeros(2, 16)), BIAS.expand(2, 24))

    def test_has_a_gradient_to_its_input_alone(self, linear) -> None:
        x, gradient = torch.randn(2, 5, 16, requires_grad=True), torch.randn(2, 5, 24)
        linear(x).backward(gradient)
        assert relative(x.grad, gradient @ WEIGHT) < (1e-6 if not isinstance(linear, Int8Linear) else 0.02)


class TestWidened:
    @pytest.mark.parametrize("rows", [1, 3, 4, 40])
    @pytest.mark.parametrize("bias", [None, BIAS.bfloat16()])
    def test_is_the_product_of_weights_in_bfloat16(self, rows: int, bias: Tensor | None, monkeypatch) -> None:
        monkeypatch.setattr(linear_module, "_PIECE", 5 * 16)  # several pieces, the last of them shorter
        linear = WidenedLinear(WEIGHT.bfloat16(), bias)
        x = torch.randn(2, rows, 16) if rows > 3 else torch.randn(rows, 16)
        expected = F.linear(x, WEIGHT.bfloat16().float(), None if bias is None else bias.float())
        assert linear(x).dtype is torch.float32
        assert relative(linear(x), expected) < (0.01 if rows <= 3 else 1e-6)

    def test_has_a_gradient_to_its_input_alone(self) -> None:
        x, gradient = torch.randn(2, 5, 16, requires_grad=True), torch.randn(2, 5, 24)
        WidenedLinear(WEIGHT.bfloat16(), None)(x).backward(gradient)
        assert relative(x.grad, gradient @ WEIGHT.bfloat16().float()) < 1e-6

    def test_is_used_where_the_processor_does_not_multiply_in_bfloat16(self, monkeypatch) -> None:
        for is_fast, kind, dtype in ((True, PackedLinear, torch.bfloat16), (False, WidenedLinear, torch.float32)):
            monkeypatch.setattr(linear_module, "multiplies_bfloat16", lambda answer=is_fast: answer)
            assert linear_kind(torch.bfloat16, int8=False, device="cpu") is kind
            assert activation_dtype(torch.bfloat16, device="cpu") is dtype
            assert activation_dtype(torch.bfloat16, device="cuda") is torch.bfloat16
            assert activation_dtype(torch.float32, device="cpu") is torch.float32


class TestKind:
    @pytest.mark.parametrize("rows", [1, 3, 16, 100])
    @pytest.mark.parametrize("bias", [None, torch.randn(20)])
    @pytest.mark.parametrize(("int8", "tolerance"), [(False, 1e-6), (True, 0.02)])
    def test_gives_the_plain_product(self, rows: int, bias: Tensor | None, int8: bool, tolerance: float) -> None:
        weight = torch.randn(20, 48, generator=torch.Generator().manual_seed(0))
        x = torch.randn(1, rows, 48, generator=torch.Generator().manual_seed(rows))
        kind = linear_kind(torch.float32, int8=int8, device="cpu")
        assert kind is (Int8Linear if int8 else PackedLinear)
        with torch.inference_mode():
            assert relative(kind(weight, bias)(x), F.linear(x, weight, bias)) < tolerance

    def test_is_plain_on_a_gpu(self) -> None:
        assert linear_kind(torch.float32, int8=False, device="cuda") is PlainLinear
