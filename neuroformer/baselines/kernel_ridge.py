"""Kernel ridge regression with a Gaussian kernel: what the counts say, whatever the shape of the answer.

Shape suffixes: V values, F features, K centers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from sklearn.kernel_approximation import Nystroem

from neuroformer.baselines.features import Samples
from neuroformer.baselines.linear import Predict, Standard, ridge_path

CENTERS = 1000  # moments that the kernel rests on; up to as many moments, it is exact
SEARCH_CENTERS = 400  # likewise while hyperparameters are searched
PENALTIES = tuple(10.0 ** (k / 2) for k in range(-12, 0))  # per moment
WIDTHS = (1.0, 2.0)  # of the kernel, in root mean square distances of a moment from the mean
SPREADS = (
    "common",
    "each",
)  # features over one spread for all, or each over its own: a kernel cannot ignore noisy ones


class KernelRidgeMethod:
    """Gaussian kernel on standardised counts, resting on a sample of training moments (Nystroem: Williams and Seeger,
    NeurIPS 2000), by scikit-learn; the weights in closed form."""

    name = "kernel_ridge"

    def __init__(self, seed: int = 0):
        self.seed = seed

    def candidates(self, kind: str) -> list[dict]:
        return [{"kernel_width": width, "spread": spread} for width in WIDTHS for spread in SPREADS]

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[float, np.ndarray]]:
        scale, features = self._features(train, params, SEARCH_CENTERS)
        x, seen = features(train), features(held)
        mean = x.mean(0)
        for penalty, weights in ridge_path(x - mean, scale.y(train), PENALTIES):
            yield penalty, scale.back((seen - mean) @ weights)

    def fit(self, train: Samples, kind: str, params: dict, setting: float) -> Predict:
        scale, features = self._features(train, params, CENTERS)
        x = features(train)
        mean = x.mean(0)
        _, weights = next(ridge_path(x - mean, scale.y(train), (setting,)))
        return lambda samples: scale.back((features(samples) - mean) @ weights)

    def _features(self, train: Samples, params: dict, most: int) -> tuple[Standard, Callable[[Samples], np.ndarray]]:
        """The training moments' scale, and (V, K) coordinates in the kernel's space."""
        scale = Standard(train)
        if params["spread"] == "common":
            scale.x_scale = np.full_like(scale.x_scale, np.sqrt(np.mean(scale.x_scale**2)))
        z = scale.x(train)
        gamma = 0.5 / (params["kernel_width"] ** 2 * float(z.var(0).sum()) + 1e-12)
        kernel = Nystroem(gamma=gamma, n_components=min(most, len(train)), random_state=self.seed).fit(z)
        return scale, lambda samples: np.asarray(kernel.transform(scale.x(samples)))
