"""Linear decoders with lags: ridge, Wiener cascade, lasso, generalised linear models. Through scikit-learn.

Penalties are per moment, on standardised features and labels: moments that overlap say nothing new, however many there
are.

Shape suffixes: V values, F features, C columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LogisticRegression, PoissonRegressor, Ridge

from neuroformer.baselines.features import Samples
from neuroformer.baselines.ridge import RidgePath

Predict = Callable[[Samples], np.ndarray]
RIDGE_PENALTIES = tuple(10.0 ** (k / 2) for k in range(-8, 5))
LOGISTIC_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # C of scikit-learn
LASSO_PENALTIES = tuple(10.0 ** (k / 2) for k in range(-7, 0))
LEAST_SPREAD = 0.2
POISSON_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
DEGREES = (2, 3, 4)  # of the polynomial of a Wiener cascade


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


def ridge_path(x_VF: np.ndarray, y_VC: np.ndarray, penalties) -> Iterator[tuple[float, np.ndarray]]:
    """(penalty per moment, (F, C) weights) of ridge regression without intercept; see :class:`RidgePath`."""
    yield from zip(penalties, RidgePath(x_VF).weights(y_VC, [p * len(x_VF) for p in penalties]), strict=True)


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
        # one decomposition solves every penalty; the final fit is scikit-learn's
        scale = Standard(train)
        seen = scale.x(held)
        for penalty, weights in ridge_path(scale.x(train), scale.y(train), RIDGE_PENALTIES):
            yield penalty, scale.back(seen @ weights)

    def fit(self, train: Samples, kind: str, params: dict, setting: float) -> Predict:
        if kind == "classification":
            return logistic(train, 1 / setting)
        scale = Standard(train)
        model = Ridge(alpha=setting * len(train)).fit(scale.x(train), scale.y(train))
        return lambda samples: scale.back(model.predict(scale.x(samples)))


def logistic(train: Samples, strength: float) -> Predict:
    """Class labels by logistic regression; where only one class was seen, that class."""
    classes = np.unique(train.y_VC[:, 0])
    if len(classes) == 1:
        return lambda samples: np.full((len(samples), 1), classes[0])
    scale = Standard(train)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=500)
    model.fit(scale.x(train), train.y_VC[:, 0])
    return lambda samples: np.asarray(model.predict(scale.x(samples)))[:, None]


class WienerCascadeMethod:
    """A Wiener cascade: ridge regression, and a polynomial of its value (Hunter and Korenberg, Biological Cybernetics
    1986)."""

    name = "wiener_cascade"

    def candidates(self, kind: str) -> list[dict]:
        return [{}]

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[tuple, np.ndarray]]:
        scale = Standard(train)
        x, y, seen = scale.x(train), scale.y(train), scale.x(held)
        for penalty, weights in ridge_path(x, y, RIDGE_PENALTIES):
            for degree in DEGREES:
                yield (penalty, degree), scale.back(_polynomials(x @ weights, y, degree)(seen @ weights))

    def fit(self, train: Samples, kind: str, params: dict, setting: tuple[float, int]) -> Predict:
        scale, (penalty, degree) = Standard(train), setting
        y = scale.y(train)
        model = Ridge(alpha=penalty * len(train)).fit(scale.x(train), y)
        linear = lambda samples: model.predict(scale.x(samples)).reshape(len(samples), -1)
        static = _polynomials(linear(train), y, degree)
        return lambda samples: scale.back(static(linear(samples)))


def _polynomials(linear_VC: np.ndarray, y_VC: np.ndarray, degree: int) -> Callable[[np.ndarray], np.ndarray]:
    """A polynomial for each column; beyond the values that it was fitted on, it stays where it was."""
    low, high = linear_VC.min(0), linear_VC.max(0)
    each = [np.polynomial.Polynomial.fit(a, b, degree) for a, b in zip(linear_VC.T, y_VC.T, strict=True)]
    return lambda z: np.stack([p(column) for p, column in zip(each, np.clip(z, low, high).T, strict=True)], 1)


class LassoMethod:
    """L1-penalised regression, one penalty for all columns."""

    name = "lasso"

    def candidates(self, kind: str) -> list[dict]:
        return [{}]

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[float, np.ndarray]]:
        yield from ((penalty, predict(held)) for penalty, predict in self._fits(train, LASSO_PENALTIES[::-1]))

    def fit(self, train: Samples, kind: str, params: dict, setting: float) -> Predict:
        return next(self._fits(train, (setting,)))[1]

    def _fits(self, train: Samples, penalties) -> Iterator[tuple[float, Predict]]:
        scale = Standard(train)
        # in single precision scikit-learn's own check of the products fails now and then
        x, y = np.asfortranarray(scale.x(train), dtype=np.float64), scale.y(train)
        gram = x.T @ x if x.shape[1] <= len(x) else False
        model = Lasso(precompute=gram, fit_intercept=False, max_iter=300, tol=1e-3, warm_start=True)
        for penalty in penalties:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.set_params(alpha=penalty).fit(x, y)
            yield penalty, lambda samples: scale.back(model.predict(scale.x(samples)))


class GlmMethod:
    """A generalised linear model for each column: Poisson with a log link where labels are never negative (running speed),
    else Gaussian with the identity link, which is ridge on standardised features."""

    name = "glm"

    def candidates(self, kind: str) -> list[dict]:
        return [{}]

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[float, np.ndarray]]:
        if (train.y_VC.min(0) < 0).all():  # one decomposition solves every penalty
            scale = Standard(train)
            seen = scale.x(held)
            for penalty, weights in ridge_path(scale.x(train), scale.y(train), POISSON_PENALTIES):
                yield penalty, scale.back(seen @ weights)
            return
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
