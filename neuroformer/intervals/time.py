"""Intervals over held-out time, from a jackknife of contiguous blocks.

Shape suffixes: N values in time order, M sums, S scores, F series, K pieces, B blocks, E events.
"""

from __future__ import annotations

import warnings

import numpy as np

from neuroformer.intervals.estimate import SCALES, Estimate
from neuroformer.intervals.terms import Terms
from neuroformer.intervals.trials import LEAST_TRIALS

LEAST_BLOCKS, MOST_BLOCKS = 10, 20  # beyond 20, Student's t gains nothing, and shorter blocks depend on each other
PER_BLOCK = 1.2  # independent values of the slowest series, labels included, that a block must be worth
SURE = 0.7  # share of the independent values that is counted on: where few are found, by chance too many were
PIECES = 128  # in which autocorrelation is looked for; it matters down to a few per block
LEAST_PIECES = 16  # from fewer, no autocorrelation can be estimated
SMOOTH = 0.65  # autocorrelation of neighbours from which a finer cut only shows how smooth a series is


class FewBlocksWarning(RuntimeWarning):
    """A score has no interval, since the values that it is of are worth too few independent ones."""


def over_time(terms: Terms, name: str) -> Estimate:
    """Scores of values in time order, and their errors over held-out time: another stretch of the same recording.

    The values are worth ``m`` independent ones: :func:`independent_values` of the slowest of labels, errors and the
    score's own influence. They are cut into ``min(20, m / 1.2)`` contiguous blocks; of fewer than ten there is no
    interval, nor where a class occurs in fewer than six of them. Leaving out one block after another gives pseudo-values, whose mean is the middle (it corrects for the
    variance that the mean of few labels takes away) and whose spread is the error. It is divided by
    ``sqrt(1 - blocks / (1.4 m))``: by so much the means of neighbouring blocks vary too little where autocorrelation
    falls off exponentially; m itself is an estimate, and a recording that just has an interval has it since m came out too
    large, so that seven tenths of it are counted on. Scores that no block changes have no interval either.

    The model is given: how it would differ with another seed or more training data is not in it.

    Warns
    -----
    FewBlocksWarning
        ``name`` has no interval.

    References
    ----------
    Künsch, Annals of Statistics 1989 (the jackknife of blocks); Flegal and Jones, Annals of Statistics 2010
    (batch means).
    """
    value_S = terms.of_all()
    center_S, error_S, degrees_S = (np.full(len(value_S), np.nan) for _ in range(3))
    own_S, worth_S, blocks_S = np.zeros(len(value_S)), np.zeros(len(value_S)), np.zeros(len(value_S), int)
    known_S = np.isfinite(value_S)
    if len(terms.sums_NM) >= LEAST_PIECES:
        pseudo_KS = _pseudo_values(terms, min(PIECES, len(terms.sums_NM)))
        own_S = independent_values(pseudo_KS)
        worth_S = np.minimum(own_S, _worth(terms.series_NF))
        blocks_S = np.minimum(MOST_BLOCKS, np.nan_to_num(worth_S) / PER_BLOCK + 1e-9).astype(int)
        blocks_S = _often_enough(terms, blocks_S)
        known_S = np.isfinite(pseudo_KS).all(0) & (np.ptp(pseudo_KS, axis=0) > 1e-12)
    for blocks in np.unique(blocks_S[known_S & (blocks_S >= LEAST_BLOCKS)]):
        these = known_S & (blocks_S == blocks)
        pseudo_BS = _pseudo_values(terms, int(blocks))[:, these]
        center_S[these], degrees_S[these] = pseudo_BS.mean(0), blocks - 1
        dependent = np.sqrt(1 - blocks / (2 * SURE * own_S[these]))
        error_S[these] = pseudo_BS.std(0, ddof=1) / np.sqrt(blocks) / dependent
    if (known_S & (blocks_S < LEAST_BLOCKS)).any():
        warnings.warn(
            f"no 95 % interval of {name}: labels, errors or scores stay alike for so long that the held-out values are "
            f"worth fewer than {round(LEAST_BLOCKS * PER_BLOCK)} independent ones, or a class occurs in too few stretches; "
            "hold out more of the recording",
            FewBlocksWarning,
            stacklevel=2,
        )
    return Estimate(value_S, center_S, error_S, degrees_S, terms.scale)


def _often_enough(terms: Terms, blocks_S: np.ndarray) -> np.ndarray:
    """Numbers of blocks; none where a class occurs in so few that its share of hits is of those few."""
    out = blocks_S.copy()
    if terms.events_NE is None:
        return out
    for blocks in np.unique(blocks_S[blocks_S >= LEAST_BLOCKS]):
        edges = _edges(len(terms.events_NE), int(blocks))
        occurs_BE = np.add.reduceat(terms.events_NE.astype(np.int64), edges[:-1], axis=0) > 0
        if occurs_BE.sum(0).min(initial=LEAST_TRIALS) < LEAST_TRIALS:
            out[blocks_S == blocks] = 0
    return out


def independent_values(x_KF: np.ndarray) -> np.ndarray:
    """(F,) how many independent values a series in time order is worth: its length over its integrated autocorrelation time.

    The time is that of a first-order autoregression, ``(1 + r) / (1 - r)``, with r corrected for its bias (Kendall,
    Biometrika 1954), of means over 1, 2, 4, ... values; the longest counts, so that fast noise does not hide a slow
    drift. Cuts at which neighbours are alike (r above 0.65) are passed over, unless none is coarser. A series that does
    not vary is worth its length; one of fewer than 16 values nothing, since no autocorrelation can be estimated.
    """
    size, number = x_KF.shape
    if size < LEAST_PIECES:
        return np.zeros(number)
    worth_F, variance_F, join = np.full(number, float(size)), x_KF.var(0), 1
    while size // join >= LEAST_PIECES:
        count = size // join
        x = x_KF[: count * join].reshape(count, join, number).mean(1)
        x = x - x.mean(0)
        power_F = (x * x).sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            r_F = (x[1:] * x[:-1]).sum(0) / power_F
            r_F = np.clip(r_F + (1 + 3 * r_F) / count, 0, 0.98)
            worth = size * variance_F / (join * power_F / count * (1 + r_F) / (1 - r_F))
        coarsest = size // (2 * join) < LEAST_PIECES
        use_F = (variance_F > 0) & np.isfinite(worth) & ((r_F < SMOOTH) | coarsest)
        worth_F = np.where(use_F, np.minimum(worth_F, worth), worth_F)
        join *= 2
    return worth_F


def _worth(series_NF: np.ndarray) -> float:
    size = min(PIECES, len(series_NF))
    edges = _edges(len(series_NF), size)
    means_KF = np.add.reduceat(series_NF, edges[:-1], axis=0) / np.diff(edges)[:, None]
    return float(independent_values(means_KF).min(initial=np.inf))


def _pseudo_values(terms: Terms, blocks: int) -> np.ndarray:
    """(blocks, S) on the scale; NaN where a score is not defined without a block."""
    sums_BM = np.add.reduceat(terms.sums_NM, _edges(len(terms.sums_NM), blocks)[:-1], axis=0)
    total_M = sums_BM.sum(0)
    to_scale = SCALES[terms.scale][0]
    with np.errstate(all="ignore"):
        whole = to_scale(np.atleast_1d(terms.value(total_M)))
        return blocks * whole - (blocks - 1) * to_scale(terms.value(total_M - sums_BM).reshape(blocks, -1))


def _edges(size: int, parts: int) -> np.ndarray:
    return np.arange(parts + 1) * size // parts
