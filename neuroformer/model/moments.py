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
KERNEL_WIDTHS = (0.7, 1.2, 2.2)  # of Gaussians, in units of the features' spread
LEAST_SPREAD = 0.2  # of the root mean square over units: a unit that hardly fires must not shout


class Moments(NamedTuple):
    """Square-root counts around every value: (V, F) under filters, (V, U, B) in bins (the earliest first), (V, U * spans)
    over the whole reach and half of it; (V, D) the model's state at the moment."""

    counts_VF: Tensor | None = None
    bins_VUB: Tensor | None = None
    spans_VF: Tensor | None = None
    later_VD: Tensor | None = None


class MomentCounts(nn.Module):
    """Square roots of each unit's filtered spike counts before (and, with lookahead, after) a decoded moment.

    What a lagged linear decoder knows, at log-spaced lags: attention averages, and a decoder also needs sums.

    Parameters
    ----------
    num_units, num_filters : int
    before, after : int
        Ticks before and after the moment in which spikes are counted.
    bin_width : int
        Ticks of the equal bins in which they are counted too; 0: none.
    with_spans : bool
        Whether they are counted over the whole reach and half of it too.
    """

    def __init__(
        self,
        num_units: int,
        num_filters: int,
        before: int,
        after: int,
        bin_width: int = 0,
        with_spans: bool = False,
    ):
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
        """Counts at the moments at the start of ticks ``ends`` of every window; spikes outside the reach are ignored."""
        total = self.basis.new_zeros(len(layout) * len(ends) * self.num_units, self.basis.shape[1])
        for n, end in enumerate(ends):
            lag = end - 1 - tick_S + self.after
            near = torch.nonzero((lag >= 0) & (lag < len(self.basis))).squeeze(1)
            row = layout.row_T.index_select(0, near) * len(ends) + n
            place = row * self.num_units + unit_S.index_select(0, near)
            total = total.index_add(0, place, self.basis.index_select(0, lag.index_select(0, near)))
        root_VUB = total.sqrt().view(len(layout) * len(ends), self.num_units, -1)
        counts, long, bins = root_VUB.split([self.num_filters, self.num_spans, self.num_bins], 2)
        return Moments(counts.flatten(1), bins if self.num_bins else None, long.flatten(1) if self.num_spans else None)


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


def gaussian_kernel(x_VF: Tensor, center_KF: Tensor) -> Tensor:
    """(V, K) mean of Gaussians of :data:`KERNEL_WIDTHS`: one kernel of several widths, for choosing among kernels by a few
    seconds costs more than it gives."""
    square_VK = torch.cdist(x_VF, center_KF).square()
    return torch.stack([torch.exp(-square_VK / (2 * width**2)) for width in KERNEL_WIDTHS]).mean(0)


class KernelReadout(nn.Module):
    """A readout in closed form that fine-tuning may set: a weighted sum of Gaussian kernels around labelled moments. It
    holds no parameter that descent moves, and gives zero until it is set.

    Parameters
    ----------
    num_centers : int
        Labelled moments at most.
    num_features, outputs : int
    """

    def __init__(self, num_centers: int, num_features: int, outputs: int):
        super().__init__()
        self.register_buffer("offset", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.register_buffer("center", torch.zeros(num_centers, num_features))
        self.register_buffer("weight", torch.zeros(outputs, num_centers))
        self.offset: Tensor
        self.scale: Tensor
        self.center: Tensor
        self.weight: Tensor

    @property
    def is_set(self) -> bool:
        return bool(self.weight.any())

    def forward(self, x_VF: Tensor) -> Tensor:
        """(V, R)."""
        used = self.weight.any(0)
        if not self.is_set:
            return x_VF.new_zeros(len(x_VF), len(self.weight))
        return gaussian_kernel((x_VF - self.offset) / self.scale, self.center[used]) @ self.weight[:, used].T

    def set(self, offset_F: Tensor, scale_F: Tensor, center_KF: Tensor, weights_KY: Tensor, gain: float) -> None:
        """Write a fitted readout of the first Y raw outputs, ``gain`` times; centers are (raw - offset) / scale."""
        self.clear()
        self.offset.copy_(offset_F)
        self.scale.copy_(scale_F)
        self.center[: len(center_KF)] = center_KF
        self.weight[: weights_KY.shape[1], : len(center_KF)] = gain * weights_KY.T

    def clear(self) -> None:
        self.weight.zero_()
