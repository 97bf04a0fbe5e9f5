"""Ridge regression at many penalties from one decomposition: decoders, readouts, probes, autoregressions and comparisons
solve theirs here.

Two regressions stay apart: that on energies of frames (:mod:`neuroformer.baselines.energy.regression`) is in torch's single
precision, for thousands of units; and scikit-learn fits those whose penalty it also searches.

Shape suffixes: V and W rows (moments), F features, C columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


class RidgePath:
    """Ridge regression without intercept of any columns on the same rows: features, and columns, are centred before.

    At a penalty, weights are ``argmin |y - x w|^2 + penalty |w|^2``. The smaller of ``x x'`` and ``x' x`` is decomposed once.

    Parameters
    ----------
    x_VF : np.ndarray
    """

    def __init__(self, x_VF: np.ndarray):
        self.x_VF = x_VF
        self.wide = x_VF.shape[1] > len(x_VF)
        gram = (x_VF @ x_VF.T if self.wide else x_VF.T @ x_VF).astype(np.float64)
        values, self.vectors = np.linalg.eigh(gram)
        self.values = np.maximum(values, 0)

    def _turned(self, y_VC: np.ndarray) -> np.ndarray:
        """Along the eigenvectors."""
        return self.vectors.T @ (y_VC if self.wide else self.x_VF.T @ y_VC)

    def weights(self, y_VC: np.ndarray, penalties: Iterable[float]) -> Iterator[np.ndarray]:
        """(F, C) for every penalty in turn."""
        turned = self._turned(y_VC)
        for penalty in penalties:
            solved = self.vectors @ (turned / (self.values[:, None] + penalty))
            yield self.x_VF.T @ solved if self.wide else solved

    def predict(self, y_VC: np.ndarray, x_WF: np.ndarray, penalties: Iterable[float]) -> Iterator[np.ndarray]:
        """(W, C) of other rows for every penalty in turn; quicker than by way of the weights where columns are many."""
        turned = self._turned(y_VC)
        seen = x_WF @ (self.x_VF.T @ self.vectors if self.wide else self.vectors)
        for penalty in penalties:
            yield (seen / (self.values + penalty)) @ turned
