"""Decoding over contiguous folds: every stretch of a recording is held out once; a model and baselines for each.

Shape suffixes: V values, C columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.config import Config, ConfigError, TargetConfig
from neuroformer.data.windows import Windows
from neuroformer.decoding.decode import (
    Decoded,
    decode_windows,
    paired_difference,
    predict_targets,
    true_values,
)
from neuroformer.decoding.finetune import finetune
from neuroformer.decoding.run import add_baselines, add_controls, scores, start_decoded
from neuroformer.model.bundle import read_bundle
from neuroformer.recording import Recording
from neuroformer.training.data import Prepared, prepare
from neuroformer.training.train import load_best, train

PIECES = 4  # stretches a fold is cut into: validation takes one stretch of each of the other folds


def fold_config(config: Config, rec: Recording, fold: int, num_folds: int) -> Config:
    """The configuration with fold ``fold`` of ``num_folds`` held out.

    The recording (or the list of its trials) is cut into ``num_folds`` contiguous parts; one is the test part. Of
    each other part the last fourth validates.
    """
    if not 0 <= fold < num_folds or num_folds < 2:
        raise ConfigError(f"fold {fold} of {num_folds} does not exist; at least 2 folds, counted from 0")
    pieces = []
    for part in range(num_folds):
        role = ["test"] * PIECES if part == fold else ["train"] * (PIECES - 1) + ["valid"]
        pieces += role
    split = config.split
    if split.by == "trials":
        if rec.num_trials < len(pieces):
            raise ConfigError(
                f"recording '{rec.name}' has {rec.num_trials} trials; {num_folds} folds need at least {len(pieces)}"
            )
        place = np.arange(rec.num_trials) * len(pieces) // rec.num_trials
        pattern = tuple(pieces[i] for i in place)
        return dataclasses.replace(config, split=dataclasses.replace(split, pattern=pattern))
    block = float(rec.duration / len(pieces))
    return dataclasses.replace(config, split=dataclasses.replace(split, block=block, pattern=tuple(pieces)))


def decode_folds(
    rec: Recording,
    config: Config,
    folder: Path,
    num_folds: int,
    baselines: Sequence[str],
    *,
    progress: bool = True,
) -> Iterator[tuple[TargetConfig, Decoded, dict[str, Any]]]:
    """Train and decode every fold, then pool them.

    In each fold the model is trained on the training part (spikes and targets; validation chooses the weights). Its
    heads are then fine-tuned (``tune``): validation says from which start and for how long, and the labels of
    training and validation parts together are what the last descent is on. Baselines choose their hyperparameters and are fitted on the same labels. A fold that
    ``folder`` already holds, of the same configuration, is not done again; one whose held-out part has no label at all
    (the animal rested) is left out.

    Yields
    ------
    (TargetConfig, Decoded, flat scores)
        Of the pooled folds; scores have, beside those of ``decode``, the best baseline's name and
        ``decode_<variable>_difference`` (model minus it) with its paired interval ``_low`` and ``_high``.
    """
    parts: dict[str, list[Decoded]] = {t.name: [] for t in config.targets}
    prepared = None
    for fold in range(num_folds):
        prepared = _fold(rec, fold_config(config, rec, fold, num_folds), folder / f"fold_{fold}", baselines, parts, progress)  # fmt: skip
    assert prepared is not None
    for target in config.targets:
        pooled = pool(parts[target.name])
        out = scores(pooled, target, prepared)
        key = f"decode_{target.name}"
        if f"{key}_best_baseline" in out:
            best = out[f"{key}_best_baseline"]
            difference = paired_difference(pooled, target, config, "model", best)
            out |= dict(zip((f"{key}_difference", f"{key}_difference_low", f"{key}_difference_high"), difference, strict=True))  # fmt: skip
        yield target, pooled, out


def pool(parts: Sequence[Decoded]) -> Decoded:
    """The folds' held-out values in time order."""
    order = np.argsort(np.concatenate([p.times for p in parts]), kind="stable")
    join = lambda pick: np.concatenate([pick(p) for p in parts])[order]
    names = [n for n in parts[0].predicted if all(n in p.predicted for p in parts)]
    predicted = {name: join(lambda p, name=name: p.predicted[name]) for name in names}
    return Decoded(parts[0].name, join(lambda p: p.times), join(lambda p: p.segment), join(lambda p: p.true_VC), predicted)  # fmt: skip


def labelled_windows(prepared: Prepared) -> tuple[Windows, dict[str, np.ndarray]]:
    """Windows of the training and validation parts in time order, and the labels at their values."""
    both = [decode_windows(prepared, part) for part in ("train", "valid")]
    joined = Windows(*(np.concatenate([getattr(w, n) for w in both]) for n in ("segment", "tick")))
    windows = joined[np.lexsort((joined.tick, joined.segment))]
    return windows, true_values(prepared, windows)


def _fold(rec, config: Config, folder: Path, baselines, parts, progress: bool) -> Prepared:
    prepared = prepare(rec, config)
    test = decode_windows(prepared, "test")
    true = true_values(prepared, test)
    if not any(np.isfinite(values).any() for values in true.values()):
        return prepared  # nothing to score: the animal rested
    if not _trained(folder, config):
        train(rec, config, folder, progress=progress)
    windows, labels = labelled_windows(prepared)
    for target in config.targets:
        file = folder / f"decoded_{target.name}.npz"
        decoded = start_decoded(prepared, target, test, true[target.name])
        if file.exists():
            with np.load(file) as stored:
                decoded.predicted = {name: stored[name] for name in stored.files}
        if "model" not in decoded.predicted:
            aside = decode_windows(prepared, "train"), decode_windows(prepared, "valid")
            model = load_best(folder, target.name)
            tuned, _ = finetune(model, prepared, windows, [target], config.tune, config.seed, aside)
            decoded.predicted["model"] = predict_targets(tuned, prepared, test)[target.name]
        missing = [name for name in baselines if name not in decoded.predicted]
        add_baselines(decoded, prepared, target, windows, labels, test, missing)
        if not any(name.startswith("control_") for name in decoded.predicted):
            add_controls(decoded, prepared, target, windows, labels, test)
        np.savez_compressed(file, **decoded.predicted)  # pyright: ignore[reportArgumentType]
        parts[target.name].append(decoded)
    return prepared


def _trained(folder: Path, config: Config) -> bool:
    """Whether the folder holds a run of this configuration; what another one left there is removed."""
    if not (folder / "bundle.json").exists():
        return False
    if read_bundle(folder).config == config:
        return True
    for file in folder.glob("decoded_*.npz"):
        file.unlink()
    return False
