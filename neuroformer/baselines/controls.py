"""Controls that score without neural data: behavior guessed from training labels alone.

Behavior is smooth, and trials repeat: only what a decoder adds to the best of these is worth anything. No function
here is given a spike or a held-out label.

Shape suffixes: W windows, C columns of a variable.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from neuroformer.data.windows import SpikeIndex, Windows, WindowShape

AUTOREGRESSION_ORDERS = (1, 4, 16)  # windows back
_RIDGE = 1e-6  # relative: labels that repeat would make the normal equations singular
_MAX_STEPS = 20_000  # windows; whatever is left of a rollout by then no longer changes


def control_predictions(
    index: SpikeIndex,
    train: Windows,
    labels_WC: np.ndarray,
    test: Windows,
    shape: WindowShape,
    *,
    kind: Literal["regression", "classification"] = "regression",
) -> dict[str, np.ndarray]:
    """Predictions for the test windows from the training windows' labels.

    - ``mean``: the training mean (the most common class).
    - ``nearest``, ``linear``: the training label nearest in time; a line between the two around.
    - ``hold``: the last training label before.
    - ``trial_time``: the mean (most common) training label at the same time since the segment's start, where
      segments are trials and more than one trains.
    - ``autoregression_N``: a vector autoregression on the N labels before, fitted by least squares on
      training labels, rolled out from the last training labels before the test block, through the gap; kept
      within the training range. Regression only.

    Parameters
    ----------
    index : SpikeIndex
        Only its clock is read.
    train, test : Windows
    labels_WC : (W, C) of the training windows, at each window's end; NaN where missing
    shape : WindowShape
    kind : "classification" takes one column of labels and predicts labels

    Returns
    -------
    dict of name to (W_test, C) float64, finite

    Raises
    ------
    ValueError
        Labels that do not fit the windows, or none at all.
    """
    train, y = _labelled(train, labels_WC)
    times, at = train.starts(index), test.starts(index)
    average = _mean if kind == "regression" else _mode
    out = {"mean": np.repeat(average(y)[None], len(test), 0)}
    out["nearest"] = y[_nearest(times, at)]
    before = np.searchsorted(times, at, side="right") - 1
    out["hold"] = np.where(before[:, None] >= 0, y[np.maximum(before, 0)], out["mean"])
    by_trial = _by_trial_time(train, y, test, average, kind)
    if by_trial is not None:
        out["trial_time"] = by_trial
    if kind == "regression":
        out["linear"] = np.stack([np.interp(at, times, column) for column in y.T], 1)
        for lag in AUTOREGRESSION_ORDERS:
            rolled = _autoregression(train, y, times, at, shape, lag)
            if rolled is not None:
                out[f"autoregression_{lag}"] = rolled
    return out


def _labelled(train: Windows, labels_WC: np.ndarray) -> tuple[Windows, np.ndarray]:
    """The windows that have a label, and (W, C) labels, in the order of time."""
    y = np.asarray(labels_WC, dtype=np.float64)
    y = y[:, None] if y.ndim == 1 else y
    if len(y) != len(train):
        raise ValueError(f"there are {len(train)} training windows but {len(y)} labels; give one label a window")
    known = np.isfinite(y).all(1)
    if not known.any():
        raise ValueError(
            "no training window has a label; check the variable's times against the split, and decode.moving"
        )
    train, y = train[known], y[known]
    order = np.lexsort((train.tick, train.segment))
    return train[order], y[order]


def _mean(y_WC: np.ndarray) -> np.ndarray:
    return y_WC.mean(0)


def _mode(y_WC: np.ndarray) -> np.ndarray:
    values, counts = np.unique(y_WC[:, 0], return_counts=True)
    return values[[counts.argmax()]]


def _nearest(times: np.ndarray, at: np.ndarray) -> np.ndarray:
    hi = np.clip(np.searchsorted(times, at), 0, len(times) - 1)
    lo = np.maximum(hi - 1, 0)
    return np.where(np.abs(at - times[lo]) <= np.abs(times[hi] - at), lo, hi)


def _by_trial_time(train: Windows, y: np.ndarray, test: Windows, average, kind: str) -> np.ndarray | None:
    """Average over training segments by time since their start; None where no two of them share a time."""
    ticks, inverse, counts = np.unique(train.tick, return_inverse=True, return_counts=True)
    if counts.max() < 2:
        return None
    profile = np.stack([average(y[inverse == k]) for k in range(len(ticks))])
    if kind == "classification":
        return profile[_nearest(ticks, test.tick)]
    return np.stack([np.interp(test.tick, ticks, column) for column in profile.T], 1)


def _autoregression(train: Windows, y, times, at, shape: WindowShape, order: int) -> np.ndarray | None:
    """(W_test, C), or None where no stretch of training labels is long enough to fit the order."""
    step = shape.current
    joined = (np.diff(train.segment) == 0) & (np.diff(train.tick) == step)
    # age[w]: labels before w in its unbroken stretch
    breaks = np.concatenate([[0], np.flatnonzero(~joined) + 1])
    age = np.arange(len(y)) - breaks[np.searchsorted(breaks, np.arange(len(y)), side="right") - 1]
    rows = np.flatnonzero(age >= order)
    width = order * y.shape[1]
    if len(rows) < 2 * (width + 1):
        return None
    mean, spread = y.mean(0), np.where(y.std(0) > 0, y.std(0), 1.0)
    z = (y - mean) / spread
    lagged = z[rows[:, None] - np.arange(1, order + 1)].reshape(len(rows), width)
    gram = lagged.T @ lagged
    gram[np.diag_indices(width)] += _RIDGE * (np.trace(gram) / width + 1e-12)
    weight = np.linalg.solve(gram, lagged.T @ z[rows])
    low, high = z.min(0), z.max(0)
    out = np.zeros((len(at), y.shape[1]))  # the mean, where no stretch lies before
    border = np.searchsorted(times, at, side="right") - 1
    # a stretch shorter than the order cannot start a rollout: the last one that can does
    able = np.where(age >= order - 1, np.arange(len(y)), -1)
    border = np.where(border >= 0, np.maximum.accumulate(able)[np.maximum(border, 0)], -1)
    for start in np.unique(border[border >= 0]):
        here = np.flatnonzero(border == start)
        steps = np.rint((at[here] - times[start]) / (step * shape.dt)).astype(int)
        steps = np.clip(steps, 1, _MAX_STEPS)
        path, recent = np.empty((steps.max() + 1, y.shape[1])), z[start - np.arange(order)]
        for k in range(1, len(path)):
            path[k] = np.clip(recent.ravel() @ weight, low, high)
            recent = np.concatenate([path[k][None], recent[:-1]])
        out[here] = path[steps]
    return out * spread + mean
