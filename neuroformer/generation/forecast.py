"""What is expected some time ahead, given the true past up to now.

Shape suffixes: N moments, H horizons, Q sequences (samples of the moments), B bins of a window, U units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.generation.rollout import Loop, SpikeLoop
from neuroformer.generation.sequences import batch_size_for, sequences_from
from neuroformer.generation.spikes import Sequences
from neuroformer.generation.traces import TraceInterventions, TraceLoop, TraceSamples
from neuroformer.model.network import Neuroformer
from neuroformer.model.traces import TraceObservation

MOST_DRAWN = 2_000_000  # spikes (or samples of traces) that forecasts draw, some minutes of one core
SAMPLES, LEAST_SAMPLES, LEAST_MOMENTS = 16, 4, 200


def affordable(prepared: Prepared, moments: int, spans: Sequence[tuple[int, int]], samples: int = 0) -> tuple[int, int]:
    """How many of so many moments, and how many continuations of each, stay within :data:`MOST_DRAWN`.

    Continuations go first, from 16 down to 4, then moments, down to 200. ``samples`` asks for so many; 0: as many as there may be.
    """
    current = prepared.builder.shape.current
    bins = (-(-max(stop for _, stop in spans) // current) - 1) * current  # of the windows that are drawn
    rate = prepared.index.num_units if prepared.builder.traces is not None else sum(prepared.normalization.unit_rate)
    each = max(rate * bins, 1e-9)  # drawn by a continuation
    if not samples:
        samples = int(np.clip(MOST_DRAWN / (each * max(moments, 1)), LEAST_SAMPLES, SAMPLES))
    return min(moments, max(LEAST_MOMENTS, int(MOST_DRAWN / (each * samples)))), samples


@torch.inference_mode()
def expected_ahead(
    model: Neuroformer,
    prepared: Prepared,
    windows: Windows,
    spans: Sequence[tuple[int, int]],
    samples: int = 16,
    progress: Callable[[int], object] = lambda moments: None,
) -> np.ndarray:
    """(N, H, U) expected counts in spans of bins after each window's start, given the true past before it; of traces the
    expected mean of their samples.

    Bins of the window itself come in closed form, from the network's own rates. For later ones the windows up to theirs are
    drawn ``samples`` times, each continuing from its own draws, and the closed forms after these are averaged: no sampled
    count enters a score, only the past that it makes. Frames and behavior inputs are the recorded ones, also those after the
    window's start: they condition the model, they are not forecast.

    Parameters
    ----------
    windows : whose starts are the moments; all bins of the spans must lie in their segments
    spans : (first, one past the last) bin after the start
    samples : continuations of each moment
    progress : called with how many more moments are done
    """
    current = prepared.builder.shape.current
    last = -(-max(stop for _, stop in spans) // current)  # windows that are looked at
    out = np.zeros((len(windows), len(spans), model.num_units))
    done = 0
    for batch in prepared.batches(windows, 512, model.device):
        rows = slice(done, done + batch.num_windows)
        _add(out[rows], _expected(model, batch), spans, 0, current)
        done = rows.stop
        progress(batch.num_windows if last == 1 else 0)
    if last > 1:
        every = sequences_from(prepared, windows, last * current, samples)
        size = max(1, batch_size_for(model, len(every)) // samples)
        for first in range(0, len(windows), size):
            rows = slice(first, min(first + size, len(windows)))
            sequences = every[rows.start * samples : rows.stop * samples]
            _continue(model, prepared, sequences, out[rows], spans, last, samples)
            progress(rows.stop - rows.start)
    if isinstance(model.observation, TraceObservation):
        out /= np.array([stop - start for start, stop in spans])[:, None]
    return out


def _continue(
    model: Neuroformer, prepared: Prepared, sequences: Sequences, out_NHU, spans, last: int, samples: int
) -> None:
    """Add what is expected in the windows after the first one, the mean over samples."""
    loop, current = _loop(model, prepared, sequences), prepared.builder.shape.current
    alive = np.arange(len(sequences))
    for number in range(last):
        rows = loop.rows(alive)
        windows = Windows(sequences.segment[rows], sequences.start[rows] + number * current)
        batch = loop.encode(number, rows, windows)
        if number and any(start < (number + 1) * current and stop > number * current for start, stop in spans):
            every_QBU = _expected(model, batch.to(model.device))[: len(alive)]
            _add(out_NHU, every_QBU.reshape(-1, samples, *every_QBU.shape[1:]).mean(1), spans, number, current)
        if number + 1 < last:
            loop.append(loop.draw(batch, number, rows, windows, len(alive))[0])


def _loop(model: Neuroformer, prepared: Prepared, sequences: Sequences) -> Loop:
    traces = prepared.builder.traces
    if traces is None:
        return SpikeLoop(model, prepared, sequences)
    changes = TraceInterventions((), traces, prepared.split.dt)
    return TraceLoop(model, prepared, sequences, TraceSamples.none(model.num_units), changes)


def _expected(model: Neuroformer, batch) -> np.ndarray:
    """(W, B, U) expected counts, or expected samples of traces."""
    found = model.expected(batch)
    if isinstance(model.observation, TraceObservation):
        found = model.observation.mean(found)
    else:
        found = found.exp()
    return found.double().cpu().numpy()


def _add(out_NHU: np.ndarray, expected_NBU: np.ndarray, spans, number: int, current: int) -> None:
    """Add the bins of window ``number`` that lie in each span."""
    for h, (start, stop) in enumerate(spans):
        lo, hi = max(start - number * current, 0), min(stop - number * current, current)
        if lo < hi:
            out_NHU[:, h] += expected_NBU[:, lo:hi].sum(1)
