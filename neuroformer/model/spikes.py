"""Spikes as what is observed: the likelihood of a window's counts, bin by bin and unit by unit.

The tokens of a window come ordered by (bin, unit). So the rates of a bin may depend on the unit's own spikes in earlier bins,
and one table of rates, (bins x units) per window, serves all tokens; other units act through the states of tokens. Memory grows
with bins x units. The logits of the unit are tokens x units products, of which one piece exists at a time.

Shape suffixes: W windows, T tokens (the first one included), S spikes, B bins of a window, U units, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.config import Config
from neuroformer.data.batch import Batch
from neuroformer.data.scales import Normalization
from neuroformer.model.layers import AtBin, Linear
from neuroformer.model.units import UnitRows
from neuroformer.ops import Ragged, marked_cross_entropy

MIN_LOG_RATE = -16.0
MOST_UP, MOST_DOWN = 2.0, 4.0  # by which a log rate may move from where its window or its unit puts it
LEAST_MASS = 1e-7  # expected spikes
OWN_LAGS, OWN_BINS = 0.1, 10  # seconds, and at least bins, for which a unit's own spike changes its rate, at exact lags


def at_least_float32(x: Tensor) -> Tensor:
    """At least float32: likelihoods are never summed in 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def bounded(x: Tensor, high: float = MOST_UP, low: float = MOST_DOWN) -> Tensor:
    """A learnt shift of a log rate or of log odds: x near zero, never above ``high`` nor below ``-low``.

    What spikes do to a rate must not run away when these spikes are simulated; refractoriness may go further.
    """
    scale = torch.where(x > 0, high, low)
    return scale * torch.tanh(x / scale)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x > 0: the log-probability of at least one spike where x are expected."""
    return torch.log(-torch.expm1(-x.clamp_min(1e-30)))


@dataclass
class Cells:
    """At each token the spike that it is (the first token: none), and that spike's cell (bin, unit) of the window.

    Attributes
    ----------
    row_T : which window
    tick_T, unit_T : bin and unit of the spike; 0 and -1 at the first token
    count_T : spikes of its cell so far, itself included; 0 at the first token
    """

    row_T: Tensor
    tick_T: Tensor
    unit_T: Tensor
    count_T: Tensor

    @classmethod
    def of(cls, batch: Batch, layout: Ragged) -> Cells:
        """At every token of a batch."""
        count_S = cell_counts(batch.current, batch.tick_S, batch.unit_S)
        has_spike = torch.ones(layout.total, dtype=torch.bool, device=count_S.device)
        has_spike[layout.first()] = False
        none = torch.zeros_like(layout.row_T)
        put = lambda empty, x: empty.masked_scatter(has_spike, x)
        return cls(layout.row_T, put(none, batch.tick_S), put(none - 1, batch.unit_S), put(none, count_S))

    def __getitem__(self, which: Tensor) -> Cells:
        return Cells(self.row_T[which], self.tick_T[which], self.unit_T[which], self.count_T[which])


def cell_counts(layout: Ragged, tick_S: Tensor, unit_S: Tensor) -> Tensor:
    """(S,) number of spikes in its cell (window, bin, unit) up to and including each spike."""
    place = torch.arange(len(tick_S), device=tick_S.device)
    new = torch.ones_like(tick_S, dtype=torch.bool)
    row_S = layout.row_T
    new[1:] = (tick_S[1:] != tick_S[:-1]) | (unit_S[1:] != unit_S[:-1]) | (row_S[1:] != row_S[:-1])
    first = torch.where(new, place, 0).cummax(0).values if len(place) else place
    return place - first + 1


def again(rate: Tensor, count: Tensor) -> Tensor:
    """Expected spikes that are left in a cell after ``count`` of them: for small rates, P(k + 1 or more | k or more) is
    rate / (k + 1)."""
    return rate / (count + 1)


class BinTable:
    """Expected counts of the units of one bin, given the spikes of earlier bins, in n rows; and the Poisson process that scans
    the bin unit by unit.

    If counts were Poisson with these rates, what is left to scan would say whether another spike follows in the bin, and the
    rates of the units that are left which unit fires (for a cell's second spike on, roughly). Both heads start from these
    logits and learn the rest.
    """

    def __init__(self, rate_nU: Tensor):
        self.rate_nU = rate_nU
        self.upto_nU = rate_nU.cumsum(1)

    def cell(self, row_T: Tensor, unit_T: Tensor, count_T: Tensor) -> tuple[Tensor, Tensor]:
        """(T,) expected spikes that are left in a cell after ``count``; and the bin's expected counts summed over units up to this
        one, as if none had fallen."""
        place = row_T * self.rate_nU.shape[1] + unit_T.clamp_min(0)
        rate_T = self.rate_nU.flatten().index_select(0, place)
        return again(rate_T, count_T), self.upto_nU.flatten().index_select(0, place)

    def left(self, row_T: Tensor, unit_T: Tensor, count_T: Tensor) -> Tensor:
        """(T,) expected spikes that are left to scan of a bin whose last spike was of ``unit`` (-1: none yet)."""
        all_T = self.upto_nU[:, -1].index_select(0, row_T)
        again_T, upto_T = self.cell(row_T, unit_T, count_T)
        return torch.where(unit_T >= 0, all_T - upto_T + again_T, all_T).clamp_min(LEAST_MASS)

    def unit_logits(self) -> Tensor:
        """(n, U) log-probability that each unit is the next to fire, up to a constant: it fires, and none of those before it
        does."""
        return log1mexp(self.rate_nU) - (self.upto_nU - self.rate_nU)

    def again_logit(self, row_T: Tensor, unit_T: Tensor, count_T: Tensor) -> Tensor:
        """(T,) the same of the last spike's own unit, that it fires once more."""
        again_T, upto_T = self.cell(row_T, unit_T, count_T)
        # the units behind it leave out that this cell stays as it is, exp(-again), and carry exp(-upto): so does it
        return log1mexp(again_T) + again_T - upto_T


class OwnHistory(nn.Module):
    """What a unit's own spikes do to its log rate at exact lags: refractoriness, bursts.

    Only the first of several spikes in one cell acts, so that a burst does not excite itself without end.
    """

    def __init__(self, num_units: int, num_lags: int):
        super().__init__()
        self.rows = UnitRows(num_units, num_lags, pace=2.5)
        self.num_lags = num_lags

    def effects(self, size: torch.Size, row_S: Tensor, tick_S: Tensor, unit_S: Tensor) -> tuple[Tensor, Tensor]:
        """(S, B) places in a flat (W, B, U) table, and what spikes at bins ``tick`` (negative: before the window) add
        there; 0 in bins that are not after theirs, or too far."""
        _, num_bins, num_units = size
        bins = torch.arange(num_bins, device=tick_S.device)
        lag_SB = bins - tick_S[:, None]
        acts_SB = (lag_SB > 0) & (lag_SB <= self.num_lags)
        effect_SB = self.rows.weight[unit_S[:, None], (lag_SB - 1).clamp(0, self.num_lags - 1)] * acts_SB
        return (row_S[:, None] * num_bins + bins) * num_units + unit_S[:, None], effect_SB

    def forward(
        self, table_WBU: Tensor, layout: Ragged, tick_S: Tensor, unit_S: Tensor, weight_S: Tensor | None = None
    ) -> Tensor:
        """``table`` plus the :meth:`effects` of spikes; ``weight`` scales each, where gradients with respect to it are
        taken."""
        acts_S = (cell_counts(layout, tick_S, unit_S) == 1) & (tick_S >= -self.num_lags)
        near = torch.nonzero(acts_S).squeeze(1)
        row, tick, unit = (x.index_select(0, near) for x in (layout.row_T, tick_S, unit_S))
        place, effect = self.effects(table_WBU.shape, row, tick, unit)
        effect = effect if weight_S is None else effect * weight_S.index_select(0, near)[:, None]
        changed = table_WBU.flatten().index_add(0, place.flatten(), effect.flatten().to(table_WBU.dtype))
        return changed.view_as(table_WBU)


class RateReadout(nn.Module):
    """Log rates (bins x units) of a window from its first state, which sees past, frames and behavior but no current
    spike, in one product of matrices."""

    def __init__(self, num_units: int, num_bins: int, width: int, unit_rate: Tensor, unit_peak: Tensor):
        super().__init__()
        self.state = AtBin(num_bins, width)
        self.unit = UnitRows(num_units, width, std=0.02)
        self.bias = UnitRows(num_units, from_data=True)
        with torch.no_grad():
            self.bias.weight.copy_(unit_rate.log())
        # no unit is expected to fire more than it was ever seen to: closed loops would grow beyond all data
        self.register_buffer("log_peak", unit_peak.log())
        self.log_peak: Tensor

    def forward(self, first_WD: Tensor) -> Tensor:
        """(W, B, U), not yet capped."""
        return at_least_float32(self.state.every(first_WD) @ self.unit.weight.T) + self.bias.weight


@dataclass
class Observed:
    """What a network says of the spikes of W windows.

    Attributes
    ----------
    dt_nll_T : (T,) nats of each window's next bin after the first token and after every spike (the last: no more)
    id_nll_S : (S,) nats of each spike's unit
    log_rate_WBU : log of the expected counts, without any current spike
    """

    dt_nll_T: Tensor
    id_nll_S: Tensor
    log_rate_WBU: Tensor


class SpikeObservation(nn.Module):
    """P(spikes of a window), in the order of its tokens.

    1. Rates of every bin and unit from the first state and the terms of the streams; each unit's own spikes
       before the window change them. Expected counts average over those that may come in the window.
    2. So do its spikes in earlier bins of the window: the table of rates.
       Units that were not observed in a bin have none there.
    3. From each token on, bin by bin: is there another spike in this bin? The log odds start from what is left to scan of
       it; what the token's state adds is bounded, so that a closed loop does not run away where there were no data. A window
       ends when no bin has one.
    4. Which unit: logits start from the table, and the token's state adds to them, without a bound. Those of all units sum to
       one, so the window's likelihood is normalised.

    Parameters
    ----------
    config : Config
    num_units : int
    normalization : from :func:`neuroformer.data.normalization.fit_normalization`
    """

    def __init__(self, config: Config, num_units: int, normalization: Normalization):
        super().__init__()
        w, width = config.window, config.model.width
        self.num_bins, self.num_units = round(w.current / w.dt), num_units
        rate, peak = torch.tensor(normalization.unit_rate), torch.tensor(normalization.unit_peak)
        self.rates = RateReadout(num_units, self.num_bins, width, rate, peak)
        lags = min(max(OWN_BINS, round(OWN_LAGS / w.dt)), round((w.past + w.current) / w.dt))
        self.own = OwnHistory(num_units, lags)
        self.dt = Linear(width, self.num_bins)
        nn.init.zeros_(self.dt.weight)
        nn.init.zeros_(self.dt.bias)
        self.unit_state = AtBin(self.num_bins, width)  # its product with ``unit`` adds to the logits of the unit
        self.unit, self.bias = UnitRows(num_units, width), UnitRows(num_units)
        self.register_buffer("unit_rate", rate, persistent=False)
        self.unit_rate: Tensor

    def forward(self, batch: Batch, h_TD: Tensor, layout: Ragged, terms_WBU: Tensor | float) -> Observed:
        # 1 expected counts, without any current spike
        base_WBU, drive_WBU = self.before(batch, h_TD.index_select(0, layout.first()), terms_WBU)
        log_rate_WBU = self.averaged(base_WBU, drive_WBU)
        # 2 given the spikes of earlier bins
        cells = Cells.of(batch, layout)
        drive_WBU = self.own(drive_WBU, batch.current, batch.tick_S, batch.unit_S)
        rate_WBU = observed_only(batch, self.moved(base_WBU, drive_WBU).exp())
        table, bin_T = BinTable(rate_WBU.flatten(0, 1)), cells.row_T * self.num_bins + cells.tick_T
        # 3 another spike, or none: the token before each spike predicts it; each window's last token predicts the end
        before_S = torch.arange(batch.num_spikes, device=h_TD.device) + batch.current.row_T
        next_T = torch.full_like(cells.tick_T, self.num_bins).index_copy(0, before_S, batch.tick_S)
        left_TB = rate_WBU.sum(2).index_select(0, cells.row_T)
        left_TB = left_TB.scatter(1, cells.tick_T[:, None], table.left(bin_T, cells.unit_T, cells.count_T)[:, None])
        dt_nll_T = -self.dt_log_p(h_TD, left_TB, cells.tick_T).gather(1, next_T[:, None]).squeeze(1)
        # 4 its unit
        last, h_SD = cells[before_S], h_TD.index_select(0, before_S)
        begun_S = (last.tick_T == batch.tick_S) & (last.unit_T >= 0)
        id_nll_S = marked_cross_entropy(
            self.unit_state(h_SD, batch.tick_S),
            self.unit.weight,
            self.bias.weight,
            batch.unit_S,
            least_N=torch.where(begun_S, last.unit_T, -1),
            base_RC=table.unit_logits(),
            row_N=batch.current.row_T * self.num_bins + batch.tick_S,
            least_base_N=table.again_logit(bin_T[before_S], last.unit_T, last.count_T),
        )
        return Observed(dt_nll_T, id_nll_S, log_rate_WBU)

    def before(self, batch: Batch, first_WD: Tensor, terms_WBU: Tensor | float) -> tuple[Tensor, Tensor]:
        """(W, B, U) log rates from state and streams, and what each unit's own spikes before the window add to them."""
        base_WBU = self.rates(first_WD) + terms_WBU
        none = torch.zeros_like(base_WBU)
        return base_WBU, self.own(none, batch.past, batch.past_tick_P, batch.past_unit_P, batch.past_weight_P)

    def moved(self, base: Tensor, drive: Tensor, unit: Tensor | None = None) -> Tensor:
        """Log rates, moved by what spikes add to them, within bounds; (..., U), or of one ``unit`` each."""
        peak = self.rates.log_peak if unit is None else self.rates.log_peak.index_select(0, unit)
        return (base + bounded(drive)).clamp(min=MIN_LOG_RATE).minimum(peak)

    def dt_log_p(self, h_TD: Tensor, left_TB: Tensor, tick_T: Tensor) -> Tensor:
        """(T, B + 1) log-probability of the next spike's bin, its dt (last: none). From the last spike's bin on, each bin in
        turn holds another spike or does not; earlier bins have probability zero. A product of such choices, so that the
        probabilities sum to one by construction."""
        left_TB = left_TB.clamp_min(LEAST_MASS)
        # the log odds of a spike where ``left`` are expected, log(exp(left) - 1), and what the state adds
        odds_TB = log1mexp(left_TB) + left_TB + bounded(at_least_float32(self.dt(h_TD)))
        earlier = torch.arange(self.num_bins, device=h_TD.device) < tick_T[:, None]
        one_TB = -F.softplus(-odds_TB).masked_fill(earlier, float("inf"))
        none_TB = F.softplus(odds_TB).masked_fill(earlier, 0.0).cumsum(1)
        return torch.cat([one_TB - F.pad(none_TB[:, :-1], (1, 0)), -none_TB[:, -1:]], 1)

    def unit_logits(self, h_ND: Tensor, tick_N: Tensor, base_NU: Tensor) -> Tensor:
        """(N, U) logits of the unit that fires in bin ``tick``; ``base`` from the table's row."""
        state_ND = self.unit_state(h_ND, tick_N)
        return at_least_float32(state_ND @ self.unit.weight.T + self.bias.weight) + base_NU

    def expected(self, batch: Batch, first_WD: Tensor, terms_WBU: Tensor | float) -> Tensor:
        """(W, B, U) log of the expected counts, without any current spike."""
        return self.averaged(*self.before(batch, first_WD, terms_WBU))

    def averaged(self, base_WBU: Tensor, drive_WBU: Tensor) -> Tensor:
        """(W, B, U) log of the expected counts where it is not known whether a unit fires in earlier bins of the window.

        What its own spikes would do to its rate is averaged over, bin by bin: with probability ``1 - exp(-expected)``
        there is one, which moves the log rate. Exact for two bins; of more, as if they were independent. Without this one rate
        would have to be right for two questions, and a refractory unit's be too high on average.
        """
        log_rates, fires = [], []
        for b, (base_WU, drive_WU) in enumerate(zip(base_WBU.unbind(1), drive_WBU.unbind(1), strict=True)):
            log_rate_WU, still_WU = self.moved(base_WU, drive_WU), bounded(drive_WU)
            for lag in range(1, min(b, self.own.num_lags) + 1):
                moves_WU = bounded(drive_WU + self.own.rows.weight[:, lag - 1]) - still_WU
                log_rate_WU = log_rate_WU + torch.log1p(fires[b - lag] * torch.expm1(moves_WU))
            log_rates.append(log_rate_WU)
            fires.append(-torch.expm1(-log_rate_WU.exp()))
        return torch.stack(log_rates, 1)

    # -- what losses and scores ask of any observation -----------------------------------------------------------

    def number(self, batch: Batch) -> Tensor:
        """(W,) spikes of each window, by which nats are divided."""
        return batch.current.lengths_B

    def losses(self, batch: Batch, observed: Observed) -> dict[str, Tensor]:
        """Summed nats: ``dt`` and ``id`` of the tokens, and ``rates`` of the expected counts as a Poisson model, without
        the factorial."""
        return {
            "dt": observed.dt_nll_T.sum(),
            "id": observed.id_nll_S.sum(),
            "rates": poisson_nll(batch, observed.log_rate_WBU).sum(),
        }

    def nll(self, batch: Batch, observed: Observed) -> Tensor:
        """(W,) nats of each window's counts: tokens are in order, so that one sequence of them stands for one table of
        counts."""
        nll_W = observed.dt_nll_T.new_zeros(batch.num_windows, dtype=torch.float64)
        row_T = batch.current.row_T
        row_first = torch.arange(batch.num_windows, device=row_T.device)
        tokens = torch.sort(torch.cat([row_first, row_T])).values
        nll_W = nll_W.index_add(0, tokens, observed.dt_nll_T.double())
        return nll_W.index_add(0, row_T, observed.id_nll_S.double())

    def rates_nll(self, batch: Batch, observed: Observed) -> Tensor:
        """(W,) nats of the expected counts as a Poisson model."""
        return poisson_nll(batch, observed.log_rate_WBU.double()) + self._log_factorials(batch)

    def null_nll(self, batch: Batch) -> Tensor:
        """(W,) nats of the null model, homogeneous Poisson units with their training rates."""
        rate = self.unit_rate.double()
        log_p = rate.log().index_select(0, batch.unit_S)
        total = log_p.new_zeros(batch.num_windows).index_add(0, batch.current.row_T, log_p)
        expected = self.num_bins * rate.sum()
        if batch.observed_WBU is not None:
            expected = batch.observed_WBU.sum(1).double() @ rate
        return expected - total + self._log_factorials(batch)

    @staticmethod
    def _log_factorials(batch: Batch) -> Tensor:
        """(W,) sum of log k! over the cells of each window: that of log j over the j-th spikes of a cell."""
        log_j = cell_counts(batch.current, batch.tick_S, batch.unit_S).double().log()
        return log_j.new_zeros(batch.num_windows).index_add(0, batch.current.row_T, log_j)


def poisson_nll(batch: Batch, log_rate_WBU: Tensor) -> Tensor:
    """(W,) Poisson negative log-likelihood of the batch's counts where units were observed, without ``log k!`` (constant in the model)."""
    row = batch.current.row_T
    hit = log_rate_WBU[row, batch.tick_S, batch.unit_S]
    return observed_only(batch, log_rate_WBU.exp()).sum((1, 2)).index_add(0, row, -hit)


def observed_only(batch: Batch, rate_WBU: Tensor) -> Tensor:
    """Expected counts, none in cells that were not observed: what happened there is no part of any likelihood."""
    return rate_WBU if batch.observed_WBU is None else rate_WBU * batch.observed_WBU
