"""Co-smoothing: rates of units that the network never saw, from the others before *and after* each bin.

The units are those of the recording that ``recording.units`` left out when the run was trained. Their rates are a Poisson
regression on the network's states and rates and on the counts of its units around the bin; nothing of the network is trained.

Shape suffixes: W windows, B bins of a window, R = W * B rows, L bins around a window, K filters, F features, U units.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import xlogy
from torch import Tensor

from neuroformer.baselines.forecasts import PENALTIES, Counts
from neuroformer.baselines.glm.design import filtered, raised_cosines
from neuroformer.baselines.glm.spikes import counts_around
from neuroformer.baselines.patterns import unit_patterns
from neuroformer.baselines.poisson_regression import INTERCEPT_PENALTY, PoissonProblem
from neuroformer.config import ConfigError
from neuroformer.data.prepared import Prepared
from neuroformer.data.recordings import open_one
from neuroformer.data.windows import SpikeIndex, Windows, tile
from neuroformer.decoding.readouts import later_state
from neuroformer.generation.forecast import affordable, expected_ahead
from neuroformer.intervals import over_time
from neuroformer.metrics import bits_per_spike_rates
from neuroformer.model.network import Neuroformer
from neuroformer.model.spikes import MIN_LOG_RATE
from neuroformer.recording import Recording
from neuroformer.recording.units.choose import with_units
from neuroformer.simulation_scores.forecasts import bits_terms

REACH_S = 0.25  # on both sides of a bin, from which counts are evidence
NUM_BASIS = 4  # raised cosines a side
MOST_UNITS = 200  # more enter through so many patterns
_MOST_ROWS = 40_000
_FEATURE_ROWS = 8_000_000  # cells of features that are made at once


@dataclass
class Cosmoothing:
    """Expected counts of held-out units.

    Attributes
    ----------
    unit_ids : of the held-out units
    counts_RU : what they did in the bins of the scored windows
    rates_RU : what was expected, from the network and counts
    glm_RU : the same regression on counts alone
    scores : ``co_bps`` (pooled over units) with ``_low`` and ``_high``, ``co_bps_per_unit``, ``co_bps_glm``,
        ``co_bps_glm_per_unit``, ``co_bps_difference`` with its paired interval, ``fp_bps`` of the network's own units in the
        200 ms after a window's start; ``co_bps_fits`` and ``co_bps_seconds``, how many regressions were fitted and how long that
        and their scoring took, ``co_bps_fits_glm`` and ``co_bps_seconds_glm`` likewise
    """

    unit_ids: list[str]
    counts_RU: np.ndarray
    rates_RU: np.ndarray
    glm_RU: np.ndarray
    scores: dict[str, float]


class Readout:
    """Poisson rates of held-out units, fitted on training windows; the penalty is chosen on validation windows.

    Parameters
    ----------
    with_network : whether the network's states and rates are features beside the counts

    Attributes
    ----------
    fits : how many regressions were fitted, each of all held-out units
    """

    fits = len(PENALTIES)

    def __init__(self, model: Neuroformer, prepared: Prepared, held_out: SpikeIndex, with_network: bool):
        self.model, self.prepared, self.held_out, self.with_network = model, prepared, held_out, with_network
        self.reach = max(1, round(REACH_S / prepared.split.dt))
        self.filters_LBK = _two_sided(self.reach, prepared.builder.shape.current)
        units, self.pattern_UQ = prepared.index.num_units, None
        if units > MOST_UNITS:
            found = unit_patterns(prepared.index, prepared.split.blocks["train"], self.reach, MOST_UNITS)
            self.pattern_UQ = torch.from_numpy(found.astype(np.float32))
        self._fit()

    def windows(self, part: str) -> Windows:
        """Windows whose bins have counts on both sides within their block; at the end of a trial there is nothing after them."""
        shape, blocks = self.prepared.builder.shape, self.prepared.split.blocks[part]
        ends = blocks[:, 2] + shape.current > self.prepared.index.num_ticks[blocks[:, 0]]
        found = [
            tile(some, dataclasses.replace(shape, ahead=ahead), reach=max(shape.reach, self.reach))
            for some, ahead in ((blocks[~ends], max(shape.ahead, self.reach)), (blocks[ends], 0))
        ]
        every = Windows(*(np.concatenate([getattr(w, n) for w in found]) for n in ("segment", "tick")))
        return every[np.lexsort((every.tick, every.segment))]

    def counts(self, windows: Windows) -> np.ndarray:
        """(R, U) of the held-out units."""
        return _rows(counts_around(self.held_out, windows, 0, self.prepared.builder.shape.current))

    def rates(self, windows: Windows) -> np.ndarray:
        """(R, U) expected counts of the held-out units."""
        size = max(1, _FEATURE_ROWS // (self.prepared.builder.shape.current * len(self.mean)))
        parts = [self._rates(self._features(part), self.weight) for part in windows.pieces(size)]
        return np.concatenate([np.zeros((0, self.held_out.num_units)), *parts])

    def _fit(self) -> None:
        bins = self.prepared.builder.shape.current
        train, valid = (self.observed(self.windows(p)) for p in ("train", "valid"))
        train, valid = (w[:: max(1, -(-len(w) * bins // _MOST_ROWS))] for w in (train, valid))
        if len(train) == 0 or len(valid) == 0:
            raise ConfigError(
                f"{len(train)} training and {len(valid)} validation windows have {REACH_S:g} s of counts on both sides and "
                "held-out units that were observed; co-smoothing needs some of both"
            )
        self.mean, self.spread = torch.zeros(1), torch.ones(1)
        x = self._features(train)
        self.mean, spread = x[:, :-1].mean(0), x[:, :-1].std(0)
        self.spread = torch.where(spread > 1e-6, spread, torch.inf)
        x[:, :-1] = (x[:, :-1] - self.mean) / self.spread
        y, held = self.counts(train), self.counts(valid)
        self.offset = torch.from_numpy(np.log((y.sum(0) + 0.5) / len(y))).float()
        self.top = torch.from_numpy(np.log(np.maximum(y.max(0), 1.0))).float()
        relative = torch.ones(x.shape[1])
        relative[-1] = INTERCEPT_PENALTY
        problem = PoissonProblem(x, x.T @ torch.from_numpy(y).float(), self.offset, relative)
        seen, weight, best = self._features(valid), None, (np.inf, torch.zeros(0))
        for penalty in PENALTIES:
            weight = problem.fit(penalty, weight).weight_FU
            rates = self._rates(seen, weight)
            loss = float((rates - xlogy(held, np.maximum(rates, 1e-9))).sum())
            best = min(best, (loss, weight), key=lambda one: one[0])
        self.weight = best[1]

    def observed(self, windows: Windows) -> Windows:
        """The windows in which every held-out unit was observed."""
        if self.held_out.observed is None:
            return windows
        first = windows.bins(self.held_out)
        return windows[self.held_out.observed.throughout(first, first + self.prepared.builder.shape.current).all(1)]

    def _rates(self, x_RF: Tensor, weight_FU: Tensor) -> np.ndarray:
        return torch.minimum(self.offset + x_RF @ weight_FU, self.top).exp().double().numpy()

    @torch.no_grad()
    def _features(self, windows: Windows) -> Tensor:
        """(R, F) standardised features, the intercept last."""
        bins, parts = self.prepared.builder.shape.current, []
        for piece in self.prepared.pieces(windows, 256):
            seen = counts_around(self.prepared.index, piece, self.reach, bins + self.reach)
            seen = seen if self.pattern_UQ is None else seen @ self.pattern_UQ
            x = filtered(seen, self.filters_LBK)
            x = [x.clamp_min(0).sqrt() if self.pattern_UQ is None else x]
            if self.with_network:
                x += self._of_network(piece, bins)
            parts.append(torch.cat(x, 1))
        x_RF = (torch.cat(parts) - self.mean) / self.spread if parts else torch.zeros(0, len(self.mean))
        return torch.cat([x_RF, torch.ones(len(x_RF), 1)], 1)

    def _of_network(self, windows: Windows, bins: int) -> list[Tensor]:
        """Log rates of its own units in each bin, and its states at the window's start and end."""
        batch = self.prepared.builder(windows).to(self.model.device)
        log_rates_WBU = self.model.expected(batch).float().clamp_min(MIN_LOG_RATE)
        encoded, first_WD = self.model.first_state(batch)
        last_WD = later_state(self.model, batch, encoded, bins)
        states = torch.cat([first_WD, last_WD], 1).float().repeat_interleave(bins, 0)
        return [log_rates_WBU.flatten(0, 1).cpu(), states.cpu()]


