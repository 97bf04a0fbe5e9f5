"""Honest 95 % intervals of scores: over held-out time, over trials, over seeds.

Scores along a recording are of values that depend on their neighbours, so the number of values says nothing of how
sure a score is. :func:`over_time` cuts the values into contiguous blocks that are long against the autocorrelation
of labels and errors, leaves out one block after another (the jackknife), and takes the ends from Student's t. Where
the recording is worth too few independent values, there is no interval, and a warning says why.

Shape suffixes: N values in time order, M sums, S scores, F series, K pieces, B blocks, T trials.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

LEAST_BLOCKS, MOST_BLOCKS = 10, 20  # beyond 20, Student's t gains nothing, and shorter blocks depend on each other
PER_BLOCK = 1.2  # independent values of the slowest series, labels included, that a block must be worth
SURE = 0.7  # share of the independent values that is counted on: where few are found, by chance too many were
PIECES = 128  # in which autocorrelation is looked for; it matters down to a few per block
LEAST_PIECES = 16  # from fewer, no autocorrelation can be told
SUBSETS = 100  # of trials, left out by chance
LEAST_TRIALS = 6  # fewer tell too little of how much trials differ
SMOOTH = 0.65  # autocorrelation of neighbours from which a finer cut only shows how smooth a series is

Scale = Literal["plain", "explained", "correlation", "share", "positive"]

# on these scales a score's error is closer to a normal one and free of the bounds: to the scale, and back
_SCALES: dict[str, tuple[Callable, Callable]] = {
    "plain": (lambda x: x, lambda z: z),
    "explained": (lambda x: np.log(1 - x), lambda z: 1 - np.exp(z)),  # R2: unexplained shares are ratios
    "correlation": (np.arctanh, np.tanh),
    "share": (
        lambda x: np.arcsin(np.sqrt(np.clip(x, 0, 1))),
        lambda z: np.sin(np.clip(z, 0, np.pi / 2)) ** 2,
    ),
    "positive": (np.log, np.exp),
}


class FewBlocksWarning(RuntimeWarning):
    """A score has no interval, since the values that it is of are worth too few independent ones."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Scores and how sure they are, on the scale on which ends are taken.

    Attributes
    ----------
    value_S : the scores
    center_S, error_S : on the scale: the middle of the interval and its standard error; NaN without an interval
    degrees_S : degrees of freedom of the error
    """

    value_S: np.ndarray
    center_S: np.ndarray
    error_S: np.ndarray
    degrees_S: np.ndarray
    scale: Scale = "plain"

    def ends(self) -> np.ndarray:
        """(2, S) lower and upper end of the 95 % interval, from Student's t; NaN where there is none."""
        half = stdtrit(np.maximum(self.degrees_S, 1), 0.975) * self.error_S
        with np.errstate(all="ignore"):
            return np.sort(_SCALES[self.scale][1](np.stack([self.center_S - half, self.center_S + half])), axis=0)

    def with_error(self, error_S: np.ndarray, degrees_S: np.ndarray | float) -> Estimate:
        """The same with another independent source of error, on the scale; degrees of freedom after Satterthwaite."""
        mine, other = self.error_S**2, error_S**2
        with np.errstate(divide="ignore", invalid="ignore"):
            degrees = (mine + other) ** 2 / (mine**2 / self.degrees_S + other**2 / degrees_S)
        return dataclasses.replace(self, error_S=np.sqrt(mine + other), degrees_S=np.nan_to_num(degrees, nan=1.0))

    def with_repeats(self, values_RS: np.ndarray) -> Estimate:
        """The same, over independent repeats too (draws of labels, say), whose mean the scores are; one tells nothing.

        What blocks and repeats do together counts twice, so the interval is rather too wide than too narrow.
        """
        repeats = len(values_RS)
        if repeats < 2:
            return self
        z_RS = _SCALES[self.scale][0](np.asarray(values_RS, np.float64))
        return self.with_error(z_RS.std(0, ddof=1) / np.sqrt(repeats), repeats - 1)


# -- over time -------------------------------------------------------------------------------------------------


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


