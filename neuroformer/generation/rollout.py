"""Closed-loop rollout: the past that the model sees is the past that it generated.

Shape suffixes: Q sequences, A active sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from neuroformer.config import GenerateConfig
from neuroformer.data import tokens
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape
from neuroformer.generation.cuda_graph import GraphedWindows
from neuroformer.generation.interventions import UnitInterventions
from neuroformer.generation.scan import sample_window
from neuroformer.generation.spikes import Sequences, Spikes
from neuroformer.model.network import Neuroformer
from neuroformer.model.stepper import Stepper


@dataclass
class Rollout:
    """Generated spikes, ordered by (sequence, bin, unit), and how often the guard on tokens stopped a window."""

    spikes: Spikes
    guard_hits: int


@dataclass
class WindowResult:
    """The result of one window of all running sequences: spikes or samples of traces, and counters."""

    number: int
    made: Any
    guard_hits: int
    num_tokens: int
    num_bins: int


def rollout(
    model: Neuroformer,
    prepared: Prepared,
    sequences: Sequences,
    progress: Callable[[int], object] = lambda bins: None,
    units: UnitInterventions | None = None,
) -> Rollout:
    """Simulate all sequences side by side; see :func:`rollout_windows`."""
    parts = []
    for result in rollout_windows(model, prepared, sequences, units=units):
        parts.append(result)
        progress(result.num_bins)
    spikes = Spikes.join([p.made for p in parts]).ordered()
    return Rollout(spikes, sum(p.guard_hits for p in parts))


@torch.inference_mode()
def rollout_windows(
    model: Neuroformer,
    prepared: Prepared,
    sequences: Sequences,
    *,
    first: int = 0,
    done: Spikes | None = None,
    units: UnitInterventions | None = None,
) -> Iterator[WindowResult]:
    """Simulate all sequences side by side, window after window, from window ``first`` on, as ``generate`` and ``seed`` of
    the configuration say.

    The recording's own spikes are out of reach: its builder gives frames and behavior, and the past comes from
    ``sequences.history`` and from what was generated. Only spikes pass from one window to the next, so an interrupted
    simulation continues exactly: give the spikes of the finished windows as ``done``.
    On a GPU its steps are replayed (``generate.cuda_graph``).
    """
    builder, config, seed = prepared.builder, prepared.config.generate, prepared.config.seed
    shape = builder.shape
    graphed = GraphedWindows(model, config, seed) if _graphed(model, config) else None
    recent = Spikes.join([sequences.history] + ([] if done is None else [done]))
    for w in range(first, sequences.num_windows(shape.current)):
        tick = sequences.start + w * shape.current
        near = recent.tick >= tick[recent.sequence] - shape.past
        recent = Spikes(recent.sequence[near], recent.tick[near], recent.unit[near])
        alive = np.flatnonzero(tick + shape.current <= sequences.stop)
        num_alive, alive = len(alive), alive if graphed is None else graphed.filled_up(alive)
        windows = Windows(sequences.segment[alive], tick[alive])
        batch = builder(windows, past=_past(recent, alive, tick[alive], sequences, model.num_units, shape))
        available = np.minimum(windows.tick - sequences.known_from[alive], shape.past)
        batch = replace(batch, available_W=torch.from_numpy(available)).to(model.device)
        ident = sequences.ident[alive]
        changes = None
        if units:
            changes = units.window(w, shape.current, ident, builder.index, windows)
        number = np.full(len(alive), w)
        if graphed is None:
            new, hits = sample_window(model, Stepper(model, batch), ident, number, config, seed, changes)
        else:
            new, hits = graphed.sample_window(batch, ident, number, num_alive, changes)
        new = Spikes(alive[new.sequence], tick[alive][new.sequence] + new.tick, new.unit)
        recent = Spikes.join([recent, new])
        yield WindowResult(w, new, hits, len(new.tick) + num_alive, num_alive * shape.current)


def _graphed(model: Neuroformer, config: GenerateConfig) -> bool:
    return config.cuda_graph and model.device.type == "cuda"


def _past(
    recent: Spikes,
    alive: np.ndarray,
    tick: np.ndarray,
    sequences: Sequences,
    num_units: int,
    shape: WindowShape,
) -> tokens.Tokens:
    """The past of each window, from history and generated spikes alone."""
    shift = shape.past  # a given past lies at bins before a segment's first
    index = SpikeIndex.from_ticks(
        recent.sequence,
        recent.tick + shift,
        recent.unit,
        np.zeros(len(sequences)),
        sequences.stop + shift,
        num_units,
        shape.dt,
    )
    return tokens.encode_past(index, Windows(alive, tick + shift), shape)


@torch.inference_mode()
def rollout_true_past(
    model: Neuroformer,
    prepared: Prepared,
    sequences: Sequences,
    progress: Callable[[int], object] = lambda bins: None,
) -> Rollout:
    """The same windows, each drawn after the *recorded* past: not a simulation, but a reference for one.

    Where a closed loop is worse than this, the reason is that it continues from its own output.
    """
    builder, config, seed = prepared.builder, prepared.config.generate, prepared.config.seed
    shape = builder.shape
    length = (sequences.stop - sequences.start) // shape.current
    sequence = np.repeat(np.arange(len(sequences)), length)
    window = np.arange(len(sequence)) - np.repeat(np.cumsum(length) - length, length)
    tick = sequences.start[sequence] + window * shape.current
    graphed = GraphedWindows(model, config, seed) if _graphed(model, config) else None
    parts, guard_hits, size = [], 0, config.batch_size or 512
    for first in range(0, len(sequence), size):
        which = np.arange(first, min(first + size, len(sequence)))
        num, which = len(which), which if graphed is None else graphed.filled_up(which)
        windows = Windows(sequences.segment[sequence[which]], tick[which])
        past = tokens.encode_past(prepared.index, windows, shape)
        batch = builder(windows, past=past).to(model.device)
        ident, number = sequences.ident[sequence[which]], window[which]
        if graphed is None:
            new, hits = sample_window(model, Stepper(model, batch), ident, number, config, seed)
        else:
            new, hits = graphed.sample_window(batch, ident, number, num)
        guard_hits += hits
        parts.append(Spikes(sequence[which][new.sequence], tick[which][new.sequence] + new.tick, new.unit))
        progress(num * shape.current)
    return Rollout(Spikes.join(parts).ordered(), guard_hits)
