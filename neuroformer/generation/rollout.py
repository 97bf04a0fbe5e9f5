"""Closed-loop rollout: the past that the model sees is the past that it generated.

Shape suffixes: Q sequences, A active sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroformer.config import GenerateConfig
from neuroformer.data import tokens
from neuroformer.data.batch import BatchBuilder
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape
from neuroformer.generation.interventions import UnitChanges, UnitInterventions
from neuroformer.generation.sampling import DT, ID, draw, uniforms
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.model.stepper import Stepper


@dataclass
class Spikes:
    """Spikes on the clock: sequence, bin within the sequence's segment, unit; equal lengths, int64."""

    sequence: np.ndarray
    tick: np.ndarray
    unit: np.ndarray

    @classmethod
    def join(cls, parts: list[Spikes]) -> Spikes:
        empty = np.zeros(0, np.int64)
        pick = lambda name: np.concatenate([empty, *(getattr(p, name) for p in parts)])
        return cls(pick("sequence"), pick("tick"), pick("unit"))

    def ordered(self) -> Spikes:
        """By (sequence, bin, unit)."""
        order = np.lexsort((self.unit, self.tick, self.sequence))
        return Spikes(self.sequence[order], self.tick[order], self.unit[order])


@dataclass
class Sequences:
    """What is simulated: sequence q runs in ``segment[q]`` from bin ``start[q]`` up to bin ``stop[q]``.

    ``ident`` names the random stream; ``history`` holds the spikes before each start, if any, at bins from
    ``known_from`` on (negative where a past is given to a sequence that opens its segment).
    """

    segment: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    ident: np.ndarray
    known_from: np.ndarray
    history: Spikes = field(default_factory=lambda: Spikes.join([]))

    def __len__(self) -> int:
        return len(self.segment)

    def __getitem__(self, which: slice) -> Sequences:
        lo, hi, _ = which.indices(len(self))
        h = self.history
        inside = (h.sequence >= lo) & (h.sequence < hi)
        history = Spikes(h.sequence[inside] - lo, h.tick[inside], h.unit[inside])
        return Sequences(
            self.segment[which], self.start[which], self.stop[which], self.ident[which],
            self.known_from[which], history,
        )  # fmt: skip

    def num_windows(self, current: int) -> int:
        """Of the longest sequence."""
        return int((self.stop - self.start).max(initial=0)) // current


@dataclass
class Rollout:
    """Generated spikes, ordered by (sequence, bin, unit), and how often the guard on tokens stopped a window."""

    spikes: Spikes
    guard_hits: int
    num_tokens: int


@dataclass
class WindowResult:
    """What one window of every sequence that was still running gave: spikes, or samples of traces; and what it cost."""

    number: int
    made: Any
    guard_hits: int
    num_tokens: int
    num_bins: int


def rollout(
    model: Neuroformer,
    builder: BatchBuilder,
    sequences: Sequences,
    config: GenerateConfig,
    seed: int,
    progress: Callable[[int], object] = lambda bins: None,
    units: UnitInterventions | None = None,
) -> Rollout:
    """Simulate all sequences side by side; see :func:`rollout_windows`."""
    parts = []
    for result in rollout_windows(model, builder, sequences, config, seed, units=units):
        parts.append(result)
        progress(result.num_bins)
    spikes = Spikes.join([p.made for p in parts]).ordered()
    return Rollout(spikes, sum(p.guard_hits for p in parts), sum(p.num_tokens for p in parts))