def _two_sided(reach: int, bins: int) -> Tensor:
    """(L, B, K) weights of the bins around a window in the features of each of its bins: lags before it, itself, after it."""
    basis = raised_cosines(reach, NUM_BASIS)
    filters = np.zeros((reach + bins + reach, bins, 2 * basis.shape[1] + 1), np.float32)
    for b in range(bins):
        here = reach + b
        filters[here - reach : here, b, : basis.shape[1]] = basis[::-1]
        filters[here, b, basis.shape[1]] = 1
        filters[here + 1 : here + 1 + reach, b, basis.shape[1] + 1 :] = basis
    return torch.from_numpy(filters)


def _rows(x_WBU: Tensor) -> np.ndarray:
    return x_WBU.flatten(0, 1).double().numpy()


def held_out_units(prepared: Prepared) -> Recording:
    """The units of the run's recording that ``recording.units`` left out.

    Raises
    ------
    ConfigError
        None was left out.
    """
    one = prepared.config.recording
    whole = open_one(dataclasses.replace(one, units=dataclasses.replace(one.units, where="", limit=0)))
    mine = set(prepared.rec.unit_ids)
    others = np.flatnonzero([unit not in mine for unit in whole.unit_ids])
    if len(others) == 0:
        raise ConfigError(
            f"every unit of '{whole.name}' was given to the model; train with some left out, e.g. recording.units.where=\"rate > 1\""
        )
    return with_units(whole, others, "held out for co-smoothing")


