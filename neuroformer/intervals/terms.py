"""Scores as functions of sums over values, from which leaving out a block is a subtraction.

Shape suffixes: N values in time order, M sums, S scores, F series, C columns, R repeats, L classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from neuroformer.intervals.estimate import Scale


@dataclass(frozen=True, eq=False)
class Terms:
    """Scores as a function of sums over values, from which leaving out a block is a subtraction.

    Attributes
    ----------
    sums_NM : of each value, in time order
    value : (..., M) sums to (..., S) scores
    series_NF : what else the blocks must be long against: labels and errors
    events_NE : whether a value is of what must occur in six blocks at least, as every class must; None: nothing must
    """

    sums_NM: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]
    series_NF: np.ndarray
    scale: Scale = "plain"
    events_NE: np.ndarray | None = None

    def of_all(self) -> np.ndarray:
        """(S,) the scores of all values."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.atleast_1d(self.value(self.sums_NM.sum(0)))

    def minus(self, other: Terms) -> Terms:
        """The paired difference of two scores of the same values: both sides lose the same blocks."""
        split = self.sums_NM.shape[1]
        return Terms(
            np.concatenate([self.sums_NM, other.sums_NM], 1),
            lambda sums: self.value(sums[..., :split]) - other.value(sums[..., split:]),
            np.concatenate([self.series_NF, other.series_NF], 1),
            events_NE=self.events_NE,
        )


def target_terms(
    kind: str, true_NC: np.ndarray, predicted: np.ndarray, period: float = 0.0, classes: Sequence[float] = ()
) -> Terms:
    """:func:`neuroformer.metrics.target_score`, then the same of every column (or the recall of every class).

    Parameters
    ----------
    true_NC : (N, C) in time order, without missing labels
    predicted : (N, C), or (N, R, C) of several repeats (seeds, draws), over whose scores the mean is taken
    period : of circular values; 0: a turn of 2 pi
    classes : labels whose recall is asked for
    """
    predicted_NRC = predicted if predicted.ndim == 3 else predicted[:, None]
    if kind == "classification":
        return _recall_terms(true_NC[:, 0], predicted_NRC[:, :, 0], classes)
    if kind == "circular":
        return _circular_terms(true_NC, predicted_NRC, period or 2 * np.pi)
    y_NC = true_NC - (true_NC.mean(0) if len(true_NC) else 0)
    error_NX = (predicted_NRC - true_NC[:, None]).reshape(len(true_NC), predicted_NRC.shape[1] * true_NC.shape[1])
    columns, one = y_NC.shape[1], np.ones((len(y_NC), 1))

    def value(sums: np.ndarray) -> np.ndarray:
        n, y, yy = sums[..., :1], sums[..., 1 : 1 + columns], sums[..., 1 + columns : 1 + 2 * columns]
        wrong = sums[..., 1 + 2 * columns :].reshape(*sums.shape[:-1], -1, columns).mean(-2)
        return _with_mean(1 - _ratio(wrong, yy - y * y / n))

    sums_NM = np.concatenate([one, y_NC, y_NC**2, error_NX**2], 1)
    return Terms(sums_NM, value, np.concatenate([y_NC, error_NX], 1), "explained")


def _circular_terms(true_NC: np.ndarray, predicted_NRC: np.ndarray, period: float) -> Terms:
    angle_NC = true_NC * (2 * np.pi / period)
    columns = true_NC.shape[1]
    error = predicted_NRC - true_NC[:, None]
    error = (error * (2 * np.pi / period)).reshape(len(true_NC), predicted_NRC.shape[1] * columns)
    cos, sin = np.cos(angle_NC), np.sin(angle_NC)

    def value(sums: np.ndarray) -> np.ndarray:
        n, c, s = sums[..., :1], sums[..., 1 : 1 + columns], sums[..., 1 + columns : 1 + 2 * columns]
        wrong = sums[..., 1 + 2 * columns :].reshape(*sums.shape[:-1], -1, columns).mean(-2)
        return _with_mean(1 - _ratio(wrong, n - np.hypot(c, s)))

    sums_NM = np.concatenate([np.ones((len(cos), 1)), cos, sin, 1 - np.cos(error)], 1)
    return Terms(sums_NM, value, np.concatenate([cos, sin, np.cos(error), np.sin(error)], 1), "explained")


