"""A layer of features against a group of units: a score, what it is on part of the data, and its null.

Shape suffixes: L latencies, R repeats, N moments, C conditions, U units, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from neuroformer.comparison import rsa
from neuroformer.comparison.ceilings import LEAST_RELIABILITY, halves, reliability, spearman_brown
from neuroformer.comparison.cka import kernel
from neuroformer.comparison.predictivity import FoldSums, Predicted, Predictor, reduced
from neuroformer.comparison.responses import ComparedMoments

MOST_CONDITIONS = 300
MOST_SPLITS = 5  # of the trials, for ceilings of similarity


@dataclass(frozen=True, eq=False)
class Target:
    """Responses of a group of units.

    Attributes
    ----------
    name : "all", or a value of a column of the units table
    rows : their places in the recording
    y_LRNU : counts at every latency
    """

    name: str
    rows: np.ndarray
    y_LRNU: list[np.ndarray]
    moments: ComparedMoments
    reliability_LU: np.ndarray = field(init=False)
    mean_LNU: np.ndarray = field(init=False)

    def __post_init__(self):
        fold = self.moments.fold_N
        object.__setattr__(self, "reliability_LU", np.stack([reliability(y, fold) for y in self.y_LRNU]))
        object.__setattr__(self, "mean_LNU", np.stack([y.mean(0, dtype=np.float64) for y in self.y_LRNU]))

    @property
    def repeats(self) -> int:
        return len(self.y_LRNU[0])


@dataclass(frozen=True, eq=False)
class Measured:
    """One score.

    Attributes
    ----------
    metric : its name in tables
    of : (blocks, units) to (score, normalised score); None: of all
    null : a generator to the score of shuffled stimuli
    ceiling : what the score of a perfect, noiseless prediction can be expected to be; NaN of responses that do not repeat
    latency : place in the list of latencies: the most frequent one
    per_unit : (U,) scores of single units, where it has any
    """

    metric: str
    of: Callable[[np.ndarray | None, np.ndarray | None], tuple[float, float]]
    null: Callable[[np.random.Generator], float]
    ceiling: float
    latency: int
    per_unit: np.ndarray | None = None


# -- predictivity ----------------------------------------------------------------------------------------------


def predictivity(x_ND: np.ndarray, targets: list[Target], method: str) -> Iterator[tuple[Target, Measured]]:
    """Of every target (the first one is all units): median over units of r on held-out stimuli; normalised: the median of ``r |r| / reliability``.

    The share of the explainable variance that is explained (Schoppe et al. 2016), which Brain-Score calls ceiled. Units
    whose reliability is below 0.1 have no meaningful share, and are left out of that median.
    """
    moments = targets[0].moments
    predictor = Predictor(reduced(x_ND), moments, method)
    every = predictor(targets[0].mean_LNU)
    for target in targets:
        # units of a ridge do not know of each other; components are those of a group
        place = np.searchsorted(targets[0].rows, target.rows)
        found = every.of(place) if method == "ridge" or target is targets[0] else predictor(target.mean_LNU)
        yield target, _regression(predictor, found, target, method)


def _regression(predictor: Predictor, found: Predicted, target: Target, method: str) -> Measured:
    sums = FoldSums.of(found, target.moments)
    units = np.arange(len(target.rows))
    reliable_U = target.reliability_LU[found.latency_FU, units].mean(0)
    counts_U = reliable_U >= LEAST_RELIABILITY

    def of(blocks: np.ndarray | None, some: np.ndarray | None) -> tuple[float, float]:
        r_U = sums.r(blocks)
        keep = np.ones(len(r_U), bool) if some is None else np.isin(units, some)
        share = np.where(counts_U, r_U * np.abs(r_U) / np.where(counts_U, reliable_U, 1.0), np.nan)
        return median(r_U[keep]), median(share[keep])

    def null(rng: np.random.Generator) -> float:
        rows = target.moments.shuffled(rng)
        shuffled = predictor.shuffled(target.mean_LNU, found, rows)
        return median(FoldSums.of(shuffled, target.moments).r())

    ceiling = median(np.sqrt(reliable_U))
    return Measured(method, of, null, ceiling, int(np.bincount(found.latency_FU.ravel()).argmax()), sums.r())


def median(x: np.ndarray) -> float:
    known = x[np.isfinite(x)]
    return float(np.median(known)) if len(known) else float("nan")


# -- similarity ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Conditions:
    """What representations are compared over: moments, joined within their stimulus where there are too many.

    Attributes
    ----------
    of_N : condition of each moment; -1: left out
    block_C : the block of each condition
    """

    of_N: np.ndarray
    block_C: np.ndarray

    @classmethod
    def among(cls, moments: ComparedMoments) -> Conditions:
        stimuli, number = np.unique(moments.stimulus_N, return_counts=True)
        of_N = np.arange(len(moments))
        if (
            len(moments) > MOST_CONDITIONS and number.max() == 1
        ):  # single images, evenly spread: their means mean nothing
            kept = np.unique(np.linspace(0, len(moments) - 1, MOST_CONDITIONS).astype(int))
            of_N = np.full(len(moments), -1)
            of_N[kept] = np.arange(len(kept))
        elif len(moments) > MOST_CONDITIONS:
            join = -(-len(moments) // MOST_CONDITIONS) * moments.width
            stretch = np.floor(moments.place_N / join + 1e-9)
            key = np.stack([moments.stimulus_N, stretch])
            of_N = np.unique(key, axis=1, return_inverse=True)[1].ravel()
        first = np.array([np.flatnonzero(of_N == c)[0] for c in range(of_N.max() + 1)])
        return cls(of_N, moments.block_N[first])

    def mean(self, x_N: np.ndarray) -> np.ndarray:
        """(C, ...) means over the moments of each condition."""
        keep = self.of_N >= 0
        total = np.zeros((len(self.block_C), *x_N.shape[1:]))
        np.add.at(total, self.of_N[keep], x_N[keep])
        number = np.bincount(self.of_N[keep], minlength=len(total))
        return total / number.reshape(-1, *[1] * (x_N.ndim - 1))

    def shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """(C,) rows in which blocks have changed places."""
        rows = [np.flatnonzero(self.block_C == b) for b in np.unique(self.block_C)]
        return np.concatenate([rows[k] for k in rng.permutation(len(rows))])


@dataclass(frozen=True)
class Similarity:
    """A measure as the cosine of two matrices of conditions by conditions: so made, they only change places where conditions
    do.

    Attributes
    ----------
    features : (C, D) to (C, C)
    responses : (R, C, U) to (C, C)
    least : repeats that it needs
    """

    features: Callable[[np.ndarray], np.ndarray]
    responses: Callable[[np.ndarray], np.ndarray]
    least: int = 1

    def __call__(self, x_CD: np.ndarray, y_RCU: np.ndarray) -> float:
        return rsa.cosine(self.features(x_CD), self.responses(y_RCU))


def _ranks(distance) -> Similarity:
    return Similarity(lambda x: rsa.ranks(distance(x)), lambda y: rsa.ranks(distance(y.mean(0))))


SIMILARITIES = {
    "rsa": {
        "rsa_correlation": _ranks(rsa.correlation_distance),
        "rsa_euclidean": _ranks(rsa.euclidean),
        "rsa_crossnobis": Similarity(
            lambda x: rsa.second_moments(rsa.euclidean(x)), lambda y: rsa.second_moments(rsa.crossnobis(y)), 2
        ),
    },
    "cka": {"cka": Similarity(kernel, lambda y: kernel(y.mean(0)))},
}


def similarity(x_ND: np.ndarray, target: Target, metric: str) -> Iterator[Measured]:
    """Scores of one kind between features and the population response, at the latency where each is largest.

    - ``rsa_correlation``: dissimilarity 1 - r, Spearman's correlation of dissimilarities
    - ``rsa_euclidean``: squared Euclidean, Spearman's correlation
    - ``rsa_crossnobis``: squared Euclidean of features against crossnobis distances of responses (whitened by the noise of
      each repeat around the mean), whitened correlation; only where stimuli repeat
    - ``cka``: :func:`neuroformer.comparison.cka.linear_cka`
    """
    conditions = Conditions.among(target.moments)
    x_CD = conditions.mean(x_ND)
    y_LRCU = [np.stack([conditions.mean(y.astype(np.float32)) for y in y_RNU]) for y_RNU in target.y_LRNU]
    for name, measure in SIMILARITIES[metric].items():
        if target.repeats >= measure.least:
            y = [_whitened(y) for y in y_LRCU] if name == "rsa_crossnobis" else y_LRCU
            yield _similar(name, measure, x_CD, y, conditions)


def _whitened(y_RCU: np.ndarray) -> np.ndarray:
    """Responses in which the noise of repeats has unit covariance: crossnobis distances are then Euclidean."""
    values, vectors = np.linalg.eigh(rsa.noise_precision(y_RCU))
    return y_RCU @ (vectors * np.sqrt(np.maximum(values, 0)))


def _similar(
    name: str, measure: Similarity, x_CD: np.ndarray, y_LRCU: list[np.ndarray], conditions: Conditions
) -> Measured:
    of_x, of_y = measure.features(x_CD), [measure.responses(y) for y in y_LRCU]
    latency = int(np.argmax(np.nan_to_num([rsa.cosine(of_x, y) for y in of_y], nan=-np.inf)))
    y_RCU = y_LRCU[latency]
    reliable = _reliability(measure, y_RCU)

    def of(blocks: np.ndarray | None, some: np.ndarray | None) -> tuple[float, float]:
        keep = slice(None) if blocks is None else np.isin(conditions.block_C, blocks)
        y = y_RCU[:, keep] if some is None else y_RCU[:, keep][:, :, some]
        value = measure(x_CD[keep], y)
        return value, value * abs(value) / reliable if reliable >= LEAST_RELIABILITY else float("nan")

    def null(rng: np.random.Generator) -> float:
        rows = conditions.shuffled(rng)
        return max(rsa.cosine(of_x, y[np.ix_(rows, rows)]) for y in of_y)

    return Measured(name, of, null, float(np.sqrt(reliable)), latency)


def _reliability(measure: Similarity, y_RCU: np.ndarray) -> float:
    """Of one half of the repeats with the other, corrected to all of them after Spearman and Brown."""
    repeats = len(y_RCU)
    if repeats < 2 * measure.least:
        return float("nan")
    each = [
        rsa.cosine(measure.responses(y_RCU[a]), measure.responses(y_RCU[b])) for a, b in halves(repeats)[:MOST_SPLITS]
    ]
    return float(spearman_brown(np.clip(np.mean(each), 0, 1), repeats / (repeats // 2)))
