"""Behavior along a recording: moments, labels, the model's values at them, and scores with intervals.

Shape suffixes: W windows, N values per window, V = W * N values, C columns, E encoded columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroformer.config import ConfigError, TargetConfig
from neuroformer.data.normalization import turn_start
from neuroformer.data.prepared import Prepared
from neuroformer.data.scales import VariableScale
from neuroformer.data.windows import Windows, WindowShape
from neuroformer.intervals import Terms, over_time, target_terms
from neuroformer.metrics import circular_r2, pearson, r2, target_score
from neuroformer.model.network import Neuroformer
from neuroformer.model.targets import TargetHead


@dataclass
class Decoded:
    """One variable at every decoded moment.

    Attributes
    ----------
    times : (V,) seconds
    segment : (V,) which segment of the clock each lies in
    true_VC : NaN where the recording has no value, or the value does not count (``decode.moving``)
    predicted : by decoder ("model", "ridge", ...), (V, C) in the variable's own unit; class labels for classes
    spread_VC : standard deviation that the model claims, where its head learns one
    classes : what each class label that occurs in ``true_VC`` stands for; empty for other kinds
    chosen : by decoder, what it chose and cost: ``fits`` (how many models were fitted), ``seconds``, ``choice`` in words
    unit : of the variable; empty where the recording does not say
    trial_wise : what to know of a variable with one value per trial (:func:`~neuroformer.baselines.controls.trial_wise`)
    """

    name: str
    times: np.ndarray
    segment: np.ndarray
    true_VC: np.ndarray
    predicted: dict[str, np.ndarray] = field(default_factory=dict)
    spread_VC: np.ndarray | None = None
    classes: dict[float, str] = field(default_factory=dict)
    chosen: dict[str, dict[str, Any]] = field(default_factory=dict)
    unit: str = ""
    trial_wise: str = ""


# -- moments and labels --------------------------------------------------------------------------------------


def moments(windows: Windows, shape: WindowShape, samples: int) -> tuple[Windows, WindowShape]:
    """The values of windows as windows of their own, (V,), each ending at its moment, and their shape.

    Baselines and controls, whose labels belong to a window's end, then see what the model's values see.
    """
    step = shape.current // samples
    tick = windows.tick[:, None] + np.arange(samples) * step
    return (
        Windows(np.repeat(windows.segment, samples), tick.ravel()),
        dataclasses.replace(shape, current=step),
    )


def decode_windows(prepared: Prepared, part: str, phase: int = 0) -> Windows:
    """The windows that a decoding score is over: they leave room for the baselines' lags. ``phase`` moves their grid.

    Raises
    ------
    ConfigError
        No block of the part is long enough.
    """
    config, lags = prepared.config, prepared.config.decode.lags
    reach = max(prepared.builder.shape.reach, round(max(lags) / config.window.dt))
    windows = prepared.windows(part, reach=reach, phase=phase)
    if len(windows) == 0:
        raise ConfigError(
            f"no value of the '{part}' part can be decoded: every block of it is shorter than the "
            f"{reach * config.window.dt:g} s that model and baselines may look back (decode.lags up to {max(lags):g} s); make "
            "split.block longer or these shorter"
        )
    return windows


def every_window(prepared: Prepared, parts: Sequence[str] = ("train", "valid")) -> Windows:
    """Windows of these parts at every phase of the grid (``train.jitter``), in time order."""
    phases = range(prepared.builder.shape.current) if prepared.config.train.jitter else [0]
    return joined_windows([decode_windows(prepared, part, phase) for part in parts for phase in phases])


def joined_windows(parts: Sequence[Windows]) -> Windows:
    joined = Windows(*(np.concatenate([getattr(w, n) for w in parts]) for n in ("segment", "tick")))
    return joined[np.lexsort((joined.tick, joined.segment))]


def true_values(prepared: Prepared, windows: Windows) -> dict[str, np.ndarray]:
    """(V, C) labels of every target at the values of windows; NaN where missing."""
    parts = [prepared.builder.labels(piece) for piece in windows.pieces(4096)]
    names = [t.name for t in prepared.config.targets]
    return {name: np.concatenate([p[name].flatten(0, 1).numpy() for p in parts]) for name in names}


def encode_labels(target: TargetConfig, labels_VC: np.ndarray) -> np.ndarray:
    """(V, E) what a regression can predict: circular variables as (cos, sin), others as they are."""
    if target.kind != "circular":
        return labels_VC
    angle = labels_VC * (2 * np.pi / (target.period or 2 * np.pi))
    return np.concatenate([np.cos(angle), np.sin(angle)], 1)


def decode_labels(target: TargetConfig, encoded_VE: np.ndarray) -> np.ndarray:
    """The inverse of :func:`encode_labels`; angles in [-period / 2, period / 2)."""
    if target.kind != "circular":
        return encoded_VE
    cos, sin = np.split(encoded_VE, 2, axis=1)
    return np.arctan2(sin, cos) * ((target.period or 2 * np.pi) / (2 * np.pi))


def as_recorded(decoded: Decoded, target: TargetConfig, scale: VariableScale) -> Decoded:
    """A circular variable's values, true and decoded, on the turn on which it was recorded (0 to 360, -pi to pi)."""
    if target.kind != "circular":
        return decoded
    period = scale.period
    start = np.array([turn_start(low, period) for low in scale.low])
    turned = lambda values: start + (values - start) % period
    predicted = {name: turned(values) for name, values in decoded.predicted.items()}
    return dataclasses.replace(decoded, true_VC=turned(decoded.true_VC), predicted=predicted)


