"""Simulated traces: the past that the model sees is the past that it generated.

Shape suffixes: Q sequences, A active sequences, N samples of all units, L past bins, B bins of a window, U units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neuroformer.config import InterventionConfig
from neuroformer.data import tokens
from neuroformer.data.prepared import Prepared
from neuroformer.data.traces import TraceIndex
from neuroformer.data.windows import Windows
from neuroformer.generation.interventions import RECORDED, acting_bins, on_units
from neuroformer.generation.rollout import WindowResult
from neuroformer.generation.sampling import TRACE, uniforms
from neuroformer.generation.sequences import past_place
from neuroformer.generation.spikes import Sequences
from neuroformer.model.network import Neuroformer
from neuroformer.model.traces import TraceObservation
from neuroformer.recording.recording import Traces


@dataclass
class TraceSamples:
    """TraceSamples of all units on the clock: sequence, bin within the sequence's segment, and (N, U) values."""

    sequence: np.ndarray
    tick: np.ndarray
    values: np.ndarray

    @classmethod
    def join(cls, parts: list[TraceSamples]) -> TraceSamples:
        if not parts:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
        parts = [p for p in parts if len(p.tick)] or parts[:1]
        return cls(*(np.concatenate([getattr(p, k) for p in parts]) for k in ("sequence", "tick", "values")))

    def ordered(self) -> TraceSamples:
        """By (sequence, bin)."""
        order = np.lexsort((self.tick, self.sequence))
        return TraceSamples(self.sequence[order], self.tick[order], self.values[order])


class TraceInterventions:
    """What is done to units whose traces are simulated; values are in the traces' own unit of measure.

    A silenced unit stays at 0, a clamped one at ``value`` (-1: at its recorded samples), and a driven one gets ``value``
    more in every bin. The model sees the changed samples, not those that it drew.

    Raises
    ------
    ConfigError
        A unit that is not there.
    """

    def __init__(self, interventions: Sequence[InterventionConfig], recorded: TraceIndex, dt: float):
        self.interventions = on_units(interventions, recorded.values.shape[1])
        self.recorded, self.dt = recorded, dt

    def change(self, drawn_ABU: np.ndarray, number: int, windows: Windows) -> np.ndarray:
        """The samples of window ``number`` since the loop closed, after the interventions."""
        out = drawn_ABU.copy()
        num_bins = drawn_ABU.shape[1]
        for one in self.interventions:
            bins, units = acting_bins(one, number, num_bins, self.dt), np.array(one.units, np.int64)
            here = np.ix_(np.arange(len(out)), bins, units)
            if one.do == "drive":
                out[here] += one.value
            elif one.value == RECORDED and one.do == "clamp":
                first = windows.bins(self.recorded.index)
                true_ABU = self.recorded.values[first[:, None] + np.arange(num_bins)]
                known = np.isfinite(true_ABU[here])
                out[here] = np.where(known, true_ABU[here], out[here])
            else:
                out[here] = one.value if one.do == "clamp" else 0.0
        return out


@torch.no_grad()
def trace_windows(
    model: Neuroformer,
    prepared: Prepared,
    sequences: Sequences,
    past_QLU: np.ndarray,
    *,
    first: int = 0,
    done: TraceSamples | None = None,
    changes: TraceInterventions | None = None,
) -> Iterator[WindowResult]:
    """Simulate all sequences side by side, window after window, from window ``first`` on.

    Parameters
    ----------
    past_QLU : the samples before each start, from :func:`first_past`
    done : the samples of the windows before ``first``: all that one window hands to the next are samples
    """
    current, past = prepared.builder.shape.current, past_QLU.copy()
    if done is not None and first:
        past = _past_after(past, done, sequences.start, first * current)
    for w in range(first, sequences.num_windows(current)):
        tick = sequences.start + w * current
        alive = np.flatnonzero(tick + current <= sequences.stop)
        windows = Windows(sequences.segment[alive], tick[alive])
        new = _draw(model, prepared, windows, past[alive], sequences.ident[alive], w)
        if changes is not None:
            new = changes.change(new, w, windows)
        past[alive] = np.concatenate([past[alive], new], 1)[:, -past.shape[1] :]
        at = windows.tick[:, None] + np.arange(current)
        made = TraceSamples(np.repeat(alive, current), at.ravel(), new.reshape(-1, new.shape[2]))
        yield WindowResult(w, made, 0, new.size, len(alive) * current)


def first_past(prepared: Prepared, sequences: Sequences) -> np.ndarray:
    """(Q, L, U) the true samples before each start, or before ``generate.past_from``; NaN where there are none."""
    traces, segment, start = prepared.builder.traces, sequences.segment, sequences.start
    assert traces is not None
    if prepared.config.generate.past_from >= 0:
        segment, start = (np.full(len(start), x) for x in past_place(prepared))
    return traces.past(Windows(segment, start), prepared.builder.shape)


def _past_after(past_QLU: np.ndarray, done: TraceSamples, start_Q: np.ndarray, bins: int) -> np.ndarray:
    """The past of every sequence ``bins`` bins after its start."""
    length = past_QLU.shape[1]
    kept = past_QLU[:, bins:]
    out = np.full_like(past_QLU, np.nan)
    out[:, : kept.shape[1]] = kept
    place = done.tick - start_Q[done.sequence] - bins + length
    near = place >= 0
    out[done.sequence[near], place[near]] = done.values[near]
    return out


def _draw(
    model: Neuroformer, prepared: Prepared, windows: Windows, past_QLU: np.ndarray, ident_Q: np.ndarray, number: int
) -> np.ndarray:
    """(Q, B, U) samples of one window of every sequence."""
    device = model.device
    batch = prepared.builder(windows, past=tokens.no_spikes(len(windows)), past_traces=past_QLU).to(device)
    assert isinstance(model.observation, TraceObservation)
    parameters = model.expected(batch)
    num_cells = parameters.shape[1] * parameters.shape[2]
    stream = torch.from_numpy(ident_Q.astype(np.int64)).to(device).repeat_interleave(num_cells)
    cell = torch.arange(num_cells, device=device).repeat(len(windows))  # the tokens of a window
    u = uniforms(prepared.config.seed, stream, number, cell, TRACE).view(parameters.shape[:3])
    return model.observation.draw(parameters, u).cpu().numpy()


def laid_out(samples: TraceSamples, sequences: Sequences, starts: np.ndarray, dt: float, unit: str) -> Traces:
    """Ordered samples on the common clock of the sequences, each in the middle of its bin."""
    relative = (samples.tick - sequences.start[samples.sequence] + 0.5) * dt
    return Traces(starts[samples.sequence] + relative, samples.values, unit)
