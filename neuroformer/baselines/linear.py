"""Linear decoders with lags: ridge, lasso, generalised linear models. Through scikit-learn.

Shape suffixes: V values, F features, C columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LogisticRegression, PoissonRegressor, Ridge

from neuroformer.baselines.features import Samples

Predict = Callable[[Samples], np.ndarray]
RIDGE_PENALTIES = tuple(10.0 ** (k / 2) for k in range(-2, 13))
LOGISTIC_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # C of scikit-learn, on standardised features
LASSO_PENALTIES = tuple(10.0 ** (k / 2) for k in range(-7, 0))  # on standardised features and labels
LEAST_SPREAD = 0.2
POISSON_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)


class Standard:
    """Features and labels in units of the training spread.

    A unit that hardly fired in training has a tiny spread, and one spike in the test part would be an enormous
    feature: no spread counts as less than a fifth of the root mean square over features.
    """

    def __init__(self, train: Samples):
        self.x_mean, spread = train.flat.mean(0), train.flat.std(0)
        self.x_scale = np.maximum(spread, LEAST_SPREAD * np.sqrt(np.mean(spread**2)) + 1e-9)
        self.y_mean, spread = train.y_VC.mean(0), train.y_VC.std(0)
        self.y_scale = np.where(spread > 0, spread, 1.0)

    def x(self, samples: Samples) -> np.ndarray:
        return (samples.flat - self.x_mean) / self.x_scale

    def y(self, samples: Samples) -> np.ndarray:
        return (samples.y_VC - self.y_mean) / self.y_scale

    def back(self, y: np.ndarray) -> np.ndarray:
        return y.reshape(len(y), -1) * self.y_scale + self.y_mean


class RidgeMethod:
    """Ridge regression on all lags of all units; class labels: logistic regression with balanced classes."""

    name = "ridge"

    def candidates(self, kind: str) -> list[dict]:
        return [{}]

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[float, np.ndarray]]:
        if kind == "classification":
            for strength in LOGISTIC_STRENGTHS:
                yield 1 / strength, self.fit(train, kind, params, 1 / strength)(held)
            return
        # one eigendecomposition solves every penalty; the final fit is scikit-learn's
        x_mean, y_mean = train.flat.mean(0), train.y_VC.mean(0)
        x, seen = (train.flat - x_mean).astype(np.float64), held.flat - x_mean
        values, vectors = np.linalg.eigh(x.T @ x)
        target, seen = vectors.T @ (x.T @ (train.y_VC - y_mean)), seen @ vectors
        for penalty in RIDGE_PENALTIES:
            yield penalty, seen @ (target / (np.maximum(values, 0)[:, None] + penalty)) + y_mean

    def fit(self, train: Samples, kind: str, params: dict, setting: float) -> Predict:
        if kind == "classification":
            return logistic(train, 1 / setting)
        model = Ridge(alpha=setting).fit(train.flat, train.y_VC)
        return lambda samples: model.predict(samples.flat).reshape(len(samples), -1)


def logistic(train: Samples, strength: float) -> Predict:
    """Class labels by logistic regression; where only one class was seen, that class."""
    classes = np.unique(train.y_VC[:, 0])
    if len(classes) == 1:
        return lambda samples: np.full((len(samples), 1), classes[0])
    scale = Standard(train)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=500)
    model.fit(scale.x(train), train.y_VC[:, 0])
    return lambda samples: np.asarray(model.predict(scale.x(samples)))[:, None]


class LassoMethod:
    """L1-penalised regression, a penalty for all columns."""

    name = "lasso"

    def candidates(self, kind: str) -> list[dict]:
        return [{}]

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[float, np.ndarray]]:
        for penalty in LASSO_PENALTIES[::-1]:
            yield penalty, self.fit(train, kind, params, penalty)(held)

    def fit(self, train: Samples, kind: str, params: dict, setting: float) -> Predict:
        scale = Standard(train)
        # in single precision scikit-learn's own check of the products fails now and then
        x, y = np.asfortranarray(scale.x(train), dtype=np.float64), scale.y(train)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = Lasso(alpha=setting, precompute=x.T @ x, fit_intercept=False, max_iter=300, tol=1e-3).fit(x, y)
        return lambda samples: scale.back(model.predict(scale.x(samples)))


class GlmMethod:
    """A generalised linear model a column: Poisson with a log link where labels are never negative (running speed),
    else Gaussian with the identity link, which is ridge on standardised features."""

    name = "glm"

    def candidates(self, kind: str) -> list[dict]:
        return [{}]

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[float, np.ndarray]]:
        for penalty in POISSON_PENALTIES:
            yield penalty, self.fit(train, kind, params, penalty)(held)

    def fit(self, train: Samples, kind: str, params: dict, setting: float) -> Predict:
        scale = Standard(train)
        x, models = scale.x(train), []
        high = train.y_VC.max(0)
        for y in train.y_VC.T:
            if y.min() >= 0 and y.max() > 0:
                models.append(PoissonRegressor(alpha=setting, max_iter=200, tol=1e-3).fit(x, y / y.mean()))
            else:
                models.append(Ridge(alpha=setting * len(x)).fit(x, y))
        poisson = [isinstance(m, PoissonRegressor) for m in models]
        unit = np.where(poisson, train.y_VC.mean(0), 1.0)

        def predict(samples: Samples) -> np.ndarray:
            x = scale.x(samples)
            out = np.stack([m.predict(x) for m in models], 1) * unit
            return np.where(poisson, np.minimum(out, 2 * high), out)  # an exponential must not run away

        return predict
