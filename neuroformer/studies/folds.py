"""Decoding over contiguous folds: every stretch of a recording is held out once; a model and baselines for each.

Shape suffixes: V values, C columns.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from neuroformer.bundle.bundle import LIKELIHOOD, read_bundle
from neuroformer.bundle.saving import save_weights
from neuroformer.config import Config, ConfigError, TargetConfig
from neuroformer.data.prepared import Prepared, prepare
from neuroformer.data.splits import block_edges, reach_seconds
from neuroformer.data.windows import Windows, nanoseconds
from neuroformer.decoding.decode import (
    Decoded,
    as_recorded,
    decode_windows,
    every_window,
    hard_values,
    joined_windows,
    raw_targets,
    soft_values,
    target_head,
    true_values,
)
from neuroformer.decoding.finetune import fit_heads
from neuroformer.decoding.run import ENSEMBLE, add_baselines, add_controls, add_readouts, scores, start_decoded
from neuroformer.files import save_npz, write_atomic
from neuroformer.model.network import Neuroformer
from neuroformer.recording import Recording
from neuroformer.training.checkpoint import FILE, read_config
from neuroformer.training.train import load_best, train

HEADS = "heads.safetensors"  # a fold's model after its heads were fitted
PIECES = 20  # most stretches that a fold is cut into: one of all those that are not held out is for validation
REACHES = (
    5  # a stretch lasts at least so many times what a window reads beside itself, so that windows fit between gaps
)


def fold_config(config: Config, rec: Recording, fold: int, num_folds: int) -> Config:
    """The configuration with fold ``fold`` of ``num_folds`` held out.

    The recording (or the list of its trials) is cut into ``num_folds`` contiguous parts; one is the test part. Of
    the part farthest from it, one stretch in :data:`PIECES` validates (in fewer, if the recording is short); all the rest trains. It
    ends training early and chooses its weights by the likelihood of its spikes, as ``train.patience`` says; without patience
    the last weights count, and nothing is chosen.
    """
    if not 0 <= fold < num_folds or num_folds < 2:
        raise ConfigError(f"fold {fold} of {num_folds} does not exist; at least 2 folds, counted from 0")
    split = config.split
    least = REACHES * max(reach_seconds(config), config.window.current)
    by_trials = split.by == "trials"
    pieces = min(PIECES, rec.num_trials // num_folds if by_trials else int(rec.duration / num_folds / least))
    if pieces < 2:
        has = f"has {rec.num_trials} trials" if by_trials else f"lasts {rec.duration:,.3g} s"
        needs = 2 * num_folds if by_trials else f"{2 * num_folds * least:,.3g} s"
        raise ConfigError(f"recording '{rec.name}' {has}; {num_folds} folds need {needs} or more")
    num_pieces, window = num_folds * pieces, config.window
    block = float(rec.duration / num_pieces)
    place = np.arange(rec.num_trials) * num_pieces // max(rec.num_trials, 1)
    if not by_trials:
        place = _places(rec, round(block / window.dt), num_pieces, window.dt)
    middle = (fold + num_folds // 2) % num_folds * pieces + pieces // 2
    role = np.where(place // pieces == fold, "test", "train").astype(object)
    role[place == place[np.abs(place - middle).argmin()]] = "valid"
    train = config.train
    if not train.patience:
        train = dataclasses.replace(train, evaluate_every=train.steps)
    split = dataclasses.replace(split, block=split.block if by_trials else block, pattern=tuple(role))
    return dataclasses.replace(config, split=split, train=train)


def _places(rec: Recording, block: int, num_pieces: int, dt: float) -> np.ndarray:
    """(blocks,) which of ``num_pieces`` equal pieces of the recorded time the middle of each block lies in."""
    ticks = nanoseconds(rec.domain[:, 1] - rec.domain[:, 0]) // nanoseconds(dt)
    edges = [
        np.array(block_edges(int(n), block)) + before for n, before in zip(ticks, np.cumsum(ticks) - ticks, strict=True)
    ]
    middles = np.concatenate([(e[1:] + e[:-1]) / 2 for e in edges])
    return (middles * num_pieces / ticks.sum()).astype(int)


def decode_folds(
    rec: Recording,
    config: Config,
    folder: Path,
    num_folds: int,
    baselines: Sequence[str],
    *,
    members: int = 1,
    only: Sequence[int] = (),
    progress: bool = True,
) -> Iterator[tuple[TargetConfig, Decoded, dict[str, Any]]]:
    """Train and decode every fold, then pool them.

    In each fold the model is trained on spikes and labels of everything that is not held out, for the configured
    number of steps, and its heads then on the labels alone (:func:`~neuroformer.decoding.finetune.fit_heads`). With
    several ``members`` that is done once a seed, and values are their mean. Readouts are fitted on the
    states of the first network (:func:`~neuroformer.decoding.run.add_readouts`). Baselines choose their hyperparameters and are
    fitted on the same labels. A fold that ``folder`` already holds, of the same configuration, is not done again; one
    whose held-out part has no label at all (the animal rested) is left out. With ``only`` some folds, the others are
    left for another call, and those alone are pooled.

    Yields
    ------
    (TargetConfig, Decoded, flat scores)
        Of the pooled folds; scores are those of ``decode``, over all held-out time.
    """
    parts: dict[str, list[Decoded]] = {t.name: [] for t in config.targets}
    prepared = None
    for fold in only or range(num_folds):
        one = fold_config(config, rec, fold, num_folds)
        prepared = _fold(rec, one, folder / f"fold_{fold}", baselines, members, parts, progress)
    assert prepared is not None
    for target in config.targets:
        if not parts[target.name] and only:
            continue
        if not parts[target.name]:
            raise ConfigError(f"no held-out part has a label of '{target.name}'; see decode.moving")
        pooled = as_recorded(pool(parts[target.name]), target, prepared.normalization.targets[target.name])
        out = scores(pooled, target, prepared)
        yield target, pooled, out


def pool(parts: Sequence[Decoded]) -> Decoded:
    """The folds' held-out values in time order."""
    order = np.argsort(np.concatenate([p.times for p in parts]), kind="stable")
    join = lambda pick: np.concatenate([pick(p) for p in parts])[order]
    names = [n for n in parts[0].predicted if all(n in p.predicted for p in parts)]
    predicted = {name: join(lambda p, name=name: p.predicted[name]) for name in names}
    classes = dict(sorted(item for p in parts for item in p.classes.items()))
    return Decoded(
        parts[0].name,
        join(lambda p: p.times),
        join(lambda p: p.segment),
        join(lambda p: p.true_VC),
        predicted,
        classes=classes,
        chosen={name: _of_folds([p.chosen[name] for p in parts if name in p.chosen]) for name in parts[0].chosen},
        unit=parts[0].unit,
        trial_wise=next((p.trial_wise for p in parts if p.trial_wise), ""),
    )


