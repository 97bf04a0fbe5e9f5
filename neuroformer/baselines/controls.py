"""Controls that score without neural data: behavior guessed from training labels alone.

Behavior is smooth, and trials repeat: only what a decoder adds to the best of these is worth anything. No function
here is given a spike or a held-out label.

Shape suffixes: W windows, C columns of a variable.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from neuroformer.data.windows import SpikeIndex, Windows, WindowShape
from neuroformer.recording.clock import interval_of

AUTOREGRESSION_ORDERS = (1, 4, 16)  # windows back
MEANINGS = {
    "mean": "the mean (the most common) training label",
    "nearest": "the training label nearest in time",
    "linear": "a line between the training labels around the moment",
    "hold": "the last training label before the moment",
    "trial_time": "the mean (the most common) training label at the same time since the trial's start",
    "autoregression": "the training labels before the held-out stretch, carried on",
    "shuffled": "ridge on spikes whose link to behavior is cut",
    "model_without_spikes": "the same model, trained without a spike",
}
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


def meaning(name: str) -> str:
    """What a control knows, in words."""
    return MEANINGS["autoregression" if name.startswith("autoregression_") else name]


def trial_wise(
    trials: np.ndarray, at_W: np.ndarray, labels_WC: np.ndarray, at_V: np.ndarray, true_VC: np.ndarray
) -> str:
    """What to know of a variable with one value per trial whose held-out values its training labels tell; else empty.

    Its value follows from the last training label before, if trials of one value come in a row, or if one trial lies in
    both parts: then no decoder can be told from one that sees no spike.

    Parameters
    ----------
    trials : (N, 2) start and stop
    at_W, labels_WC : seconds and labels of training moments; NaN where missing
    at_V, true_VC : of held-out ones
    """
    sides = []
    for at, label in ((at_W, labels_WC), (at_V, true_VC)):
        known = np.flatnonzero(np.isfinite(label).all(1))
        known = known[np.argsort(at[known], kind="stable")]
        # a label is that of its last instant: one on a border belongs to the trial that ends there
        sides.append((at[known], label[known], interval_of(at[known] - 1e-6, trials)))
    (at, label, trial), (held_at, true, held_trial) = sides
    if len(at) == 0 or len(held_at) == 0 or not (_constant(trial, label) and _constant(held_trial, true)):
        return ""
    last = np.searchsorted(at, held_at, side="right") - 1
    before = last >= 0
    same = before & (label[last] == true).all(1)
    if same.mean() < 0.9 or (true == true[0]).all():
        return ""
    within = (before & (trial[last] == held_trial)).mean()
    why = "neighboring trials are alike" if within < 0.5 else f"{within:.0%} of these lie in the trial of that label"
    return (
        f"it has one value per trial, which for {same.mean():.0%} of the held-out moments is that of the last training label "
        f"({why}): such a score needs no spike; hold out whole trials whose neighbors differ, or whole stretches of the session"
    )


def _constant(trial: np.ndarray, label_WC: np.ndarray) -> bool:
    """Whether labels stay the same within trials, and trials have several of them."""
    inside = trial >= 0
    if inside.mean() < 0.9 or inside.sum() < 2 * len(np.unique(trial[inside])):
        return False
    trial, label_WC = trial[inside], label_WC[inside]
    follows = np.diff(trial) == 0
    return bool((np.diff(label_WC, axis=0)[follows] == 0).all())


def _labelled(train: Windows, labels_WC: np.ndarray) -> tuple[Windows, np.ndarray]:
    """The windows that have a label, and (W, C) labels, in the order of time."""
    y = np.asarray(labels_WC, dtype=np.float64)
    y = y[:, None] if y.ndim == 1 else y
    if len(y) != len(train):
        raise ValueError(f"there are {len(train)} training windows but {len(y)} labels; give one label per window")
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
