"""Packed linear layers compute what the layers they replace compute."""

import pytest
import torch
from hunmin_modeling.linear import PackedLinear, pack_linears
from torch import nn
from transformers.pytorch_utils import Conv1D


@pytest.mark.parametrize("rows", [1, 3, 16, 100])
@pytest.mark.parametrize("layer", [nn.Linear(48, 20), nn.Linear(48, 20, bias=False), Conv1D(20, 48)])
def test_packing_changes_no_result(layer: nn.Module, rows: int) -> None:
    x = torch.randn(1, rows, 48, generator=torch.Generator().manual_seed(rows))
    with torch.inference_mode():
        expected = layer(x)
        holder = nn.Sequential(layer)
        pack_linears(holder)
        assert isinstance(holder[0], PackedLinear)
        torch.testing.assert_close(holder(x), expected, atol=1e-5, rtol=1e-5)
