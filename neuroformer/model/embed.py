"""From spikes, behavior samples and times to vectors.

Shape suffixes: W windows, T current tokens, P spikes of a stretch, K temporal filters, U units, D width, C columns,
N samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neuroformer.config import InputConfig
from neuroformer.data.scales import VariableScale
from neuroformer.model.layers import Linear
from neuroformer.model.units import UnitRows

EMBEDDING_STD = 0.5  # of units' embeddings at the start
FEATURES = 16  # sines and cosines of a time
FEWEST_HARMONICS, MOST_HARMONICS = 16, 256  # of an input, where the configuration leaves them open


class FourierTime(nn.Module):
    """Sines and cosines of a time in seconds, at periods spaced evenly in the logarithm.

    Parameters
    ----------
    shortest, longest : float
        Periods in seconds.
    """

    def __init__(self, shortest: float, longest: float):
        super().__init__()
        longest = max(longest, 2 * shortest)
        periods = torch.logspace(math.log10(shortest), math.log10(longest), FEATURES // 2)
        self.register_buffer("omega", 2 * math.pi / periods, persistent=False)
        self.omega: Tensor

    def forward(self, time: Tensor) -> Tensor:
        angle = time[..., None].to(self.omega.dtype) * self.omega
        return torch.cat([angle.sin(), angle.cos()], -1)


class SpikeEmbedding(nn.Module):
    """Unit plus time: one vector per spike, the same for current and past spikes.

    Times are bins of the window, so the embedding of every possible time is one small table.
    """

    def __init__(self, num_units: int, width: int, dt: float, current: int, past: int):
        super().__init__()
        self.past = past
        self.unit = UnitRows(num_units, width, std=EMBEDDING_STD)
        self.fourier = FourierTime(2 * dt, 4 * (current + past) * dt)
        self.time = Linear(FEATURES, width)
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


def _harmonics(config: InputConfig, period: float, current_s: float) -> int:
    """So many that what happens in one window of a trial can be told from the next; 16 of what does not run with time."""
    if config.name != "trial_time":
        return FEWEST_HARMONICS
    return min(max(FEWEST_HARMONICS, math.ceil(period / (2 * current_s))), MOST_HARMONICS)


class InputEmbedding(nn.Module):
    """One behavior variable: its value (linear or Fourier features) plus the time of the sample.

    ``scale`` comes from :func:`neuroformer.data.normalization.fit_normalization`.
    """

    def __init__(self, config: InputConfig, scale: VariableScale, width: int, current_s: float):
        super().__init__()
        self.config = config
        low, high = torch.tensor(scale.low), torch.tensor(scale.high)
        if config.encoding == "fourier":
            period = torch.full_like(low, config.period) if config.period > 0 else (high - low).clamp_min(1e-9)
            self.register_buffer("offset", low)
            self.register_buffer("scale", period)
            self.harmonics = config.frequencies or _harmonics(config, float(period.max()), current_s)
            size = 2 * self.harmonics * len(low)
        else:
            self.register_buffer("offset", torch.tensor(scale.mean))
            self.register_buffer("scale", torch.tensor(scale.std))
            size = len(low)
        self.offset: Tensor
        self.scale: Tensor
        self.size = size
        self.value = Linear(size, width)
        self.fourier = FourierTime(current_s / max(config.samples, 1), 2 * current_s)
        self.time = Linear(FEATURES, width)
        self.duration = current_s

    def features(self, value: Tensor) -> Tensor:
        """(..., features) of (..., C) values in the variable's own unit."""
        x = (value - self.offset) / self.scale
        if self.config.encoding == "linear":
            return x
        k = torch.arange(1, self.harmonics + 1, device=x.device, dtype=x.dtype)
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
