"""The scikit-learn face: a decoder, an embedding, moments of a recording as ``X``, and a splitter that keeps gaps.

>>> from neuroformer.estimators import GapSplit, Moments, NeuroformerDecoder
>>> decoder = NeuroformerDecoder("runs/pretrained").fit(recording, target="speed")
>>> speed = decoder.predict(recording)
>>> X = Moments(recording, step=0.05)
>>> cross_val_score(NeuroformerDecoder("runs/pretrained"), X, X.labels("speed"), cv=GapSplit(5, gap=2.0))

Shape suffixes: V moments, C columns, D features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

from neuroformer.bundle.bundle import check_units, load_model, read_bundle
from neuroformer.config import Config, TargetConfig, from_dict, load_config
from neuroformer.data.batch import label_values
from neuroformer.data.normalization import turn_start
from neuroformer.data.prepared import Prepared
from neuroformer.data.scales import Normalization
from neuroformer.data.splits import Split
from neuroformer.data.windows import Windows, nanoseconds, to_ticks
from neuroformer.decoding.decode import predict_targets
from neuroformer.decoding.finetune import TRUNK_LR, extend, finetune
from neuroformer.metrics import target_score
from neuroformer.model.network import Neuroformer
from neuroformer.recording import BehaviorVariable, Recording
from neuroformer.studies.embeddings import embed

_LABEL = "y"  # the behavior variable as which labels reach the model


class Moments:
    """Moments of a recording: an ``X`` that scikit-learn can index, split and count.

    Parameters
    ----------
    recording : Recording
    step : float
        Seconds between moments; the first lies one step after the start of each interval of the domain.
    times : (V,) float64, optional
        The moments themselves, ascending, in place of ``step``.
    """

    def __init__(self, recording: Recording, step: float = 0.05, times: np.ndarray | None = None):
        self.recording, self.step = recording, step
        if times is None:
            step_ns = int(nanoseconds(step))
            if step_ns < 1:
                raise ValueError(f"step is {step} s; expected above 0")
            counts = nanoseconds(recording.domain[:, 1] - recording.domain[:, 0]) // step_ns
            parts = [a + np.arange(1, n + 1) * step for (a, _), n in zip(recording.domain, counts, strict=True)]
            times = np.concatenate([np.zeros(0), *parts])
        self.times = np.asarray(times, dtype=np.float64)

    @property
    def shape(self) -> tuple[int, int]:
        return (len(self.times), 1)

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, which) -> Moments:
        return Moments(self.recording, self.step, np.atleast_1d(self.times[which]))

    def labels(self, name: str, kind: str = "regression", period: float = 0.0) -> np.ndarray:
        """(V,) or (V, C) of a behavior variable, NaN where it is missing: interpolated; around the circle where ``kind`` is
        "circular", whose ``period`` is in its unit (0: 2 pi); the last value where it is "classification", which may be
        words (empty where missing)."""
        target = TargetConfig(name, kind, period=period)  # pyright: ignore[reportArgumentType]
        variable = self.recording.variable(name)
        if variable.classes and kind != "classification":
            raise ValueError(
                f"'{name}' is recorded as words ({', '.join(variable.classes[:5])}); give kind='classification'"
            )
        values = label_values(variable, target, self.times)
        if variable.classes:
            return np.array([*variable.classes, ""])[np.nan_to_num(values[:, 0], nan=-1).astype(int)]
        if kind == "circular":  # on the turn on which it was recorded
            period = period or 2 * np.pi
            start = turn_start(float(np.nanmin(variable.values)), period)
            values = start + (values - start) % period
        return values[:, 0] if values.shape[1] == 1 else values


class GapSplit:
    """Contiguous folds in time; training moments within ``gap`` seconds of the held-out stretch are left out.

    Parameters
    ----------
    n_splits : int
    gap : float
        Seconds; at least what a decoder reads before and after a moment.
    """

    def __init__(self, n_splits: int = 5, gap: float = 2.0):
        self.n_splits, self.gap = n_splits, gap

    def get_n_splits(self, X=None, y=None, groups=None) -> int:
        return self.n_splits

    def split(self, X, y=None, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(training rows, held-out rows); ``X`` is :class:`Moments`, or an array with the time in its first column."""
        times = X.times if isinstance(X, Moments) else np.asarray(X, dtype=np.float64).reshape(len(X), -1)[:, 0]
        if len(times) < self.n_splits or self.n_splits < 2:
            raise ValueError(f"{len(times)} moments cannot be cut into {self.n_splits} folds; expected 2 folds or more")
        order = np.argsort(times, kind="stable")
        for held in np.array_split(order, self.n_splits):
            clear = (times < times[held].min() - self.gap) | (times > times[held].max() + self.gap)
            if not clear.any():
                raise ValueError(f"a gap of {self.gap:g} s leaves no moment to train on; shorten it")
            yield np.flatnonzero(clear), np.sort(held)


