"""Simulated traces: the past that the model sees is the past that it generated.

Shape suffixes: Q sequences, A active sequences, N samples of all units, L past bins, B bins of a window, U units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neuroformer.config import InterventionConfig
from neuroformer.data import tokens
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared
from neuroformer.data.traces import TraceIndex
from neuroformer.data.windows import Windows
from neuroformer.generation.interventions import RECORDED, acting_bins, on_units
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
    def none(cls, num_units: int) -> TraceSamples:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, num_units), np.float32))

    @classmethod
    def join(cls, parts: list[TraceSamples]) -> TraceSamples:
        if not parts:
            return cls.none(0)
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


class TraceLoop:
    """Samples in closed loop: the past of a window is the samples before its sequence's start, and those generated.

    Parameters
    ----------
    done : the samples of the windows before the first that is simulated
    """

    def __init__(
        self,
        model: Neuroformer,
        prepared: Prepared,
        sequences: Sequences,
        done: TraceSamples,
        changes: TraceInterventions,
    ):
        self.model, self.prepared, self.sequences, self.changes = model, prepared, sequences, changes
        self.first_QLU = first_past(prepared, sequences)
        self.recent = TraceSamples.join([TraceSamples.none(model.num_units), done])

    def rows(self, alive: np.ndarray) -> np.ndarray:
        return alive

    def encode(self, number: int, rows: np.ndarray, windows: Windows) -> Batch:
        builder, start_Q, recent = self.prepared.builder, self.sequences.start, self.recent
        past, length = np.full_like(self.first_QLU, np.nan), self.first_QLU.shape[1]
        bins = number * builder.shape.current
        past[:, : max(length - bins, 0)] = self.first_QLU[:, bins:]
        place = recent.tick - start_Q[recent.sequence] - bins + length
        near = place >= 0
        self.recent = TraceSamples(recent.sequence[near], recent.tick[near], recent.values[near])
        past[self.recent.sequence, place[near]] = self.recent.values
        return builder(windows, past=tokens.no_spikes(len(windows)), past_traces=past[rows])

    def draw(
        self, batch: Batch, number: int, rows: np.ndarray, windows: Windows, num_real: int
    ) -> tuple[TraceSamples, int, int]:
        model, device = self.model, self.model.device
        assert isinstance(model.observation, TraceObservation)
        parameters = model.expected(batch.to(device))
        num_cells = parameters.shape[1] * parameters.shape[2]
        stream = torch.from_numpy(self.sequences.ident[rows].astype(np.int64)).to(device).repeat_interleave(num_cells)
        cell = torch.arange(num_cells, device=device).repeat(len(windows))  # the tokens of a window
        u = uniforms(self.prepared.config.seed, stream, number, cell, TRACE).view(parameters.shape[:3])
        new = self.changes.change(model.observation.draw(parameters, u).cpu().numpy(), number, windows)
        current = new.shape[1]
        at = windows.tick[:, None] + np.arange(current)
        return TraceSamples(np.repeat(rows, current), at.ravel(), new.reshape(-1, new.shape[2])), 0, new.size

    def append(self, made: TraceSamples) -> None:
        self.recent = TraceSamples.join([self.recent, made])


def first_past(prepared: Prepared, sequences: Sequences) -> np.ndarray:
    """(Q, L, U) the true samples before each start, or before ``generate.past_from``; NaN where there are none."""
    traces, segment, start = prepared.builder.traces, sequences.segment, sequences.start
    assert traces is not None
    if prepared.config.generate.past_from >= 0:
        segment, start = (np.full(len(start), x) for x in past_place(prepared))
    return traces.past(Windows(segment, start), prepared.builder.shape)


def laid_out(samples: TraceSamples, sequences: Sequences, starts: np.ndarray, dt: float, unit: str) -> Traces:
    """Ordered samples on the common clock of the sequences, each in the middle of its bin."""
    relative = (samples.tick - sequences.start[samples.sequence] + 0.5) * dt
    return Traces(starts[samples.sequence] + relative, samples.values, unit)
