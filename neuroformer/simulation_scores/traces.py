"""Simulated traces against held-out ones."""

from __future__ import annotations

import numpy as np

from neuroformer.data.splits import Split
from neuroformer.recording import Recording


def compare_traces(rec: Recording, split: Split, simulated: Recording, part: str) -> dict[str, float]:
    """Statistics of the simulated samples beside those of the held-out ones, medians over units.

    Returns
    -------
    dict
        ``trace_std_ratio``: standard deviation, simulated over held out. ``trace_mean_shift``: distance of the
        means, in held-out standard deviations. ``trace_lag1_simulated``, ``trace_lag1_held_out``: correlation of
        a sample with the one before it.
    """
    true = [_inside(rec, a, b) for a, b in split.intervals(part)]
    made = [_inside(simulated, a, b) for a, b in simulated.trial_intervals]
    x, y = (np.concatenate(parts).astype(np.float64) for parts in (true, made))
    spread = np.nanstd(x, 0)
    use = spread > 0
    return {
        "trace_std_ratio": float(np.median(np.nanstd(y, 0)[use] / spread[use])),
        "trace_mean_shift": float(np.median(np.abs(np.nanmean(y, 0) - np.nanmean(x, 0))[use] / spread[use])),
        "trace_lag1_simulated": _lag1(made),
        "trace_lag1_held_out": _lag1(true),
    }


def _inside(rec: Recording, start: float, stop: float) -> np.ndarray:
    assert rec.traces is not None
    lo, hi = np.searchsorted(rec.traces.times, [start, stop])
    return rec.traces.values[lo:hi]


def _lag1(parts: list[np.ndarray]) -> float:
    before, after = (np.concatenate([p[s] for p in parts]).astype(np.float64) for s in (slice(-1), slice(1, None)))
    known = np.isfinite(before) & np.isfinite(after)
    each = []
    for u in range(before.shape[1]):
        a, b = before[known[:, u], u], after[known[:, u], u]
        if len(a) > 2 and a.std() > 0 and b.std() > 0:
            each.append(float(np.corrcoef(a, b)[0, 1]))
    return float(np.median(each)) if each else float("nan")
