"""The baseline of continuous activity: a linear autoregression of every unit on all units' past.

Shape suffixes: R rows (bins), F features, U units.
"""

from __future__ import annotations

import numpy as np

from neuroformer.baselines.ridge import RidgePath
from neuroformer.data.prepared import Prepared

PENALTIES = tuple(10.0**k for k in range(-1, 6))


def autoregression_bits(prepared: Prepared) -> float:
    """Bits/sample of a Gaussian ridge autoregression on held-out windows, against the training marginal.

    Every unit's sample is predicted from the past of all units, bin by bin of the window, with the penalty
    chosen on validation windows and the residual variance fitted on training windows. Windows with a missing
    sample in their past count its mean.
    """
    traces, shape, scale = prepared.builder.traces, prepared.builder.shape, prepared.normalization.traces
    assert traces is not None and scale is not None
    mean, std = np.asarray(scale.mean), np.asarray(scale.std)

    def rows(part: str) -> tuple[np.ndarray, np.ndarray]:
        windows = prepared.windows(part)
        seen = traces.windows(windows, shape)
        x = np.nan_to_num((seen.past_WLU.numpy() - mean) / std).reshape(len(windows), -1)
        return x, ((seen.current_WBU.numpy() - mean) / std).reshape(len(windows), -1)

    x, y = rows("train")
    known = np.isfinite(y).all(1)
    x, y = x[known], y[known]
    best = -np.inf, -np.inf
    held = {part: rows(part) for part in ("valid", "test")}
    for weight in RidgePath(x).weights(y, PENALTIES):
        variance = np.maximum((y - x @ weight).var(0), 1e-6)
        bits = {part: _bits(a @ weight, b, variance) for part, (a, b) in held.items()}
        best = max(best, (bits["valid"], bits["test"]))
    return best[1]


def _bits(predicted: np.ndarray, true: np.ndarray, variance: np.ndarray) -> float:
    known = np.isfinite(true)
    nats = 0.5 * true**2 - 0.5 * ((true - predicted) ** 2 / variance + np.log(variance))
    return float(nats[known].mean() / np.log(2))
