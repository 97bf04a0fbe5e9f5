"""Two sets of trials side by side: every statistic that compares them, with intervals over trials.

Shape suffixes: D draws of trials, T trials, B bins, U units.
"""

from __future__ import annotations

import numpy as np

from neuroformer.intervals import Estimate, Scale, left_out, over_trials
from neuroformer.simulation_scores.psth import WIDTH_S, psth_r
from neuroformer.simulation_scores.statistics import MAX_PAIR_UNITS, Statistics, compare
from neuroformer.simulation_scores.trials import Trials

CHUNK, CELLS = 32, 2**23  # draws at once, and numbers of their PSTHs, which share the memory


class Side:
    """One set of trials (a candidate or the held-out ones): statistics and PSTH counts, ready for resampling."""

    def __init__(self, trials: Trials, pair_units: np.ndarray):
        self.trials = trials
        self.statistics = Statistics.of(trials, pair_units)
        join = max(1, round(WIDTH_S / trials.dt))
        self.wide_TBU = trials.dense(join)
        self.ended_TB = np.arange(self.wide_TBU.shape[1]) >= trials.num_ticks[:, None] // join
        self.has_stimulus = bool((trials.stimulus >= 0).any())

    @property
    def psth_cells(self) -> int:
        """Numbers of the PSTHs of one draw."""
        known = np.unique(self.trials.stimulus[self.trials.stimulus >= 0])
        return len(known) * self.wide_TBU.shape[1] * self.wide_TBU.shape[2]

    @classmethod
    def of_active(cls, trials: Trials) -> tuple[Side, np.ndarray]:
        """The side with pair statistics of its own most active units, and these units."""
        active = np.argsort(-np.bincount(trials.unit, minlength=trials.num_units), kind="stable")
        units = np.sort(active[:MAX_PAIR_UNITS])
        return cls(trials, units), units

    def psths(self, times_DT: np.ndarray) -> dict[int, np.ndarray]:
        """(D, B, U) mean counts by stimulus; NaN where no trial was drawn in which the unit was observed, or one that had
        ended.
        """
        stimulus = self.trials.stimulus
        return {
            int(s): _means(self.wide_TBU[stimulus == s], self.ended_TB[stimulus == s], times_DT[:, stimulus == s])
            for s in np.unique(stimulus[stimulus >= 0])
        }


def _means(x_TBU: np.ndarray, ended_TB: np.ndarray, times_DT: np.ndarray) -> np.ndarray:
    """(D, B, U) means over the trials in which each unit was observed, each as often as it was drawn."""
    sums = times_DT @ np.nan_to_num(x_TBU).reshape(len(x_TBU), -1)
    number_DU = times_DT @ np.isfinite(x_TBU[:, :1]).any(1)  # no trial ends before its first bin
    number_DBU = np.where(times_DT @ ended_TB > 0, 0.0, 1.0)[:, :, None] * number_DU[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums.reshape(-1, *x_TBU.shape[1:]) / number_DBU


def scores_of(a: Side, b: Side, times_a_DT: np.ndarray, times_b_DT: np.ndarray) -> list[dict[str, float]]:
    """Of each draw of trials, the scores of ``compare``, and ``psth_r`` if the stimuli of both sides are known.

    ``times_a_DT``, ``times_b_DT``: how often each trial of each side was drawn.
    """
    out = []
    chunk = max(1, min(CHUNK, CELLS // max(1, a.psth_cells, b.psth_cells)))
    for first in range(0, len(times_a_DT), chunk):
        drawn = [(side, times[first : first + chunk]) for side, times in ((a, times_a_DT), (b, times_b_DT))]
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


def with_intervals(a: Side, b: Side, *, paired: bool) -> dict[str, list[float]]:
    """``[value, low, high]`` of every score, see :func:`neuroformer.intervals.over_trials`: trials of ``b`` are left out
    and, if ``paired``, their imitations in ``a`` with them; otherwise the trials of ``a`` vary on their own.
    """
    value = scores_of_all(a, b)
    kept_b = 1.0 - left_out(len(b.trials))
    imitates_TS = (a.trials.source[None] == b.trials.source[:, None]).astype(np.float64)
    kept_a = kept_b @ imitates_TS if paired else np.ones((len(kept_b), len(a.trials)))
    found = over_held_out(value, scores_of(a, b, kept_a, kept_b), len(b.trials))
    if not paired:
        kept_a = 1.0 - left_out(len(a.trials))
        own = over_held_out(value, scores_of(a, b, kept_a, np.ones((len(kept_a), len(b.trials)))), len(a.trials))
        found = {k: found[k].with_error(own[k].error_S, own[k].degrees_S) for k in value}
    return {k: [v, *found[k].ends()[:, 0].tolist()] for k, v in value.items()}


def over_held_out(value: dict[str, float], without: list[dict[str, float]], trials: int) -> dict[str, Estimate]:
    """The estimate of every score of so many trials, from its values without subsets of them."""
    keys = list(value)
    without_DS = np.array([[one.get(k, np.nan) for k in keys] for one in without])
    found = over_trials([value[k] for k in keys], without_DS, trials, [scale_of(k) for k in keys])
    return dict(zip(keys, found, strict=True))


def scale_of(score: str) -> Scale:
    """The scale on which a score's error is closest to a normal one."""
    if score in ("rate_ratio", "fano", "cv"):
        return "positive"
    return "correlation" if score.endswith("_r") else "plain"
