"""Decoding of a trained run: the model, ridge, and what scores without neural data, on the same windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neuroformer.config import Config, TargetConfig
from neuroformer.controls import control_predictions
from neuroformer.decoding.baselines import fit_ridge
from neuroformer.decoding.decode import Decoded, decode_windows, predict_targets, score_decoded, true_values
from neuroformer.model.bundle import Bundle, load_model
from neuroformer.training.data import Prepared, prepare
from neuroformer.training.train import load_best, train

BLIND_SHARE = 0.25  # of the training steps: without spikes there is little to learn


def decode_run(
    bundle: Bundle, prepared: Prepared, folder: Path, *, progress: bool = True
) -> Iterator[tuple[TargetConfig, Decoded, dict[str, float]]]:
    """Every declared target of a run, decoded and scored.

    Each target is read with the weights that were best for it in validation. Ridge and the controls get the
    training windows' labels; the control is the best of neighbour interpolation, autoregression and, where
    the model has inputs or frames, the same model trained without a spike.

    Yields
    ------
    (TargetConfig, Decoded, flat scores)
    """
    config = prepared.config
    part = config.decode.split
    windows = {p: decode_windows(prepared, p) for p in ("train", "valid", part)}
    labels = {p: true_values(prepared, w) for p, w in windows.items()}
    blind = _without_spikes(prepared, folder / "control", progress) if _sees_more(config) else {}
    test = windows[part]
    ends = test.starts(prepared.index) + config.window.current
    for target in config.targets:
        true = labels[part][target.name]
        decoded = Decoded(target.name, ends, test.segment, true)
        decoded.predicted["model"] = predict_targets(load_model(bundle, target.name), prepared, test)[
            target.name
        ]
        mine = {p: labels[p][target.name] for p in labels}
        ridge = fit_ridge(prepared.index, windows, mine, prepared.builder.shape, config, kind=target.kind)
        decoded.predicted["ridge"] = ridge.predict(test)
        controls = control_predictions(
            prepared.index, windows["train"], mine["train"], test, prepared.builder.shape, kind=target.kind
        )
        if target.name in blind:
            controls["model_without_spikes"] = blind[target.name]
        decoded.predicted |= {f"control_{name}": values for name, values in controls.items()}
        yield target, decoded, _scores(decoded, target, config, prepared)


def _scores(decoded: Decoded, target: TargetConfig, config: Config, prepared: Prepared) -> dict[str, float]:
    """Flat scores; of the controls only the best counts, and its name is told."""
    columns = prepared.normalization["targets"][target.name].get("columns") or [target.name]
    main = dataclasses.replace(decoded, predicted={k: decoded.predicted[k] for k in ("model", "ridge")})
    out = score_decoded(main, target, config, columns)
    measure = "accuracy" if target.kind == "classification" else "r2"
    each = {}
    for name, values in decoded.predicted.items():
        if name.startswith("control_"):
            one = dataclasses.replace(decoded, predicted={"control": values})
            each[name.removeprefix("control_")] = score_decoded(one, target, config, columns)
    key = f"decode_{decoded.name}_{measure}_control"
    best = max(each, key=lambda name: each[name][key] if np.isfinite(each[name][key]) else -np.inf)
    out |= {k: v for k, v in each[best].items() if k.endswith("_control")}
    return out | {f"decode_{decoded.name}_control_name": best}  # pyright: ignore[reportReturnType]


def _sees_more(config: Config) -> bool:
    return bool(config.inputs) or config.window.frames > 0


def _without_spikes(prepared: Prepared, folder: Path, progress: bool) -> dict[str, np.ndarray]:
    """Predictions of the same model, trained on the targets alone, with every spike removed."""
    config = prepared.config
    steps = max(1, round(BLIND_SHARE * config.train.steps))
    silent = dataclasses.replace(
        config,
        loss=dataclasses.replace(config.loss, dt=0.0, id=0.0, rates=0.0, contrast=()),
        targets=tuple(dataclasses.replace(t, weight=1.0) for t in config.targets),
        train=dataclasses.replace(
            config.train,
            steps=steps,
            evaluate_every=max(1, steps // 4),
            warmup=min(config.train.warmup, steps // 4),
        ),
    )
    train(prepared.rec.without_spikes(), silent, folder, progress=progress)
    blind = prepare(prepared.rec.without_spikes(), silent, prepared.normalization)
    windows = decode_windows(prepared, config.decode.split)
    return {
        t.name: predict_targets(load_best(folder, t.name), blind, windows)[t.name] for t in config.targets
    }
