"""Alignment: two pooled features in one space, where what belongs together lies together.

Shape suffixes: W windows, U units, K temporal filters, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.config import Config
from neuroformer.data.batch import Batch
from neuroformer.model.counts import FilteredCounts
from neuroformer.model.layers import Linear
from neuroformer.model.streams import Encoded
from neuroformer.model.units import UnitRows
from neuroformer.ops import Ragged

NEURAL = "neural"
SHARED, SCALE = 32, 10.0  # width of the shared space; initial inverse temperature
FILTERS = 8  # log-spaced raised cosines, from the past to the window's end


class Projection(nn.Module):
    """Maps a pooled feature into the shared, normalised space of an alignment."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.net = nn.Sequential(nn.LayerNorm(size), Linear(size, 2 * width), nn.GELU(), Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.net(x).float(), dim=-1)


class NeuralFeatures(nn.Module):
    """(W, D) features of all spikes from the past to the window's end."""

    def __init__(self, config: Config, num_units: int):
        super().__init__()
        w = config.window
        self.num_bins = round(w.current / w.dt)
        self.counts = FilteredCounts(num_units, FILTERS, self.num_bins + round(w.past / w.dt))
        scale = (num_units * self.counts.num_filters) ** -0.5
        self.rows = UnitRows(num_units, self.counts.num_filters, config.model.width, std=scale)

    def forward(self, batch: Batch) -> Tensor:
        row, tick, unit = batch.every_spike()
        order = torch.argsort(row, stable=True)
        lengths = batch.past.lengths_B + batch.current.lengths_B
        layout = Ragged(F.pad(lengths.cumsum(0), (1, 0)), 0, len(row))
        counts_WUK = self.counts(layout, tick[order], unit[order], [self.num_bins])
        return counts_WUK.flatten(1) @ self.rows.weight.flatten(0, 1)


class Alignment(nn.Module):
    """Both sides of every pair of ``loss.contrast``, pooled and projected: ``neural`` (roots of spike counts of the past and the
    window), ``frames``, or a group of behavior variables."""

    def __init__(self, config: Config, num_units: int):
        super().__init__()
        contrasts = config.loss.contrast
        self.pairs = [c.pair for c in contrasts]
        if any(NEURAL in pair for pair in self.pairs):
            self.neural = NeuralFeatures(config, num_units)
        self.projections = nn.ModuleList(
            nn.ModuleList(Projection(config.model.width, SHARED) for _ in c.pair) for c in contrasts
        )
        self.log_scale = nn.ParameterList(nn.Parameter(torch.tensor(SCALE).log()) for _ in contrasts)

    def forward(self, batch: Batch, encoded: dict[str, Encoded]) -> list[tuple[Tensor, Tensor]]:
        """For each pair, (W, shared width) of both sides."""
        out = []
        for pair, (a, b) in zip(self.pairs, self.projections, strict=True):  # pyright: ignore[reportGeneralTypeIssues]
            x, y = (self.neural(batch) if side == NEURAL else encoded[side].pooled() for side in pair)
            out.append((a(x), b(y)))
        return out
