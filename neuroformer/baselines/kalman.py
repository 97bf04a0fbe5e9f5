"""A Kalman filter: behavior moves linearly, counts follow it linearly (Wu et al., Neural Computation 2006).

Shape suffixes: V values, U units, C columns, Z = 2 C states.
"""

from __future__ import annotations

from collections.abc import Iterator

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
    """State: the labels and their last change. Observation: the counts of the latest bins. Filtered forwards in time;
    at a break between values it starts again from the training mean."""

    name = "kalman"

    def candidates(self, kind: str) -> list[dict]:
        return [{}]

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[float, np.ndarray]]:
        for noise in OBSERVATION_NOISE:
            yield noise, self.fit(train, kind, params, noise)(held)

    def fit(self, train: Samples, kind: str, params: dict, setting: float) -> Predict:
        scale = Standard(train)
        x, y = scale.x(train), scale.y(train)
        step = _step(train)
        follows = _follows(train, step)
        before = np.flatnonzero(follows) - 1  # rows whose successor is the next moment
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
            return scale.back(_filter(scale.x(samples), _follows(samples, step), move, moved, see, noise, spread))

        return predict


def _filter(x, follows, move, moved, see, noise, spread) -> np.ndarray:
    """(V, C) posterior means; the observation enters in information form, its noise being diagonal."""
    size = len(move)
    information = see.T @ (see / noise[:, None])
    evidence = x @ (see / noise[:, None])
    out = np.empty((len(x), size // 2))
    mean, cov = np.zeros(size), spread
    for v in range(len(x)):
        if follows[v]:
            mean, cov = move @ mean, move @ cov @ move.T + moved
        else:
            mean, cov = np.zeros(size), spread
        prior = np.linalg.inv(cov)
        cov = np.linalg.inv(prior + information)
        mean = cov @ (prior @ mean + evidence[v])
        out[v] = mean[: size // 2]
    return out


def _step(samples: Samples) -> int:
    steps = np.diff(samples.windows.tick)[np.diff(samples.windows.segment) == 0]
    return int(np.min(steps[steps > 0], initial=1 << 40))


def _follows(samples: Samples, step: int) -> np.ndarray:
    """(V,) whether each moment comes one step after the one before it in the list."""
    w = samples.windows
    out = np.zeros(len(samples), bool)
    out[1:] = (np.diff(w.segment) == 0) & (np.diff(w.tick) == step)
    return out