# -- the model -----------------------------------------------------------------------------------------------


@torch.no_grad()
def raw_targets(model: Neuroformer, prepared: Prepared, windows: Windows, batch_size: int = 512) -> dict[str, Tensor]:
    """(V, R) raw outputs of every head at the moments of each window."""
    parts: dict[str, list[Tensor]] = {name: [] for name in model.targets}
    for batch in prepared.batches(windows, batch_size, model.device):
        for name, raw in model.decoded(batch).items():
            parts[name].append(raw.float().flatten(0, 1).cpu())
    return {name: torch.cat(each) for name, each in parts.items()}


def predict_targets(
    model: Neuroformer, prepared: Prepared, windows: Windows, batch_size: int = 512
) -> dict[str, np.ndarray]:
    """(V, C) of every target at the moments of each window, in its own unit; class labels for classes.

    A value is read from the spikes before its moment plus ``window.lookahead``.
    """
    raw = raw_targets(model, prepared, windows, batch_size)
    return {name: target_head(model, name).decoded(x.to(model.device)).cpu().numpy() for name, x in raw.items()}


def predict_spreads(model: Neuroformer, prepared: Prepared, windows: Windows) -> dict[str, np.ndarray]:
    """(V, C) standard deviation that the heads with a learnt scale claim, by target."""
    every = {n: spread_of(target_head(model, n), raw) for n, raw in raw_targets(model, prepared, windows).items()}
    return {name: spread for name, spread in every.items() if spread is not None}


@torch.no_grad()
def spread_of(head: TargetHead, raw_VR: Tensor) -> np.ndarray | None:
    """(V, C) standard deviation that a head claims, where it learns one."""
    spread = head.spread(raw_VR.to(head.mean.device))
    return None if spread is None else spread.cpu().numpy()


def target_head(model: Neuroformer, name: str) -> TargetHead:
    """The head of a target."""
    head = model.targets[name]
    assert isinstance(head, TargetHead)
    return head


@torch.no_grad()
def soft_values(head: TargetHead, raw_VR: Tensor) -> np.ndarray:
    """(V, E) of which a mean over several readouts makes sense: values, the (cos, sin) of circular ones, probabilities of
    classes."""
    values = head.values(raw_VR.to(head.mean.device))
    if head.kind == "circular":
        angle = values * (2 * np.pi / head.period)
        values = torch.cat([angle.cos(), angle.sin()], -1)
    return values.cpu().numpy()


def hard_values(head: TargetHead, soft_VE: np.ndarray) -> np.ndarray:
    """(V, C) values in the variable's own unit, or class labels, of :func:`soft_values` or a mean of them."""
    if head.classes:
        return np.array(head.classes, soft_VE.dtype)[soft_VE.argmax(1)][:, None]
    if head.kind == "circular":
        cos, sin = np.split(soft_VE, 2, axis=1)
        start = np.array(head.start)
        return start + (np.arctan2(sin, cos) * (head.period / (2 * np.pi)) - start) % head.period
    return soft_VE


def stitch(decoded: Decoded, decoder: str, at: np.ndarray, period: float, *, interpolate: bool = False) -> np.ndarray:
    """(times, C) the decoded value at any time.

    Causal stitching holds the last value, for at most ``period`` seconds; NaN beyond. ``interpolate`` draws a line
    between the values around, where they are no further than ``period`` apart: it knows the later one, so it
    belongs to decoding with lookahead.
    """
    values = decoded.predicted[decoder].astype(np.float64)
    k = np.searchsorted(decoded.times, at + 1e-9, side="right") - 1
    age = at - decoded.times[np.maximum(k, 0)]
    out = values[np.maximum(k, 0)]
    if interpolate:
        after = np.minimum(k + 1, len(values) - 1)
        span = decoded.times[after] - decoded.times[np.maximum(k, 0)]
        weight = np.divide(age, span, out=np.zeros_like(age), where=span > 0)
        line = (1 - weight)[:, None] * out + weight[:, None] * values[after]
        out = np.where((span <= period + 1e-9)[:, None], line, out)
    out[(k < 0) | (age > period + 1e-9)] = np.nan
    return out


def at_samples(decoded: Decoded, target: TargetConfig, prepared: Prepared) -> dict[str, np.ndarray]:
    """The model's values at the variable's own samples, at whatever rate it was recorded: ``sample_times`` (N,),
    ``sample_true`` and ``sample_model`` (N, C).

    :func:`stitch` holds the last value; with lookahead a regression is interpolated.
    """
    variable, config = prepared.rec.variable(target.name), prepared.config
    period = config.window.current / target.samples
    interpolate = config.window.lookahead > 0 and target.kind == "regression"
    values = stitch(decoded, "model", variable.times, period, interpolate=interpolate)
    known = np.isfinite(values).all(1)
    return {
        "sample_times": variable.times[known],
        "sample_true": variable.values[known],
        "sample_model": values[known],
    }