def _of_folds(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Fits and seconds of all folds; of what they chose, the most common."""
    out: dict[str, Any] = {key: sum(one[key] for one in each) for key in ("fits", "seconds")}
    texts = [one["choice"] for one in each if "choice" in one]
    if texts:
        best = max(texts, key=texts.count)
        out["choice"] = best + (f" ({texts.count(best)} of {len(texts)} folds)" if len(texts) > 1 else "")
    return out


def _stored_choices(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {}  # a fold of an earlier version has none


def labelled_windows(prepared: Prepared) -> tuple[Windows, dict[str, np.ndarray]]:
    """Windows of the training and validation parts in time order, and the labels at their values."""
    windows = joined_windows([decode_windows(prepared, part) for part in ("train", "valid")])
    return windows, true_values(prepared, windows)


def _fold(rec, config: Config, folder: Path, baselines, members: int, parts, progress: bool) -> Prepared:
    prepared = prepare(rec, config)
    test = decode_windows(prepared, "test")
    true = true_values(prepared, test)
    if not any(np.isfinite(values).any() for values in true.values()):
        return prepared  # nothing to score: the animal rested
    folders = [folder / f"member_{m}" if m else folder for m in range(members)]
    for m, place in enumerate(folders):
        seeded = dataclasses.replace(config, seed=config.seed + m)
        if not _trained(place, seeded):
            checkpoint = place / FILE
            unfinished = checkpoint.exists() and read_config(checkpoint) == seeded
            train(rec, seeded, place, progress=progress, resume=unfinished)
    windows, labels = labelled_windows(prepared)
    every = every_window(prepared)  # which the heads see, too
    every_label = true_values(prepared, every)
    models = [_fitted(place, prepared, config.seed + m) for m, place in enumerate(folders)]
    raws = [raw_targets(model, prepared, test) for model in models]
    for target in config.targets:
        file = folder / f"decoded_{target.name}.npz"
        decoded = start_decoded(prepared, target, test, true[target.name])
        if file.exists():
            with np.load(file) as stored:
                decoded.predicted = {name: stored[name] for name in stored.files}
            decoded.chosen = _stored_choices(file.with_suffix(".json"))
        head = target_head(models[0], target.name)
        own_VE = np.mean([soft_values(head, raw[target.name]) for raw in raws], 0)
        decoded.predicted["model"] = hard_values(head, own_VE)
        if decoded.chosen.get(ENSEMBLE, {}).get("members") != members:
            add_readouts(decoded, models[0], prepared, target, every, test, own_VE, seed=config.seed)
            decoded.chosen[ENSEMBLE]["members"] = members
        missing = [name for name in baselines if name not in decoded.predicted]
        add_baselines(decoded, prepared, target, every, every_label, test, missing)
        if not any(name.startswith("control_") for name in decoded.predicted):
            add_controls(decoded, prepared, target, windows, labels, test)
        save_npz(file, decoded.predicted)
        write_atomic(file.with_suffix(".json"), json.dumps(decoded.chosen).encode())
        parts[target.name].append(decoded)
    return prepared


def _fitted(folder: Path, prepared: Prepared, seed: int) -> Neuroformer:
    """A fold's model, its heads fitted on; the folder keeps it."""
    file = folder / HEADS
    model = load_best(folder, LIKELIHOOD)
    if file.exists():
        model.load_state_dict(load_file(file))
        return model.eval()
    config = prepared.config
    model = fit_heads(model, prepared, every_window(prepared), config.targets, config.tune, seed)
    save_weights(file, model)
    return model


def _trained(folder: Path, config: Config) -> bool:
    """Whether the folder holds a run of this configuration; what another one left there is removed."""
    if not (folder / "bundle.json").exists():
        return False
    if read_bundle(folder).config == config:
        return True
    for file in (*folder.glob("decoded_*.npz"), *folder.glob("decoded_*.json"), *folder.glob(HEADS)):
        file.unlink()
    return False
