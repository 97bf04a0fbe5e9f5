"""The basic layers of the model, written to be fast on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.ops import linear


class Linear(nn.Linear):
    """``torch.nn.Linear`` through whichever library multiplies faster; see :func:`neuroformer.ops.linear`."""

    def reset_parameters(self) -> None:
        if self.in_features:
            super().reset_parameters()
        elif self.bias is not None:  # PyTorch's own, less its warning that there is no weight to draw
            nn.init.uniform_(self.bias, 0.0, 0.0)

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class Mlp(nn.Sequential):
    """``linear(gelu(linear(norm(x))))``, four times as wide within; the GELU is taken with the product before it."""

    def __init__(self, width: int):
        super().__init__(nn.LayerNorm(width), Linear(width, 4 * width), nn.GELU(), Linear(4 * width, width))

    def forward(self, input: Tensor) -> Tensor:
        norm, wide, _, narrow = self
        assert isinstance(norm, nn.LayerNorm) and isinstance(wide, Linear) and isinstance(narrow, Linear)
        # weights, not modules: with one token each, calling modules would take as long as some of the products
        x = F.layer_norm(input, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        x = linear(x, wide.weight, wide.bias, gelu=True)
        return linear(x, narrow.weight, narrow.bias)


class AtBin(nn.Module):
    """A state as one bin of the window sees it: what is expected, or who fires, differs from bin to bin."""

    def __init__(self, num_bins: int, width: int):
        super().__init__()
        self.bin = nn.Parameter(torch.randn(num_bins, width) * 0.1)
        self.hidden, self.out = Linear(width, width), Linear(width, width)

    def forward(self, h_ND: Tensor, tick_N: Tensor) -> Tensor:
        """(N, D) of one bin each."""
        return self.out(F.gelu(self.hidden(h_ND) + self.bin.index_select(0, tick_N))) + h_ND

    def every(self, h_WD: Tensor) -> Tensor:
        """(W, B, D) of all bins."""
        return self.out(F.gelu(self.hidden(h_WD)[:, None] + self.bin)) + h_WD[:, None]


class Dropout(nn.Dropout):
    """``torch.nn.Dropout``; on a CPU 16 random bits decide on each element, which takes a third of the time.

    The share that is dropped is exact to 1 / 65536. Training lets it fade by :func:`set_dropout`.
    """

    strength = 1.0  # of ``p``

    def forward(self, input: Tensor) -> Tensor:
        p = self.p * self.strength
        if not self.training or p == 0:
            return input
        if p == 1 or input.device.type != "cpu" or input.numel() == 0:
            return F.dropout(input, p)
        words = torch.randint(-(2**63), 2**63 - 1, (-(-input.numel() // 4),))
        dropped = min(round(p * 2**16), 2**16 - 1)
        keep = words.view(torch.int16)[: input.numel()].view(input.shape) >= dropped - 2**15
        return (input * keep).mul_(2**16 / (2**16 - dropped))


def set_dropout(model: nn.Module, strength: float) -> None:
    """Let every dropout of a model drop ``strength`` times its share."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.strength = strength
