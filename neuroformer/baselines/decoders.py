"""Baselines that try as hard as the model: the same moments, lookahead, split and normalisation.

Each one's hyperparameters (lags, bins, penalties, sizes, updates) are chosen by cross-validation over contiguous
stretches of the training moments, with gaps; no other moment is looked at. Time and memory are bounded, whatever the
number of units and of moments: large populations enter through their patterns, searches see evenly spaced moments.

Shape suffixes: V values, U units, C columns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from neuroformer.baselines.bayes import BayesMethod, Posterior
from neuroformer.baselines.features import MOST_CELLS, Binning, Samples, SpikeCounts, binnings, contiguous_folds
from neuroformer.baselines.kalman import KalmanMethod
from neuroformer.baselines.kernel_ridge import KernelRidgeMethod
from neuroformer.baselines.linear import GlmMethod, LassoMethod, Predict, RidgeMethod, WienerCascadeMethod
from neuroformer.baselines.networks import GruMethod, MlpMethod, Network
from neuroformer.config import Config
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape
from neuroformer.metrics import target_score

Kind = Literal["regression", "classification"]
FAST = ("ridge", "lasso", "kalman", "wiener_cascade", "kernel_ridge", "bayes", "bayes_mode", "mlp")
BAYES = ("bayes", "bayes_mode")  # see the units themselves, however many there are
ALL = (*FAST, "glm", "gru")
CLASSIFIERS = ("ridge", "mlp", "gru")
_FOLDS = {"mlp": 3, "gru": 3, "kernel_ridge": 3}  # others: 5, they are quick
_SEARCH_WORK = 6e9  # moments x features squared that a search sees in one fit
_LEAST_MOMENTS = 2_000  # that a search sees in any case, if there are as many
_BAYES_MOMENTS = 8_000  # that a search of a Bayesian decoder sees; its work does not grow with features squared
_BAYES_CELLS = 8_000  # bins x units of its random walk
FINEST_S = 0.05  # seconds; the bin before the moment, where lags have several resolutions


class Method(Protocol):
    """A kind of decoder. ``path`` yields (setting, held-out prediction) for settings that one fit gives at once."""

    name: str

    def candidates(self, kind: str) -> list[dict]: ...  # the usual one first

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[Any, np.ndarray]]: ...

    def fit(self, train: Samples, kind: str, params: dict, setting: Any) -> Predict: ...


class Baseline:
    """A fitted baseline; :meth:`Baselines.fit` makes it.

    Attributes
    ----------
    choice : dict
        ``lags`` in words, ``lag_s``, ``num_bins``, ``setting`` (penalty, noise or updates), what else the method chose;
        ``patterns``, how many patterns stand for the units (0: the units themselves); ``moments`` of the final fit;
        ``cv_score`` (mean over folds of R2 over columns, of balanced accuracy, or for ``bayes_mode`` of one minus the
        median error over the mean distance of the fold's labels from their median); ``fits``, how many models were
        fitted in all, and ``seconds``.
    """

    def __init__(self, name: str, counts: SpikeCounts, binning: Binning, predict: Predict, choice: dict[str, Any]):
        self.name, self.choice = name, choice
        self._counts, self._binning, self._predict = counts, binning, predict

    def predict(self, windows: Windows, index: SpikeIndex | None = None) -> np.ndarray:
        """(V, C) values, or (V, 1) class labels, at each window's end; windows in time order.

        ``index`` replaces the recording's spikes, on the same segments.
        """
        c = self._counts
        counts = c if index is None else c.of(index)
        x = counts(windows, self._binning, self.name in BAYES)
        return self._predict(Samples(x, windows, np.zeros((len(windows), 0)), counts.edges(self._binning)))


class Baselines:
    """Baselines of one variable on the same labelled moments; what one search found is not searched again.

    Parameters
    ----------
    index : SpikeIndex
    windows : Windows
        A label belongs to each window's end.
    labels_VC : NaN where it is missing: those moments are left out
    shape, config : as for the model; ``shape.ahead`` is the lookahead, ``shape.current`` the step from one decoded
        moment to the next, ``config.decode.lags`` the lags
    kind : "regression" or "classification" (one column of whole numbers)
    seed : of the networks

    Raises
    ------
    ValueError
        Labels that do not fit the windows, or fewer than two labels.
    """

    def __init__(
        self,
        index: SpikeIndex,
        windows: Windows,
        labels_VC: np.ndarray,
        shape: WindowShape,
        config: Config,
        *,
        kind: Kind = "regression",
        seed: int = 0,
    ):
        self.index, self.shape, self.config, self.kind, self.seed = index, shape, config, kind, seed
        self.windows, self.y = _labelled(windows, labels_VC)
        self.counts = SpikeCounts.for_windows(index, shape, self.windows)
        self.reach = round(max(config.decode.lags) / shape.dt) + shape.ahead
        self._ridge: dict[Binning, float] = {}
        self._posteriors: dict[tuple, list[Posterior]] = {}  # of the Bayesian decoder, which is read in two ways
        self._fits = 0

    def fit(self, name: str, binnings: Sequence[Binning] = ()) -> Baseline:
        """Tune one of :data:`ALL` by nested cross-validation, and fit it on all moments; with ``binnings``, of those alone.

        Raises
        ------
        ValueError
            An unknown name, or a method that does not decode such a variable.
        """
        method, self._fits, start = self._method(name), 0, time.perf_counter()
        # every binning with the usual parameters, then the other parameters on the best binning
        usual, *others = method.candidates(self.kind)
        found = [self._searched(method, binning, [usual]) for binning in binnings or self._binnings(name)]
        if name == "ridge" and not binnings:
            self._ridge = {binning: score for score, binning, _, _ in found}
        best = max(found, key=lambda one: one[0])
        if others:
            best = max(best, self._searched(method, best[1], others), key=lambda one: one[0])
        score, binning, params, setting = best
        samples = self._samples(binning, name)
        predict = method.fit(samples, self.kind, params, setting)
        width = samples.x_VBU.shape[2]
        choice = {
            "lags": binning.describe(self.shape.dt),
            "lag_s": binning.lag * self.shape.dt,
            "num_bins": len(binning.widths),
            "setting": setting,
            **params,
            "patterns": width if width != self.index.num_units else 0,
            "moments": len(samples),
            "cv_score": score,
            "fits": self._fits + 1,
            "seconds": time.perf_counter() - start,
        }
        return Baseline(name, self.counts, binning, predict, choice)

    def decodes(self, name: str) -> bool:
        """Whether there is such a baseline for the variable."""
        if self.kind == "classification":
            return name in CLASSIFIERS
        return name in ALL and (name not in BAYES or self.y.shape[1] <= 2)

    def _method(self, name: str) -> Method:
        if not self.decodes(name):
            known = [n for n in ALL if self.decodes(n)]
            columns = f" of {self.y.shape[1]} columns" if name in BAYES else ""
            raise ValueError(f"no baseline '{name}' for a {self.kind}{columns}; there are: {', '.join(known)}")
        return {
            "ridge": RidgeMethod,
            "lasso": LassoMethod,
            "glm": GlmMethod,
            "wiener_cascade": WienerCascadeMethod,
            "bayes": lambda: BayesMethod("bayes", self._posteriors),
            "bayes_mode": lambda: BayesMethod("bayes_mode", self._posteriors),
            "kalman": lambda: KalmanMethod(self.shape.current, self.shape.ahead),
            "kernel_ridge": lambda: KernelRidgeMethod(self.seed),
            "mlp": lambda: MlpMethod(self.seed),
            "gru": lambda: GruMethod(both_ways=self.shape.ahead > 0, seed=self.seed),
        }[name]()

    def _binnings(self, name: str) -> list[Binning]:
        """What a method tries: ridge all binnings; kernels one or two bins; a filter and Bayes single ones; a recurrence
        fine ones; the others ridge's two best."""
        shape, lags = self.shape, sorted(self.config.decode.lags)
        tick = lambda seconds: max(1, round(seconds / shape.dt))
        finest = tick(FINEST_S)
        if name == "kalman":
            return [Binning((width,)) for width in dict.fromkeys(max(1, f * shape.current) for f in (1, 2, 4, 8))]
        if name in BAYES:
            return self._of_bayes(list(dict.fromkeys(map(tick, lags))), finest)
        if name == "gru":
            width = max(shape.current, finest)
            return list(dict.fromkeys(Binning((width,) * max(2, round(tick(lag) / width))) for lag in lags[-2:]))
        if name == "kernel_ridge":
            return list(dict.fromkeys(Binning.even(tick(lag), number) for lag in lags for number in (1, 2)))
        every = binnings(self.config, shape.dt, finest, (1,) if self.kind == "classification" else (1, 5))
        if name == "ridge":
            return every
        for binning in every:
            if binning not in self._ridge:
                self._ridge[binning] = self._searched(RidgeMethod(), binning, [{}])[0]
        return sorted(every, key=lambda b: -self._ridge[b])[:2]

    def _of_bayes(self, lags: list[int], finest: int) -> list[Binning]:
        """All spikes at once, as far back as each lag; and a random walk through the longest one, in bins of two widths."""
        most = max(2, _BAYES_CELLS // self.index.num_units)
        walks = []
        for width in (2 * finest, 5 * finest):
            bins = min(most, round(lags[-1] / width))
            walks += [Binning((width,) * bins)] if bins > 1 else []
        return [Binning((lag,)) for lag in lags] + walks

    def _samples(self, binning: Binning, name: str, search: bool = False) -> Samples:
        """Labelled moments under a binning, evenly thinned to what the budget allows."""
        whole, units = name in BAYES, self.index.num_units
        one = self.counts(self.windows[:1], binning, whole)
        size = one.shape[1] * (units if whole else one.shape[2])
        most = MOST_CELLS // size
        if search and whole:
            most = min(most, _BAYES_MOMENTS)
        elif search and name != "kalman":  # whose work does not grow with features squared
            most = min(most, max(_LEAST_MOMENTS, int(_SEARCH_WORK / size**2)))
        rows = self._thinned(most, name == "kalman")
        windows = self.windows[rows]
        return Samples(self.counts(windows, binning, whole), windows, self.y[rows], self.counts.edges(binning))

    def _thinned(self, most: int, steps: bool) -> np.ndarray:
        """Rows of at most so many moments, evenly; with ``steps`` these go on being a step apart."""
        rows = np.arange(len(self.windows))
        if len(rows) <= most:
            return rows
        if not steps:
            return rows[:: -(-len(rows) // most)]
        phase = self.windows.tick % self.shape.current
        kept = np.unique(phase)[:: max(1, round(len(rows) / most))]
        return rows[np.isin(phase, kept)][:most]

    def _searched(self, method: Method, binning: Binning, candidates: list[dict]) -> tuple[float, Binning, dict, Any]:
        """Best (score, binning, parameters, setting) under one binning."""
        samples = self._samples(binning, method.name, search=True)
        folds = contiguous_folds(samples.windows, self.index, self.reach, _FOLDS.get(method.name, 5))
        found = []
        for params in candidates:
            score, setting = self._cross_validate(method, samples, folds, params)
            found.append((score, binning, params, setting))
        return max(found, key=lambda one: one[0])

    def _cross_validate(self, method: Method, samples: Samples, folds, params: dict) -> tuple[float, Any]:
        """Best (mean score over folds, setting). A fold whose labels do not vary is left out."""
        means = {}
        for setting, scores in self._scores(method, samples, folds, params):
            means[setting] = float(np.mean([v for v in scores if np.isfinite(v)] or [0.0]))
            if isinstance(method, Network) and means[setting] < max(means.values()):
                break
        setting = max(means, key=lambda s: means[s])
        return means[setting], setting

    def _scores(self, method: Method, samples: Samples, folds, params: dict) -> Iterator[tuple[Any, list[float]]]:
        """(setting, score of each fold); the folds of a network are trained beside each other, those of others in turn."""

        def of_fold(train: np.ndarray, held: np.ndarray) -> Iterator[tuple[Any, float]]:
            for setting, predicted in method.path(samples[train], samples[held], self.kind, params):
                yield setting, method_score(method, self.kind, samples.y_VC[held], predicted)

        each_fold = (of_fold(train, held) for train, held in folds)
        together = zip(*(each_fold if isinstance(method, Network) else map(list, each_fold)), strict=True)
        for each in together:
            self._fits += len(each)
            yield each[0][0], [value for _, value in each]


def method_score(method: Method, kind: str, true_VC: np.ndarray, predicted_VC: np.ndarray) -> float:
    """What choices of a method are made by: the target's own score, unless the method is meant for another one."""
    own = method.score(true_VC, predicted_VC) if isinstance(method, BayesMethod) else None
    return target_score(kind, true_VC, predicted_VC) if own is None else own


def fit_baseline(
    name: str,
    index: SpikeIndex,
    windows: Windows,
    labels_VC: np.ndarray,
    shape: WindowShape,
    config: Config,
    *,
    kind: Kind = "regression",
    seed: int = 0,
) -> Baseline:
    """One of :class:`Baselines`, by name."""
    return Baselines(index, windows, labels_VC, shape, config, kind=kind, seed=seed).fit(name)


def in_words(choice: dict[str, Any]) -> str:
    """What a baseline chose, in short."""
    options = {
        k: v
        for k, v in choice.items()
        if k in ("hidden", "decay", "dropout", "kernel_width", "spread", "bandwidth", "smoother")
    }
    text = "; ".join([choice["lags"], *(f"{k} {v}".replace("_", " ") for k, v in options.items())])
    setting = choice["setting"]
    parts = setting if isinstance(setting, tuple) else (setting,)
    text += "; " + ", ".join(f"{x:.3g}" if isinstance(x, float) else str(x) for x in parts)
    return text + (f"; {choice['patterns']} patterns of units" if choice["patterns"] else "")


def _labelled(windows: Windows, labels_VC: np.ndarray) -> tuple[Windows, np.ndarray]:
    y = np.asarray(labels_VC, dtype=np.float64)
    y = y[:, None] if y.ndim == 1 else y
    if len(y) != len(windows):
        raise ValueError(f"there are {len(windows)} windows but {len(y)} labels; give one label per window")
    known = np.flatnonzero(np.isfinite(y).all(1))
    if len(known) < 2:
        raise ValueError(
            f"{len(known)} of {len(y)} windows have a label; check the variable's times against the split, and decode.moving"
        )
    order = known[np.lexsort((windows.tick[known], windows.segment[known]))]
    return windows[order], y[order]
