"""Two sets of trials side by side: every statistic that compares them, with bootstrap intervals over trials.

Shape suffixes: D draws of a bootstrap, T trials, B bins, U units.
"""

from __future__ import annotations

import numpy as np

from neuroformer.simulation_scores.psth import WIDTH_S, psth_r
from neuroformer.simulation_scores.statistics import MAX_PAIR_UNITS, Statistics, compare
from neuroformer.simulation_scores.trials import Trials

CHUNK = 32  # draws at once, which share the memory


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

    def psths(self, times_DT: np.ndarray) -> dict[int, np.ndarray]:
        """(D, B, U) mean counts by stimulus; NaN where no trial was drawn, or one that had ended."""
        stimulus = self.trials.stimulus
        return {
            int(s): _means(self.wide_TBU[stimulus == s], times_DT[:, stimulus == s])
            for s in np.unique(stimulus[stimulus >= 0])
        }


def _means(x_TBU: np.ndarray, times_DT: np.ndarray) -> np.ndarray:
    """(D, B, U) means over trials, each as often as it was drawn."""
    ended_TB = np.isnan(x_TBU[:, :, 0])
    sums = times_DT @ np.nan_to_num(x_TBU).reshape(len(x_TBU), -1)
    number_DB = np.where(times_DT @ ended_TB > 0, 0.0, times_DT.sum(1)[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums.reshape(-1, *x_TBU.shape[1:]) / number_DB[:, :, None]


def scores_of(a: Side, b: Side, times_a_DT: np.ndarray, times_b_DT: np.ndarray) -> list[dict[str, float]]:
    """Of each draw of trials, the scores of ``compare``, and ``psth_r`` if the stimuli of both sides are known.

    ``times_a_DT``, ``times_b_DT``: how often each trial of each side was drawn.
    """
    out = []
    for first in range(0, len(times_a_DT), CHUNK):
        drawn = [(side, times[first : first + CHUNK]) for side, times in ((a, times_a_DT), (b, times_b_DT))]
        totals = [side.statistics.totals(times) for side, times in drawn]
        some = [compare(x, y) for x, y in zip(*totals, strict=True)]
        if a.has_stimulus and b.has_stimulus:
            psths = [side.psths(times) for side, times in drawn]
            for d, scores in enumerate(some):
                scores["psth_r"] = _psth_r(*({s: x[d] for s, x in one.items()} for one in psths))
        out += some
    return out


def scores_of_all(a: Side, b: Side) -> dict[str, float]:
    """The scores of all trials, each taken once."""
    return scores_of(a, b, *(np.ones((1, len(side.trials))) for side in (a, b)))[0]


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
    n, m = len(b.trials), len(a.trials)
    times_a, times_b = [], []
    for _ in range(bootstraps if n > 1 else 0):
        times_b.append(np.bincount(rng.integers(n, size=n), minlength=n))
        if not paired:
            times_a.append(np.bincount(rng.integers(m, size=m), minlength=m))
    times_b = np.array(times_b, np.float64).reshape(-1, n)
    imitates_TS = (a.trials.source[None] == b.trials.source[:, None]).astype(np.float64)
    times_a = times_b @ imitates_TS if paired else np.array(times_a, np.float64).reshape(-1, m)
    draws = scores_of(a, b, times_a, times_b)
    return {k: [v, *interval(v, [d[k] for d in draws])] for k, v in scores_of_all(a, b).items()}


def interval(value: float, draws: list[float]) -> tuple[float, float]:
    """The 95 % interval of the draws around their median, shifted to the value; NaN without draws."""
    known = np.array([d for d in draws if np.isfinite(d)])
    if len(known) == 0:
        return float("nan"), float("nan")
    low, middle, high = np.percentile(known, [2.5, 50, 97.5])
    return float(value + low - middle), float(value + high - middle)