class _Estimator(BaseEstimator):
    """Parameters travel by copy and pickle; what was fitted does not: a run on disk is where models live."""

    def __getstate__(self):
        return self.get_params(deep=False)

    def __setstate__(self, state):
        self.__init__(**state)

    def _fitted(self, name: str) -> Any:
        if not hasattr(self, name):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit first")
        return getattr(self, name)


class NeuroformerDecoder(_Estimator):
    """Behavior from spikes: a pretrained run (or a fresh network) with a head fitted to labels.

    Parameters
    ----------
    run : path of a trained run, or None: the network starts from random weights and trains whole
    config : path of a YAML file, mapping or Config; used without ``run`` (default: the reference configuration,
        without frames)
    kind : "regression", "classification" (labels: whole numbers or words) or "circular"
    train : "head", "top", "all" or "adapters"; what changes in a pretrained run
    steps : at most so many steps of descent; early stopping on a share of the labels decides
    seed : int
    period : of circular labels, in their unit; 0: 2 pi
    """

    def __init__(self, run=None, config=None, kind="regression", train="head", steps=400, seed=0, period=0.0):
        self.run = run
        self.config = config
        self.kind = kind
        self.train = train
        self.steps = steps
        self.seed = seed
        self.period = period

    def fit(self, X, y=None, *, target: str | None = None) -> NeuroformerDecoder:
        """Fit to labels.

        Parameters
        ----------
        X : Recording (then ``target`` names a behavior variable of it) or Moments
        y : (V,) or (V, C) labels at the moments, NaN where missing; words (empty where missing) are classes

        Raises
        ------
        ValueError
            Neither labels nor a target, labels that do not fit the moments, or units that are not the run's.
        """
        known = {
            "kind": ("regression", "classification", "circular"),
            "train": ("head", "top", "all", "adapters"),
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(values)}")
        moments = self._moments(X)
        if y is None and target is None:
            raise ValueError("there is nothing to fit: give y, or target='name of a behavior variable'")
        y = np.asarray(moments.labels(str(target), self.kind, self.period) if y is None else y)
        self.classes_ = _classes(y, self.kind)
        y = _numbers(y, self.classes_)
        if len(y) != len(moments):
            raise ValueError(f"there are {len(moments)} moments but {len(y)} labels; give one label per moment")
        label = TargetConfig(_LABEL, self.kind, period=self.period)  # pyright: ignore[reportArgumentType]
        rec = _labelled(moments, y)
        model, prepared, tune, trunk_lr = self._start(rec, moments)
        model, prepared = extend(model, prepared, [label], prepared.split)
        windows = _windows(moments, prepared)
        self.model_, self.info_ = finetune(model, prepared, windows, [label], tune, self.seed, trunk_lr)
        self.prepared_ = prepared
        self.one_column_ = y.ndim == 1
        return self

    def predict(self, X) -> np.ndarray:
        """(V,) or (V, C) as the labels were, at the moments of ``X`` (Recording or Moments)."""
        model, fitted = self._fitted("model_"), self._fitted("prepared_")
        moments = self._moments(X)
        prepared = _whole(_labelled(moments, np.full(len(moments), 0.0)), fitted.config, fitted.normalization)
        out = predict_targets(model, prepared, _windows(moments, prepared))[_LABEL]
        if self.classes_.dtype.kind == "U":
            return self.classes_[out[:, 0].astype(int)]
        return out[:, 0] if self.one_column_ else out

    def score(self, X, y) -> float:
        """R2 (mean over columns), circular R2, or balanced accuracy; missing labels are left out."""
        as_columns = lambda a: _numbers(np.asarray(a), self.classes_).reshape(len(a), -1)
        predicted = as_columns(self.predict(X))
        return target_score(self.kind, as_columns(y), predicted, self.period)

    def _moments(self, X) -> Moments:
        if isinstance(X, Moments):
            return X
        if not isinstance(X, Recording):
            raise ValueError(f"X is {type(X).__name__}; expected a Recording or Moments of one")
        return Moments(X, self._config().window.current)

    def _config(self) -> Config:
        if self.run is not None:
            return read_bundle(self.run).config
        if self.config is None:
            return from_dict({"window": {"frames": 0.0}})
        if isinstance(self.config, Config):
            return self.config
        return load_config(self.config) if isinstance(self.config, (str, Path)) else from_dict(self.config)

    def _start(self, rec: Recording, moments: Moments):
        config = self._config()
        if self.run is None:
            config = dataclasses.replace(config, targets=())
            prepared = _whole(rec, config)
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                model = Neuroformer(config, rec.num_units, prepared.normalization)
            tune = dataclasses.replace(config.tune, train="all", steps=self.steps)
            return model, prepared, tune, 1.0
        bundle = read_bundle(self.run)
        check_units(bundle, rec)
        moving = dataclasses.replace(config.decode.moving, variable="")  # the caller's labels say which count
        config = dataclasses.replace(config, decode=dataclasses.replace(config.decode, moving=moving))
        tune = dataclasses.replace(config.tune, train=self.train, steps=self.steps)
        return load_model(bundle), _whole(rec, config, bundle.normalization), tune, TRUNK_LR


