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

from neuroformer.config import Config, TargetConfig, from_dict, load_config
from neuroformer.data.batch import BatchBuilder, label_values
from neuroformer.data.normalization import fit_normalization
from neuroformer.data.splits import Split
from neuroformer.data.windows import SpikeIndex, Windows, nanoseconds, to_ticks
from neuroformer.decoding.decode import predict_targets
from neuroformer.decoding.embedding import embed
from neuroformer.decoding.finetune import extend, finetune
from neuroformer.metrics import target_score
from neuroformer.model.bundle import check_units, load_model, read_bundle
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.recording import BehaviorVariable, Recording
from neuroformer.training.data import Prepared

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
            parts = [
                a + np.arange(1, n + 1) * step for (a, _), n in zip(recording.domain, counts, strict=True)
            ]
            times = np.concatenate([np.zeros(0), *parts])
        self.times = np.asarray(times, dtype=np.float64)

    @property
    def shape(self) -> tuple[int, int]:
        return (len(self.times), 1)

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, which) -> Moments:
        return Moments(self.recording, self.step, np.atleast_1d(self.times[which]))

    def labels(self, name: str, kind: str = "regression") -> np.ndarray:
        """(V,) or (V, C) of a behavior variable, NaN where it is missing: interpolated; around the circle where ``kind`` is
        "circular" (radians); the last value where it is "classification"."""
        target = TargetConfig(name, kind)  # pyright: ignore[reportArgumentType]
        values = label_values(self.recording.variable(name), target, self.times)
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
        times = (
            X.times if isinstance(X, Moments) else np.asarray(X, dtype=np.float64).reshape(len(X), -1)[:, 0]
        )
        if len(times) < self.n_splits or self.n_splits < 2:
            raise ValueError(
                f"{len(times)} moments cannot be cut into {self.n_splits} folds; expected 2 folds or more"
            )
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
    kind : "regression", "classification" or "circular" (labels in radians)
    train : "head", "top", "all" or "adapters"; what changes in a pretrained run
    steps : at most so many steps of descent; early stopping on a share of the labels decides
    seed : int
    """

    def __init__(self, run=None, config=None, kind="regression", train="head", steps=400, seed=0):
        self.run = run
        self.config = config
        self.kind = kind
        self.train = train
        self.steps = steps
        self.seed = seed

    def fit(self, X, y=None, *, target: str | None = None) -> NeuroformerDecoder:
        """Fit to labels.

        Parameters
        ----------
        X : Recording (then ``target`` names a behavior variable of it) or Moments
        y : (V,) or (V, C) labels at the moments, NaN where missing

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
        y = moments.labels(str(target), self.kind) if y is None else np.asarray(y, dtype=np.float64)
        if len(y) != len(moments):
            raise ValueError(f"there are {len(moments)} moments but {len(y)} labels; give one label a moment")
        label = TargetConfig(_LABEL, self.kind)  # pyright: ignore[reportArgumentType]
        rec = _labelled(moments, y)
        model, prepared, tune = self._start(rec, moments)
        model, prepared = extend(model, prepared, [label], prepared.split)
        windows = _windows(moments, prepared)
        self.model_, self.info_ = finetune(model, prepared, windows, [label], tune, self.seed)
        self.prepared_ = prepared
        self.one_column_ = y.ndim == 1
        return self

    def predict(self, X) -> np.ndarray:
        """(V,) or (V, C) as the labels were, at the moments of ``X`` (Recording or Moments)."""
        model, fitted = self._fitted("model_"), self._fitted("prepared_")
        moments = self._moments(X)
        prepared = _whole(_labelled(moments, np.full(len(moments), 0.0)), fitted.config, fitted.normalization)
        out = predict_targets(model, prepared, _windows(moments, prepared))[_LABEL]
        return out[:, 0] if self.one_column_ else out

    def score(self, X, y) -> float:
        """R2 (mean over columns), circular R2, or balanced accuracy; missing labels are left out."""
        as_columns = lambda a: np.asarray(a, dtype=np.float64).reshape(len(X), -1)
        return target_score(self.kind, as_columns(y), as_columns(self.predict(X)))

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
            tune = dataclasses.replace(config.tune, train="all", trunk_lr=1.0, steps=self.steps)
            return model, prepared, tune
        bundle = read_bundle(self.run)
        check_units(bundle, rec)
        moving = dataclasses.replace(config.decode.moving, variable="")  # the caller's labels say which count
        config = dataclasses.replace(config, decode=dataclasses.replace(config.decode, moving=moving))
        tune = dataclasses.replace(config.tune, train=self.train, steps=self.steps)
        return load_model(bundle), _whole(rec, config, bundle.normalization), tune


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


def _whole(rec: Recording, config: Config, normalization: dict | None = None) -> Prepared:
    """A recording with nothing held out: the caller's moments say what trains."""
    segments = rec.domain
    num_ticks = nanoseconds(segments[:, 1] - segments[:, 0]) // nanoseconds(config.window.dt)
    blocks = np.stack([np.arange(len(segments)), np.zeros(len(segments), np.int64), num_ticks], 1)
    none = np.zeros((0, 3), np.int64)
    split = Split(segments, {"train": blocks, "valid": none, "test": none}, config.window.dt)
    index = SpikeIndex.from_recording(rec, segments, config.window.dt)
    scale = fit_normalization(rec, split, config, index) if normalization is None else normalization
    return Prepared(rec, config, split, index, scale, BatchBuilder(rec, index, config, scale))


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