@torch.inference_mode()
def rollout_windows(
    model: Neuroformer,
    builder: BatchBuilder,
    sequences: Sequences,
    config: GenerateConfig,
    seed: int,
    *,
    first: int = 0,
    done: Spikes | None = None,
    units: UnitInterventions | None = None,
) -> Iterator[WindowResult]:
    """Simulate all sequences side by side, window after window, from window ``first`` on.

    The recording's own spikes are out of reach: ``builder`` gives frames and behavior, and the past comes from
    ``sequences.history`` and from what was generated. All that one window hands to the next are spikes, so that
    a simulation goes on exactly where it was cut off: give it the spikes of the windows before as ``done``.
    """
    shape = builder.shape
    recent = Spikes.join([sequences.history] + ([] if done is None else [done]))
    for w in range(first, sequences.num_windows(shape.current)):
        tick = sequences.start + w * shape.current
        near = recent.tick >= tick[recent.sequence] - shape.past
        recent = Spikes(recent.sequence[near], recent.tick[near], recent.unit[near])
        alive = np.flatnonzero(tick + shape.current <= sequences.stop)
        windows = Windows(sequences.segment[alive], tick[alive])
        batch = builder(windows, past=_past(recent, alive, tick[alive], sequences, model.num_units, shape))
        available = np.minimum(windows.tick - sequences.known_from[alive], shape.past)
        batch = replace(batch, available_W=torch.from_numpy(available)).to(model.sos.device)
        ident = sequences.ident[alive]
        changes = None
        if units:
            changes = units.window(w, shape.current, ident, builder.index, windows.segment, windows.tick)
        number = np.full(len(alive), w)
        new, hits = sample_window(model, Stepper(model, batch), ident, number, config, seed, changes)
        new = Spikes(alive[new.sequence], tick[alive][new.sequence] + new.tick, new.unit)
        recent = Spikes.join([recent, new])
        yield WindowResult(w, new, hits, len(new.tick) + len(alive), len(alive) * shape.current)


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
        recent.sequence, recent.tick + shift, recent.unit, np.zeros(len(sequences)), sequences.stop + shift,
        num_units, shape.dt,
    )  # fmt: skip
    return tokens.encode_past(index, Windows(alive, tick + shift), shape)


@torch.inference_mode()
def rollout_true_past(
    model: Neuroformer,
    builder: BatchBuilder,
    index: SpikeIndex,
    sequences: Sequences,
    config: GenerateConfig,
    seed: int,
    progress: Callable[[int], object] = lambda bins: None,
) -> Rollout:
    """The same windows, each drawn after the *recorded* past of ``index``: no simulation, but what to compare one with.

    Whatever a closed loop does worse than this, it does because it lives on its own output.
    """
    shape = builder.shape
    length = (sequences.stop - sequences.start) // shape.current
    sequence = np.repeat(np.arange(len(sequences)), length)
    window = np.arange(len(sequence)) - np.repeat(np.cumsum(length) - length, length)
    tick = sequences.start[sequence] + window * shape.current
    parts, guard_hits, size = [], 0, config.batch_size or 512
    for first in range(0, len(sequence), size):
        which = slice(first, first + size)
        windows = Windows(sequences.segment[sequence[which]], tick[which])
        past = tokens.encode_past(index, windows, shape)
        stepper = Stepper(model, builder(windows, past=past).to(model.sos.device))
        ident = sequences.ident[sequence[which]]
        new, hits = sample_window(model, stepper, ident, window[which], config, seed)
        guard_hits += hits
        parts.append(Spikes(sequence[which][new.sequence], tick[which][new.sequence] + new.tick, new.unit))
        progress(len(windows) * shape.current)
    spikes = Spikes.join(parts).ordered()
    return Rollout(spikes, guard_hits, len(spikes.tick) + len(sequence))


def sample_window(
    model: Neuroformer,
    stepper: Stepper,
    ident_Q: np.ndarray,
    window_Q: np.ndarray,
    config: GenerateConfig,
    seed: int,
    changes: UnitChanges | None = None,
) -> tuple[Spikes, int]:
    """Draw the spikes of one window of every sequence; returns them and how many hit the guard.

    ``window_Q``: which window of its sequence each one is; random streams run on over windows.
    """
    scan = Scan(model, stepper, ident_Q, window_Q, config, seed, changes)
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(config.max_tokens):
        going = scan.next_spike()
        if len(going) < len(stepper.rows):
            stepper.keep(going)
            scan.keep(going)
        if len(going) == 0:
            return _collect(drawn), 0
        drawn.append((stepper.rows, scan.tick.clone(), scan.unit.clone()))
        stepper.feed(scan.tick, scan.unit)
    return _collect(drawn), len(scan.next_spike())