def over_time(terms: Terms, name: str) -> Estimate:
    """Scores of values in time order, and their errors over held-out time: another stretch of the same recording.

    The values are worth ``m`` independent ones: :func:`independent_values` of the slowest of labels, errors and the
    score's own influence. They are cut into ``min(20, m / 1.2)`` contiguous blocks; of fewer than ten there is no
    interval, nor where a class occurs in fewer than six of them. Leaving out one block after another gives pseudo-values, whose mean is the middle (it corrects for the
    variance that the mean of few labels takes away) and whose spread is the error. It is divided by
    ``sqrt(1 - blocks / (1.4 m))``: by so much the means of neighbouring blocks vary too little where autocorrelation
    falls off exponentially; m itself is an estimate, and a recording that just has an interval has it since m came out too
    large, so that seven tenths of it are counted on. Scores that no block changes have no interval either.

    The model is given: how it would differ with another seed or more training data is not in it.

    Warns
    -----
    FewBlocksWarning
        ``name`` has no interval.

    References
    ----------
    Künsch, Annals of Statistics 1989 (the jackknife of blocks); Flegal and Jones, Annals of Statistics 2010
    (batch means).
    """
    value_S = terms.of_all()
    center_S, error_S, degrees_S = (np.full(len(value_S), np.nan) for _ in range(3))
    own_S, worth_S, blocks_S = np.zeros(len(value_S)), np.zeros(len(value_S)), np.zeros(len(value_S), int)
    known_S = np.isfinite(value_S)
    if len(terms.sums_NM) >= LEAST_PIECES:
        pseudo_KS = _pseudo_values(terms, min(PIECES, len(terms.sums_NM)))
        own_S = independent_values(pseudo_KS)
        worth_S = np.minimum(own_S, _worth(terms.series_NF))
        blocks_S = np.minimum(MOST_BLOCKS, np.nan_to_num(worth_S) / PER_BLOCK + 1e-9).astype(int)
        blocks_S = _often_enough(terms, blocks_S)
        known_S = np.isfinite(pseudo_KS).all(0) & (np.ptp(pseudo_KS, axis=0) > 1e-12)
    for blocks in np.unique(blocks_S[known_S & (blocks_S >= LEAST_BLOCKS)]):
        these = known_S & (blocks_S == blocks)
        pseudo_BS = _pseudo_values(terms, int(blocks))[:, these]
        center_S[these], degrees_S[these] = pseudo_BS.mean(0), blocks - 1
        dependent = np.sqrt(1 - blocks / (2 * SURE * own_S[these]))
        error_S[these] = pseudo_BS.std(0, ddof=1) / np.sqrt(blocks) / dependent
    if (known_S & (blocks_S < LEAST_BLOCKS)).any():
        warnings.warn(
            f"no 95 % interval of {name}: labels, errors or scores stay alike for so long that the held-out values are "
            f"worth fewer than {round(LEAST_BLOCKS * PER_BLOCK)} independent ones, or a class occurs in too few stretches; "
            "hold out more of the recording",
            FewBlocksWarning,
            stacklevel=2,
        )
    return Estimate(value_S, center_S, error_S, degrees_S, terms.scale)


def _often_enough(terms: Terms, blocks_S: np.ndarray) -> np.ndarray:
    """Numbers of blocks; none where a class occurs in so few that its share of hits is of those few."""
    out = blocks_S.copy()
    if terms.events_NE is None:
        return out
    for blocks in np.unique(blocks_S[blocks_S >= LEAST_BLOCKS]):
        edges = _edges(len(terms.events_NE), int(blocks))
        occurs_BE = np.add.reduceat(terms.events_NE.astype(np.int64), edges[:-1], axis=0) > 0
        if occurs_BE.sum(0).min(initial=LEAST_TRIALS) < LEAST_TRIALS:
            out[blocks_S == blocks] = 0
    return out


