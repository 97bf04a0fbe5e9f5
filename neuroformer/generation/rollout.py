"""Closed-loop rollout: the past that the model sees is the past that it generated.

Shape suffixes: Q sequences, A active sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from neuroformer.config import GenerateConfig
from neuroformer.data import tokens
from neuroformer.data.batch import BatchBuilder
from neuroformer.data.windows import SpikeIndex, Windows
from neuroformer.generation.sampling import draw, uniforms
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.model.stepper import Stepper

DT, ID = 0, 1  # kinds of random numbers


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

    ``ident`` names the random stream; ``history`` holds the true spikes before each start, if any.
    """

    segment: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    ident: np.ndarray
    history: Spikes = field(default_factory=lambda: Spikes.join([]))

    def __len__(self) -> int:
        return len(self.segment)

    def __getitem__(self, which: slice) -> Sequences:
        lo, hi, _ = which.indices(len(self))
        h = self.history
        inside = (h.sequence >= lo) & (h.sequence < hi)
        history = Spikes(h.sequence[inside] - lo, h.tick[inside], h.unit[inside])
        return Sequences(self.segment[which], self.start[which], self.stop[which], self.ident[which], history)


@dataclass
class Rollout:
    """Generated spikes, ordered by (sequence, bin, unit), and how often the guard on tokens stopped a window."""

    spikes: Spikes
    guard_hits: int
    num_tokens: int


@torch.no_grad()
def rollout(
    model: Neuroformer,
    builder: BatchBuilder,
    sequences: Sequences,
    config: GenerateConfig,
    seed: int,
    progress: Callable[[int], object] = lambda bins: None,
) -> Rollout:
    """Simulate all sequences side by side, window after window.

    The recording's own spikes are out of reach: ``builder`` gives frames and behavior, and the past comes from
    ``sequences.history`` and from what was generated.
    """
    shape = builder.shape
    longest = int((sequences.stop - sequences.start).max(initial=0)) // shape.current
    recent, parts, guard_hits, num_tokens = sequences.history, [], 0, 0
    for w in range(longest):
        tick = sequences.start + w * shape.current
        alive = np.flatnonzero(tick + shape.current <= sequences.stop)
        index = SpikeIndex.from_ticks(
            recent.sequence, recent.tick, recent.unit, np.zeros(len(sequences)), sequences.stop,
            model.num_units, shape.dt,
        )  # fmt: skip
        past = tokens.encode_past(index, Windows(alive, tick[alive]), shape)
        windows = Windows(sequences.segment[alive], tick[alive])
        batch = builder(windows, past=past).to(model.sos.device)
        window = np.full(len(alive), w)
        new, hits = sample_window(model, Stepper(model, batch), sequences.ident[alive], window, config, seed)
        guard_hits += hits
        num_tokens += len(new.tick) + len(alive)
        new = Spikes(alive[new.sequence], tick[alive][new.sequence] + new.tick, new.unit)
        parts.append(new)
        joined = Spikes.join([recent, new])
        near = joined.tick >= tick[joined.sequence] + shape.current - shape.past
        recent = Spikes(joined.sequence[near], joined.tick[near], joined.unit[near])
        progress(len(alive) * shape.current)
    return Rollout(Spikes.join(parts).ordered(), guard_hits, num_tokens)


@torch.no_grad()
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
    parts, guard_hits = [], 0
    for first in range(0, len(sequence), config.batch_size):
        which = slice(first, first + config.batch_size)
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
) -> tuple[Spikes, int]:
    """Draw the spikes of one window of every sequence; returns them and how many hit the guard.

    ``window_Q``: which window of its sequence each one is; random streams run on over windows.
    """
    device = stepper.h_AD.device
    ident, windows = (torch.from_numpy(np.asarray(x, dtype=np.int64)).to(device) for x in (ident_Q, window_Q))
    last_tick = torch.zeros(len(ident), dtype=torch.int64, device=device)
    last_unit = torch.full_like(last_tick, -1)
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []
    for token in range(config.max_tokens + 1):
        stream, window = ident[stepper.rows], windows[stepper.rows]
        u = uniforms(seed, stream, window, token, DT)
        logits = stepper.dt_logits(last_tick, last_unit)
        dt = draw(logits, u, temperature=config.temperature_dt, top_p=config.top_p_dt)
        going = torch.nonzero(dt < model.num_bins).squeeze(1)
        if len(going) == 0:
            return _collect(drawn), 0
        if token == config.max_tokens:
            return _collect(drawn), len(going)
        dt = dt[going]
        low = torch.where(dt == last_tick[going], last_unit[going].clamp_min(0), 0)
        u = uniforms(seed, stream[going], window[going], token, ID)
        logits = stepper.id_logits(going, dt, low)
        unit = draw(logits, u, temperature=config.temperature_id, top_p=config.top_p_id)
        if len(going) < len(stepper.rows):
            stepper.keep(going)
        drawn.append((stepper.rows, dt, unit))
        last_tick, last_unit = dt, unit
        stepper.feed(dt, unit)
    raise AssertionError("the loop returns")


def _collect(drawn: list[tuple[Tensor, Tensor, Tensor]]) -> Spikes:
    return Spikes.join([Spikes(*(x.cpu().numpy() for x in part)) for part in drawn])
