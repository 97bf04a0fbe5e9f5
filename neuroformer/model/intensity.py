"""The conditional intensity: how likely a spike is in each cell, given all spikes before it.

Shape suffixes: W windows, T tokens (SOS included), S spikes, B bins of a window, U units, N any tokens, R patterns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.ops import Ragged


def bounded(x: Tensor, high: float = 2.0, low: float = 4.0) -> Tensor:
    """x near zero, never above ``high`` nor below ``-low``.

    What past spikes do to a rate must not run away when these spikes are simulated; refractoriness may go further.
    """
    return torch.where(x > 0, high * torch.tanh(x / high), low * torch.tanh(x / low))


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x > 0."""
    return torch.log(-torch.expm1(-x.clamp_min(1e-30)))


def cell_counts(layout: Ragged, tick_S: Tensor, unit_S: Tensor) -> Tensor:
    """(S,) number of spikes in its cell (window, bin, unit) up to and including each spike."""
    place = torch.arange(len(tick_S), device=tick_S.device)
    new = torch.ones_like(tick_S, dtype=torch.bool)
    row_S = layout.row_T
    new[1:] = (tick_S[1:] != tick_S[:-1]) | (unit_S[1:] != unit_S[:-1]) | (row_S[1:] != row_S[:-1])
    first = torch.where(new, place, 0).cummax(0).values if len(place) else place
    return place - first + 1


