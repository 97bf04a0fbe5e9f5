"""Decoding of a trained run: the model, readouts on its states, baselines, and what scores without neural data, at the same moments."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.baselines.controls import control_predictions, meaning, trial_wise
from neuroformer.baselines.decoders import ALL, FAST, FINEST_S, Baselines, in_words
from neuroformer.baselines.features import Binning
from neuroformer.bundle.bundle import Bundle, load_model
from neuroformer.config import Config, TargetConfig
from neuroformer.data.prepared import Prepared, prepare
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape
from neuroformer.decoding.decode import (
    Decoded,
    as_recorded,
    decode_labels,
    decode_windows,
    encode_labels,
    every_window,
    hard_values,
    measure,
    moments,
    predict_targets,
    raw_targets,
    score_decoded,
    soft_values,
    spread_of,
    target_head,
    true_values,
)
from neuroformer.decoding.errors import against_baselines, error_scores
from neuroformer.decoding.images import image_scores
from neuroformer.decoding.readouts import READOUTS, RECURRENT, fit_readout
from neuroformer.model.network import Neuroformer
from neuroformer.training.train import load_best, train

ENSEMBLE = "ensemble"
BLIND_SHARE = 0.25  # of the training steps: without spikes there is little to learn


def decode_run(
    bundle: Bundle,
    prepared: Prepared,
    folder: Path,
    *,
    baselines: Sequence[str] = FAST,
    progress: bool = True,
) -> Iterator[tuple[TargetConfig, Decoded, dict[str, Any]]]:
    """Every declared target of a run, decoded and scored.

    Each target is read with the weights that were best for it in validation. Baselines get the labels of training
    windows at every phase of the grid, as the heads did (``train.jitter``), controls those of windows that tile it; the control is the best of neighbour interpolation, autoregression, ridge on spikes
    that were shuffled against the labels and, where the model has inputs or frames, the same model trained
    without a spike.

    Yields
    ------
    (TargetConfig, Decoded, flat scores)
    """
    config = prepared.config
    part = config.decode.split
    windows = {p: decode_windows(prepared, p) for p in ("train", part)}
    labels = {p: true_values(prepared, w) for p, w in windows.items()}
    # the heads saw windows at every phase of the grid, so baselines do
    every = every_window(prepared, ("train",))
    every_label = true_values(prepared, every)
    blind = _without_spikes(prepared, folder / "control", progress) if sees_more(config) else {}
    for target in config.targets:
        model = load_model(bundle, target.name)
        decoded = start_decoded(prepared, target, windows[part], labels[part][target.name])
        head, raw = target_head(model, target.name), raw_targets(model, prepared, windows[part])[target.name]
        decoded.predicted["model"] = hard_values(head, soft_values(head, raw))
        decoded.spread_VC = spread_of(head, raw)
        decoded.chosen["model"] = {"fits": 1, "seconds": bundle.metrics.get("train_seconds", float("nan"))}
        add_readouts(decoded, model, prepared, target, every, windows[part], soft_values(head, raw), seed=config.seed)
        add_baselines(decoded, prepared, target, every, every_label, windows[part], baselines)
        add_controls(decoded, prepared, target, windows["train"], labels["train"], windows[part])
        if target.name in blind:
            decoded.predicted["control_model_without_spikes"] = blind[target.name]
        decoded = as_recorded(decoded, target, prepared.normalization.targets[target.name])
        yield target, decoded, scores(decoded, target, prepared)


def start_decoded(prepared: Prepared, target: TargetConfig, windows: Windows, true_VC: np.ndarray) -> Decoded:
    """A variable at the moments of windows, not decoded yet."""
    at, shape = moments(windows, prepared.builder.shape, target.samples)
    times = at.starts(prepared.index) + shape.current * shape.dt
    classes = {}
    if target.kind == "classification":
        scale = prepared.normalization.targets[target.name]
        classes = {float(c): scale.word(c) for c in np.unique(true_VC[np.isfinite(true_VC)])}
    unit = prepared.rec.variable(target.name).unit
    return Decoded(target.name, times, at.segment, true_VC, classes=classes, unit=unit)


def add_readouts(
    decoded: Decoded,
    model: Neuroformer,
    prepared: Prepared,
    target: TargetConfig,
    train: Windows,
    test: Windows,
    own_VE: np.ndarray,
    names: Sequence[str] = READOUTS,
    seed: int = 0,
) -> None:
    """Add readouts fitted on the network's states (:mod:`~neuroformer.decoding.readouts`), and the mean of them and of
    ``own``, what the network's own head gives (:func:`soft_values`): an ensemble.

    With ``tune.steps`` 0 there is no recurrent one.
    """
    head, soft = target_head(model, target.name), [own_VE]
    fits, seconds = 0, 0.0
    for name in names:
        if name == RECURRENT and not prepared.config.tune.steps:
            continue
        found = fit_readout(name, model, prepared, target, train, seed)
        soft.append(soft_values(head, found.raw(test)))
        decoded.predicted[name] = hard_values(head, soft[-1])
        decoded.chosen[name] = {"fits": found.fits, "seconds": found.seconds, "choice": found.choice}
        fits, seconds = fits + found.fits, seconds + found.seconds
    decoded.predicted[ENSEMBLE] = hard_values(head, np.mean(soft, 0))
    choice = f"mean of the network's head and {len(soft) - 1} readouts on its states"
    decoded.chosen[ENSEMBLE] = {"fits": fits, "seconds": seconds, "choice": choice}


def add_baselines(
    decoded: Decoded,
    prepared: Prepared,
    target: TargetConfig,
    train: Windows,
    labels: dict[str, np.ndarray],
    test: Windows,
    names: Sequence[str],
) -> dict[str, dict]:
    """Fit baselines on training windows, add their predictions, and what they chose and cost; returns their choices.

    For class labels, those of the names that classify; windows at several phases of the grid may share moments, which
    count once.
    """
    kind = "classification" if target.kind == "classification" else "regression"
    shape, config = prepared.builder.shape, prepared.config
    (at, sub), (at_test, _) = (moments(w, shape, target.samples) for w in (train, test))
    _, once = np.unique(np.stack([at.segment, at.tick]), axis=1, return_index=True)
    y = encode_labels(target, labels[target.name])[once]
    fitter = Baselines(prepared.index, at[once], y, sub, config, kind=kind, seed=config.seed) if names else None
    chosen = {}
    for name in names:
        assert fitter is not None
        if name in ALL and not fitter.decodes(name):
            continue
        fitted = fitter.fit(name)
        decoded.predicted[name] = decode_labels(target, fitted.predict(at_test))
        chosen[name] = fitted.choice
        cost = {key: fitted.choice[key] for key in ("fits", "seconds")}
        decoded.chosen[name] = cost | {"choice": in_words(fitted.choice)}
    return chosen


def add_controls(
    decoded: Decoded,
    prepared: Prepared,
    target: TargetConfig,
    train: Windows,
    labels: dict[str, np.ndarray],
    test: Windows,
) -> None:
    """Add what scores without neural data, and ridge on spikes whose link with behavior is cut."""
    kind = "classification" if target.kind == "classification" else "regression"
    shape, index = prepared.builder.shape, prepared.index
    (at, sub), (at_test, _) = (moments(w, shape, target.samples) for w in (train, test))
    y = encode_labels(target, labels[target.name])
    found = control_predictions(index, at, y, at_test, sub, kind=kind)
    shuffled = shuffled_spikes(index, sub, prepared.config.seed)
    longest = Binning.graded(max(1, round(max(prepared.config.decode.lags) / sub.dt)), max(1, round(FINEST_S / sub.dt)))
    found["shuffled"] = (
        Baselines(shuffled, at, y, sub, prepared.config, kind=kind).fit("ridge", [longest]).predict(at_test)
    )
    decoded.predicted |= {f"control_{name}": decode_labels(target, values) for name, values in found.items()}
    ends = at.starts(index) + sub.current * sub.dt
    labelled = (ends, labels[target.name].reshape(len(ends), -1), decoded.times, decoded.true_VC)
    decoded.trial_wise = trial_wise(prepared.rec.trial_intervals, *labelled)


def shuffled_spikes(index: SpikeIndex, shape: WindowShape, seed: int) -> SpikeIndex:
    """The spikes with their link to behavior cut: trials are shuffled, or, in a single long segment, shifted around it.

    Segments exchange their spikes whole (those of a longer one are cut off); a segment alone is rotated by a third
    to two thirds of its length, so that rates and correlations stay as they are.
    """
    rng = np.random.default_rng(seed)
    segment = np.searchsorted(index.base, index.keys, side="right") - 1
    tick = index.keys - index.base[segment]
    count = len(index.base)
    if count >= 4:
        order = rng.permutation(count)
        while (order == np.arange(count)).any():
            order = rng.permutation(count)
        to = order[segment]
    else:
        to = segment
        length = index.num_ticks[segment]
        shift = (rng.uniform(1 / 3, 2 / 3, count) * index.num_ticks).astype(np.int64)
        tick = (tick + shift[segment]) % length
    inside = tick < index.num_ticks[to]
    return SpikeIndex.from_ticks(
        to[inside],
        tick[inside],
        index.unit[inside],
        index.origins,
        index.num_ticks,
        index.num_units,
        shape.dt,
    )


def scores(decoded: Decoded, target: TargetConfig, prepared: Prepared) -> dict[str, Any]:
    """Flat scores; of the controls only the best counts, and its name and what it knows are given, likewise the best baseline's
    (:func:`~neuroformer.decoding.errors.against_baselines`). Errors are in the variable's unit
    (:func:`~neuroformer.decoding.errors.error_scores`), the control's those of the best one.

    Beside them ``decode_<variable>_fits_<decoder>``, ``..._seconds_<decoder>`` and ``..._choice_<decoder>``: how many
    models were fitted for it, how long that took, and what it chose.
    """
    columns = prepared.normalization.targets[target.name].columns or [target.name]
    ours = {k: v for k, v in decoded.predicted.items() if not k.startswith("control_")}
    out = score_decoded(dataclasses.replace(decoded, predicted=ours), target, columns)
    key = f"decode_{decoded.name}_{measure(target)}"
    each = {}
    for name, values in decoded.predicted.items():
        if name.startswith("control_"):
            one = dataclasses.replace(decoded, predicted={"control": values})
            each[name.removeprefix("control_")] = score_decoded(one, target, columns, intervals=False)
    if each:
        rank = lambda name: np.nan_to_num(each[name][f"{key}_control"], nan=-np.inf)
        best = max(each, key=rank)
        out |= {k: v for k, v in each[best].items() if k.endswith("_control")}
        said = "; ".join(filter(None, (meaning(best), decoded.trial_wise)))
        out |= {f"decode_{decoded.name}_control_name": best, f"decode_{decoded.name}_control_meaning": said}
    for name, cost in decoded.chosen.items():
        out |= {f"decode_{decoded.name}_{key}_{name}": value for key, value in cost.items()}
    best = out.get(f"decode_{decoded.name}_control_name")
    shown = ours | ({"control": decoded.predicted[f"control_{best}"]} if best else {})
    out |= error_scores(dataclasses.replace(decoded, predicted=shown), target)
    if target.name == "frames" and prepared.rec.frames is not None:
        out |= image_scores(dataclasses.replace(decoded, predicted=shown), prepared)
    return out | against_baselines(decoded, target, key, out)


def sees_more(config: Config) -> bool:
    """Whether the model reads anything but spikes, so that it is a control of its own without them."""
    return bool(config.inputs) or config.window.frames > 0


def _without_spikes(prepared: Prepared, folder: Path, progress: bool) -> dict[str, np.ndarray]:
    """Predictions of the same model, trained on the targets alone, with every spike removed."""
    config = prepared.config
    steps = max(1, round(BLIND_SHARE * config.train.steps))
    silent = dataclasses.replace(
        config,
        loss=dataclasses.replace(config.loss, likelihood=0.0, rates=0.0, contrast=()),
        targets=tuple(dataclasses.replace(t, weight=1.0) for t in config.targets),
        train=dataclasses.replace(
            config.train,
            steps=steps,
            evaluate_every=max(1, steps // 4),
        ),
    )
    train(prepared.rec.without_spikes(), silent, folder, progress=progress)
    blind = prepare(prepared.rec.without_spikes(), silent, prepared.normalization)
    windows = decode_windows(prepared, config.decode.split)
    return {t.name: predict_targets(load_best(folder, t.name), blind, windows)[t.name] for t in config.targets}
