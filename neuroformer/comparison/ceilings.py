"""How well a response repeats, and what a score can therefore be expected to reach.

Shape suffixes: R repeats, N moments, U units.
"""

from __future__ import annotations

import numpy as np

from neuroformer.metrics import pearson

SPLITS = 20
LEAST_RELIABILITY = 0.1  # of units whose score is divided by it


def spearman_brown(r, times: float):
    """Reliability of a mean over ``times`` as many repeats (Spearman 1910, Brown 1910)."""
    return times * r / (1 + (times - 1) * r)


def halves(repeats: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random pairs of disjoint halves; of an odd number, one repeat is in neither. All pairs where they are few."""
    half, rng = repeats // 2, np.random.default_rng(seed)
    orders = [rng.permutation(repeats) for _ in range(SPLITS if half else 0)]
    return [(o[:half], o[half : 2 * half]) for o in orders]


def reliability(y_RNU: np.ndarray, fold_N: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """(U,) split-half reliability of the mean over all repeats, with the Spearman-Brown correction; NaN of one repeat.

    r between the means of two halves of the repeats, over the moments of a fold (as scores are taken); averaged over
    folds and over :data:`SPLITS` random halves, then corrected to the number of repeats. Its square root is what the
    correlation of a perfect, noiseless prediction with the mean can be expected to be.
    """
    repeats = len(y_RNU)
    fold_N = np.zeros(y_RNU.shape[1], np.int64) if fold_N is None else fold_N
    if repeats < 2:
        return np.full(y_RNU.shape[2], np.nan)
    each = []
    for a, b in halves(repeats, seed):
        means = y_RNU[a].mean(0, dtype=np.float64), y_RNU[b].mean(0, dtype=np.float64)
        each.append(np.stack([pearson(means[0][fold_N == f], means[1][fold_N == f]) for f in np.unique(fold_N)]))
    each_SFU = np.stack(each)
    known = np.isfinite(each_SFU)
    number = known.sum((0, 1))
    mean_U = np.where(known, each_SFU, 0.0).sum((0, 1)) / np.maximum(number, 1)
    corrected = spearman_brown(np.clip(mean_U, 0, 1), repeats / (repeats // 2))
    return np.where(number > 0, corrected, np.nan)