def of_last_spike(layout: Ragged, tick_S: Tensor, unit_S: Tensor, count_S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(T,) each of what the spikes say, at their tokens; bin 0, unit -1 and count 0 at the first token of a window."""
    has_spike = torch.ones(layout.total, dtype=torch.bool, device=tick_S.device)
    has_spike[layout.first()] = False
    none = torch.zeros_like(layout.row_T)
    return (
        none.masked_scatter(has_spike, tick_S),
        (none - 1).masked_scatter(has_spike, unit_S),
        none.masked_scatter(has_spike, count_S),
    )


@dataclass
class Intensity:
    """A Poisson process after each token, scanned cell by cell in the order of the tokens.

    Spikes come ordered by (bin, unit). If counts were Poisson with these rates, the expected count that remains would
    give the bin of the next spike, and the rates in that bin its unit. Both heads start from these logits and learn
    the rest.

    Attributes
    ----------
    cell_TBU : expected counts, given the spikes up to each token
    tick_T, unit_T, count_T : the last spike's bin and unit (0 and -1 before the first), and the number of spikes in
    its cell so far
    """

    cell_TBU: Tensor
    tick_T: Tensor
    unit_T: Tensor
    count_T: Tensor

    def remaining(self, token_N: Tensor, dt_N: Tensor) -> Tensor:
        """(N, U) expected counts of bin ``dt`` that are still to be scanned after ``token``."""
        cell_NU = self.cell_TBU[token_N, dt_N]
        unit_N1 = self.unit_T[token_N, None]
        inside = (self.tick_T[token_N] == dt_N)[:, None] & (unit_N1 >= 0)
        units = torch.arange(cell_NU.shape[1], device=cell_NU.device)
        # one more spike in a cell of k: for small rates P(k + 1 or more | k or more) is rate / (k + 1)
        again_NU = cell_NU / (self.count_T[token_N, None] + 1)
        here_NU = torch.where(units > unit_N1, cell_NU, torch.where(units == unit_N1, again_NU, 0.0))
        return torch.where(inside, here_NU, cell_NU)

    def dt_base(self) -> Tensor:
        """(T, B + 1) log-probabilities of the next spike's bin (last: none). Values before the last spike's bin have
        no meaning.
        """
        tokens = torch.arange(len(self.cell_TBU), device=self.cell_TBU.device)
        bins = torch.arange(self.cell_TBU.shape[1], device=tokens.device)
        here_T1 = self.remaining(tokens, self.tick_T).sum(1, keepdim=True).clamp_min(1e-7)
        tick_T1 = self.tick_T[:, None]
        mass_TB = torch.where(bins == tick_T1, here_T1, self.cell_TBU.sum(2))
        mass_TB = torch.where(bins < tick_T1, 0.0, mass_TB)
        upto_TB = mass_TB.cumsum(1)
        return torch.cat([log1mexp(mass_TB) - (upto_TB - mass_TB), -upto_TB[:, -1:]], 1)

    def id_base(self, token_N: Tensor, dt_N: Tensor) -> Tensor:
        """(N, U) log-probability that each unit is the next to fire in bin ``dt``, up to a constant."""
        left_NU = self.remaining(token_N, dt_N)
        return log1mexp(left_NU) - (left_NU.cumsum(1) - left_NU)


class Coupling(nn.Module):
    """The effect of a spike on the bins after it: the coupling terms of a GLM, at exact lags.

    A spike changes its own unit's log rate at each lag (refractoriness, bursts) and everybody's through a few
    shared patterns. Attention can express this, but finds it late; and a full matrix a lag overfits, as most
    pairs of units are not coupled, unless training keeps it sparse (``train.sparsity``). Only the first of several
    spikes in one cell (bin, unit) acts, so that a burst does not excite itself without end.

    Parameters
    ----------
    num_lags : int
        Bins after a spike in which it acts; 0 is its own bin.
    rank : int
        Number of patterns; 0: a weight for every pair at every lag, ``pair`` (source and lag, target),
        beside each unit's own history.
    """

    def __init__(self, num_units: int, num_bins: int, num_lags: int, rank: int):
        super().__init__()
        self.num_bins, self.num_lags, self.num_units = num_bins, num_lags, num_units
        self.own = nn.Parameter(torch.zeros(num_units, num_lags))
        self.pair = None
        if rank == 0:
            self.pair = nn.Parameter(torch.zeros(num_units * num_lags, num_units))
            return
        self.source = nn.Parameter(0.1 * torch.randn(num_units, num_lags, rank))
        self.target = nn.Parameter(torch.zeros(rank, num_units))

    def effects(self, tick_S: Tensor, unit_S: Tensor, first_S: Tensor) -> Tensor:
        """(S, B, U) what each spike that is the first of its cell adds to the log rates of the window's bins, from
        its own on."""
        lag_SB = torch.arange(self.num_bins, device=tick_S.device) - tick_S[:, None]
        acts_SB1 = (first_S[:, None] & (lag_SB >= 0) & (lag_SB < self.num_lags))[..., None]
        place_SB = unit_S[:, None] * self.num_lags + lag_SB.clamp(0, self.num_lags - 1)
        place = place_SB.flatten()
        own_SB1 = self.own.flatten().index_select(0, place).view(*place_SB.shape, 1) * acts_SB1
        own_SBU = own_SB1.new_zeros(*place_SB.shape, self.num_units)
        own_SBU = own_SBU.scatter(2, unit_S[:, None, None].expand(-1, self.num_bins, 1), own_SB1)
        table = self.source.flatten(0, 1) if self.pair is None else self.pair
        rows_SBR = table.index_select(0, place).unflatten(0, place_SB.shape) * acts_SB1
        return own_SBU + (rows_SBR @ self.target if self.pair is None else rows_SBR)

    def before(
        self, past: Ragged, tick_P: Tensor, unit_P: Tensor, first_P: Tensor, weight_P: Tensor | None = None
    ) -> Tensor:
        """(W, B, U) what the spikes before the window add, each by its weight."""
        near = torch.nonzero((tick_P > -self.num_lags) & first_P).squeeze(1)
        tick, unit, first = (x.index_select(0, near) for x in (tick_P, unit_P, first_P))
        if self.pair is not None:
            weight = None if weight_P is None else weight_P.index_select(0, near)
            return self._sums(len(past), past.row_T.index_select(0, near), tick, unit, weight)
        effects = self.effects(tick, unit, first)
        if weight_P is not None:
            effects = effects * weight_P.index_select(0, near)[:, None, None]
        total = effects.new_zeros(len(past), *effects.shape[1:])
        return total.index_add(0, past.row_T.index_select(0, near), effects)

    def _sums(self, num_windows: int, row_S: Tensor, tick_S: Tensor, unit_S: Tensor, weight_S: Tensor | None):
        """(W, B, U) rows of ``pair`` added up over each window's spikes, without a copy of each row."""
        assert self.pair is not None
        out = []
        for b in range(self.num_bins):
            acts = torch.nonzero(b - tick_S < self.num_lags).squeeze(1)
            place = (unit_S * self.num_lags + b - tick_S).index_select(0, acts)
            count = torch.bincount(row_S.index_select(0, acts), minlength=num_windows)
            weight = None if weight_S is None else weight_S.index_select(0, acts)
            total = F.embedding_bag(place, self.pair, count.cumsum(0) - count, mode="sum", per_sample_weights=weight)
            own = self.own.flatten().index_select(0, place)
            at = (row_S * self.num_units + unit_S).index_select(0, acts)
            total = total.flatten().index_add(0, at, own if weight is None else own * weight)
            out.append(total.view(num_windows, self.num_units))
        return torch.stack(out, 1)

    def within(self, layout: Ragged, tick_S: Tensor, unit_S: Tensor, first_S: Tensor) -> Tensor:
        """(T, B, U) what the window's own spikes add: before the first (zero), and after each."""
        effects_WLBU = layout.pad(self.effects(tick_S, unit_S, first_S))
        none = effects_WLBU.new_zeros(len(layout), 1, *effects_WLBU.shape[2:])
        total = torch.cat([none, effects_WLBU], 1).cumsum(1)
        count = torch.arange(len(layout) + 1, device=tick_S.device)
        longer = Ragged(layout.offsets + count, layout.max_length + 1, layout.total + len(layout))
        return longer.unpad(total)
