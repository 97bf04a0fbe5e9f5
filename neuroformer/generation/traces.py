"""Simulated traces: the past that the model sees is the past that it generated.

Shape suffixes: Q sequences, L past bins, B bins of a window, U units.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch
from tqdm import tqdm

from neuroformer.config import Config
from neuroformer.data import tokens
from neuroformer.data.batch import BatchBuilder
from neuroformer.data.splits import Split
from neuroformer.data.windows import Windows
from neuroformer.generation.sampling import TRACE, uniforms
from neuroformer.generation.simulate import GAP_S, Simulation
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.recording import Recording
from neuroformer.recording.recording import Traces


@torch.no_grad()
def simulate_traces(
    model: Neuroformer, rec: Recording, split: Split, builder: BatchBuilder, config: Config, *, progress: bool = True
) -> Simulation:  # fmt: skip
    """Simulate every block of a part of the split, ``generate.samples`` times, in closed loop.

    A block that opens its segment starts without a past; another starts from the true samples before it, and
    from those alone. Each sequence has its own random stream.

    Returns
    -------
    Simulation
        Its recording has traces and no spikes; trials as :class:`Simulation` says. ``tokens_per_second`` counts
        samples.
    """
    g, shape, traces = config.generate, builder.shape, builder.traces
    assert traces is not None and model.traces is not None
    blocks = np.repeat(split.blocks[g.split], g.samples, axis=0)
    segment, start, stop = blocks.T
    if g.max_seconds:
        stop = np.minimum(stop, start + round(g.max_seconds / split.dt))
    ident = np.repeat(np.arange(len(split.blocks[g.split])), g.samples) * 2**20 + np.tile(
        np.arange(g.samples), len(split.blocks[g.split])
    )
    past = traces.past(Windows(segment, start), shape)
    counts = (stop - start) // shape.current
    values = [np.zeros((n * shape.current, rec.num_units), np.float32) for n in counts]
    begin = time.perf_counter()
    for w in tqdm(range(int(counts.max(initial=0))), unit=" windows", desc="simulated", disable=not progress):
        alive = np.flatnonzero(w < counts)
        windows = Windows(segment[alive], start[alive] + w * shape.current)
        new = _window(model, builder, windows, past[alive], ident[alive], w, config.seed)
        for q, x in zip(alive, new, strict=True):
            values[q][w * shape.current : (w + 1) * shape.current] = x
        past[alive] = np.concatenate([past[alive], new], 1)[:, shape.current :]
    seconds = time.perf_counter() - begin
    out = _as_recording(rec, split, config, segment, start, values, ident)
    return Simulation(out, seconds, sum(x.size for x in values) / max(seconds, 1e-9), 0)


def _window(model, builder, windows: Windows, past_QLU, ident_Q, number: int, seed: int) -> np.ndarray:
    """(Q, B, U) samples of one window of every sequence."""
    device = model.sos.device
    batch = builder(windows, past=tokens.no_spikes(len(windows)), past_traces=past_QLU).to(device)
    parameters = model.trace_parameters(batch)
    num_cells = parameters.shape[1] * parameters.shape[2]
    stream = torch.from_numpy(ident_Q.astype(np.int64)).to(device).repeat_interleave(num_cells)
    cell = torch.arange(num_cells, device=device).repeat(len(windows))  # the tokens of a window
    u = uniforms(seed, stream, number, cell, TRACE).view(parameters.shape[:3])
    return model.traces.draw(parameters, u).cpu().numpy()


def _as_recording(rec: Recording, split: Split, config: Config, segment, start, values, ident) -> Recording:
    """Sequences laid one after another with a gap, a sample in the middle of each bin."""
    durations = np.array([len(x) for x in values]) * split.dt
    starts = np.concatenate([[0.0], np.cumsum(durations + GAP_S)[:-1]])
    times = np.concatenate(
        [s + (np.arange(len(x)) + 0.5) * split.dt for s, x in zip(starts, values, strict=True)]
    )
    trials = {
        "start": starts, "stop": starts + durations, "source_start": split.segments[segment, 0] + start * split.dt,
        "source_trial": segment, "sample": ident % 2**20,
    }  # fmt: skip
    assert rec.traces is not None
    meta = {
        "simulated_from": rec.name, "seed": config.seed, "generate": dataclasses.asdict(config.generate),
        "notes": [f"traces simulated in closed loop from '{rec.name}', {config.generate.split} part"],
    }  # fmt: skip
    return Recording(
        name=f"{rec.name}-simulated", spike_times=np.zeros(0), spike_units=np.zeros(0, np.int32), units=rec.units,
        domain=np.stack([starts, starts + durations], 1), trials=trials, meta=meta,
        traces=Traces(times, np.concatenate(values), rec.traces.unit),
    )  # fmt: skip
