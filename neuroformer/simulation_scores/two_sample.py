"""Can a classifier tell real from simulated trials? (a classifier two-sample test: Lopez-Paz and Oquab, ICLR 2017)

Shape suffixes: T trials, N segments, F features, B bins, U units.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from neuroformer.intervals import left_out, over_trials
from neuroformer.metrics import balanced_accuracy
from neuroformer.simulation_scores.trials import Trials

SEGMENT_S, WIDTH_S = 2.0, 0.05
FOLDS = 5


@dataclass(frozen=True, eq=False)
class TwoSample:
    """Out-of-fold predictions and their scores.

    Attributes
    ----------
    accuracy : by classifier, balanced accuracy; 0.5 is chance
    best : the higher one
    simulated_N, group_N : label and source trial of every segment
    predicted : by classifier, (N,) bool
    """

    accuracy: dict[str, float]
    simulated_N: np.ndarray
    group_N: np.ndarray
    predicted: dict[str, np.ndarray]

    @property
    def best(self) -> float:
        return max(self.accuracy.values())

    def interval(self) -> tuple[float, float]:
        """95 % interval of :attr:`best` over source trials, of which some are left out with their imitations.

        The classifiers are given: how they would differ if they had been trained on other trials is not in it.
        """
        groups, place_N = np.unique(self.group_N, return_inverse=True)
        without = [self._best_of(~gone[place_N]) for gone in left_out(len(groups))]
        low, high = over_trials([self.best], np.array(without)[:, None], len(groups), ["share"])[0].ends()[:, 0]
        return float(low), float(high)

    def _best_of(self, kept_N: np.ndarray) -> float:
        truth = self.simulated_N[kept_N]
        return max(balanced_accuracy(truth, p[kept_N]).score for p in self.predicted.values())


def segment_features(trials: Trials, units: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Square-root unit counts and population statistics of every 2 s.

    The statistics are, of the population count in 50 ms bins: mean, standard deviation, skewness, largest and
    share of silent bins, autocorrelation at one and two bins; of the units: the mean Fano factor, the mean
    correlation of a unit with the rest of the population, and the mean autocorrelation at one bin.

    Parameters
    ----------
    units : rows of those that are looked at; None: all

    Returns
    -------
    (N, U + 10) float64, and (N,) the source trial of each segment
    """
    join = max(1, round(WIDTH_S / trials.dt))
    length = max(1, round(SEGMENT_S / (join * trials.dt)))
    rows, groups = [], []
    units = np.arange(trials.num_units) if units is None else units
    for source, x in zip(trials.source, trials.counts(join), strict=True):
        for k in range(len(x) // length):
            rows.append(_features(x[k * length : (k + 1) * length, units].astype(np.float64)))
            groups.append(source)
    num_features = len(units) + 10
    return np.array(rows).reshape(-1, num_features), np.array(groups, np.int64)


def _features(x_BU: np.ndarray) -> np.ndarray:
    total = x_BU.sum(1)
    z = total - total.mean()
    spread = total.std()
    skew = float((z**3).mean() / max(spread, 1e-9) ** 3)
    auto = [float((z[k:] * z[:-k]).sum() / max((z * z).sum(), 1e-9)) for k in (1, 2)]
    mean_U, centered = x_BU.mean(0), x_BU - x_BU.mean(0)
    power = (centered**2).sum(0)
    fired = power > 0
    fano = float((power[fired] / len(x_BU) / mean_U[fired]).mean()) if fired.any() else 0.0
    rest = z[:, None] - centered
    both = (centered * rest).sum(0) / np.sqrt(np.maximum(power * (rest**2).sum(0), 1e-9))
    lagged = (centered[1:] * centered[:-1]).sum(0) / np.maximum(power, 1e-9)
    shared = [float(v[fired].mean()) if fired.any() else 0.0 for v in (both, lagged)]
    summary = [total.mean(), spread, skew, total.max(), (total == 0).mean(), *auto, fano, *shared]
    return np.concatenate([np.sqrt(x_BU.sum(0)), summary])


def two_sample(real: Trials, simulated: Trials, seed: int = 0) -> TwoSample | None:
    """Gradient boosting and logistic regression try to tell 2 s segments of ``simulated`` from those of ``real``.

    A trial and all its imitations are in one fold, so that no segment is recognised by its trial. Classes have
    equal weight, and only units that were observed in all trials count. None where there are fewer than two source
    trials or no such unit, or no whole segment on either side.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    units = np.flatnonzero(real.weight_TU.all(0) & simulated.weight_TU.all(0))
    if len(units) == 0:
        return None
    (a, group_a), (b, group_b) = segment_features(real, units), segment_features(simulated, units)
    x, group = np.concatenate([a, b]), np.concatenate([group_a, group_b])
    y = np.arange(len(x)) >= len(a)
    folds = min(FOLDS, len(np.unique(group)))
    if folds < 2 or len(a) == 0 or len(b) == 0:
        return None
    predicted = {"gradient_boosting": np.zeros(len(x), bool), "logistic_regression": np.zeros(len(x), bool)}
    splits = list(GroupKFold(folds, shuffle=True, random_state=seed).split(x, y, group))
    if any(y[train].all() or not y[train].any() for train, _ in splits):
        return None
    models = {
        "gradient_boosting": HistGradientBoostingClassifier(
            max_iter=150,
            learning_rate=0.08,
            max_leaf_nodes=8,
            min_samples_leaf=10,
            l2_regularization=1.0,
            class_weight="balanced",
            random_state=seed,
        ),
        "logistic_regression": make_pipeline(
            StandardScaler(), LogisticRegression(C=0.03, class_weight="balanced", max_iter=2000)
        ),
    }
    # a tree of a few hundred segments is grown in less time than threads need to wait for each other
    with threadpool_limits(1):
        for (train, test), (name, model) in itertools.product(splits, models.items()):
            predicted[name][test] = model.fit(x[train], y[train]).predict(x[test])
    accuracy = {name: balanced_accuracy(y, p).score for name, p in predicted.items()}
    return TwoSample(accuracy, y, group, predicted)
