"""What an intervention changed: two simulations with the same random numbers, compared sequence by sequence.

Shape suffixes: Q sequences, U units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit
from scipy.stats import rankdata

from neuroformer.recording import Recording
from neuroformer.shown import Shown


@dataclass(frozen=True, eq=False)
class RateChanges(Shown):
    """Rates before and after, in Hz (of traces, mean samples), and the paired change with its 95 % interval over sequences.

    Attributes
    ----------
    before_U, after_U, change_U : (U,) ``after - before``
    low_U, high_U : (U,) ends of Student's t 95 % interval of the mean over paired sequences; NaN for a single one
    z_U : (U,) change over its standard error; 0 where nothing changed
    """

    before_U: np.ndarray
    after_U: np.ndarray
    change_U: np.ndarray
    low_U: np.ndarray
    high_U: np.ndarray
    z_U: np.ndarray

    def __repr__(self) -> str:
        known = np.isfinite(self.low_U)
        up, down = (self.low_U > 0) & known, (self.high_U < 0) & known
        largest = int(np.abs(self.change_U).argmax())
        return (
            f"Rate changes of {len(self.change_U)} units: mean {self.before_U.mean():.3g} to {self.after_U.mean():.3g} Hz\n"
            f"  {int(up.sum())} rise and {int(down.sum())} fall, with a 95 % interval beyond 0\n"
            f"  largest: unit {largest}, {self.before_U[largest]:.3g} to {self.after_U[largest]:.3g} Hz"
        )


def rate_changes(before: Recording, after: Recording) -> RateChanges:
    """Compare simulations of the same sequences and seed.

    Raises
    ------
    ValueError
        Simulations of different units, sequences or seeds: their difference would be noise.
    """
    columns = ("stream", "seed", "source_start")
    alike = before.unit_ids == after.unit_ids and before.num_trials == after.num_trials
    alike = alike and all(k in r.trials for k in columns for r in (before, after))
    if not alike or any(not np.array_equal(before.trials[k], after.trials[k]) for k in columns):
        raise ValueError(
            "the two simulations do not pair: they must have the same units, sequences, samples and seed "
            "(generate both with the same settings but for the interventions)"
        )
    a, b = _rates(before), _rates(after)
    change = b - a
    mean, n = change.mean(0), len(change)
    error = change.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(mean), np.nan)
    z = np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)
    half = stdtrit(max(n - 1, 1), 0.975) * error
    return RateChanges(a.mean(0), b.mean(0), mean, mean - half, mean + half, z)


def first_divergence(a: Recording, b: Recording) -> np.ndarray:
    """(Q,) seconds since the loop closed at which the spikes of each sequence first differ; NaN where they never do.

    Batches of other sizes round differently; in float32 that may flip a token, and the simulations diverge from
    there.
    """
    out = np.full(a.num_trials, np.nan)
    for q, (start, stop) in enumerate(a.trial_intervals):
        sides = []
        for rec in (a, b):
            inside = (rec.spike_times >= start) & (rec.spike_times < stop)
            sides.append(np.stack([rec.spike_times[inside] - start, rec.spike_units[inside]]))
        n = min(s.shape[1] for s in sides)
        wrong = np.flatnonzero((sides[0][:, :n] != sides[1][:, :n]).any(0))
        if len(wrong):
            out[q] = min(s[0, wrong[0]] for s in sides)
        elif any(s.shape[1] > n for s in sides):
            out[q] = next(s[0, n] for s in sides if s.shape[1] > n)
    return out


def _rates(rec: Recording) -> np.ndarray:
    """(Q, U) Hz of every sequence, or the mean sample of each."""
    intervals = rec.trial_intervals
    if rec.traces is not None:
        rows = np.searchsorted(rec.traces.times, intervals)
        return np.stack([np.nanmean(rec.traces.values[a:b], 0, dtype=np.float64) for a, b in rows])
    row = np.searchsorted(intervals[:, 0], rec.spike_times, side="right") - 1
    counts = np.bincount(row * rec.num_units + rec.spike_units, minlength=len(intervals) * rec.num_units)
    return counts.reshape(len(intervals), rec.num_units) / np.diff(intervals, axis=1)


def auroc(score: np.ndarray, is_target: np.ndarray) -> float:
    """Chance that a target has a higher score than another one, ties counted half; NaN without both kinds."""
    score, is_target = np.asarray(score, np.float64), np.asarray(is_target, bool)
    n, m = int(is_target.sum()), int((~is_target).sum())
    if n == 0 or m == 0:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[is_target].sum() - n * (n + 1) / 2) / (n * m))