def cosmooth(model: Neuroformer, prepared: Prepared, part: str = "test") -> Cosmoothing:
    """Score what a run says of units that it never saw, on held-out windows.

    Raises
    ------
    ConfigError
        A run of traces, or one that was given every unit.
    """
    if prepared.builder.traces is not None:
        raise ConfigError("co-smoothing is of spikes; this run models traces")
    rec = held_out_units(prepared)
    index = SpikeIndex.from_recording(rec, prepared.split.segments, prepared.split.dt)
    scores: dict[str, Any] = {}
    found, windows, counts_RU = [], Windows(np.zeros(0, int), np.zeros(0, int)), np.zeros((0, rec.num_units))
    for suffix, with_network in (("", True), ("_glm", False)):
        began = time.perf_counter()
        readout = Readout(model, prepared, index, with_network)
        windows = readout.observed(readout.windows(part))
        counts_RU = readout.counts(windows)
        found.append(readout.rates(windows))
        scores |= {f"co_bps_fits{suffix}": readout.fits, f"co_bps_seconds{suffix}": time.perf_counter() - began}
    rates_RU, glm_RU = found
    for name, rates in (("co_bps", rates_RU), ("co_bps_glm", glm_RU)):
        bits = bits_per_spike_rates(counts_RU, rates)
        low, high = over_time(bits_terms(counts_RU, rates), name).ends()[:, 0]
        scores |= {name: bits.pooled, f"{name}_low": float(low), f"{name}_high": float(high)}
        scores[f"{name}_per_unit"] = bits.per_unit_mean
    difference = over_time(bits_terms(counts_RU, rates_RU).minus(bits_terms(counts_RU, glm_RU)), "co_bps difference")
    low, high = difference.ends()[:, 0]
    scores |= {"co_bps_difference": float(difference.value_S[0])}
    scores |= {"co_bps_difference_low": float(low), "co_bps_difference_high": float(high)}
    scores["fp_bps"] = forward_bits(model, prepared, windows)
    scores |= {"co_bps_units": rec.num_units, "co_bps_windows": len(windows)}
    return Cosmoothing(list(rec.unit_ids), counts_RU, rates_RU, glm_RU, scores)


def forward_bits(model: Neuroformer, prepared: Prepared, windows: Windows, seconds: float = 0.2) -> float:
    """Bits/spike of the network's own units in every bin of the next ``seconds`` after a window's start (NLB's ``fp-bps``)."""
    bins = max(1, round(seconds / prepared.split.dt))
    length = prepared.index.num_ticks[windows.segment]
    current = prepared.builder.shape.current
    windows = windows[windows.tick + -(-bins // current) * current <= length]
    spans = [(b, b + 1) for b in range(bins)]
    number, samples = affordable(prepared, min(500, len(windows)), spans)
    windows = windows[:: max(1, -(-len(windows) // max(1, number)))]
    expected = expected_ahead(model, prepared, windows, spans, samples)
    true = np.stack([Counts(prepared).values(windows, *span) for span in spans], 1)
    return bits_per_spike_rates(true, expected).pooled
