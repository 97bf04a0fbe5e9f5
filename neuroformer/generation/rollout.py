"""Closed-loop rollout: the past that the model sees is the past that it generated.

Shape suffixes: Q sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from neuroformer.data import tokens
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import SpikeIndex, Windows
from neuroformer.generation.cuda_graph import GraphedWindows
from neuroformer.generation.interventions import UnitChanges, UnitInterventions
from neuroformer.generation.scan import sample_window
from neuroformer.generation.spikes import Sequences, Spikes
from neuroformer.model.network import Neuroformer
from neuroformer.model.stepper import Stepper

ENOUGH = 64  # sequences side by side, from which on several threads are of use


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


class Loop(Protocol):
    """What is simulated, spikes or samples of traces: how a window is encoded, drawn, and appended to the past."""

    prepared: Prepared
    sequences: Sequences

    def rows(self, alive: np.ndarray) -> np.ndarray:
        """The sequences of a batch: those that are simulated, and padding behind them."""
        ...

    def encode(self, number: int, rows: np.ndarray, windows: Windows) -> Batch:
        """Window ``number`` of these sequences, whose past is what was generated."""
        ...

    def draw(
        self, batch: Batch, number: int, rows: np.ndarray, windows: Windows, num_real: int
    ) -> tuple[Any, int, int]:
        """What the first ``num_real`` of them do; how many hit the guard; and how many tokens were drawn."""
        ...

    def append(self, made: Any) -> None: ...


@torch.inference_mode()
def rollout_windows(loop: Loop, first: int = 0) -> Iterator[WindowResult]:
    """Simulate all sequences side by side, window after window, from window ``first`` on, as ``generate`` and ``seed`` of
    the configuration say.

    The recording's own activity is out of reach: its builder gives frames and behavior, and the past is what was given and
    what was generated. Nothing else passes from one window to the next, so an interrupted simulation continues exactly.
    """
    sequences, current = loop.sequences, loop.prepared.builder.shape.current
    for number in range(first, sequences.num_windows(current)):
        tick = sequences.start + number * current
        alive = np.flatnonzero(tick + current <= sequences.stop)
        rows = loop.rows(alive)
        windows = Windows(sequences.segment[rows], tick[rows])
        # 1 encode the window
        batch = loop.encode(number, rows, windows)
        # 2 draw from the observation
        made, hits, num_tokens = loop.draw(batch, number, rows, windows, len(alive))
        # 3 append to the past
        loop.append(made)
        yield WindowResult(number, made, hits, num_tokens, len(alive) * current)


class Sampler:
    """Draws the spikes of windows; on a GPU by steps that are replayed."""

    def __init__(self, model: Neuroformer, prepared: Prepared, replay: bool | None = None):
        self.model, self.config, self.seed = model, prepared.config.generate, prepared.config.seed
        replay = _replays(model) if replay is None else replay
        self.graphed = GraphedWindows(model, self.config, self.seed) if replay else None

    def rows(self, alive: np.ndarray) -> np.ndarray:
        """These sequences, padded where steps are replayed."""
        return alive if self.graphed is None else self.graphed.filled_up(alive)

    def __call__(
        self, batch: Batch, ident_Q: np.ndarray, number_Q: np.ndarray, num_real: int, changes: UnitChanges | None = None
    ) -> tuple[Spikes, int]:
        """Spikes of the first ``num_real`` windows, at bins of these, and how many hit the guard."""
        batch = batch.to(self.model.device)
        if self.graphed is not None:
            return self.graphed.sample_window(batch, ident_Q, number_Q, num_real, changes)
        with _threads(batch.num_windows):
            stepper = Stepper(self.model, batch)
            return sample_window(self.model, stepper, ident_Q, number_Q, self.config, self.seed, changes)


@contextmanager
def _threads(num_sequences: int) -> Iterator[None]:
    """One thread for steps of few sequences: threads would wait for each other longer than they work, and far longer where
    another process uses the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if num_sequences >= ENOUGH else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class SpikeLoop:
    """Spikes in closed loop: the past of a window comes from ``sequences.history`` and from what was generated.

    Parameters
    ----------
    done : the spikes of the windows before the first that is simulated
    replay : whether steps are captured and replayed; None: on a GPU
    """

    def __init__(
        self,
        model: Neuroformer,
        prepared: Prepared,
        sequences: Sequences,
        done: Spikes | None = None,
        units: UnitInterventions | None = None,
        replay: bool | None = None,
    ):
        self.prepared, self.sequences, self.units = prepared, sequences, units
        self.num_units, self.sampler = model.num_units, Sampler(model, prepared, replay)
        self.recent = Spikes.join([sequences.history] + ([] if done is None else [done]))

    def rows(self, alive: np.ndarray) -> np.ndarray:
        return self.sampler.rows(alive)

    def encode(self, number: int, rows: np.ndarray, windows: Windows) -> Batch:
        builder, sequences, recent = self.prepared.builder, self.sequences, self.recent
        shape = builder.shape
        near = recent.tick >= sequences.start[recent.sequence] + number * shape.current - shape.past
        recent = self.recent = Spikes(recent.sequence[near], recent.tick[near], recent.unit[near])
        shift = shape.past  # a given past lies at bins before a segment's first
        stop, origin = sequences.stop + shift, np.zeros(len(sequences))
        index = SpikeIndex.from_ticks(
            recent.sequence, recent.tick + shift, recent.unit, origin, stop, self.num_units, shape.dt
        )
        past = tokens.encode_past(index, Windows(rows, windows.tick + shift), shape)
        available = np.minimum(windows.tick - sequences.known_from[rows], shape.past)
        return replace(builder(windows, past=past), available_W=torch.from_numpy(available))

    def draw(
        self, batch: Batch, number: int, rows: np.ndarray, windows: Windows, num_real: int
    ) -> tuple[Spikes, int, int]:
        ident, builder, changes = self.sequences.ident[rows], self.prepared.builder, None
        if self.units:
            changes = self.units.window(number, builder.shape.current, ident, builder.index, windows)
        new, hits = self.sampler(batch, ident, np.full(len(rows), number), num_real, changes)
        made = Spikes(rows[new.sequence], windows.tick[new.sequence] + new.tick, new.unit)
        return made, hits, len(new.tick) + num_real

    def append(self, made: Spikes) -> None:
        self.recent = Spikes.join([self.recent, made])


