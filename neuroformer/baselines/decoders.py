"""Baselines that try as hard as the model: the same moments, bins, lookahead, split and normalisation.

Each one's hyperparameters (lags, bins, penalties, sizes, epochs) are chosen by cross-validation over contiguous
stretches of the training moments, with gaps; no other moment has a say.

Shape suffixes: V values, U units, C columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol

import numpy as np

from neuroformer.baselines.features import (
    NUM_BINS,
    Binning,
    Samples,
    SpikeCounts,
    binnings,
    contiguous_folds,
)
from neuroformer.baselines.kalman import KalmanMethod
from neuroformer.baselines.linear import GlmMethod, LassoMethod, Predict, RidgeMethod
from neuroformer.baselines.networks import GruMethod, MlpMethod
from neuroformer.config import Config
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape
from neuroformer.metrics import target_score

Kind = Literal["regression", "classification"]
FAST = ("ridge", "lasso", "kalman")
ALL = ("ridge", "lasso", "glm", "kalman", "mlp", "gru")
CLASSIFIERS = ("ridge", "mlp", "gru")
_FOLDS = {"mlp": 3, "gru": 3}  # others: 5, they are quick
_TUNE_VALUES = 40_000  # values the search sees, evenly chosen; the final fit sees all


class Method(Protocol):
    """A kind of decoder. ``path`` yields (setting, held-out prediction) for settings that one fit gives at once."""

    name: str

    def candidates(self, kind: str) -> list[dict]: ...

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[Any, np.ndarray]]: ...

    def fit(self, train: Samples, kind: str, params: dict, setting: Any) -> Predict: ...


class Baseline:
    """A fitted baseline; :func:`fit_baseline` makes it.

    Attributes
    ----------
    choice : dict
        ``lag_s``, ``width_s``, ``num_bins``, ``setting`` (penalty, noise or epochs), what else the method chose, and
        ``cv_score`` (mean over folds of R2 over columns, or of balanced accuracy).
    """

    def __init__(self, name: str, counts: SpikeCounts, binning: Binning, predict: Predict, choice: dict[str, Any]):
        self.name, self.choice = name, choice
        self._counts, self._binning, self._predict = counts, binning, predict

    def predict(self, windows: Windows, index: SpikeIndex | None = None) -> np.ndarray:
        """(V, C) values, or (V, 1) class labels, at each window's end; windows in time order.

        ``index`` replaces the recording's spikes, on the same segments.
        """
        counts = self._counts if index is None else SpikeCounts(index, self._counts.shape)
        x = counts(windows, self._binning)
        return self._predict(Samples(x, windows, np.zeros((len(windows), 0))))


def fit_baseline(
    name: str,
    index: SpikeIndex,
    windows: Windows,
    labels_VC: np.ndarray,
    shape: WindowShape,
    config: Config,
    *,
    kind: Kind = "regression",
    seed: int = 0,
) -> Baseline:
    """Tune one of :data:`ALL` by nested cross-validation on labelled moments, and fit it on all of them.

    Parameters
    ----------
    name : a name in :data:`ALL` (class labels: in :data:`CLASSIFIERS`)
    index : SpikeIndex
    windows : Windows
        A label belongs to each window's end.
    labels_VC : NaN where it is missing: those moments are left out
    shape, config : as for the model; ``shape.ahead`` is the lookahead, ``config.decode.lags`` the lags
    kind : "regression" or "classification" (one column of whole numbers)
    seed : of the networks

    Raises
    ------
    ValueError
        An unknown name, labels that do not fit the windows, or fewer than two labels.
    """
    method = _method(name, kind, shape, seed)
    windows, y = _labelled(windows, labels_VC)
    few, y_few = _evenly(windows, y)
    counts = SpikeCounts(index, shape)
    reach = round(max(config.decode.lags) / shape.dt) + shape.ahead
    folds = contiguous_folds(few, index, reach, _FOLDS.get(name, 5))
    best: tuple[float, Binning, dict, Any] | None = None
    for binning in _search_binnings(name, config, shape, few, y_few, counts, folds, kind):
        samples = Samples(counts(few, binning), few, y_few)
        for params in method.candidates(kind):
            score, setting = _cross_validate(method, samples, folds, kind, params)
            if best is None or score > best[0]:
                best = (score, binning, params, setting)
    assert best is not None
    score, binning, params, setting = best
    predict = method.fit(Samples(counts(windows, binning), windows, y), kind, params, setting)
    choice = {
        "lag_s": binning.width * binning.num_bins * shape.dt,
        "width_s": binning.width * shape.dt,
        "num_bins": binning.num_bins,
        "setting": setting,
        **params,
        "cv_score": score,
    }
    return Baseline(name, counts, binning, predict, choice)


def _method(name: str, kind: str, shape: WindowShape, seed: int) -> Method:
    known = CLASSIFIERS if kind == "classification" else ALL
    if name not in known:
        raise ValueError(f"no baseline '{name}' for a {kind}; there are: {', '.join(known)}")
    if name == "mlp":
        return MlpMethod(seed)
    if name == "gru":
        return GruMethod(both_ways=shape.ahead > 0, seed=seed)
    return {"ridge": RidgeMethod, "lasso": LassoMethod, "glm": GlmMethod, "kalman": KalmanMethod}[name]()


def _search_binnings(name, config, shape, windows, y, counts, folds, kind) -> list[Binning]:
    """What a method tries: ridge all binnings; a filter single bins; a recurrence fine ones; the slow ones ridge's two best."""
    if name == "kalman":
        widths = dict.fromkeys(max(1, round(f * shape.current)) for f in (1, 2, 4, 8))
        return [Binning(width, 1) for width in widths]
    every = binnings(config, shape.dt, NUM_BINS[::2] if kind == "classification" else NUM_BINS)
    if name == "ridge":
        return every
    if name == "gru":
        longest = sorted(config.decode.lags)[-2:]
        width = max(1, round(max(shape.current, 0.05 / shape.dt)))
        return list(dict.fromkeys(Binning(width, max(2, round(lag / shape.dt / width))) for lag in longest))
    ridge = RidgeMethod()
    scores = {b: _cross_validate(ridge, Samples(counts(windows, b), windows, y), folds, kind, {})[0] for b in every}
    return sorted(scores, key=lambda b: -scores[b])[:2]


