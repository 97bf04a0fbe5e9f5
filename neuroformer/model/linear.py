"""The linear map of every layer."""

from __future__ import annotations

from torch import Tensor, nn

from neuroformer.ops import linear


class Linear(nn.Linear):
    """``torch.nn.Linear`` by whichever library multiplies faster; see :func:`neuroformer.ops.linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)
