"""Linear decoders of behavior: what square-root spike counts and ridge know of the same windows.

Shape suffixes: W windows, B count bins, U units, F = B * U features, C columns of a variable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from neuroformer import metrics
from neuroformer.config import Config
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape

Kind = Literal["regression", "classification"]
NUM_BINS = (1, 2, 5, 10)  # count bins that a lag may be cut into
RIDGE_PENALTIES = tuple(10.0 ** (k / 2) for k in range(-2, 13))
LOGISTIC_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # C of scikit-learn, on standardised features
_TUNE_WINDOWS = {"regression": 20_000, "classification": 4_000}


class SpikeCounts:
    """Square-root spike counts in equal bins that end where a window ends.

    Parameters
    ----------
    index : SpikeIndex
    shape : WindowShape
        The label belongs to a window's end; no spike at or after it is counted.
    """

    def __init__(self, index: SpikeIndex, shape: WindowShape):
        self.index, self.shape = index, shape
        # a 0 ahead of the running sum: the count of [a, b) is total[b] - total[a]
        self._total = np.zeros((index.total_ticks + 1, index.num_units), np.int32)
        np.cumsum(index.counts(), axis=0, out=self._total[1:], dtype=np.int32)

    def __call__(self, windows: Windows, width: int, num_bins: int) -> np.ndarray:
        """(W, num_bins * U) float32 of bins of ``width`` ticks, the latest last; 0 before the origin."""
        base = self.index.base[windows.segment]
        end = base + windows.tick + self.shape.current
        edges = np.maximum(end[:, None] - width * np.arange(num_bins, -1, -1), base[:, None])
        counts = np.diff(self._total[edges], axis=1)
        return np.sqrt(counts, dtype=np.float32).reshape(len(windows), -1)


class RidgeDecoder:
    """A fitted linear decoder; :func:`fit_ridge` makes it.

    Attributes
    ----------
    choice : dict
        ``lag_s``, ``width_s``, ``num_bins``, ``penalty`` (ridge's alpha, or the inverse of logistic
        regression's C), ``valid_score`` (mean R2 over columns, or balanced accuracy), ``kind``.
    """

    def __init__(
        self, counts: SpikeCounts, width: int, num_bins: int, model: Any, scale, choice: dict[str, Any]
    ):
        self._counts, self._width, self._num_bins, self._model = counts, width, num_bins, model
        self._scale = scale
        self.choice = choice

    def predict(self, windows: Windows, index: SpikeIndex | None = None) -> np.ndarray:
        """(W, C) values, or (W, 1) class labels, at each window's end.

        ``index`` replaces the recording's spikes, on the same segments.
        """
        counts = self._counts if index is None else SpikeCounts(index, self._counts.shape)
        x_WF = self._scale(counts(windows, self._width, self._num_bins))
        predicted = self._model.predict(x_WF)
        return predicted.reshape(len(windows), -1)


def fit_ridge(
    index: SpikeIndex, windows_by_part: Mapping[str, Windows], targets_by_part: Mapping[str, np.ndarray],
    shape: WindowShape, config: Config, *, kind: Kind = "regression",
) -> RidgeDecoder:  # fmt: skip
    """Tune on validation windows, fit on training windows.

    Ridge on square-root counts of all units over ``config.decode.lags`` seconds before each window's end; the
    lag, how many bins it is cut into, and the penalty are those of the best validation R2. Class labels:
    logistic regression with balanced classes on the same features, by balanced accuracy.

    Parameters
    ----------
    index : SpikeIndex
    windows_by_part : "train" and "valid" at least
    targets_by_part : (W, C) of each part, the label at each window's end; NaN where it is missing
        Windows with a missing label are left out.
    shape, config : as for the model
    kind : "regression" or "classification" (one column of whole numbers)

    Raises
    ------
    ValueError
        Labels that do not fit the windows, or no label in a part.
    """
    counts = SpikeCounts(index, shape)
    parts = {p: _labelled(p, windows_by_part[p], targets_by_part[p]) for p in ("train", "valid")}
    most = _TUNE_WINDOWS[kind]
    few = {p: _evenly(windows, y, most) for p, (windows, y) in parts.items()}
    search = _search_ridge if kind == "regression" else _search_logistic
    best: tuple[float, float, int, int] | None = None
    for width, num_bins in _binnings(config, shape.dt, kind):
        x = {p: counts(windows, width, num_bins) for p, (windows, _) in few.items()}
        score, penalty = search(x["train"], few["train"][1], x["valid"], few["valid"][1])
        if best is None or score > best[0]:
            best = (score, penalty, width, num_bins)
    assert best is not None
    score, penalty, width, num_bins = best
    windows, y = parts["train"]
    x_WF = counts(windows, width, num_bins)
    if kind == "regression":
        scale, model = (lambda x: x), Ridge(alpha=penalty).fit(x_WF, y)
    else:
        scale = _standardiser(x_WF)
        model = _logistic(1 / penalty, 1000).fit(scale(x_WF), y[:, 0])
    choice = {
        "lag_s": width * num_bins * shape.dt, "width_s": width * shape.dt, "num_bins": num_bins,
        "penalty": penalty, "valid_score": score, "kind": kind,
    }  # fmt: skip
    return RidgeDecoder(counts, width, num_bins, model, scale, choice)


def _labelled(part: str, windows: Windows, targets: np.ndarray) -> tuple[Windows, np.ndarray]:
    y = np.asarray(targets, dtype=np.float64)
    y = y[:, None] if y.ndim == 1 else y
    if len(y) != len(windows):
        raise ValueError(
            f"part '{part}' has {len(windows)} windows but {len(y)} labels; give one label a window"
        )
    known = np.isfinite(y).all(1)
    if not known.any():
        raise ValueError(
            f"none of the {len(y)} windows of part '{part}' has a label; "
            "check the variable's times against the split"
        )
    return windows[known], y[known]


def _evenly(windows: Windows, y: np.ndarray, most: int) -> tuple[Windows, np.ndarray]:
    step = -(-len(windows) // most)
    return windows[::step], y[::step]


def _binnings(config: Config, dt: float, kind: Kind) -> list[tuple[int, int]]:
    """Distinct (ticks a bin, number of bins), each close to one of the lags."""
    out = []
    for lag in config.decode.lags:
        for num_bins in NUM_BINS if kind == "regression" else NUM_BINS[::2]:
            out.append((max(1, round(lag / dt / num_bins)), num_bins))
    return list(dict.fromkeys(out))


def _search_ridge(x_WF, y_WC, x_valid, y_valid) -> tuple[float, float]:
    """Best (R2, penalty). One eigendecomposition solves every penalty; the final fit is scikit-learn's."""
    mean_F, mean_C = x_WF.mean(0), y_WC.mean(0)
    x, valid = (x_WF - mean_F).astype(np.float64), x_valid - mean_F
    values, vectors = np.linalg.eigh(x.T @ x)
    target = vectors.T @ (x.T @ (y_WC - mean_C))
    seen = valid @ vectors
    best = (-np.inf, RIDGE_PENALTIES[-1])
    for penalty in RIDGE_PENALTIES:
        predicted = seen @ (target / (np.maximum(values, 0)[:, None] + penalty)) + mean_C
        best = max(best, (_mean_score(lambda p: metrics.r2(y_valid, p), predicted), penalty))
    return best


def _search_logistic(x_WF, y_WC, x_valid, y_valid) -> tuple[float, float]:
    scale, best = _standardiser(x_WF), (-np.inf, 1.0)
    x, valid = scale(x_WF), scale(x_valid)
    for strength in LOGISTIC_STRENGTHS:
        model = _logistic(strength, 200).fit(x, y_WC[:, 0])
        best = max(best, (metrics.balanced_accuracy(y_valid, model.predict(valid)).score, 1 / strength))
    return best


def _mean_score(score: Callable[[np.ndarray], np.ndarray], predicted: np.ndarray) -> float:
    """Mean over the columns that vary in validation; 0 when none does, so that the first setting stands."""
    values = score(predicted)
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0


def _standardiser(x_WF: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    mean, spread = x_WF.mean(0), x_WF.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    return lambda x: (x - mean) / spread


def _logistic(strength: float, iterations: int) -> LogisticRegression:
    return LogisticRegression(C=strength, class_weight="balanced", max_iter=iterations)