def _cross_validate(method: Method, samples: Samples, folds, kind: str, params: dict) -> tuple[float, Any]:
    """Best (mean score over folds, setting). A fold whose labels do not vary has no say."""
    scores: dict[Any, list[float]] = {}
    for train, held in folds:
        for setting, predicted in method.path(samples[train], samples[held], kind, params):
            scores.setdefault(setting, []).append(target_score(kind, samples.y_VC[held], predicted))
    means = {s: float(np.mean([v for v in each if np.isfinite(v)] or [0.0])) for s, each in scores.items()}
    setting = max(means, key=lambda s: means[s])
    return means[setting], setting


def _labelled(windows: Windows, labels_VC: np.ndarray) -> tuple[Windows, np.ndarray]:
    y = np.asarray(labels_VC, dtype=np.float64)
    y = y[:, None] if y.ndim == 1 else y
    if len(y) != len(windows):
        raise ValueError(f"there are {len(windows)} windows but {len(y)} labels; give one label a window")
    known = np.flatnonzero(np.isfinite(y).all(1))
    if len(known) < 2:
        raise ValueError(
            f"{len(known)} of {len(y)} windows have a label; check the variable's times against the split, and decode.moving"
        )
    order = known[np.lexsort((windows.tick[known], windows.segment[known]))]
    return windows[order], y[order]


def _evenly(windows: Windows, y: np.ndarray) -> tuple[Windows, np.ndarray]:
    step = -(-len(windows) // _TUNE_VALUES)
    return windows[::step], y[::step]
