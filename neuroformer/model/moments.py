"""Spikes around decoded moments: counted under filters for linear readouts, and in bins for recurrent ones.

Shape suffixes: S spikes, V values, U units, B count bins, F features, H hidden, R raw outputs of a value.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuroformer.model.embed import raised_cosines
from neuroformer.model.layers import Dropout, Linear
from neuroformer.ops import Ragged

NETWORK_DROPOUT = 0.4  # of counts and of the last states
LEAST_SPREAD = 0.2  # of the root mean square over units: a unit that hardly fires must not shout


class Moments(NamedTuple):
    """Square-root counts around every value: (V, F) under filters, (V, U, B) in bins (the earliest first), (V, U * spans)
    over the whole reach and half of it."""

    counts_VF: Tensor | None = None
    bins_VUB: Tensor | None = None
    spans_VF: Tensor | None = None


class MomentCounts(nn.Module):
    """Square roots of each unit's filtered spike counts before (and, with lookahead, after) a decoded moment.

    What a lagged linear decoder knows, at log-spaced lags: attention averages, and a decoder also needs sums.

    Parameters
    ----------
    num_units, num_filters : int
    before, after : int
        Ticks before the moment, and after it, whose spikes are counted.
    bin_width : int
        Ticks of the equal bins in which they are counted too; 0: none.
    with_spans : bool
        Whether they are counted over the whole reach and half of it too.
    """

    def __init__(
        self, num_units: int, num_filters: int, before: int, after: int, bin_width: int = 0,
        with_spans: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.num_units, self.after = num_units, after
        basis = raised_cosines(num_filters, before)
        if after:  # mirrored, the bin next to the moment last
            ahead = raised_cosines(max(1, num_filters // 2), after).flip(0)
            basis = torch.block_diag(ahead, basis)
        self.num_filters = basis.shape[1]
        long = spans(before, after) if with_spans else basis[:, :0]
        self.num_spans = long.shape[1]
        basis = torch.cat([basis, long], 1)
        if bin_width:
            basis = torch.cat([basis, boxes(before, after, bin_width)], 1)
        self.register_buffer("basis", basis, persistent=False)
        self.basis: Tensor

    @property
    def size(self) -> int:
        return self.num_units * self.num_filters

    @property
    def num_bins(self) -> int:
        return self.basis.shape[1] - self.num_filters - self.num_spans

    @property
    def span_size(self) -> int:
        return self.num_units * self.num_spans

    def forward(self, layout: Ragged, tick_S: Tensor, unit_S: Tensor, ends: list[int]) -> Moments:
        """Of the moments at the start of ticks ``ends`` of every window; spikes outside the reach count nothing."""
        total = self.basis.new_zeros(len(layout) * len(ends) * self.num_units, self.basis.shape[1])
        for n, end in enumerate(ends):
            lag = end - 1 - tick_S + self.after
            near = torch.nonzero((lag >= 0) & (lag < len(self.basis))).squeeze(1)
            row = layout.row_T.index_select(0, near) * len(ends) + n
            place = row * self.num_units + unit_S.index_select(0, near)
            total = total.index_add(0, place, self.basis.index_select(0, lag.index_select(0, near)))
        root_VUB = total.sqrt().view(len(layout) * len(ends), self.num_units, -1)
        counts, long, bins = root_VUB.split([self.num_filters, self.num_spans, self.num_bins], 2)
        return Moments(
            counts.flatten(1), bins if self.num_bins else None, long.flatten(1) if self.num_spans else None
        )


def spans(before: int, after: int) -> Tensor:
    """(lags, 2 or 3) indicators of all ticks before the moment, of the later half of them, and of those after it."""
    lag = torch.arange(after + before) - after
    every = [lag >= 0, (lag >= 0) & (lag < (before + 1) // 2)] + ([lag < 0] if after else [])
    return torch.stack(every, 1).float()


def boxes(before: int, after: int, width: int) -> Tensor:
    """(lags, bins) indicators of equal bins, the earliest bin first; row 0 is the latest tick.

    Before the moment bins count from it backwards, after it forwards, so that none holds spikes of both sides.
    """
    lag = torch.arange(after + before) - after  # 0: the tick before the moment; negative: after it
    place = torch.where(lag >= 0, -torch.div(lag, width, rounding_mode="floor"), -lag - 1)
    last_before = int(place[lag >= 0].min())
    ahead = torch.div(place, width, rounding_mode="floor") + 1
    place = torch.where(lag >= 0, place, ahead) - last_before
    return nn.functional.one_hot(place).float()


class Recurrent(nn.Module):
    """A gated recurrent network over the count bins around a moment, read at its last state (both directions' where
    there is lookahead): what came in which order, which sums over filters lose.

    Parameters
    ----------
    rate_U : Tensor
        Expected spikes of each unit in one bin; counts enter in units of their Poisson spread.
    hidden, outputs : int
    both_ways : bool
    """

    def __init__(self, rate_U: Tensor, hidden: int, outputs: int, both_ways: bool):
        super().__init__()
        mean, spread = root_count_moments(rate_U)
        floor = LEAST_SPREAD * spread.square().mean().sqrt()
        self.register_buffer("mean", mean[:, None], persistent=False)
        self.register_buffer("scale", torch.maximum(spread, floor)[:, None], persistent=False)
        self.mean: Tensor
        self.scale: Tensor
        self.dropout = Dropout(NETWORK_DROPOUT)
        self.gru = nn.GRU(len(rate_U), hidden, batch_first=True, bidirectional=both_ways)
        self.out = Linear(hidden * (2 if both_ways else 1), outputs)

    def forward(self, bins_VUB: Tensor) -> Tensor:
        """(V, R)."""
        x_VBU = self.dropout((bins_VUB - self.mean) / self.scale).transpose(1, 2)
        _, last = self.gru(x_VBU)
        return self.out(self.dropout(last.transpose(0, 1).flatten(1)))


def root_count_moments(rate_U: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the square root of Poisson counts."""
    rate = rate_U.double()
    k = torch.arange(int(rate.max() + 10 * rate.max().sqrt() + 10))
    log_p = torch.distributions.Poisson(rate[:, None]).log_prob(k)
    mean = (log_p.exp() * k.double().sqrt()).sum(1)
    return mean.float(), (rate - mean.square()).clamp_min(1e-9).sqrt().float()