class NeuroformerEmbedding(_Estimator):
    """Features of a trained run along a recording.

    Parameters
    ----------
    run : path of a trained run
    features : "state" (the fused state before any current spike: past, frames, behavior) or "contrast" (the neural
        side of the first alignment that has one, of unit length)
    components : int, optional
        Reduce to so many principal components, fitted on the recording given to ``fit``.
    """

    def __init__(self, run=None, features="state", components=None):
        self.run = run
        self.features = features
        self.components = components

    def fit(self, X, y=None) -> NeuroformerEmbedding:
        """Load the run and, where asked, fit the principal components on ``X`` (Recording or Moments)."""
        if self.run is None:
            raise ValueError("run is None; give the folder of a trained run (neuroformer train ...)")
        if self.features not in ("state", "contrast"):
            raise ValueError(f"features is {self.features!r}; expected 'state' or 'contrast'")
        self.bundle_ = read_bundle(self.run)
        self.model_ = load_model(self.bundle_)
        self.pca_ = None
        if self.components is not None:
            self.pca_ = PCA(self.components).fit(self._raw(X))
        return self

    def transform(self, X) -> np.ndarray:
        """(V, D) features at the moments of ``X``."""
        self._fitted("model_")
        features = self._raw(X)
        return features if self.pca_ is None else self.pca_.transform(features)

    def fit_transform(self, X, y=None) -> np.ndarray:
        return self.fit(X, y).transform(X)

    def _raw(self, X) -> np.ndarray:
        config = self.bundle_.config
        moments = X if isinstance(X, Moments) else Moments(X, config.window.current)
        check_units(self.bundle_, moments.recording)
        prepared = _whole(moments.recording, config, self.bundle_.normalization)
        return embed(self.model_, prepared, _windows(moments, prepared), self.features)


def _words(y: np.ndarray) -> np.ndarray | None:
    """Labels that are words, empty where missing (empty, None, NaN); None where labels are numbers."""
    if y.ndim != 1 or not (y.dtype.kind in "US" or any(isinstance(label, str) for label in y)):
        return None
    missing = lambda label: label is None or label != label
    return np.array(["" if missing(label) else str(label) for label in y])


def _classes(y: np.ndarray, kind: str) -> np.ndarray:
    """The classes among labels, words or numbers; empty where ``kind`` is no classification."""
    words = _words(y)
    if kind != "classification":
        if words is not None:
            raise ValueError(f"the labels are words and kind is {kind!r}; give kind='classification'")
        return np.zeros(0)
    if words is not None:
        return np.unique(words[words != ""])
    numbers = np.asarray(y, dtype=np.float64)
    return np.unique(numbers[np.isfinite(numbers)])


def _numbers(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Labels as float64; words as their places among ``classes``: -1 for a word that is none, NaN for a missing one."""
    words = _words(y)
    if words is None:
        return np.asarray(y, dtype=np.float64)
    out = np.full(words.shape, -1.0)
    for place, word in enumerate(classes):
        out[words == word] = place
    out[words == ""] = np.nan
    return out


def _whole(rec: Recording, config: Config, normalization: Normalization | None = None) -> Prepared:
    """A recording with nothing held out: the caller's moments say what trains."""
    split = Split.whole(rec.domain, config.window.dt, ["train"])
    return Prepared.of(rec, config, split, normalization)


def _labelled(moments: Moments, y: np.ndarray) -> Recording:
    """The recording with the labels as a behavior variable."""
    order = np.argsort(moments.times, kind="stable")
    variable = BehaviorVariable(moments.times[order], np.asarray(y)[order])
    return dataclasses.replace(moments.recording, behavior={**moments.recording.behavior, _LABEL: variable})


def _windows(moments: Moments, prepared: Prepared) -> Windows:
    """The window that ends at each moment, on the integer clock.

    Raises
    ------
    ValueError
        A moment less than a window after its interval's start, or outside the domain.
    """
    current = prepared.builder.shape.current
    origins = prepared.index.origins
    segment = np.searchsorted(origins, moments.times - 1e-9, side="right") - 1
    tick = to_ticks(moments.times, origins[np.maximum(segment, 0)], prepared.config.window.dt) - current
    outside = (segment < 0) | (tick < 0) | (tick + current > prepared.index.num_ticks[np.maximum(segment, 0)])
    if outside.any():
        raise ValueError(
            f"{int(outside.sum())} of {len(moments)} moments lie outside the recording, or less than a window "
            f"({prepared.config.window.current:g} s) after an interval's start; leave them out"
        )
    return Windows(segment.astype(np.int64), tick)