def rollout(
    model: Neuroformer,
    prepared: Prepared,
    sequences: Sequences,
    progress: Callable[[int], object] = lambda bins: None,
    units: UnitInterventions | None = None,
) -> Rollout:
    """Simulate the spikes of all sequences side by side; see :func:`rollout_windows`."""
    parts = []
    for result in rollout_windows(SpikeLoop(model, prepared, sequences, units=units)):
        parts.append(result)
        progress(result.num_bins)
    spikes = Spikes.join([p.made for p in parts]).ordered()
    return Rollout(spikes, sum(p.guard_hits for p in parts))


def _replays(model: Neuroformer) -> bool:
    return model.device.type == "cuda"


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
    builder, sampler = prepared.builder, Sampler(model, prepared)
    shape = builder.shape
    length = (sequences.stop - sequences.start) // shape.current
    sequence = np.repeat(np.arange(len(sequences)), length)
    window = np.arange(len(sequence)) - np.repeat(np.cumsum(length) - length, length)
    tick = sequences.start[sequence] + window * shape.current
    parts, guard_hits, size = [], 0, prepared.config.generate.batch_size or 512
    for first in range(0, len(sequence), size):
        which = np.arange(first, min(first + size, len(sequence)))
        num, which = len(which), sampler.rows(which)
        windows = Windows(sequences.segment[sequence[which]], tick[which])
        batch = builder(windows, past=tokens.encode_past(prepared.index, windows, shape))
        new, hits = sampler(batch, sequences.ident[sequence[which]], window[which], num)
        guard_hits += hits
        parts.append(Spikes(sequence[which][new.sequence], tick[which][new.sequence] + new.tick, new.unit))
        progress(num * shape.current)
    return Rollout(Spikes.join(parts).ordered(), guard_hits)
