"""Spike counts under a temporal basis around moments of a window.

Shape suffixes: S spikes, W windows, V moments of all windows, U units, Q patterns, C channels (units or patterns), K temporal
filters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neuroformer.ops import Ragged


def raised_cosines(num_filters: int, num_bins: int) -> Tensor:
    """(bins, filters) log-spaced raised cosines of the lag, after Pillow et al., Nature 2008.

    Row 0 is the most recent bin. The filters sum to one at every lag.
    """
    if num_filters == 1:
        return torch.ones(num_bins, 1)
    warp = torch.log(torch.arange(num_bins, dtype=torch.float64) + 1.0)
    centers = torch.linspace(0, float(warp[-1]), num_filters, dtype=torch.float64)
    phase = (warp[:, None] - centers) / max(float(centers[1]), 1e-9) * math.pi
    basis = 0.5 * (1 + torch.cos(phase.clamp(-math.pi, math.pi)))
    return (basis / basis.sum(1, keepdim=True)).float()


class FilteredCounts(nn.Module):
    """Square roots of each unit's spike counts under temporal filters, before a moment and, with lookahead, after it.

    Attention averages, and a linear decoder needs sums. The root makes the spread of Poisson counts the same at all rates. Of a
    large population they are seen as patterns over units, if asked for: a weight for each of thousands of units is learnt by heart.

    Parameters
    ----------
    num_units, num_filters : int
    before, after : int
        Bins before and after the moment in which spikes count; filters after it are half as many, mirrored.
    patterns : int
        Of units, in whose place they are seen; 0: each unit by itself. They are random until data give others
        (:func:`neuroformer.training.start.start_heads`).
    """

    def __init__(self, num_units: int, num_filters: int, before: int, after: int = 0, patterns: int = 0):
        super().__init__()
        self.num_units, self.after = num_units, after
        basis = raised_cosines(num_filters, before)
        if after:  # the bin next to the moment last
            basis = torch.block_diag(raised_cosines(max(1, num_filters // 2), after).flip(0), basis)
        self.register_buffer("basis", basis, persistent=False)
        self.basis: Tensor
        self.register_buffer("pattern", torch.randn(num_units, patterns) * num_units**-0.5 if patterns else None)
        self.pattern: Tensor | None

    @property
    def num_filters(self) -> int:
        return self.basis.shape[1]

    @property
    def num_channels(self) -> int:
        return self.num_units if self.pattern is None else self.pattern.shape[1]

    def forward(self, layout: Ragged, tick_S: Tensor, unit_S: Tensor, ends: list[int]) -> Tensor:
        """(V, C, K) at the moments at the start of bins ``ends`` of every window; spikes out of reach do not count."""
        total = self.basis.new_zeros(len(layout) * len(ends) * self.num_units, self.num_filters)
        for n, end in enumerate(ends):
            lag_S = end - 1 - tick_S + self.after
            near = torch.nonzero((lag_S >= 0) & (lag_S < len(self.basis))).squeeze(1)
            row = layout.row_T.index_select(0, near) * len(ends) + n
            place = row * self.num_units + unit_S.index_select(0, near)
            total = total.index_add(0, place, self.basis.index_select(0, lag_S.index_select(0, near)))
        root_VUK = total.sqrt().view(len(layout) * len(ends), self.num_units, -1)
        return root_VUK if self.pattern is None else torch.einsum("vuk,uq->vqk", root_VUK, self.pattern)
