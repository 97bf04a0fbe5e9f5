"""A Bayesian decoder of one or two columns, such as a position (Zhang et al., Journal of Neurophysiology 1998).

Shape suffixes: V values, U units, G places of a grid, C columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import logsumexp

from neuroformer.baselines.features import Samples
from neuroformer.baselines.linear import Predict

PLACES = {1: 60, 2: 24}  # of the grid along each column
BANDWIDTHS = (0.08, 0.04, 0.02, 0.15)  # of rate maps, in ranges of the variable
SHARPNESS = (1.0, 0.5, 0.25)  # of the likelihood: counts of units that share noise say less than they seem to
_PRIOR_MOMENTS = 1.0  # moments' worth of the mean rate in every place, so that no rate is zero


class BayesMethod:
    """Poisson counts of the latest bin given the place, rates smoothed over a grid of the training places, prior as often
    as the animal was there; the posterior mean."""

    name = "bayes"

    def candidates(self, kind: str) -> list[dict]:
        return [{"bandwidth": bandwidth} for bandwidth in BANDWIDTHS]

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[float, np.ndarray]]:
        grid = _Grid(train, params["bandwidth"])
        log_likelihood_VG = grid.log_likelihood(held)
        for sharpness in SHARPNESS:
            yield sharpness, grid.posterior_mean(log_likelihood_VG, sharpness)

    def fit(self, train: Samples, kind: str, params: dict, setting: float) -> Predict:
        grid = _Grid(train, params["bandwidth"])
        return lambda samples: grid.posterior_mean(grid.log_likelihood(samples), setting)


class _Grid:
    """Rates of all units at the visited places of a grid."""

    def __init__(self, train: Samples, bandwidth: float):
        y, columns = train.y_VC, train.y_VC.shape[1]
        low, high = y.min(0), y.max(0)
        span = np.where(high > low, high - low, 1.0)
        axes = [(np.arange(PLACES[columns]) + 0.5) / PLACES[columns]] * columns
        place_GC = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], 1)
        cell = np.clip(((y - low) / span * PLACES[columns]).astype(int), 0, PLACES[columns] - 1)
        cell = np.ravel_multi_index(tuple(cell.T), (PLACES[columns],) * columns)
        time_G = np.bincount(cell, minlength=len(place_GC)).astype(np.float64)
        visited = np.flatnonzero(time_G)
        counts_VU = _counts(train)
        spikes_GU = np.stack([np.bincount(cell, k, len(place_GC))[visited] for k in counts_VU.T], 1)
        place_GC, time_G = place_GC[visited], time_G[visited]
        distance = ((place_GC[:, None] - place_GC) ** 2).sum(2)
        kernel = np.exp(-0.5 * distance / bandwidth**2)
        few = _PRIOR_MOMENTS
        mean_U = (counts_VU.sum(0) + 0.5) / len(counts_VU)
        time_G = kernel @ time_G
        self.rate_GU = (kernel @ spikes_GU + few * mean_U) / (time_G[:, None] + few)
        self.log_prior_G = np.log(time_G / time_G.sum())
        self.place_GC = low + place_GC * span

    def log_likelihood(self, samples: Samples) -> np.ndarray:
        return _counts(samples) @ np.log(self.rate_GU).T - self.rate_GU.sum(1)

    def posterior_mean(self, log_likelihood_VG: np.ndarray, sharpness: float) -> np.ndarray:
        z = sharpness * log_likelihood_VG + self.log_prior_G
        return np.exp(z - logsumexp(z, axis=1, keepdims=True)) @ self.place_GC


def _counts(samples: Samples) -> np.ndarray:
    """(V, U) spikes of all bins together."""
    return np.rint((samples.x_VBU.astype(np.float64) ** 2).sum(1))
