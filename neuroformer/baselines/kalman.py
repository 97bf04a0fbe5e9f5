"""A Kalman filter and smoother: behavior moves linearly, counts follow it linearly (Wu et al., Neural Computation 2006).

Shape suffixes: V values, U units, C columns, Z = 2 C states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from neuroformer.baselines.features import Samples
from neuroformer.baselines.linear import Predict, Standard

OBSERVATION_NOISE = (
    1.0,
    3.0,
    10.0,
    30.0,
)  # times the fitted one: counts of neighbouring bins are not independent


class KalmanMethod:
    """State: the labels and their last change. Observation: the counts of the latest bins. Filtered forwards in time,
    ``step`` ticks at a time (moments in between are filtered beside); at a break it starts again from the training mean.

    With ``ahead`` ticks of lookahead there are two ways, of which cross-validation takes one: the counts after the moment
    are observed, too; or those before each moment alone, and values are smoothed backwards from the last moment within the
    lookahead (Rauch, Tung and Striebel, AIAA Journal 1965).
    """

    name = "kalman"

    def __init__(self, step: int, ahead: int = 0):
        self.step, self.lag = step, ahead // step

    def candidates(self, kind: str) -> list[dict]:
        return [{"smoother": False}, {"smoother": True}] if self.lag else [{}]

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[float, np.ndarray]]:
        for noise in OBSERVATION_NOISE:
            yield noise, self.fit(train, kind, params, noise)(held)

    def fit(self, train: Samples, kind: str, params: dict, setting: float) -> Predict:
        smooth = params.get("smoother", False)
        train, _ = _by_phase(_before(train) if smooth else train, self.step)
        scale = Standard(train)
        x, y = scale.x(train), scale.y(train)
        before = np.flatnonzero(_follows(train, self.step)) - 1  # rows whose successor is the next moment
        speed = np.zeros_like(y)
        speed[before + 1] = y[before + 1] - y[before]
        z = np.concatenate([y, speed], 1)
        size = z.shape[1]
        # transitions need values whose own predecessor exists too, or their change is unknown
        both = before[np.isin(before, before + 1)]
        both = both if len(both) > 2 * size else before
        ridge = 1e-3 * np.eye(size)
        if len(both) > size:
            a, b = z[both], z[both + 1]
            move = np.linalg.solve(a.T @ a + ridge * len(a), a.T @ b).T
            moved = np.cov((b - a @ move.T).T).reshape(size, size) + 1e-6 * np.eye(size)
        else:
            move, moved = np.zeros((size, size)), np.eye(size)
        see = np.linalg.solve(z.T @ z + ridge * len(z), z.T @ x).T
        noise = ((x - z @ see.T).var(0) + 1e-3) * setting
        spread = np.cov(z.T).reshape(size, size) + 1e-6 * np.eye(size)

        def predict(samples: Samples) -> np.ndarray:
            ordered, order = _by_phase(_before(samples) if smooth else samples, self.step)
            follows, out = _follows(ordered, self.step), np.empty((len(samples), y.shape[1]))
            states = _filter(scale.x(ordered), follows, move, moved, see, noise, spread)
            means_VZ = _smooth(states, follows, move, self.lag if smooth else 0)
            out[order] = means_VZ[:, : y.shape[1]]
            return scale.back(out)

        return predict


class _States(NamedTuple):
    """Filtered means, and how far the smoothed value of the next moment moves each."""

    mean_VZ: np.ndarray
    back_AZZ: np.ndarray
    age_V: np.ndarray


def _filter(x, follows, move, moved, see, noise, spread) -> _States:
    """Posterior means given all moments up to each; the observation enters in information form, its noise being diagonal.

    Covariances depend on how many moments follow each other, not on what is observed: each is worked out once.
    """
    information = see.T @ (see / noise[:, None])
    evidence = x @ (see / noise[:, None])
    out, age_V = np.empty((len(x), len(move))), np.empty(len(x), int)
    gains = [_gain(spread, information)]
    mean, age, settled = np.zeros(len(move)), 0, False
    for v in range(len(x)):
        age = age + 1 if follows[v] else 0
        if age == len(gains) and not settled:
            gains.append(_gain(move @ gains[-1][0] @ move.T + moved, information))
            if np.allclose(gains[-1][0], gains[-2][0], rtol=1e-12, atol=1e-14):
                gains.pop()
                settled = True
        age = min(age, len(gains) - 1)
        cov, keep = gains[age]
        mean = keep @ (move @ mean) + cov @ evidence[v] if follows[v] else cov @ evidence[v]
        out[v], age_V[v] = mean, age
    back = [cov @ move.T @ np.linalg.inv(move @ cov @ move.T + moved) for cov, _ in gains]
    return _States(out, np.stack(back), age_V)


def _smooth(states: _States, follows: np.ndarray, move: np.ndarray, lag: int) -> np.ndarray:
    """(V, Z) means given ``lag`` more moments, or as many as follow without a break."""
    mean_VZ, back_AZZ, age_V = states
    next_V = np.flatnonzero(follows)
    gain_NZZ, predicted_NZ = back_AZZ[age_V[next_V - 1]], mean_VZ[next_V - 1] @ move.T
    out_VZ = mean_VZ
    for _ in range(lag):  # E[z_t | up to t + j] from E[z_t+1 | up to t + 1 + (j - 1)]
        change_NZ = np.einsum("nij,nj->ni", gain_NZZ, out_VZ[next_V] - predicted_NZ)
        out_VZ = mean_VZ.copy()
        out_VZ[next_V - 1] += change_NZ
    return out_VZ


def _gain(prior, information) -> tuple[np.ndarray, np.ndarray]:
    """Posterior covariance, and what it makes of the prior's mean."""
    inverse = np.linalg.inv(prior)
    cov = np.linalg.inv(inverse + information)
    return cov, cov @ inverse


def _before(samples: Samples) -> Samples:
    """With the counts before the moment alone."""
    assert samples.edges is not None
    bins = int((samples.edges[1:] <= 0).sum())
    return dataclasses.replace(samples, x_VBU=samples.x_VBU[:, :bins], edges=samples.edges[: bins + 1])


def _by_phase(samples: Samples, step: int) -> tuple[Samples, np.ndarray]:
    """Moments that are ``step`` ticks apart, one after another, and where each came from."""
    tick = samples.windows.tick
    order = np.lexsort((tick, tick % step, samples.windows.segment))
    return samples[order], order


def _follows(samples: Samples, step: int) -> np.ndarray:
    """(V,) whether each moment comes one step after the one before it in the list."""
    w = samples.windows
    out = np.zeros(len(samples), bool)
    out[1:] = (np.diff(w.segment) == 0) & (np.diff(w.tick) == step)
    return out
