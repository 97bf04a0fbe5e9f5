"""Responses to a repeated stimulus: PSTHs, how two agree, and how well simulated trials reproduce recorded ones.

Shape suffixes: T trials, B bins, U units.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from neuroformer.data.splits import Split
from neuroformer.data.windows import SpikeIndex
from neuroformer.metrics import pearson
from neuroformer.recording import Recording
from neuroformer.recording.clock import nanoseconds

WIDTH_S = 0.05  # bins of PSTHs, expected counts and pair correlations


def psth(counts_TBU, dt: float, width: float = WIDTH_S) -> np.ndarray:
    """Peri-stimulus time histogram: mean rate over repeats in bins of ``width`` seconds.

    Parameters
    ----------
    counts_TBU : (trials, bins, units) spikes per bin; NaN where a trial has no data
        All trials show the same stimulus from their first bin on.
    dt : seconds per bin of the counts
    width : seconds per bin of the PSTH, a whole multiple of dt; a rest that does not fill one is dropped

    Returns
    -------
    (width bins, units) float64, spikes per second; NaN where no trial has data
    """
    counts = np.asarray(counts_TBU, dtype=np.float64)
    if counts.ndim != 3 or len(counts) == 0:
        raise ValueError(f"counts have shape {counts.shape}; expected (trials, bins, units), one trial at least")
    join = round(width / dt)
    if join < 1 or abs(width / dt - join) > 1e-6:
        raise ValueError(f"width is {width:g} s; expected a whole multiple of dt = {dt:g} s")
    num_bins = counts.shape[1] // join
    wide = counts[:, : num_bins * join].reshape(len(counts), num_bins, join, -1).sum(2)
    known = np.isfinite(wide)
    num_trials = known.sum(0)
    total = np.where(known, wide, 0.0).sum(0)
    return np.where(num_trials > 0, total / np.maximum(num_trials, 1), np.nan) / (join * dt)


class PsthCorrelation(NamedTuple):
    """r between two PSTHs.

    Attributes
    ----------
    r : median over units
    per_unit : (U,) NaN for units without variance on either side
    num_excluded : how many those are
    """

    r: float
    per_unit: np.ndarray
    num_excluded: int


def psth_r(a_BU, b_BU) -> PsthCorrelation:
    """Pearson's r over time between two PSTHs, unit by unit, and its median over units.

    Parameters
    ----------
    a_BU, b_BU : (bins, units), as from :func:`psth`; bins where either is NaN are left out

    Returns
    -------
    PsthCorrelation
        A unit without variance in ``a`` or ``b`` has no r: it is left out of the median and counted.
    """
    a, b = np.asarray(a_BU, dtype=np.float64), np.asarray(b_BU, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"PSTHs have shapes {a.shape} and {b.shape}; expected equal (bins, units)")
    known = np.isfinite(a) & np.isfinite(b)
    per_unit = pearson(np.where(known, a, np.nan), np.where(known, b, 0.0))
    some = np.isfinite(per_unit)
    median = float(np.median(per_unit[some])) if some.any() else float("nan")
    return PsthCorrelation(median, per_unit, int((~some).sum()))


def stimulus_of_trials(rec: Recording) -> np.ndarray:
    """(trials,) which stimulus each trial showed, counted from 0.

    Taken from a trials column ``stimulus`` or ``movie``, unless the frames say otherwise (each trial shows one image of the movie
    that the column names: then most trials of a value have few images in common); otherwise trials with the same sequence of
    frames have the same stimulus; without frames, all trials have.
    """
    shown = _shown(rec)
    for column in ("stimulus", "movie"):
        if column in rec.trials:
            named = np.unique(rec.trials[column], return_inverse=True)[1]
            if shown is None or _alike(named, shown):
                return named
    if shown is None:
        return np.zeros(rec.num_trials, np.int64)
    keys = [hashlib.sha256(each.tobytes()).hexdigest() for each in shown]
    return np.unique(keys, return_inverse=True)[1]


def _shown(rec: Recording) -> list[np.ndarray] | None:
    """The images of every trial, in order; None without frames."""
    if rec.frames is None:
        return None
    lo, hi = (np.searchsorted(nanoseconds(rec.frames.times), nanoseconds(t)) for t in rec.trial_intervals.T)
    return [rec.frames.index[a:b] for a, b in zip(lo, hi, strict=True)]


def _alike(named: np.ndarray, shown: list[np.ndarray]) -> bool:
    """Whether most repeats of a stimulus share at least half of their images with its first trial."""
    first: dict[int, np.ndarray] = {}
    same = []
    for name, each in zip(named.tolist(), shown, strict=True):
        images = np.unique(each)
        if name in first:
            both = len(np.intersect1d(images, first[name], assume_unique=True))
            same.append(2 * both >= len(images) + len(first[name]) - both)
        else:
            first[name] = images
    return not same or bool(np.mean(same) >= 0.5)


def spike_counts(rec: Recording, intervals: np.ndarray, width: float) -> np.ndarray:
    """(intervals, bins, units) float64 counts from each interval's start; NaN after the end of short ones, and where a
    unit was not observed.
    """
    index = SpikeIndex.from_recording(rec, intervals, width)
    out = np.full((len(intervals), int(index.num_ticks.max(initial=0)), rec.num_units), np.nan)
    counts = index.counts()
    for i, (base, n) in enumerate(zip(index.base, index.num_ticks, strict=True)):
        out[i, :n] = counts[base : base + n]
        if index.observed is not None:
            out[i, :n][~index.observed.at(np.arange(base, base + n))] = np.nan
    return out


@dataclass
class PsthComparison:
    """PSTHs in spikes per second, stimuli one after another, and how they agree.

    Attributes
    ----------
    simulated_BU, held_out_BU, train_BU : (bins, units)
    r : median over units of r between simulated and held-out
    ceiling : the same between the training repeats and the held-out ones: what a model that is sampled as often as
        there are training repeats can be expected to reach
    num_simulated, num_train, num_held_out : repeats a stimulus (the smallest over stimuli)
    num_bins : of each stimulus
    """

    simulated_BU: np.ndarray
    held_out_BU: np.ndarray
    train_BU: np.ndarray
    r: float
    ceiling: float
    num_simulated: int
    num_train: int
    num_held_out: int
    num_bins: tuple[int, ...]


def compare_psth(rec: Recording, split: Split, simulated: Recording, part: str) -> PsthComparison | None:
    """Simulated against held-out PSTHs, and the ceiling that the data set; None without repeated trials."""
    if rec.num_trials == 0 or len(split.segments) != rec.num_trials:
        return None
    stimulus = stimulus_of_trials(rec)
    trials = {p: split.blocks[p][:, 0] for p in ("train", part)}
    source = np.asarray(simulated.trials["source_trial"])
    parts: dict[str, list[np.ndarray]] = {"simulated": [], "held_out": [], "train": []}
    sizes: list[tuple[int, int, int]] = []
    for s in np.unique(stimulus[trials[part]]):
        shown = {p: rows[stimulus[rows] == s] for p, rows in trials.items()}
        if len(shown["train"]) == 0:
            continue
        sim = simulated.trial_intervals[stimulus[source] == s]
        held, train = rec.trial_intervals[shown[part]], rec.trial_intervals[shown["train"]]
        made = [psth(spike_counts(r, i, WIDTH_S), WIDTH_S) for r, i in ((simulated, sim), (rec, held), (rec, train))]
        bins = min(len(x) for x in made)
        for name, x in zip(parts, made, strict=True):
            parts[name].append(x[:bins])
        sizes.append((len(sim), len(train), len(held)))
    if not sizes:
        return None
    simulated_BU, held_BU, train_BU = (np.concatenate(x) for x in parts.values())
    num_simulated, num_train, num_held_out = (min(column) for column in zip(*sizes, strict=True))
    return PsthComparison(
        simulated_BU,
        held_BU,
        train_BU,
        psth_r(simulated_BU, held_BU).r,
        psth_r(train_BU, held_BU).r,
        num_simulated,
        num_train,
        num_held_out,
        tuple(len(x) for x in parts["held_out"]),
    )
