"""How well simulated trials reproduce the response to a repeated stimulus.

Shape suffixes: R repeats, B bins, U units.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from neuroformer.data.splits import Split
from neuroformer.data.windows import SpikeIndex, nanoseconds
from neuroformer.metrics import psth, psth_r
from neuroformer.recording import Recording

WIDTH_S = 0.05


def stimulus_of_trials(rec: Recording) -> np.ndarray:
    """(trials,) which stimulus each trial showed, counted from 0.

    A trials column ``stimulus`` or ``movie`` says it; else trials that show the same sequence of frames show
    the same stimulus; without frames, all trials do.
    """
    for column in ("stimulus", "movie"):
        if column in rec.trials:
            return np.unique(rec.trials[column], return_inverse=True)[1]
    if rec.frames is None:
        return np.zeros(rec.num_trials, np.int64)
    keys = []
    for start, stop in rec.trial_intervals:
        lo, hi = np.searchsorted(rec.frames.times, [start, stop])
        keys.append(hashlib.sha256(rec.frames.index[lo:hi].tobytes()).hexdigest())
    return np.unique(keys, return_inverse=True)[1]


def counts_of(rec: Recording, intervals: np.ndarray, width: float) -> np.ndarray:
    """(intervals, bins, units) float64 counts from each interval's start; NaN behind the end of short ones."""
    num_bins = (nanoseconds(intervals[:, 1] - intervals[:, 0]) // nanoseconds(width)).astype(int)
    out = np.full((len(intervals), int(num_bins.max(initial=0)), rec.num_units), np.nan)
    index = SpikeIndex.from_recording(rec, intervals, width)
    counts = index.counts()
    for i, (base, n) in enumerate(zip(index.base, index.num_ticks, strict=True)):
        out[i, :n] = counts[base : base + n]
    return out


@dataclass
class PsthComparison:
    """PSTHs in spikes per second, stimuli one after another, and how they agree.

    Attributes
    ----------
    simulated_BU, held_out_BU, train_BU : (bins, units)
    r : median over units of r between simulated and held-out
    ceiling : the same between the training repeats and the held-out ones
    num_simulated, num_train, num_held_out : repeats a stimulus (the smallest over stimuli)
    """

    simulated_BU: np.ndarray
    held_out_BU: np.ndarray
    train_BU: np.ndarray
    r: float
    ceiling: float
    num_simulated: int
    num_train: int
    num_held_out: int


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
        members = {p: rows[stimulus[rows] == s] for p, rows in trials.items()}
        if len(members["train"]) == 0:
            continue
        sim = simulated.trial_intervals[stimulus[source] == s]
        held, train = rec.trial_intervals[members[part]], rec.trial_intervals[members["train"]]
        made = [
            psth(counts_of(r, i, WIDTH_S), WIDTH_S) for r, i in ((simulated, sim), (rec, held), (rec, train))
        ]
        bins = min(len(x) for x in made)
        for name, x in zip(parts, made, strict=True):
            parts[name].append(x[:bins])
        sizes.append((len(sim), len(train), len(held)))
    if not sizes:
        return None
    simulated_BU, held_BU, train_BU = (np.concatenate(x) for x in parts.values())
    smallest = [min(column) for column in zip(*sizes, strict=True)]
    return PsthComparison(
        simulated_BU,
        held_BU,
        train_BU,
        psth_r(simulated_BU, held_BU).r,
        psth_r(train_BU, held_BU).r,
        *smallest,
    )