def independent_values(x_KF: np.ndarray) -> np.ndarray:
    """(F,) how many independent values a series in time order is worth: its length over its integrated autocorrelation time.

    The time is that of a first-order autoregression, ``(1 + r) / (1 - r)``, with r corrected for its bias (Kendall,
    Biometrika 1954), of means over 1, 2, 4, ... values; the longest counts, so that fast noise does not hide a slow
    drift. Cuts at which neighbours are alike (r above 0.65) are passed over, unless none is coarser. A series that does
    not vary is worth its length; one of fewer than 16 values nothing, since none can be told.
    """
    size, number = x_KF.shape
    if size < LEAST_PIECES:
        return np.zeros(number)
    worth_F, variance_F, join = np.full(number, float(size)), x_KF.var(0), 1
    while size // join >= LEAST_PIECES:
        count = size // join
        x = x_KF[: count * join].reshape(count, join, number).mean(1)
        x = x - x.mean(0)
        power_F = (x * x).sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            r_F = (x[1:] * x[:-1]).sum(0) / power_F
            r_F = np.clip(r_F + (1 + 3 * r_F) / count, 0, 0.98)
            worth = size * variance_F / (join * power_F / count * (1 + r_F) / (1 - r_F))
        coarsest = size // (2 * join) < LEAST_PIECES
        use_F = (variance_F > 0) & np.isfinite(worth) & ((r_F < SMOOTH) | coarsest)
        worth_F = np.where(use_F, np.minimum(worth_F, worth), worth_F)
        join *= 2
    return worth_F


def _worth(series_NF: np.ndarray) -> float:
    size = min(PIECES, len(series_NF))
    edges = _edges(len(series_NF), size)
    means_KF = np.add.reduceat(series_NF, edges[:-1], axis=0) / np.diff(edges)[:, None]
    return float(independent_values(means_KF).min(initial=np.inf))


def _pseudo_values(terms: Terms, blocks: int) -> np.ndarray:
    """(blocks, S) on the scale; NaN where a score is not defined without a block."""
    sums_BM = np.add.reduceat(terms.sums_NM, _edges(len(terms.sums_NM), blocks)[:-1], axis=0)
    total_M = sums_BM.sum(0)
    to_scale = _SCALES[terms.scale][0]
    with np.errstate(all="ignore"):
        whole = to_scale(np.atleast_1d(terms.value(total_M)))
        return blocks * whole - (blocks - 1) * to_scale(terms.value(total_M - sums_BM).reshape(blocks, -1))


def _edges(size: int, parts: int) -> np.ndarray:
    return np.arange(parts + 1) * size // parts


# -- scores as functions of sums --------------------------------------------------------------------------------


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


# -- over trials and seeds ---------------------------------------------------------------------------------------


def left_out(trials: int, seed: int = 0) -> np.ndarray:
    """(100, T) trials that are left out together: a third of them, by chance; none of fewer than three."""
    rng, third = np.random.default_rng(seed), np.arange(trials) < trials // 3
    return np.stack([rng.permutation(third) for _ in range(SUBSETS)])


def over_trials(
    value_S: Sequence[float], without_DS: np.ndarray, trials: int, scales: Sequence[Scale]
) -> list[Estimate]:
    """Scores of independent trials, and their errors over trials: as many other trials of the same kind.

    The jackknife that leaves out a third at once: leaving out one trial misjudges medians, and all that averages over
    few trials (a PSTH) bends too much for the bootstrap, in whose draws trials are repeated.

    Parameters
    ----------
    value_S : of all trials
    without_DS : without each of the subsets of :func:`left_out`
    trials : how many there are
    scales : of every score

    Returns
    -------
    list of Estimate, one a score
        Without an error where there are fewer than six trials, where a score is not defined without some, or where no
        trial changes it. Trials are taken as independent: what drifts slowly over the session is not in the interval.

    References
    ----------
    Shao and Wu, Annals of Statistics 1989.
    """
    gone, out = trials // 3, []
    for value, without_D, scale in zip(value_S, np.asarray(without_DS, np.float64).T, scales, strict=True):
        with np.errstate(all="ignore"):
            center, z_D = _SCALES[scale][0](np.float64(value)), _SCALES[scale][0](without_D)
            error = np.sqrt((trials - gone) / gone) * z_D.std(ddof=1) if trials >= LEAST_TRIALS else np.nan
        if not np.isfinite(error) or error < 1e-12:
            error = np.nan
        one = lambda x: np.array([x], np.float64)
        out.append(Estimate(one(value), one(center), one(error), one(trials - 1), scale))
    return out


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of independent values (one a seed, say) and the ends of Student's t 95 % interval of it.

    ``mean +- t(0.975, n - 1) * s / sqrt(n)`` with the sample standard deviation s.

    Raises
    ------
    ValueError
        Fewer than two values, which have no spread.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"an interval of a mean needs two values or more, got shape {x.shape}")
    half = stdtrit(len(x) - 1, 0.975) * x.std(ddof=1) / np.sqrt(len(x))
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)
