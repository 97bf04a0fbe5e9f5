"""Rates, means, standard deviations and classes, fitted on training blocks only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuroformer.config import Config, ConfigError, InputConfig, TargetConfig
from neuroformer.data.backbone import fit_backbone
from neuroformer.data.grid import check_grid
from neuroformer.data.scales import FrameScale, Normalization, VariableScale
from neuroformer.data.splits import Split
from neuroformer.data.traces import fit_trace_scale
from neuroformer.data.windows import SpikeIndex
from neuroformer.recording import Recording
from neuroformer.recording.clock import interval_of

_CHECKED_BYTES = 1 << 30  # of frames that are looked through for pixels that are no numbers


def fit_normalization(rec: Recording, split: Split, config: Config, index: SpikeIndex) -> Normalization:
    """Everything that a model must know about its training data.

    Raises
    ------
    ConfigError
        Bins that do not fit the grid on which spikes lie, a variable without a finite training sample, a class label that is neither a whole number nor a word, words
        that are no classes, or a circular variable of no period whose values span more than a turn.
    RecordingError
        A variable that the recording lacks.
    """
    check_grid(rec, config)
    bins = split.blocks["train"]
    counts, peak = np.zeros(rec.num_units), np.zeros(rec.num_units)
    lo, hi = np.searchsorted(index.keys, index.base[bins[:, 0]][:, None] + bins[:, 1:]).T
    for a, b in zip(lo, hi, strict=True):
        counts += np.bincount(index.unit[a:b], minlength=rec.num_units)
        cells, num = np.unique(index.keys[a:b] * rec.num_units + index.unit[a:b], return_counts=True)
        np.maximum.at(peak, cells % rec.num_units, num)
    observed = np.full(rec.num_units, int((bins[:, 2] - bins[:, 1]).sum()))
    if index.observed is not None:  # a unit that training never saw counts as silent: nothing is known of its rate
        seen = index.observed.number(*(index.base[bins[:, 0]] + bins[:, 1:].T)).sum(0)
        observed = np.where(seen > 0, seen, observed)
    return Normalization(
        ((counts + 0.5) / observed).tolist(),
        (peak + 1).tolist(),
        fit_inputs(rec, split, config.inputs),
        fit_targets(rec, split, config.targets),
        _frame_scale(rec, split, config) if config.window.frames > 0 else None,
        fit_trace_scale(rec, bins, index, config) if config.traces.likelihood != "none" else None,
    )


def fit_inputs(rec: Recording, split: Split, inputs: Sequence[InputConfig]) -> dict[str, VariableScale]:
    """The scales of inputs, by variable."""
    for v in inputs:
        _refuse_words(rec, v.name, "an input is numbers: give one column of 0 and 1 for each word")
    return {v.name: column_scale(*_training_values(rec, split, v.name)) for v in inputs}


def fit_targets(rec: Recording, split: Split, targets: Sequence[TargetConfig]) -> dict[str, VariableScale]:
    """The scales, or classes, of targets, by variable."""
    out: dict[str, VariableScale] = {}
    for t in targets:
        values, columns = _training_values(rec, split, t.name)
        if t.kind == "classification":
            words = list(rec.variable(t.name).classes)
            out[t.name] = VariableScale(classes=_classes(values, t.name), words=words)
        else:
            _refuse_words(rec, t.name, "declare the target with kind: classification")
            out[t.name] = column_scale(values, columns)
            if t.kind == "circular":
                out[t.name].period = _period(t, values)
    return out


def _refuse_words(rec: Recording, name: str, advice: str) -> None:
    words = rec.variable(name).classes
    if words:
        several = ", ".join(words[:5]) + (", ..." if len(words) > 5 else "")
        raise ConfigError(f"'{name}' of '{rec.name}' is recorded as words ({several}); {advice}")


def _period(target: TargetConfig, values: np.ndarray) -> float:
    low, high = float(values.min()), float(values.max())
    if not target.period and high - low > 2 * np.pi * (1 + 1e-6):
        raise ConfigError(
            f"target '{target.name}' is circular and its values run from {low:g} to {high:g}, more than a turn of 2 pi; "
            "give its period: 360 where it is in degrees, 6.283185 where it is radians that were unwrapped"
        )
    return target.period or 2 * np.pi


def _training_values(rec: Recording, split: Split, name: str) -> tuple[np.ndarray, list[str]]:
    var = rec.variable(name)
    inside = interval_of(var.times, split.intervals("train")) >= 0
    values = var.values[inside].astype(np.float64)
    finite = np.isfinite(values).all(1)
    if not finite.any():
        raise ConfigError(
            f"behavior variable '{name}' has no finite sample in the training blocks "
            f"({int(inside.sum())} samples there, all missing); check its times against the split"
        )
    return values[finite], list(var.columns) or [name] * (var.num_columns == 1)


def turn_start(low: float, period: float) -> float:
    """Where the circle of a variable begins: at 0 where training held no negative value, else half a turn before."""
    return 0.0 if low >= 0 else -period / 2


def column_scale(values: np.ndarray, columns: list[str]) -> VariableScale:
    """The scale of a variable in units of its own, from (N, C) values."""
    std = values.std(0)
    spread = np.where(std > 0, std, 1.0)
    return VariableScale(*(x.tolist() for x in (values.mean(0), spread, values.min(0), values.max(0))), columns=columns)


def _classes(values: np.ndarray, name: str) -> list[int]:
    if values.shape[1] != 1 or not np.array_equal(values, np.rint(values)):
        raise ConfigError(
            f"target '{name}' is declared 'classification', but it is not one column of whole numbers or "
            "words; use kind: regression, or give integer labels"
        )
    return np.unique(values.astype(np.int64)).tolist()


def _frame_scale(rec: Recording, split: Split, config: Config) -> FrameScale:
    frames = rec.frames
    if frames is None:
        raise ConfigError(
            f"window.frames is {config.window.frames:g} s, but recording '{rec.name}' has no frames; set it to 0"
        )
    if len(frames.times) < 2:
        raise ConfigError(f"recording '{rec.name}' shows {len(frames.times)} frame(s); at least 2 are needed")
    period = float(np.median(np.diff(frames.times)))
    count = round(config.window.frames / period)
    if count < 1:
        raise ConfigError(
            f"window.frames is {config.window.frames:g} s, shorter than one frame ({period:g} s) of '{rec.name}'"
        )
    inside = interval_of(frames.times, split.intervals("train")) >= 0
    shown = np.unique(frames.index[inside])
    if np.dtype(frames.images.dtype).kind == "f":  # now, rather than in the middle of the training
        most = _CHECKED_BYTES // max(1, int(np.prod(frames.images.shape[1:])) * np.dtype(frames.images.dtype).itemsize)
        for part in np.array_split(shown[:most], max(1, len(shown) // 512)):
            frames.pixels(part)
    sample = shown[:: max(1, len(shown) // 512)]
    images = frames.pixels(sample).astype(np.float32)
    scale = FrameScale(
        float(images.mean()), float(images.std()) or 1.0, count, period, [int(n) for n in frames.images.shape[1:]]
    )
    encoder = config.model.frame_encoder
    if encoder.kind == "backbone":
        last = np.flatnonzero(inside[count - 1 :] & inside[: len(inside) - count + 1])
        clips = frames.index[last[:: max(1, len(last) // 64), None] + np.arange(count)]
        pixels = frames.pixels(clips.ravel()).reshape(*clips.shape, *scale.shape)
        scale.backbone = fit_backbone(encoder, pixels, scale.mean, scale.std)
    return scale
