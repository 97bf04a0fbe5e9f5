"""How well features predict units: ridge regression and partial least squares on held-out stimuli.

Shape suffixes: N moments, L latencies, D features, K principal components of them, U units, F folds, B blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from sklearn.decomposition import PCA

from neuroformer.baselines.ridge import RidgePath
from neuroformer.comparison.responses import ComparedMoments

COMPONENTS = 512  # of features, beyond which only their principal components count
PLS_COMPONENTS = 25  # Yamins et al. 2014; Schrimpf et al. 2018
PENALTIES = tuple(10.0**k for k in range(-4, 5))  # per moment, for features whose mean variance is 1


def reduced(x_ND: np.ndarray, seed: int = 0) -> np.ndarray:
    """(N, K) centred features over one common scale; of more than :data:`COMPONENTS`, the principal components.

    Both regressions are blind to rotation, so components lose only what the last ones hold. Responses are not looked at.
    """
    x = x_ND.astype(np.float64) - x_ND.mean(0, dtype=np.float64)
    x /= np.sqrt((x * x).mean()) + 1e-12
    if x.shape[1] <= min(COMPONENTS, len(x)):
        return x
    size = min(COMPONENTS, len(x))
    if size == len(x):  # all of them: nothing is lost
        values, vectors = np.linalg.eigh(x @ x.T)
        z = vectors * np.sqrt(np.maximum(values, 0))
    else:
        z = PCA(size, svd_solver="randomized", random_state=seed).fit_transform(x)
    return z * np.sqrt(size / x.shape[1])


class RidgeFit:
    """Ridge regression of any number of units on the same moments, with an intercept.

    Equal to ``sklearn.linear_model.Ridge(alpha=penalty * moments)``.
    """

    settings = PENALTIES

    def __init__(self, x_NK: np.ndarray):
        self.mean_K = x_NK.mean(0)
        self.path = RidgePath(x_NK - self.mean_K)
        self.penalties = [penalty * len(x_NK) for penalty in self.settings]

    def predict(self, y_NU: np.ndarray, x_MK: np.ndarray) -> Iterator[np.ndarray]:
        """(M, U) for every penalty in turn."""
        mean_U = y_NU.mean(0)
        for predicted in self.path.predict(y_NU - mean_U, x_MK - self.mean_K, self.penalties):
            yield predicted + mean_U


class PlsFit:
    """Partial least squares with up to 25 components, by the kernel algorithm (Dayal and MacGregor, Journal of
    Chemometrics 1997).

    Equal to ``sklearn.cross_decomposition.PLSRegression(25, scale=False)``; there is nothing to choose.
    """

    settings = (PLS_COMPONENTS,)

    def __init__(self, x_NK: np.ndarray):
        self.mean_K = x_NK.mean(0)
        self.x_NK = x_NK - self.mean_K
        self.gram_KK = self.x_NK.T @ self.x_NK

    def predict(self, y_NU: np.ndarray, x_MK: np.ndarray) -> Iterator[np.ndarray]:
        mean_U = y_NU.mean(0)
        yield (x_MK - self.mean_K) @ self._weights(self.x_NK.T @ (y_NU - mean_U)) + mean_U

    def _weights(self, xy_KU: np.ndarray) -> np.ndarray:
        """(K, U)."""
        rotations, loadings, weights_KU = [], [], np.zeros_like(xy_KU)
        size = float(np.abs(xy_KU).max(initial=0.0))
        for _ in range(min(PLS_COMPONENTS, *self.x_NK.shape)):
            if np.abs(xy_KU).max(initial=0.0) <= 1e-10 * size:  # nothing is left to explain
                break
            w_K = _leading(xy_KU)
            r_K = w_K - sum((p @ w_K) * r for p, r in zip(loadings, rotations, strict=True))
            scores = self.gram_KK @ r_K
            power = float(r_K @ scores)
            if power <= 1e-12 * float(np.trace(self.gram_KK)):
                break
            q_U = r_K @ xy_KU / power
            rotations.append(r_K)
            loadings.append(scores / power)
            xy_KU = xy_KU - np.outer(scores, q_U)
            weights_KU += np.outer(r_K, q_U)
        return weights_KU


def _leading(a_KU: np.ndarray) -> np.ndarray:
    """(K,) first left singular vector."""
    tall = a_KU.shape[0] > a_KU.shape[1]
    square = a_KU.T @ a_KU if tall else a_KU @ a_KU.T
    last = len(square) - 1
    v = eigh(square, subset_by_index=(last, last))[1][:, 0]
    w = a_KU @ v if tall else v
    return w / np.linalg.norm(w)


METHODS = {"ridge": RidgeFit, "pls": PlsFit}


@dataclass(frozen=True, eq=False)
class Predicted:
    """Held-out predictions beside what they are of.

    Attributes
    ----------
    predicted_NU, true_NU : at the latencies that training moments chose
    latency_FU : place in the list of latencies
    setting_FU : the penalty, say, likewise
    """

    predicted_NU: np.ndarray
    true_NU: np.ndarray
    latency_FU: np.ndarray
    setting_FU: np.ndarray

    def of(self, units: np.ndarray) -> Predicted:
        """Of some of the units."""
        return Predicted(
            self.predicted_NU[:, units], self.true_NU[:, units], self.latency_FU[:, units], self.setting_FU[:, units]
        )


class Predictor:
    """Features whose decompositions are kept, so that true and shuffled responses cost one pass each.

    Parameters
    ----------
    x_NK : from :func:`reduced`
    method : "ridge" or "pls"
    """

    def __init__(self, x_NK: np.ndarray, moments: ComparedMoments, method: str):
        self.x_NK, self.moments, self.kind = x_NK, moments, METHODS[method]
        self.folds = np.unique(moments.fold_N).tolist()
        self.outer = {f: self._fit(f) for f in self.folds}

    def _fit(self, *held: int):
        rows = self.moments.training(*held)
        return rows, self.kind(self.x_NK[rows])

    def __call__(self, y_LNU: np.ndarray) -> Predicted:
        """Nested folds: the penalty and the latency of a fold come from the other folds.

        Ridge chooses both for each unit, partial least squares one latency for all of them.
        """
        choice_FU = np.stack([self._choose(f, y_LNU) for f in self.folds])
        return self._predicted(y_LNU, choice_FU)

    def shuffled(self, y_LNU: np.ndarray, like: Predicted, rows: np.ndarray) -> Predicted:
        """The same with responses in another order and the choices as they were."""
        choice_FU = like.latency_FU * len(self.kind.settings) + like.setting_FU
        return self._predicted(y_LNU, choice_FU, rows)

    def _choose(self, fold: int, y_LNU: np.ndarray) -> np.ndarray:
        """(U,) latency and setting, as one number, by r over the inner folds."""
        num_latencies, _, num_units = y_LNU.shape
        num_settings = len(self.kind.settings)
        if num_latencies * num_settings == 1:
            return np.zeros(num_units, np.int64)
        total = np.zeros((num_latencies, num_settings, num_units))
        for inner in self.folds:
            if inner == fold:
                continue
            rows, fit = self._fit(fold, inner)
            held = np.flatnonzero(self.moments.fold_N == inner)
            for k, y_NU in enumerate(y_LNU):
                for s, guess in enumerate(fit.predict(y_NU[rows], self.x_NK[held])):
                    total[k, s] += correlation(guess, y_NU[held])
        if self.kind is PlsFit:
            return np.full(num_units, int(np.median(total[:, 0], axis=1).argmax()))
        return total.reshape(-1, num_units).argmax(0)

    def _predicted(self, y_LNU: np.ndarray, choice_FU: np.ndarray, order: np.ndarray | None = None) -> Predicted:
        units = np.arange(y_LNU.shape[2])
        latency_FU, setting_FU = np.divmod(choice_FU, len(self.kind.settings))
        predicted_NU, true_NU = (np.zeros(y_LNU.shape[1:]) for _ in range(2))
        for place, fold in enumerate(self.folds):
            rows, fit = self.outer[fold]
            held = np.flatnonzero(self.moments.fold_N == fold)
            y_NU = y_LNU[latency_FU[place], :, units].T
            y_NU = y_NU if order is None else y_NU[order]
            true_NU[held] = y_NU[held]
            for s, guess in enumerate(fit.predict(y_NU[rows], self.x_NK[held])):
                mine = setting_FU[place] == s
                predicted_NU[np.ix_(held, mine)] = guess[:, mine]
        return Predicted(predicted_NU, true_NU, latency_FU, setting_FU)


def correlation(a_NU: np.ndarray, b_NU: np.ndarray) -> np.ndarray:
    """(U,) Pearson's r; 0 where a prediction does not vary: it explains nothing."""
    return _r(_sums(a_NU, b_NU)[None], np.array([[len(a_NU)]]))[0]


