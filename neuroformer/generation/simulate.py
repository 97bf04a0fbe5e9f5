"""Simulated trials as a recording: all sequences, saved to disk on the way, joined on one clock; spikes or traces."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from neuroformer.config import InterventionConfig
from neuroformer.data.batch import BatchBuilder
from neuroformer.data.prepared import Prepared
from neuroformer.generation.interventions import UnitInterventions, changed_recording, simulated_spans
from neuroformer.generation.rollout import SpikeLoop, WindowResult, rollout_true_past, rollout_windows
from neuroformer.generation.sequences import SAMPLES, batch_size_for, sequences_of
from neuroformer.generation.spikes import Sequences, Spikes
from neuroformer.generation.store import SimulationFolder
from neuroformer.generation.traces import TraceInterventions, TraceLoop, TraceSamples, laid_out
from neuroformer.model.network import Neuroformer
from neuroformer.recording import Recording

GAP_S = 1.0  # seconds between simulated sequences on their common clock
FLUSH_S = 5.0  # seconds of work that a kill loses at most, about


@dataclasses.dataclass
class Simulation:
    """A simulated recording, and the time it took; for traces, ``tokens_per_second`` counts samples.

    ``recording.trials``: one row per sequence, on a clock of their own; ``source_start`` is where in the
    original recording it began, ``source_trial`` the segment of the split it lies in (the trial,
    where the split is by trials), ``source_block`` the row of its block in that part, ``sample`` which copy,
    ``seed`` and ``stream`` its random numbers.
    """

    recording: Recording
    seconds: float
    tokens_per_second: float
    guard_hits: int


def simulate(
    model: Neuroformer,
    prepared: Prepared,
    *,
    folder: Path | None = None,
    identity: dict | None = None,
    share: tuple[int, int] = (1, 1),
    progress: bool = True,
) -> Simulation | None:
    """Simulate a part of the split, or what ``generate`` of its configuration asks for, in closed loop.

    Parameters
    ----------
    prepared : Prepared
        The recording as it was prepared for training; only its spikes (or samples of traces) before each start are
        read, and those that an intervention clamps a unit to.
    folder : Path, optional
        Where finished parts are kept, from which a killed simulation continues. Remove it once the result is written.
    identity : dict, optional
        What else decides the spikes (the weights' digest): with another one the folder is refused.
    share : (i, n)
        Simulate the i-th of n shares of the batches into ``folder`` and return None; a call without ``share``
        puts them together, and simulates what is missing.

    Returns
    -------
    Simulation, or None for a share
    """
    g, split = prepared.config.generate, prepared.split
    sequences = sequences_of(prepared)
    changed = with_interventions(prepared, sequences)
    size = g.batch_size or batch_size_for(model, len(sequences))
    size = max(1, min(size, -(-len(sequences) // share[1])))
    run, kind = _runner(model, changed, sequences)
    store = None
    if folder is not None:
        facts = {"generate": dataclasses.asdict(g), "seed": prepared.config.seed, "recording": prepared.rec.name}
        facts |= {"split": split.sha256(), "dt": split.dt, **(identity or {})}
        store = SimulationFolder(folder, facts, size, kind)
        size = store.batch_size
    begin, parts = time.perf_counter(), []
    num_tokens = guard_hits = 0  # tokens: of this call alone
    with seconds_bar(int((sequences.stop - sequences.start).sum()), split.dt, "simulated", progress) as bar:
        for number in range(share[0] - 1, -(-len(sequences) // size), share[1]):
            rows = slice(number * size, (number + 1) * size)
            current = prepared.builder.shape.current
            spikes, hits, tokens = _batch(run, kind, number, rows, sequences[rows], store, current, bar.update)
            parts.append(dataclasses.replace(spikes, sequence=spikes.sequence + rows.start))
            guard_hits, num_tokens = guard_hits + hits, num_tokens + tokens
    seconds = time.perf_counter() - begin
    if share[1] > 1:
        return None
    out = as_recording(prepared, sequences, kind.join(parts).ordered(), guard_hits)
    return Simulation(out, seconds, num_tokens / max(seconds, 1e-9), guard_hits)


def _runner(model: Neuroformer, prepared: Prepared, sequences: Sequences):
    """A function that simulates a slice of the sequences from a window on, given the earlier windows; and the type of
    its result.
    """
    interventions, dt = prepared.config.generate.interventions, prepared.split.dt
    if prepared.builder.traces is None:
        units = UnitInterventions(interventions, model.num_units, dt, prepared.config.seed)
        loop, kind = lambda rows, done: SpikeLoop(model, prepared, sequences[rows], done, units), Spikes
    else:
        changes = TraceInterventions(interventions, prepared.builder.traces, dt)
        loop, kind = lambda rows, done: TraceLoop(model, prepared, sequences[rows], done, changes), TraceSamples
    return lambda rows, first, done: rollout_windows(loop(rows, done), first=first), kind


def _batch(
    run: Callable,
    kind: Any,
    number: int,
    rows: slice,
    batch: Sequences,
    store: SimulationFolder | None,
    current: int,
    progress: Callable,
) -> tuple[Any, int, int]:
    """Simulate a batch, or continue it: its spikes or samples, its guard hits, and the tokens of this call."""
    first, done, hits, num_tokens = 0, kind.join([]), 0, 0
    if store is not None:
        piece = store.read(number)
        first, done, hits = piece.stop, piece.made, piece.guard_hits
        progress(int(np.minimum((batch.stop - batch.start) // current, first).sum()) * current)
    waiting: list[WindowResult] = []
    parts, last = [done], time.perf_counter()
    for result in run(rows, first, done):
        parts.append(result.made)
        hits, num_tokens = hits + result.guard_hits, num_tokens + result.num_tokens
        waiting.append(result)
        progress(result.num_bins)
        if store is not None and time.perf_counter() - last > FLUSH_S:
            store.write(number, batch, waiting)
            waiting, last = [], time.perf_counter()
    if store is not None and waiting:
        store.write(number, batch, waiting)
    return kind.join(parts), hits, num_tokens


def with_interventions(prepared: Prepared, sequences: Sequences) -> Prepared:
    """The recording with frames and behavior as the interventions change them, without targets: a new stimulus has
    none, and no simulation reads them.
    """
    config, scale = dataclasses.replace(prepared.config, targets=()), prepared.normalization
    spans = simulated_spans(prepared.split, sequences.segment, sequences.start, sequences.stop)
    gray = scale.frames.mean if scale.frames is not None else 0.0
    rec = changed_recording(prepared.rec, spans, config.generate.interventions, gray)
    builder = BatchBuilder(rec, prepared.index, config, scale)
    return dataclasses.replace(prepared, rec=rec, config=config, builder=builder)


def simulate_true_past(model: Neuroformer, prepared: Prepared, *, progress: bool = True) -> Recording:
    """The windows of :func:`simulate`, each drawn after the recorded past: the same sequences, seeds and samples.

    It reads the recorded spikes up to each window, so it is no simulation; it shows what closing the loop costs.
    """
    sequences = sequences_of(prepared)
    num_bins = int((sequences.stop - sequences.start).sum())
    with seconds_bar(num_bins, prepared.split.dt, "after the true past", progress) as bar:
        result = rollout_true_past(model, prepared, sequences, bar.update)
    return as_recording(prepared, sequences, result.spikes, result.guard_hits)


def seconds_bar(num_bins: int, dt: float, what: str, progress: bool) -> tqdm:
    """A progress bar that counts simulated seconds, and how many of them per second."""
    text = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s [{elapsed}<{remaining}, {rate_noinv_fmt}]"
    return tqdm(total=num_bins, unit=" s", unit_scale=dt, desc=what, bar_format=text, disable=not progress)


def as_recording(prepared: Prepared, sequences: Sequences, made: Any, guard_hits: int) -> Recording:
    """Sequences joined one after another with a gap: ordered spikes (those of one bin spread evenly over it) or
    samples.
    """
    rec, split = prepared.rec, prepared.split
    config, seed = prepared.config.generate, prepared.config.seed
    durations = (sequences.stop - sequences.start) * split.dt
    starts = np.concatenate([[0.0], np.cumsum(durations + GAP_S)[:-1]])
    times, units, traces = np.zeros(0), np.zeros(0, np.int32), None
    if isinstance(made, TraceSamples):
        assert rec.traces is not None
        traces = laid_out(made, sequences, starts, split.dt, rec.traces.unit)
    else:
        times = starts[made.sequence] + _within(made, sequences) * split.dt
        order = np.argsort(times, kind="stable")
        times, units = times[order], made.unit[order]
    origin = split.segments[sequences.segment, 0]
    trials = {
        "start": starts,
        "stop": starts + durations,
        "source_start": origin + sequences.start * split.dt,
        "source_trial": sequences.segment,
        "source_block": sequences.ident // SAMPLES,
        "sample": sequences.ident % SAMPLES,
        "stream": sequences.ident,
        "seed": np.full(len(sequences), seed),
    }
    for column, values in rec.trials.items():
        if column not in ("start", "stop") and len(split.segments) == rec.num_trials:
            trials.setdefault(column, values[sequences.segment])
    what = f" {list(config.interval)} s," if config.interval else f" {config.split} part,"
    if split.blocks["train"] is split.blocks["test"]:  # a stimulus of its own has no parts
        what = ""
    notes = [f"simulated in closed loop from '{rec.name}',{what} {config.samples} sample(s), seed {seed}"]
    notes += [f"intervention: {_in_words(i)}" for i in config.interventions]
    meta = {
        "simulated_from": rec.name,
        "seed": seed,
        "guard_hits": guard_hits,
        "notes": notes,
        "generate": dataclasses.asdict(config),
        "session_description": "; ".join(notes),
    }
    return Recording(
        name=f"{rec.name}-simulated",
        spike_times=times,
        spike_units=units,
        units=rec.units,
        domain=np.stack([starts, starts + durations], 1),
        trials=trials,
        meta=meta,
        traces=traces,
    )


def _within(spikes: Spikes, sequences: Sequences) -> np.ndarray:
    """Bins since its sequence's start of each of the ordered spikes; those of one cell are spread evenly over the bin."""
    cell = np.stack([spikes.sequence, spikes.tick, spikes.unit])
    new = np.concatenate([[True], (np.diff(cell, axis=1) != 0).any(0)]) if cell.shape[1] else np.zeros(0, bool)
    group = np.cumsum(new) - 1
    count = np.bincount(group)[group] if len(group) else group
    rank = np.arange(len(group)) - np.flatnonzero(new)[group] if len(group) else group
    return spikes.tick - sequences.start[spikes.sequence] + (rank + 0.5) / np.maximum(count, 1)


def _in_words(one: InterventionConfig) -> str:
    what = f" {list(one.units)}" if one.units else f" {one.behavior}" if one.behavior else ""
    value = "" if one.do in ("silence", "freeze_frames", "blank_frames") else f", value {one.value:g}"
    return f"{one.do}{what}{value}, from {one.start:g} s to {f'{one.stop:g} s' if one.stop else 'the end'}"