# -- scores --------------------------------------------------------------------------------------------------


def score_of(target: TargetConfig) -> Callable[[np.ndarray, np.ndarray], float]:
    """(true, predicted) to one number: mean R2, mean circular R2, or balanced accuracy."""
    return lambda true, predicted: target_score(target.kind, true, predicted, target.period)


def column_scores(target: TargetConfig) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """(true, predicted) to (C,) R2, or circular R2."""
    if target.kind == "circular":
        return lambda true, predicted: circular_r2(true, predicted, target.period or 2 * np.pi)
    return r2


def recalls(true: np.ndarray, predicted: np.ndarray, classes: Sequence[float]) -> np.ndarray:
    """(classes,) share of the values of each class that are decoded as it; NaN for a class that does not occur."""
    hits = [predicted[true == label] == label for label in classes]
    return np.array([hit.mean() if len(hit) else np.nan for hit in hits])


def measure(target: TargetConfig) -> str:
    return "accuracy" if target.kind == "classification" else "r2"


def score_terms(
    decoded: Decoded, target: TargetConfig, predicted: np.ndarray | None = None, decoder: str = "model"
) -> Terms:
    """The score of a variable, and of its columns or classes, as sums over its labelled values in time order.

    Parameters
    ----------
    predicted : (V, C), or (V, R, C) of several repeats whose scores are averaged, in place of a decoder's
    """
    predicted = decoded.predicted[decoder] if predicted is None else predicted
    order = np.argsort(decoded.times, kind="stable")
    order = order[np.isfinite(decoded.true_VC[order]).all(1)]
    return target_terms(target.kind, decoded.true_VC[order], predicted[order], target.period, list(decoded.classes))


def score_decoded(decoded: Decoded, target: TargetConfig, columns: list[str], intervals: bool = True) -> dict[str, Any]:
    """Flat scores of every decoder of a variable, with 95 % intervals over held-out time.

    ``decode_<variable>_r2`` (or ``_accuracy``) for the model and ``..._<decoder>`` for the others, the mean over
    columns, ``..._low`` and ``..._high`` the interval; ``decode_<variable>_<column>_r2`` likewise where there are several
    columns, ``decode_<variable>_<class>_recall`` where there are classes: the share of a class's values that are decoded
    as it. Values without a label are left out and counted.

    Intervals are those of :func:`neuroformer.intervals.over_time`: of this model and these baselines on other stretches
    of the recording; NaN, with a warning, where held-out values are worth too few independent ones. Of pooled folds,
    each value is decoded by its own fold's model, and the interval is over all held-out time.
    """
    keep = np.isfinite(decoded.true_VC).all(1)
    true = decoded.true_VC[keep]
    name = f"decode_{decoded.name}"
    out: dict[str, Any] = {f"{name}_windows": int(keep.sum()), f"{name}_missing": int((~keep).sum())}
    score, what = score_of(target), measure(target)
    each = column_scores(target) if len(columns) > 1 else lambda true, predicted: np.zeros(0)
    if target.kind == "classification":
        each = lambda true, predicted: recalls(true, predicted, list(decoded.classes))
    every = lambda true, predicted: np.array([score(true, predicted), *each(true, predicted)])
    keys = [f"{name}_{what}"]
    if len(columns) > 1:
        full = [c if c.startswith(decoded.name) else f"{decoded.name}_{c}" for c in columns]
        keys += [f"decode_{c}_r2" for c in full]
    if target.kind == "classification":
        keys += [f"{name}_{word}_recall" for word in decoded.classes.values()]
        out[f"{name}_chance"] = 1 / max(1, len(np.unique(true)))
    for decoder, values in decoded.predicted.items():
        suffix = "" if decoder == "model" else f"_{decoder}"
        predicted = values[keep]
        out |= {f"{k}{suffix}": float(v) for k, v in zip(keys, every(true, predicted), strict=True)}
        if intervals:
            ends = over_time(score_terms(decoded, target, values), keys[0]).ends()
            for k, low, high in zip(keys, *ends[:, : len(keys)], strict=True):
                out[f"{k}{suffix}_low"], out[f"{k}{suffix}_high"] = float(low), float(high)
        if target.kind == "regression":
            out[f"{name}_pearson{suffix}"] = float(np.mean(pearson(true, predicted)))
    return out


def paired_difference(decoded: Decoded, target: TargetConfig, a: str, b: str) -> tuple[float, float, float]:
    """Score of decoder ``a`` minus that of ``b`` and its 95 % interval over held-out time; both lose the same blocks."""
    difference = score_terms(decoded, target, decoder=a).minus(score_terms(decoded, target, decoder=b))
    found = over_time(difference, f"decode_{decoded.name}, {a} minus {b}")
    low, high = found.ends()[:, 0]
    return float(found.value_S[0]), float(low), float(high)