@dataclass(frozen=True, eq=False)
class FoldSums:
    """Sums over blocks from which r of every fold follows, of all moments or of some of the blocks.

    Attributes
    ----------
    sums_B5U, number_B : sums over a block of both sides, their squares and product; and its moments
    fold_B : the fold of each block (a block may lie in two: then it is two)
    block_B : the block
    """

    sums_B5U: np.ndarray
    number_B: np.ndarray
    fold_B: np.ndarray
    block_B: np.ndarray

    @classmethod
    def of(cls, found: Predicted, moments: ComparedMoments) -> FoldSums:
        pairs, row_N = np.unique(np.stack([moments.fold_N, moments.block_N]), axis=1, return_inverse=True)
        rows = [np.flatnonzero(row_N.ravel() == k) for k in range(pairs.shape[1])]
        # sums of squares about a common mean lose no digits
        a = found.predicted_NU - found.predicted_NU.mean(0)
        b = found.true_NU - found.true_NU.mean(0)
        sums = np.stack([_sums(a[r], b[r]) for r in rows])
        return cls(sums, np.array([len(r) for r in rows]), pairs[0], pairs[1])

    def r(self, blocks: np.ndarray | None = None) -> np.ndarray:
        """(U,) Pearson's r of each fold, averaged over folds; NaN where responses do not vary in any."""
        keep = np.ones(len(self.fold_B), bool) if blocks is None else np.isin(self.block_B, blocks)
        folds = np.unique(self.fold_B[keep])
        within = (self.fold_B[keep] == folds[:, None]).astype(float)
        sums = np.einsum("fb,bku->fku", within, self.sums_B5U[keep])
        r_FU = _r(sums, (within @ self.number_B[keep])[:, None])
        known = np.isfinite(r_FU)
        return np.divide(
            np.where(known, r_FU, 0).sum(0), known.sum(0), out=np.full(r_FU.shape[1], np.nan), where=known.any(0)
        )


def _sums(a_NU: np.ndarray, b_NU: np.ndarray) -> np.ndarray:
    """(5, U)."""
    return np.stack([a_NU.sum(0), b_NU.sum(0), (a_NU**2).sum(0), (b_NU**2).sum(0), (a_NU * b_NU).sum(0)])


def _r(sums_F5U: np.ndarray, number_F1: np.ndarray) -> np.ndarray:
    a, b, aa, bb, ab = np.moveaxis(sums_F5U, 1, 0)
    power_a, power_b = aa - a * a / number_F1, bb - b * b / number_F1
    flat = power_a <= 1e-12 * np.maximum(aa, 1e-300)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (ab - a * b / number_F1) / np.sqrt(power_a * power_b)
    r = np.where(flat, 0.0, r)
    return np.where(power_b <= 1e-12 * np.maximum(bb, 1e-300), np.nan, r)
