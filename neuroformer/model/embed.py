"""From spikes, behavior samples and times to vectors.

Shape suffixes: W windows, T current tokens, P spikes of a stretch, K temporal filters, U units, D width, C columns,
N samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neuroformer.config import InputConfig
from neuroformer.data.batch import Batch
from neuroformer.data.scales import VariableScale
from neuroformer.model.layers import Linear
from neuroformer.ops import Ragged


def weighted(x_PD: Tensor, weight_P: Tensor | None) -> Tensor:
    """Rows times their weights; unchanged without weights."""
    return x_PD if weight_P is None else x_PD * weight_P[:, None]


class FourierTime(nn.Module):
    """Sines and cosines of a time in seconds, at periods spaced evenly in the logarithm.

    Parameters
    ----------
    num_features : int, even
    shortest, longest : float
        Periods in seconds.
    """

    def __init__(self, num_features: int, shortest: float, longest: float):
        super().__init__()
        longest = max(longest, 2 * shortest)
        periods = torch.logspace(math.log10(shortest), math.log10(longest), num_features // 2)
        self.register_buffer("omega", 2 * math.pi / periods, persistent=False)
        self.omega: Tensor

    def forward(self, time: Tensor) -> Tensor:
        angle = time[..., None].to(self.omega.dtype) * self.omega
        return torch.cat([angle.sin(), angle.cos()], -1)


class SpikeEmbedding(nn.Module):
    """Unit plus time: one vector per spike, the same for current and past spikes.

    Times are bins of the window, so the embedding of every possible time is one small table.
    """

    def __init__(self, num_units: int, width: int, num_features: int, dt: float, current: int, past: int):
        super().__init__()
        self.past = past
        self.unit = nn.Embedding(num_units, width)
        nn.init.normal_(self.unit.weight, std=0.5)
        self.fourier = FourierTime(num_features, 2 * dt, 4 * (current + past) * dt)
        self.time = Linear(num_features, width)
        center = (torch.arange(-past, current + 1) + 0.5) * dt
        self.register_buffer("center", center, persistent=False)
        self.center: Tensor

    def time_table(self) -> Tensor:
        """(past + current + 1, D) embedding of every bin, the oldest first."""
        return self.time(self.fourier(self.center))

    def forward(self, tick: Tensor, unit: Tensor, table: Tensor | None = None) -> Tensor:
        """(T, D) from the bins relative to the window's first (negative: past) and the units; ``table``: that of the
        times, where it is at hand.
        """
        table = self.time_table() if table is None else table
        return self.unit(unit) + table.index_select(0, tick + self.past)


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


def past_spikes(batch: Batch, num_units: int, hidden: float) -> tuple[Ragged, Tensor, Tensor, Tensor | None]:
    """Layout, bin, unit and weight of the past spikes, of which each window loses a random share ``hidden`` of its
    units.

    With some units silent in training, silencing one in a simulation is nothing new to the model.
    """
    layout, tick, unit, weight = batch.past, batch.past_tick_P, batch.past_unit_P, batch.past_weight_P
    if hidden == 0:
        return layout, tick, unit, weight
    hidden_WU = torch.rand(len(layout), num_units, device=unit.device) < hidden
    stays_P = ~hidden_WU[layout.row_T, unit]
    lengths = torch.zeros_like(layout.lengths_B).index_add(0, layout.row_T, stays_P.to(layout.lengths_B.dtype))
    k = torch.nonzero(stays_P).squeeze(1)
    return Ragged.from_lengths(lengths), tick[k], unit[k], None if weight is None else weight[k]


class FilteredCounts(nn.Module):
    """Square roots of each unit's spike counts under temporal filters: what a GLM knows about the past.

    Attention averages, but a rate is a sum. The root keeps a burst from blowing up an exponential rate.
    """

    def __init__(self, num_units: int, num_filters: int, num_bins: int):
        super().__init__()
        self.num_units = num_units
        self.register_buffer("basis", raised_cosines(num_filters, num_bins), persistent=False)
        self.basis: Tensor

    @property
    def size(self) -> int:
        return self.num_units * self.basis.shape[1]

    def forward(self, layout: Ragged, tick_P: Tensor, unit_P: Tensor, weight_P: Tensor | None = None) -> Tensor:
        """(W, U * K) from spikes at negative bins, -1 the most recent."""
        features = self.basis.new_zeros(len(layout) * self.num_units, self.basis.shape[1])
        rows = weighted(self.basis.index_select(0, -1 - tick_P), weight_P)
        features = features.index_add(0, layout.row_T * self.num_units + unit_P, rows)
        if weight_P is not None:  # a root has no gradient at zero
            features = features.clamp_min(1e-12)
        return features.view(len(layout), -1).sqrt()


class InputEmbedding(nn.Module):
    """One behavior variable: its value (linear or Fourier features) plus the time of the sample.

    ``scale`` comes from :func:`neuroformer.data.normalization.fit_normalization`.
    """

    def __init__(self, config: InputConfig, scale: VariableScale, width: int, num_features: int, current_s: float):
        super().__init__()
        self.config = config
        low, high = torch.tensor(scale.low), torch.tensor(scale.high)
        if config.encoding == "fourier":
            period = torch.full_like(low, config.period) if config.period > 0 else (high - low).clamp_min(1e-9)
            self.register_buffer("offset", low)
            self.register_buffer("scale", period)
            size = 2 * config.frequencies * len(low)
        else:
            self.register_buffer("offset", torch.tensor(scale.mean))
            self.register_buffer("scale", torch.tensor(scale.std))
            size = len(low)
        self.offset: Tensor
        self.scale: Tensor
        self.size = size
        self.value = Linear(size, width)
        self.fourier = FourierTime(num_features, current_s / max(config.samples, 1), 2 * current_s)
        self.time = Linear(num_features, width)
        self.duration = current_s

    def features(self, value: Tensor) -> Tensor:
        """(..., features) of (..., C) values in the variable's own unit."""
        x = (value - self.offset) / self.scale
        if self.config.encoding == "linear":
            return x
        k = torch.arange(1, self.config.frequencies + 1, device=x.device, dtype=x.dtype)
        angle = 2 * math.pi * x[..., None] * k
        return torch.cat([angle.sin(), angle.cos()], -1).flatten(-2)

    def forward(self, value_WNC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(W, N, D) vectors; (W, N) which samples exist; (W, N, F) the features, zero where missing."""
        exists = torch.isfinite(value_WNC).all(-1)
        features = self.features(torch.nan_to_num(value_WNC)) * exists[..., None]
        x = self.value(features)
        num_samples = value_WNC.shape[1]
        at = (torch.arange(num_samples, device=x.device) + 0.5) / num_samples * self.duration
        return x + self.time(self.fourier(at)), exists, features
