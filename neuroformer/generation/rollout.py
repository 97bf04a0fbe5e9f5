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
        new, hits = sample_window(model, Stepper(model, batch), sequences.ident[alive], w, config, seed)
        guard_hits += hits
        num_tokens += len(new.tick) + len(alive)
        new = Spikes(alive[new.sequence], tick[alive][new.sequence] + new.tick, new.unit)
        parts.append(new)
        joined = Spikes.join([recent, new])
        near = joined.tick >= tick[joined.sequence] + shape.current - shape.past
        recent = Spikes(joined.sequence[near], joined.tick[near], joined.unit[near])
        progress(len(alive) * shape.current)
    spikes = Spikes.join(parts)
    order = np.lexsort((spikes.unit, spikes.tick, spikes.sequence))
    ordered = Spikes(spikes.sequence[order], spikes.tick[order], spikes.unit[order])
    return Rollout(ordered, guard_hits, num_tokens)


def sample_window(
    model: Neuroformer, stepper: Stepper, ident_Q: np.ndarray, window: int, config: GenerateConfig, seed: int
) -> tuple[Spikes, int]:
    """Draw the spikes of one window of every sequence; returns them and how many hit the guard."""
    device = stepper.h_AD.device
    ident = torch.from_numpy(np.asarray(ident_Q, dtype=np.int64)).to(device)
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []
    for token in range(config.max_tokens + 1):
        stream = ident[stepper.rows]
        u = uniforms(seed, stream, window, token, DT)
        dt = draw(stepper.dt_logits(), u, temperature=config.temperature_dt, top_p=config.top_p_dt)
        going = torch.nonzero(dt < model.num_bins).squeeze(1)
        if len(going) == 0:
            return _collect(drawn), 0
        if token == config.max_tokens:
            return _collect(drawn), len(going)
        dt = dt[going]
        u = uniforms(seed, stream[going], window, token, ID)
        unit = draw(stepper.id_logits(going, dt), u, temperature=config.temperature_id, top_p=config.top_p_id)
        if len(going) < len(stepper.rows):
            stepper.keep(going)
        drawn.append((stepper.rows, dt, unit))
        stepper.feed(dt, unit)
    raise AssertionError("the loop returns")


def _collect(drawn: list[tuple[Tensor, Tensor, Tensor]]) -> Spikes:
    return Spikes.join([Spikes(*(x.cpu().numpy() for x in part)) for part in drawn])
