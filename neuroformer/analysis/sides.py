"""Two sets of trials side by side: every statistic that compares them, with bootstrap intervals over trials.

Shape suffixes: T trials, B bins, U units.
"""

from __future__ import annotations

import numpy as np

from neuroformer.analysis.psth import WIDTH_S, psth_r
from neuroformer.analysis.statistics import MAX_PAIR_UNITS, Statistics, compare
from neuroformer.analysis.trials import Trials


class Side:
    """One set of trials (a candidate or the held-out ones): statistics and PSTH counts, ready for resampling."""

    def __init__(self, trials: Trials, pair_units: np.ndarray):
        self.trials = trials
        self.statistics = Statistics.of(trials, pair_units)
        self.wide_TBU = trials.dense(max(1, round(WIDTH_S / trials.dt)))
        self.has_stimulus = bool((trials.stimulus >= 0).any())

    @classmethod
    def of_active(cls, trials: Trials) -> tuple[Side, np.ndarray]:
        """The side with pair statistics of its own most active units, and these units."""
        active = np.argsort(-np.bincount(trials.unit, minlength=trials.num_units), kind="stable")
        units = np.sort(active[:MAX_PAIR_UNITS])
        return cls(trials, units), units

    def psths(self, rows: np.ndarray) -> dict[int, np.ndarray]:
        stimulus = self.trials.stimulus[rows]
        return {int(s): self.wide_TBU[rows[stimulus == s]].mean(0) for s in np.unique(stimulus[stimulus >= 0])}  # fmt: skip


def scores_of(a: Side, rows_a: np.ndarray, b: Side, rows_b: np.ndarray) -> dict[str, float]:
    """Scores of ``compare`` for some of the trials, and ``psth_r`` if the stimuli of both sides are known."""
    out = compare(a.statistics.total(rows_a), b.statistics.total(rows_b))
    if a.has_stimulus and b.has_stimulus:
        out["psth_r"] = _psth_r(a.psths(rows_a), b.psths(rows_b))
    return out


def _psth_r(a: dict[int, np.ndarray], b: dict[int, np.ndarray]) -> float:
    shared = sorted(set(a) & set(b))
    if not shared:
        return float("nan")
    bins = {s: min(len(a[s]), len(b[s])) for s in shared}
    return psth_r(*(np.concatenate([x[s][: bins[s]] for s in shared]) for x in (a, b))).r


def with_intervals(a: Side, b: Side, bootstraps: int, seed: int, *, paired: bool) -> dict[str, list[float]]:
    """``[value, low, high]`` of every score: trials of ``b`` are resampled and, if ``paired``, their imitations
    in ``a`` with them.
    """
    rng = np.random.default_rng(seed)
    rows = lambda side: np.arange(len(side.trials))
    value = scores_of(a, rows(a), b, rows(b))
    draws: dict[str, list[float]] = {k: [] for k in value}
    imitations = {s: np.flatnonzero(a.trials.source == s) for s in b.trials.source}
    for _ in range(bootstraps if len(b.trials) > 1 else 0):
        rows_b = rng.integers(len(b.trials), size=len(b.trials))
        if paired:
            rows_a = np.concatenate([imitations[s] for s in b.trials.source[rows_b]])
        else:
            rows_a = rng.integers(len(a.trials), size=len(a.trials))
        for k, v in scores_of(a, rows_a, b, rows_b).items():
            draws[k].append(v)
    return {k: [v, *interval(v, draws[k])] for k, v in value.items()}


def interval(value: float, draws: list[float]) -> tuple[float, float]:
    """The 95 % interval of the draws around their median, shifted to the value; NaN without draws."""
    known = np.array([d for d in draws if np.isfinite(d)])
    if len(known) == 0:
        return float("nan"), float("nan")
    low, middle, high = np.percentile(known, [2.5, 50, 97.5])
    return float(value + low - middle), float(value + high - middle)
