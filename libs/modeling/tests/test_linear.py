"""Packed linear layers: the product of the plain ones, their gradient to the input, each row for itself."""

import pytest
import torch
from hunmin_modeling.linear import FrozenLinear, Int8Linear, PackedLinear, pack_linears
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

WEIGHT, BIAS = torch.randn(24, 16), torch.randn(24)


@pytest.fixture(params=[PackedLinear, Int8Linear])
def linear(request: pytest.FixtureRequest) -> FrozenLinear:
    return request.param(WEIGHT, BIAS)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


class TestProduct:
    @pytest.mark.parametrize("rows", [1, 3, 40])
    def test_is_that_of_the_plain_layer(self, linear, rows: int) -> None:
        x = torch.randn(1, rows, 16)
        expected = x @ WEIGHT.t() + BIAS
        assert relative(linear(x), expected) < (1e-6 if isinstance(linear, PackedLinear) else 0.02)
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
        assert relative(x.grad, gradient @ WEIGHT) < (1e-6 if isinstance(linear, PackedLinear) else 0.02)


class TestModel:
    @pytest.mark.parametrize("rows", [1, 3, 16, 100])
    @pytest.mark.parametrize("layer", [nn.Linear(48, 20), nn.Linear(48, 20, bias=False), Conv1D(20, 48)])
    @pytest.mark.parametrize(("int8", "tolerance"), [(False, 1e-6), (True, 0.02)])
    def test_packing_changes_no_result(self, layer: nn.Module, rows: int, int8: bool, tolerance: float) -> None:
        nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
        x = torch.randn(1, rows, 48, generator=torch.Generator().manual_seed(rows))
        with torch.inference_mode():
            expected = layer(x)
            holder = nn.Sequential(layer)
            pack_linears(holder, int8=int8)
            assert isinstance(holder[0], Int8Linear if int8 else PackedLinear)
            assert relative(holder(x), expected) < tolerance

    @pytest.mark.parametrize(("int8", "tolerance"), [(False, 1e-6), (True, 0.02)])
    def test_layers_of_one_input_are_joined(self, int8: bool, tolerance: float) -> None:
        model = nn.ModuleDict({name: nn.Linear(16, size) for name, size in (("gate_proj", 8), ("up_proj", 24))})
        x = torch.randn(3, 16)
        expected = [module(x).detach() for module in model.values()]
        pack_linears(model, int8=int8)
        assert not any(isinstance(module, nn.Linear) for module in model.modules())
        for _ in range(2):
            found = [module(x) for module in model.values()]
            assert max(map(relative, found, expected)) < tolerance