def _recall_terms(true_N: np.ndarray, predicted_NR: np.ndarray, classes: Sequence[float]) -> Terms:
    occur = np.unique(true_N)
    labels = np.concatenate([occur, [c for c in classes if c not in occur]])
    is_NL = (true_N[:, None] == labels).astype(np.float64)
    hit_NL = is_NL * (predicted_NR == true_N[:, None]).mean(1, keepdims=True)
    place = [int(np.flatnonzero(labels == c)[0]) for c in classes]

    def value(sums: np.ndarray) -> np.ndarray:
        recall = _ratio(sums[..., len(labels) :], sums[..., : len(labels)])
        every = recall[..., : len(occur)].mean(-1, keepdims=True)  # without a block that holds all of a class: NaN
        balanced = every if len(occur) > 1 else np.full_like(every, np.nan)
        return np.concatenate([balanced, recall[..., place]], -1)

    mine_NL = is_NL[:, : len(occur)]
    return Terms(np.concatenate([is_NL, hit_NL], 1), value, np.concatenate([mine_NL, hit_NL], 1), "share", mine_NL)


def ratio_terms(over_NR: np.ndarray, under_NR: np.ndarray, factor: float = 1.0, scale: Scale = "plain") -> Terms:
    """``factor`` times the sum of one series over that of another; of (N, R) repeats, the mean over repeats.

    Blocks must be long against both: where the lower one (spikes) comes in slow waves, a ratio that holds all along is of
    few of them.
    """
    over, under = (np.asarray(x, np.float64) for x in (over_NR, under_NR))
    over, under = (x[:, None] if x.ndim == 1 else x for x in (over, under))
    repeats = over.shape[1]

    def value(sums: np.ndarray) -> np.ndarray:
        return factor * _ratio(sums[..., :repeats], sums[..., repeats:]).mean(-1, keepdims=True)

    both_NM = np.concatenate([over, under], 1)
    return Terms(both_NM, value, both_NM, scale)


def error_terms(error_N: np.ndarray, true_NC: np.ndarray) -> Terms:
    """Median and mean of absolute errors. The median is read off a histogram, whose bins are fine where it can lie once a
    block of values is left out.

    Parameters
    ----------
    error_N : 0 or more, in time order
    true_NC : the labels, which blocks must be long against, too
    """
    edges = np.unique(np.quantile(error_N, np.linspace(0.35, 0.65, 61))) if len(error_N) else np.zeros(1)
    one_hot = np.eye(len(edges) + 1)[np.searchsorted(edges, error_N, side="right")]
    series = np.concatenate([error_N[:, None], true_NC], 1)

    def value(sums: np.ndarray) -> np.ndarray:
        number = sums[..., :-1].sum(-1)
        below = sums[..., :-1].cumsum(-1)[..., :-1] / number[..., None]
        median = np.array([np.interp(0.5, row, edges) for row in below.reshape(-1, len(edges))])
        return np.stack([median.reshape(number.shape), sums[..., -1] / number], -1)

    return Terms(np.concatenate([one_hot, error_N[:, None]], 1), value, series, "positive")


def pearson_terms(true_N: np.ndarray, predicted_N: np.ndarray) -> Terms:
    """Pearson's r of two series."""
    a, b = true_N - true_N.mean(), predicted_N - predicted_N.mean()

    def value(sums: np.ndarray) -> np.ndarray:
        n, a, b, aa, ab, bb = np.moveaxis(sums, -1, 0)
        return ((ab - a * b / n) / np.sqrt((aa - a * a / n) * (bb - b * b / n)))[..., None]

    return Terms(np.stack([np.ones(len(a)), a, b, a * a, a * b, b * b], 1), value, np.stack([a, b], 1), "correlation")


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.full(np.broadcast(over, under).shape, np.nan), where=under > 1e-12)


def _with_mean(each: np.ndarray) -> np.ndarray:
    """The mean over columns that vary, then every column."""
    known = np.isfinite(each)
    total, number = np.where(known, each, 0.0).sum(-1, keepdims=True), known.sum(-1, keepdims=True)
    return np.concatenate([_ratio(total, number), each], -1)
