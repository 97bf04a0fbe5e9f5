"""Behavior targets: what is read of them from the fused states.

Shape suffixes: W windows, T tokens (SOS included), D width, C columns or classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuroformer.ops import Ragged, attention


class TargetHead(nn.Module):
    """A behavior variable, read by an attention pool over the fused states of a window."""

    def __init__(self, width: int, heads: int, scale: dict):
        super().__init__()
        self.classes: list[int] = scale.get("classes", [])
        size = len(self.classes) or len(scale["mean"])
        self.heads = heads
        self.query = nn.Parameter(torch.randn(heads, width // heads) * 0.1)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Sequential(
            nn.LayerNorm(2 * width), nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, size)
        )
        self.skip = nn.Linear(width, size)
        self.register_buffer("mean", torch.tensor(scale.get("mean", [0.0])))
        self.register_buffer("std", torch.tensor(scale.get("std", [1.0])))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, h_TD: Tensor, layout: Ragged) -> Tensor:
        """(W, C): in units of the training spread (regression), or logits (classification)."""
        num_windows = len(layout)
        k, v = (x.unflatten(-1, (self.heads, -1)) for x in self.key_value(h_TD).chunk(2, -1))
        ones = Ragged(torch.arange(num_windows + 1, device=h_TD.device), 1, num_windows)
        query = self.query.expand(num_windows, -1, -1).to(k.dtype)
        pooled = attention(query, k, v, ones, layout).flatten(1)
        sos = h_TD.index_select(0, layout.first())
        return self.out(torch.cat([pooled, sos], 1)) + self.skip(sos)

    def values(self, raw: Tensor) -> Tensor:
        """In the variable's own unit; for classes, their probabilities."""
        return raw.softmax(-1) if self.classes else raw * self.std + self.mean

    def normalized(self, values_WC: Tensor) -> Tensor:
        return (values_WC - self.mean) / self.std
