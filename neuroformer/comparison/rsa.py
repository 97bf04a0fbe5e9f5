"""Representational similarity: dissimilarities between conditions, and how alike two sets of them are.

After Kriegeskorte et al. 2008 (Frontiers in Systems Neuroscience 2:4), Walther et al. 2016 (NeuroImage 137:188) and
Diedrichsen et al. 2021 (Neurons, Behavior, Data analysis, and Theory 5:1). Equal to ``rsatoolbox``, which a test compares
with; ours are fast enough to be taken again for every subset of units and conditions.

Shape suffixes: R repeats, C conditions, D channels (units or features), P pairs of conditions.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata
from sklearn.covariance import LedoitWolf


def correlation_distance(x_CD: np.ndarray) -> np.ndarray:
    """(P,) 1 - Pearson's r between the patterns of two conditions. A pattern that does not vary is like none other (1)."""
    x = x_CD - x_CD.mean(1, keepdims=True)
    size = np.linalg.norm(x, axis=1, keepdims=True)
    x = np.divide(x, size, out=np.zeros_like(x), where=size > 1e-12)
    return pairs(1 - x @ x.T)


def euclidean(x_CD: np.ndarray) -> np.ndarray:
    """(P,) squared Euclidean distance over the number of channels."""
    return _from_products(x_CD @ x_CD.T, x_CD.shape[1])


def crossnobis(y_RCD: np.ndarray, precision_DD: np.ndarray | None = None) -> np.ndarray:
    """(P,) cross-validated Mahalanobis distance over the number of channels: unbiased, so around zero where two conditions
    are alike. One repeat at a time is held against the mean of the others.

    Parameters
    ----------
    precision_DD : of the noise; by default the identity (the cross-validated Euclidean distance)
    """
    repeats, _, channels = y_RCD.shape
    total = y_RCD.sum(0)
    right = total if precision_DD is None else total @ precision_DD
    products = total @ right.T
    for y in y_RCD:  # without the products of a repeat with itself
        products -= y @ (y if precision_DD is None else y @ precision_DD).T
    return _from_products(products / (repeats * (repeats - 1)), channels)


def noise_precision(y_RCD: np.ndarray) -> np.ndarray:
    """(D, D) inverse covariance of responses around the mean of their condition, shrunk after Ledoit and Wolf."""
    residuals = (y_RCD - y_RCD.mean(0)).reshape(-1, y_RCD.shape[2])
    fitted = LedoitWolf(assume_centered=True).fit(residuals)
    covariance = fitted.covariance_ * len(y_RCD) / (len(y_RCD) - 1)
    return np.linalg.pinv(covariance, hermitian=True)


def _from_products(g_CC: np.ndarray, channels: int) -> np.ndarray:
    own = np.diag(g_CC)
    return pairs(own[:, None] + own - g_CC - g_CC.T) / channels


def pairs(d_CC: np.ndarray) -> np.ndarray:
    """(P,) upper triangle, row by row."""
    return d_CC[np.triu_indices(len(d_CC), 1)]


def ranks(d_P: np.ndarray) -> np.ndarray:
    """(C, C) centred ranks of dissimilarities, zero on the diagonal."""
    return square(_centred(rankdata(d_P)))


def second_moments(d_P: np.ndarray) -> np.ndarray:
    """(C, C) doubly centred dissimilarities, less their mean: in them, what pairs that share a condition have in common by
    chance is independent, if conditions are and their noise is equal (Diedrichsen et al. 2021)."""
    d_CC = square(_centred(d_P))
    return d_CC - d_CC.mean(0) - d_CC.mean(1)[:, None] + d_CC.mean()


def spearman(a_P: np.ndarray, b_P: np.ndarray) -> float:
    """Spearman's rank correlation of two sets of dissimilarities."""
    return cosine(ranks(a_P), ranks(b_P))


def whitened(a_P: np.ndarray, b_P: np.ndarray) -> float:
    """Whitened correlation of two sets of dissimilarities."""
    return cosine(second_moments(a_P), second_moments(b_P))


def square(d_P: np.ndarray) -> np.ndarray:
    """(C, C) symmetric, zero on the diagonal."""
    size = round((1 + np.sqrt(1 + 8 * len(d_P))) / 2)
    d_CC = np.zeros((size, size))
    d_CC[np.triu_indices(size, 1)] = d_P
    return d_CC + d_CC.T


def _centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two arrays, as vectors; NaN where one is zero."""
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.vdot(a, b) / size) if size > 1e-300 else float("nan")