class KernelReadout(nn.Module):
    """A readout in closed form that fine-tuning may set: linear in random features of a Gaussian kernel (Rahimi and
    Recht, NeurIPS 2007). It holds no parameter that descent moves, and gives zero until it is set.

    Parameters
    ----------
    num_random, num_features, outputs : int
    """

    def __init__(self, num_random: int, num_features: int, outputs: int):
        super().__init__()
        self.register_buffer("frequency", torch.zeros(num_random, num_features))
        self.register_buffer("phase", torch.zeros(num_random))
        self.register_buffer("weight", torch.zeros(outputs, num_random))
        self.frequency: Tensor
        self.phase: Tensor
        self.weight: Tensor

    def forward(self, x_VF: Tensor) -> Tensor:
        """(V, R)."""
        if not bool(self.weight.any()):
            return x_VF.new_zeros(len(x_VF), len(self.weight))
        wave_VK = torch.cos(x_VF @ self.frequency.T + self.phase)
        return (2 / len(self.phase)) ** 0.5 * wave_VK @ self.weight.T

    def set(self, frequency_KF: Tensor, phase_K: Tensor, weights_KY: Tensor, gain: float) -> None:
        """Write a fitted readout of the first Y raw outputs, ``gain`` times."""
        self.frequency.copy_(frequency_KF)
        self.phase.copy_(phase_K)
        self.weight[: weights_KY.shape[1]] = gain * weights_KY.T

    def clear(self) -> None:
        self.weight.zero_()
