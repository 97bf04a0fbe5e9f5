"""How far a model goes beyond the stimuli that it was trained on: one training for each kind of stimulus, scored on all kinds.

After Wang et al., Nature 2025: a model of neurons that saw movies only is asked for gratings, noise, dots, beside models that saw
these. Shape suffixes: W windows, R repeats, N moments, U units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroformer.bundle.bundle import read_bundle
from neuroformer.config import Config, ConfigError
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared, prepare
from neuroformer.data.splits import parts_of_trials
from neuroformer.intervals import over_time, ratio_terms
from neuroformer.metrics import bits_per_spike_rates, pearson
from neuroformer.model.network import Neuroformer
from neuroformer.recording import Recording
from neuroformer.simulation_scores.psth import stimulus_of_trials
from neuroformer.training.scoring.rates import expected_counts
from neuroformer.training.scoring.scores import NLL, NUMBER, SEGMENT, TICK, score
from neuroformer.training.train import load_best, train

ALL = "all"


@dataclass(frozen=True)
class DomainScore:
    """One model on the held-out trials of one domain.

    Attributes
    ----------
    trained, tested : values of the column; ``trained`` may be "all"
    train_seconds : of training data
    bits_per_spike : of expected counts in windows, against each unit's mean in the tested windows (NLB's), pooled over units;
        so a shift of rates from domain to domain counts against the model
    r : median over units of Pearson's r between expected counts and counts of windows, both averaged over repeats of a stimulus
    beyond, low, high : bits/spike of the likelihood, less that of the model that was trained on the tested domain alone, on the same
        windows, with the 95 % interval over held-out time (:func:`neuroformer.intervals.over_time`)
    """

    trained: str
    tested: str
    train_seconds: float
    bits_per_spike: float
    r: float
    beyond: float
    low: float
    high: float


def domains(
    rec: Recording,
    config: Config,
    column: str,
    folder: Path,
    *,
    progress: bool = True,
    say: Callable[[str], object] = lambda line: None,
) -> list[DomainScore]:
    """Train on each domain alone and on all of them, and score every model on the held-out trials of every domain.

    The configuration's split by trials says which trials are held out (``split.hold_out``: whole stimuli); a single-domain training
    leaves out the training and validation trials of the others. What ``folder`` holds is not trained again.

    Parameters
    ----------
    column : of the trials, e.g. the type of stimulus

    Raises
    ------
    ConfigError
        No such column, fewer than two values, or a value that a part of the split lacks.
    """
    if config.split.by != "trials":
        raise ConfigError("domains are kinds of trials; use split.by: trials")
    values = _values(rec, column)
    role = np.array(parts_of_trials(rec, config))
    for value in np.unique(values):
        lacking = [part for part in ("train", "valid", "test") if not np.any((values == value) & (role == part))]
        if lacking:
            raise ConfigError(
                f"'{lacking[0]}' has no trial whose '{column}' is '{value}'; every part needs each kind of stimulus: change "
                "split.pattern, or split.hold_out (a column whose values belong to one kind each)"
            )
    names = [ALL, *np.unique(values).tolist()]
    models: dict[str, tuple[Neuroformer, Prepared]] = {}
    for name in names:
        held = role.copy()
        held[(values != name) & (role != "test") & (name != ALL)] = "none"
        split = dataclasses.replace(config.split, pattern=tuple(held.tolist()), hold_out="")
        say(f"trained on {name}")
        models[name] = _trained(rec, dataclasses.replace(config, split=split), folder / name, progress)
    out = []
    for tested in names[1:]:
        found = {
            name: _Tested.of(model, prepared, np.flatnonzero(values == tested))
            for name, (model, prepared) in models.items()
        }
        out += [_row(name, tested, found[name], found[tested], models[name][1]) for name in names]
    return out


def _values(rec: Recording, column: str) -> np.ndarray:
    known = [k for k, v in rec.trials.items() if v.ndim == 1 and k not in ("start", "stop")]
    if column not in known:
        raise ConfigError(
            f"'{column}' is no column of the trials of '{rec.name}' with one value per trial; they have: {', '.join(known) or 'none'}"
        )
    values = rec.trials[column].astype(str)
    if len(np.unique(values)) < 2 or ALL in values or any("/" in v for v in values):
        raise ConfigError(
            f"'{column}' has the values {', '.join(np.unique(values)[:5])}; expected two or more, none of them 'all' or with '/'"
        )
    return values


def _trained(rec: Recording, config: Config, folder: Path, progress: bool) -> tuple[Neuroformer, Prepared]:
    if (folder / "bundle.json").exists() and read_bundle(folder).config == config:
        bundle = read_bundle(folder)
        prepared = prepare(rec, config, bundle.normalization)
    else:
        prepared, _ = train(rec, config, folder, progress=progress, resume=True)
    return load_best(folder), prepared


@dataclass(frozen=True, eq=False)
class _Tested:
    """Windows of the held-out trials of a domain: nats and spikes of each; counts and what was expected."""

    nats_W: np.ndarray
    spikes_W: np.ndarray
    bits: float
    r: float

    @classmethod
    def of(cls, model: Neuroformer, prepared: Prepared, trials: np.ndarray) -> _Tested:
        test = prepared.split.blocks["test"]
        test = test[np.isin(test[:, 0], trials)]  # of a split by trials, segments are these
        only = dataclasses.replace(prepared.split, blocks={**prepared.split.blocks, "test": test})
        prepared = dataclasses.replace(prepared, split=only)
        windows = prepared.windows("test")
        table_W6 = np.concatenate(score(model, prepared, "test").windows)
        order = np.lexsort((table_W6[:, TICK], table_W6[:, SEGMENT]))
        counts_WU = np.concatenate([_counts(b, model.num_units) for b in prepared.batches(windows)])
        expected_WU = expected_counts(model, prepared, windows)
        key = np.stack([stimulus_of_trials(prepared.rec)[windows.segment], windows.tick])
        place_W = np.unique(key, axis=1, return_inverse=True)[1].ravel()
        r_U = pearson(_means(counts_WU, place_W), _means(expected_WU, place_W))
        bits = bits_per_spike_rates(counts_WU, expected_WU).pooled
        return cls(table_W6[order, NLL], table_W6[order, NUMBER], float(bits), float(np.nanmedian(r_U)))


def _counts(batch: Batch, num_units: int) -> np.ndarray:
    """(W, U)."""
    cells = batch.current.row_T.numpy() * num_units + batch.unit_S.numpy()
    return np.bincount(cells, minlength=batch.num_windows * num_units).reshape(batch.num_windows, -1).astype(float)


def _means(x_WU: np.ndarray, place_W: np.ndarray) -> np.ndarray:
    total = np.zeros((place_W.max() + 1, x_WU.shape[1]))
    np.add.at(total, place_W, x_WU)
    return total / np.bincount(place_W)[:, None]


def _row(trained: str, tested: str, found: _Tested, own: _Tested, prepared: Prepared) -> DomainScore:
    gain = own.nats_W - found.nats_W
    terms = ratio_terms(gain, own.spikes_W, 1 / np.log(2))
    low, high = over_time(terms, "beyond").ends()[:, 0] if trained != tested else (np.nan, np.nan)
    beyond = float(gain.sum() / own.spikes_W.sum() / np.log(2))
    return DomainScore(
        trained, tested, prepared.split.seconds("train"), found.bits, found.r, beyond, float(low), float(high)
    )