class Scan:
    """Where each active sequence stands in the cells (bin, unit) of its window, and how it goes on.

    Attributes
    ----------
    tick, unit, count : (A,) the last cell drawn, and how many spikes of it; unit -1 before any
    draws : (A,) how many times each drew: the place in its random stream
    """

    def __init__(
        self, model: Neuroformer, stepper: Stepper, ident_Q: np.ndarray, window_Q: np.ndarray,
        config: GenerateConfig, seed: int, changes: UnitChanges | None,
    ):  # fmt: skip
        self.model, self.stepper, self.config, self.seed = model, stepper, config, seed
        device = stepper.h_AD.device
        move = lambda x: torch.from_numpy(np.ascontiguousarray(x)).to(device)
        self.ident, self.window = move(ident_Q.astype(np.int64)), move(window_Q.astype(np.int64))
        self.kinds = torch.tensor([[DT], [ID]], device=device)
        self.tick = torch.zeros_like(self.ident)
        self.unit = torch.full_like(self.ident, -1)
        self.count, self.draws = torch.ones_like(self.ident), torch.zeros_like(self.ident)
        self.silent = None if changes is None else move(changes.silent_BU)
        self.forced = None if changes is None else move(changes.forced_QF)
        self.num_forced = torch.zeros_like(self.ident)  # so many have happened

    def keep(self, which: Tensor) -> None:
        """Go on with the sequences ``which`` only."""
        names = ["ident", "window", "tick", "unit", "count", "draws", "num_forced"]
        for name in names + ([] if self.forced is None else ["forced"]):
            setattr(self, name, getattr(self, name)[which])

    def next_spike(self) -> Tensor:
        """Move every sequence to its next spike; returns which have one (the others' windows end)."""
        every = torch.arange(len(self.tick), device=self.tick.device)
        which, ended = every, torch.zeros(len(every), dtype=torch.bool, device=every.device)
        # only spikes that are thrown away need another draw; the guard bounds them as well
        for _ in range(self.config.max_tokens + 1):
            again = self._draw(which, ended)
            if again is None:
                break
            which = again
        return torch.nonzero(~ended).squeeze(1)

    def _draw(self, which: Tensor, ended: Tensor) -> Tensor | None:
        """One draw of the sequences ``which``; marks those that ended, returns those that must draw again."""
        c, num_bins, num_units = self.config, self.model.num_bins, self.model.num_units
        tick, unit = self.tick[which], self.unit[which]
        stream, window, place = self.ident[which], self.window[which], self.draws[which]
        self.draws[which] += 1
        following = self.stepper.after(which, tick, unit, self.count[which])
        u_dt, u_id = uniforms(self.seed, stream, window, place, self.kinds)
        dt = draw(
            following.dt_logits(), u_dt, temperature=c.temperature_dt, top_p=c.top_p_dt, top_k=c.top_k_dt
        )
        going = torch.nonzero(dt < num_bins).squeeze(1)
        logits = following.id_logits(going, dt[going])
        drawn = draw(logits, u_id[going], temperature=c.temperature_id, top_p=c.top_p_id, top_k=c.top_k_id)
        cell = torch.full_like(dt, num_bins * num_units)
        cell[going] = dt[going] * num_units + drawn
        forced = self._forced(which, cell)
        ended[which] = cell == num_bins * num_units
        same = cell == tick * num_units + unit
        self.count[which] = torch.where(same & (unit >= 0), self.count[which] + 1, 1)
        alive = cell < num_bins * num_units
        self.tick[which] = torch.where(alive, cell // num_units, tick)
        self.unit[which] = torch.where(alive, cell % num_units, unit)
        if self.silent is None or forced is None:
            return None
        thrown = torch.zeros_like(alive)
        thrown[alive] = self.silent.flatten()[cell[alive]] & ~forced[alive]
        ended[which[thrown]] = True  # unless a later draw says otherwise
        return which[thrown] if bool(thrown.any()) else None

    def _forced(self, which: Tensor, cell: Tensor) -> Tensor | None:
        """Where a forced spike comes first it takes the drawn cell's place, in ``cell``; returns where."""
        if self.forced is None:
            return None
        first = self.forced[which].gather(1, self.num_forced[which][:, None]).squeeze(1)
        forced = (first <= cell) & (first < self.model.num_bins * self.model.num_units)
        cell.copy_(torch.where(forced, first, cell))
        self.num_forced[which] += forced.long()
        return forced


def _collect(drawn: list[tuple[Tensor, Tensor, Tensor]]) -> Spikes:
    return Spikes.join([Spikes(*(x.cpu().numpy() for x in part)) for part in drawn])
