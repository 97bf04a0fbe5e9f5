"""Low-rank adapters (Hu et al., ICLR 2022): a weight changes by a product of two thin matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neuroformer.model.network import Neuroformer


class LowRank(nn.Module):
    """``W + B A``; B starts at zero, so that the model starts unchanged."""

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.randn(rank, columns).to(weight) / columns**0.5)
        self.up = nn.Parameter(weight.new_zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def add_adapters(model: Neuroformer, rank: int) -> list[nn.Parameter]:
    """Adapt every linear map of the fusion blocks; returns the parameters that train."""
    added: list[nn.Parameter] = []
    for layer in _linears(model):
        adapter = LowRank(layer.weight, rank)
        parametrize.register_parametrization(layer, "weight", adapter)
        added += list(adapter.parameters())
    return added


def merge_adapters(model: Neuroformer) -> None:
    """Fold adapters into the weights: a plain model again."""
    for layer in _linears(model):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _linears(model: Neuroformer) -> list[nn.Linear]:
    return [m for m in model.blocks.modules() if isinstance(m, nn.Linear)]
