"""Simulated trials as a recording: which sequences, the rollout, and the result on one clock."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
from tqdm import tqdm

from neuroformer.config import Config, GenerateConfig
from neuroformer.data.batch import BatchBuilder
from neuroformer.data.splits import Split
from neuroformer.data.windows import SpikeIndex
from neuroformer.generation.rollout import Rollout, Sequences, Spikes, rollout, rollout_true_past
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.recording import Recording

GAP_S = 1.0  # between simulated sequences on their common clock


def sequences_of(split: Split, builder: BatchBuilder, index: SpikeIndex, config: GenerateConfig) -> Sequences:
    """Every block of a part of the split, ``config.samples`` times.

    A block that opens its segment starts without a past; another starts from the true spikes before it, and
    from those alone.
    """
    blocks = split.blocks[config.split]
    repeat = np.repeat(np.arange(len(blocks)), config.samples)
    segment, start, stop = blocks[repeat].T
    if config.max_seconds:
        stop = np.minimum(stop, start + round(config.max_seconds / split.dt))
    sample = np.tile(np.arange(config.samples), len(blocks))
    return Sequences(
        segment, start, stop, ident=repeat * 2**20 + sample, history=_history(index, segment, start, builder)
    )


def _history(index: SpikeIndex, segment: np.ndarray, start: np.ndarray, builder: BatchBuilder) -> Spikes:
    """The true spikes of the ``past`` bins before each start."""
    base = index.base[segment]
    parts = []
    for q in range(len(segment)):
        first = base[q] + max(0, start[q] - builder.shape.past)
        lo, hi = np.searchsorted(index.keys, [first, base[q] + start[q]])
        parts.append(
            Spikes(np.full(hi - lo, q), index.keys[lo:hi] - base[q], index.unit[lo:hi].astype(np.int64))
        )
    return Spikes.join(parts)


@dataclasses.dataclass
class Simulation:
    """A simulated recording and what it cost.

    ``recording.trials``: one row a sequence, on a clock of their own; ``source_start`` is where in the
    original recording it began, ``source_trial`` the segment of the split it lies in (the trial,
    where the split is by trials), ``source_block`` the row of its block in that part, ``sample`` which copy.
    """

    recording: Recording
    seconds: float
    tokens_per_second: float
    guard_hits: int


def simulate(
    model: Neuroformer,
    rec: Recording,
    split: Split,
    index: SpikeIndex,
    builder: BatchBuilder,
    config: Config,
    *,
    progress: bool = True,
) -> Simulation:
    """Simulate a part of the split in closed loop.

    Parameters
    ----------
    rec, split, index, builder
        The recording as it was prepared for training; only spikes before each start are read.

    Returns
    -------
    Simulation
    """
    g = config.generate
    sequences = sequences_of(split, builder, index, g)
    num_bins = int((sequences.stop - sequences.start).sum())
    begin = time.perf_counter()
    results: list[Rollout] = []
    with tqdm(total=num_bins, unit="s", unit_scale=split.dt, desc="simulated", disable=not progress) as bar:
        for first in range(0, len(sequences), g.batch_size):
            part = sequences[first : first + g.batch_size]
            results.append(rollout(model, builder, part, g, config.seed, bar.update))
            results[-1].spikes.sequence += first
    seconds = time.perf_counter() - begin
    spikes = Spikes.join([r.spikes for r in results])
    num_tokens = sum(r.num_tokens for r in results)
    guard_hits = sum(r.guard_hits for r in results)
    out = as_recording(rec, split, sequences, spikes, g, config.seed, guard_hits)
    return Simulation(out, seconds, num_tokens / max(seconds, 1e-9), guard_hits)


def simulate_true_past(
    model: Neuroformer,
    rec: Recording,
    split: Split,
    index: SpikeIndex,
    builder: BatchBuilder,
    config: Config,
    *,
    progress: bool = True,
) -> Recording:
    """The windows of :func:`simulate`, each drawn after the recorded past: the same sequences, seeds and samples.

    It reads the recorded spikes up to each window, so it is no simulation; it shows what closing the loop costs.
    """
    g = config.generate
    sequences = sequences_of(split, builder, index, g)
    num_bins = int((sequences.stop - sequences.start).sum())
    with tqdm(
        total=num_bins, unit="s", unit_scale=split.dt, desc="after the true past", disable=not progress
    ) as bar:
        result = rollout_true_past(model, builder, index, sequences, g, config.seed, bar.update)
    return as_recording(rec, split, sequences, result.spikes, g, config.seed, result.guard_hits)


def as_recording(
    rec: Recording,
    split: Split,
    sequences: Sequences,
    spikes: Spikes,
    config: GenerateConfig,
    seed: int,
    guard_hits: int,
) -> Recording:
    """Sequences laid one after another with a gap; spikes of one bin are spread evenly over it."""
    durations = (sequences.stop - sequences.start) * split.dt
    starts = np.concatenate([[0.0], np.cumsum(durations + GAP_S)[:-1]])
    cell = np.stack([spikes.sequence, spikes.tick, spikes.unit])
    new = (
        np.concatenate([[True], (np.diff(cell, axis=1) != 0).any(0)]) if cell.shape[1] else np.zeros(0, bool)
    )
    group = np.cumsum(new) - 1
    count = np.bincount(group)[group] if len(group) else group
    rank = np.arange(len(group)) - np.flatnonzero(new)[group] if len(group) else group
    relative = (
        spikes.tick - sequences.start[spikes.sequence] + (rank + 0.5) / np.maximum(count, 1)
    ) * split.dt
    times = starts[spikes.sequence] + relative
    order = np.argsort(times, kind="stable")
    origin = split.segments[sequences.segment, 0]
    trials = {
        "start": starts, "stop": starts + durations, "source_start": origin + sequences.start * split.dt,
        "source_trial": sequences.segment, "source_block": sequences.ident // 2**20, "sample": sequences.ident % 2**20,
    }  # fmt: skip
    for column, values in rec.trials.items():
        if column not in ("start", "stop") and len(split.segments) == rec.num_trials:
            trials.setdefault(column, values[sequences.segment])
    meta = {
        "simulated_from": rec.name, "seed": seed, "guard_hits": guard_hits,
        "notes": [f"simulated in closed loop from '{rec.name}', {config.split} part, {config.samples} sample(s), seed {seed}"],
        "generate": dataclasses.asdict(config),
    }  # fmt: skip
    return Recording(
        name=f"{rec.name}-simulated", spike_times=times[order], spike_units=spikes.unit[order],
        units=rec.units, domain=np.stack([starts, starts + durations], 1), trials=trials, meta=meta,
    )  # fmt: skip
