"""What each part of a model is worth: it is trained without the part, and compared on the same held-out windows.

Shape suffixes: W windows, V values, K seeds, C columns, U units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from neuroformer.bundle.bundle import LIKELIHOOD, read_bundle
from neuroformer.config import Config, ConfigError
from neuroformer.data import tokens
from neuroformer.data.prepared import Prepared, prepare
from neuroformer.data.splits import reach_seconds
from neuroformer.data.windows import Windows
from neuroformer.decoding.decode import (
    decode_windows,
    predict_targets,
    true_values,
)
from neuroformer.files import save_npz
from neuroformer.generation.scan import sample_window
from neuroformer.intervals import Terms, over_time, ratio_terms, target_terms
from neuroformer.model.network import Neuroformer
from neuroformer.model.spikes import SpikeObservation
from neuroformer.model.stepper import Stepper
from neuroformer.recording import Recording
from neuroformer.training.checkpoint import FILE
from neuroformer.training.train import load_best, train

FULL = "full"
PARTS = ("past", "frames", "behavior", "contrast", "rates")
SCORES = "ablation.npz"
_replace = dataclasses.replace


def parts_of(config: Config) -> list[str]:
    """The parts that a configuration has, and that can be taken out of it."""
    there = {
        "past": config.window.past > 0,
        "frames": config.window.frames > 0,
        "behavior": bool(config.inputs),
        "contrast": bool(config.loss.contrast),
        "rates": config.loss.rates > 0,
    }
    return [part for part in PARTS if there[part]]


def without(config: Config, part: str) -> Config:
    """The configuration without one part, everything else equal; the split's gaps stay those of the full model.

    - ``past``: no spike before the window, for likelihood and targets alike.
    - ``frames``, ``behavior``: no frames; no behavior inputs.
    - ``contrast``: no alignment.
    - ``rates``: no Poisson loss of the expected counts.

    Raises
    ------
    ConfigError
        A part that the configuration does not have.
    """
    if part != FULL and part not in parts_of(config):
        raise ConfigError(f"there is no part '{part}' to take out of this run; it has: {', '.join(parts_of(config))}")
    if config.split.by == "blocks" and config.split.gap < 0:
        config = _replace(config, split=_replace(config.split, gap=reach_seconds(config)))
    window, model, loss = config.window, config.model, config.loss
    gone: set[str] = set()
    if part == "past":
        window, gone = _replace(window, past=0.0, target_past=0.0), {"past"}
    elif part == "frames":
        window, gone = _replace(window, frames=0.0), {"frames"}
    elif part == "behavior":
        gone = set(config.input_groups)
    elif part == "contrast":
        loss = _replace(loss, contrast=())
    elif part == "rates":
        loss = _replace(loss, rates=0.0)
    model = _replace(model, blocks=tuple(b for b in model.blocks if b.attend not in gone))
    loss = _replace(loss, contrast=tuple(c for c in loss.contrast if not gone & set(c.pair)))
    inputs = () if part == "behavior" else config.inputs
    return _replace(config, window=window, model=model, loss=loss, inputs=inputs)


def train_variant(rec: Recording, config: Config, part: str, seed: int, folder: Path, progress: bool) -> None:
    """Train and score one variant with one seed; what ``folder`` holds already is not done again.

    Raises
    ------
    ConfigError
        The folder holds a run of another configuration.
    """
    full = _replace(without(config, FULL), seed=config.seed + seed)
    one = without(full, part)
    if (folder / "bundle.json").exists():
        if read_bundle(folder).config != one:
            raise ConfigError(f"{folder} holds a run of another configuration; give --run another folder")
        if (folder / SCORES).exists():
            return
    else:
        train(rec, one, folder, progress=progress, resume=(folder / FILE).exists())
    windows = decode_windows(prepare(rec, full), full.decode.split)
    prepared = prepare(rec, one)
    measured = measure_windows(load_best(folder, LIKELIHOOD), prepared, windows)
    for target in one.targets:
        best = load_best(folder, target.name)
        measured[f"target_{target.name}"] = predict_targets(best, prepared, windows)[target.name]
    save_npz(folder / SCORES, measured)


@torch.no_grad()
def measure_windows(
    model: Neuroformer, prepared: Prepared, windows: Windows, batch_size: int = 256
) -> dict[str, np.ndarray]:
    """(W,) of every window: ``tokens`` and ``rates``, nats above the null model; ``spikes``; and, of units that fired in
    the window, ``hit``, ``false``, ``missed`` in one response drawn from the model after the recorded past.
    """
    parts: dict[str, list[np.ndarray]] = {}
    of = model.observation
    assert isinstance(of, SpikeObservation)
    for some in windows.pieces(batch_size):
        batch = prepared.builder(some).to(model.device)
        observed, num = model(batch).observed, batch.num_windows
        row, unit = batch.current.row_T.cpu().numpy(), batch.unit_S.cpu().numpy()
        null = of.null_nll(batch)
        nats = [null - nll for nll in (of.nll(batch, observed), of.rates_nll(batch, observed))]
        fired = np.zeros((num, model.num_units), bool)
        fired[row, unit] = True
        drawn = _drawn(model, prepared, some)
        found = {
            "tokens": nats[0].cpu().numpy(),
            "rates": nats[1].cpu().numpy(),
            "spikes": np.bincount(row, minlength=num),
            "hit": (fired & drawn).sum(1),
            "false": (~fired & drawn).sum(1),
            "missed": (fired & ~drawn).sum(1),
        }
        for name, values in found.items():
            parts.setdefault(name, []).append(np.asarray(values, np.float64))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _drawn(model: Neuroformer, prepared: Prepared, windows: Windows) -> np.ndarray:
    """(W, U) which units fire in one response drawn from the model, after the recorded past."""
    shape, config = prepared.builder.shape, prepared.config
    past = tokens.encode_past(prepared.index, windows, shape)
    stepper = Stepper(model, prepared.builder(windows, past=past).to(model.device))
    drawn, _ = sample_window(
        model, stepper, windows.segment, windows.tick // shape.current, config.generate, config.seed
    )
    out = np.zeros((len(windows), model.num_units), bool)
    out[drawn.sequence, drawn.unit] = True
    return out


# -- comparison ----------------------------------------------------------------------------------------------


class Measure(NamedTuple):
    """A score of windows or values: its name, the arrays it needs (by seed in the second axis), and how it follows."""

    name: str
    arrays: tuple[str, ...]
    terms: Callable[..., Terms]


def bits(nats_WK: np.ndarray, spikes_WK: np.ndarray) -> Terms:
    """Bits per spike above the null model, the mean over seeds."""
    return ratio_terms(nats_WK, spikes_WK, 1 / np.log(2))


def f1(hit_WK: np.ndarray, false_WK: np.ndarray, missed_WK: np.ndarray) -> Terms:
    """Response-prediction F1: of (window, unit) pairs, those in which the unit fires in a response drawn from the model
    after the recorded past against those in which it fired: ``2 hits / (2 hits + false + missed)``, all windows pooled;
    the mean over seeds.

    The reference reports its F1 per window, from a function that gives 1 where one of ten spikes is predicted; pooled, a
    window counts by its spikes. One draw is scored, as there: even the true model stays far below 1.
    """
    return ratio_terms(2 * hit_WK, 2 * hit_WK + false_WK + missed_WK, scale="share")


def measures(config: Config) -> list[Measure]:
    out = [
        Measure("bits_per_spike", ("tokens", "spikes"), bits),
        Measure("bits_per_spike_rate_readout", ("rates", "spikes"), bits),
        Measure("f1", ("hit", "false", "missed"), f1),
    ]
    for target in config.targets:
        terms = lambda true_VC, values_VKC, t=target: target_terms(t.kind, true_VC, values_VKC, t.period)
        out.append(Measure(f"decode_{target.name}", (f"target_{target.name}",), terms))
    return out


def compare(rec: Recording, config: Config, folder: Path, parts: Sequence[str], num_seeds: int) -> list[dict[str, Any]]:
    """A row for every variant and measure, from what :func:`train_variant` left in ``folder``.

    ``value`` is the mean over seeds, ``low`` and ``high`` its 95 % interval over held-out time (of these trainings:
    :func:`neuroformer.intervals.over_time`); of ``minus`` (the variant minus the full model) both sides lose the same
    blocks; ``seeds`` are the values of the single seeds, whose spread is not in the intervals.
    """
    full = without(config, FULL)
    prepared = prepare(rec, full)
    windows = decode_windows(prepared, full.decode.split)
    true = true_values(prepared, windows)
    stored = {
        part: [dict(np.load(variant_folder(folder, part, k) / SCORES)) for k in range(num_seeds)]
        for part in (FULL, *parts)
    }
    rows = []
    for part in (FULL, *parts):
        for measure in measures(full):
            first = measure.arrays[0]
            ours, theirs = (
                [np.stack([one[name] for one in stored[p]], 1) for name in measure.arrays] for p in (part, FULL)
            )
            if first.startswith("target_"):
                values = true[first.removeprefix("target_")]
                known = np.isfinite(values).all(1)
                ours, theirs = ([a[known] for a in (values, *side)] for side in (ours, theirs))
            rows.append(_row(part, measure, ours, theirs))
    return rows


def _row(part: str, measure: Measure, ours, theirs) -> dict[str, Any]:
    given = 1 if measure.name.startswith("decode_") else 0  # the true values have no seeds
    mine = measure.terms(*ours)
    own = over_time(mine, measure.name)
    minus = over_time(mine.minus(measure.terms(*theirs)), f"{measure.name}, without a part minus full")
    one = lambda k: measure.terms(*ours[:given], *(a[:, [k]] for a in ours[given:]))
    (low, high), (minus_low, minus_high) = own.ends()[:, 0], minus.ends()[:, 0]
    return {
        "without": part,
        "measure": measure.name,
        "value": float(own.value_S[0]),
        "low": float(low),
        "high": float(high),
        "minus": float(minus.value_S[0]),
        "minus_low": float(minus_low),
        "minus_high": float(minus_high),
        "seeds": [float(one(k).of_all()[0]) for k in range(ours[-1].shape[1])],
    }


def variant_folder(folder: Path, part: str, seed: int) -> Path:
    return folder / part / f"seed_{seed}"
