"""Intervals over independent trials and over seeds.

Shape suffixes: S scores, D subsets of trials, T trials.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from neuroformer.intervals.estimate import SCALES, Estimate, Scale

SUBSETS = 100  # of trials, left out by chance
LEAST_TRIALS = 6  # fewer tell too little of how much trials differ


def left_out(trials: int, seed: int = 0) -> np.ndarray:
    """(100, T) trials that are left out together: a third of them, by chance; none of fewer than three."""
    rng, third = np.random.default_rng(seed), np.arange(trials) < trials // 3
    return np.stack([rng.permutation(third) for _ in range(SUBSETS)])


def over_trials(
    value_S: Sequence[float], without_DS: np.ndarray, trials: int, scales: Sequence[Scale]
) -> list[Estimate]:
    """Scores of independent trials, and their errors over trials: as many other trials of the same kind.

    The jackknife that leaves out a third at once: leaving out one trial misjudges medians, and all that averages over
    few trials (a PSTH) bends too much for the bootstrap, in whose draws trials are repeated.

    Parameters
    ----------
    value_S : of all trials
    without_DS : without each of the subsets of :func:`left_out`
    trials : how many there are
    scales : of every score

    Returns
    -------
    list of Estimate, one a score
        Without an error where there are fewer than six trials, where a score is not defined without some, or where no
        trial changes it. Trials are taken as independent: what drifts slowly over the session is not in the interval.

    References
    ----------
    Shao and Wu, Annals of Statistics 1989.
    """
    gone, out = trials // 3, []
    for value, without_D, scale in zip(value_S, np.asarray(without_DS, np.float64).T, scales, strict=True):
        with np.errstate(all="ignore"):
            center, z_D = SCALES[scale][0](np.float64(value)), SCALES[scale][0](without_D)
            error = np.sqrt((trials - gone) / gone) * z_D.std(ddof=1) if trials >= LEAST_TRIALS else np.nan
        if not np.isfinite(error) or error < 1e-12:
            error = np.nan
        one = lambda x: np.array([x], np.float64)
        out.append(Estimate(one(value), one(center), one(error), one(trials - 1), scale))
    return out


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of independent values (one a seed, say) and the ends of Student's t 95 % interval of it.

    ``mean +- t(0.975, n - 1) * s / sqrt(n)`` with the sample standard deviation s.

    Raises
    ------
    ValueError
        Fewer than two values, which have no spread.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"an interval of a mean needs two values or more, got shape {x.shape}")
    half = stdtrit(len(x) - 1, 0.975) * x.std(ddof=1) / np.sqrt(len(x))
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)
