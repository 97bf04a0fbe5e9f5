"""A closed loop that continues into another trial: what it generated before is its past there.

Shape suffixes: Q sequences.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import SpikeIndex
from neuroformer.generation.rollout import rollout
from neuroformer.generation.sequences import SAMPLES, batch_size_for
from neuroformer.generation.simulate import as_recording, seconds_bar, with_interventions
from neuroformer.generation.spikes import Sequences, Spikes
from neuroformer.model.network import Neuroformer
from neuroformer.recording import Recording


def simulate_chain(
    model: Neuroformer,
    prepared: Prepared,
    simulated: Recording,
    order_LC: np.ndarray,
    *,
    progress: bool = True,
) -> list[Recording]:
    """Let a simulation run on from block to block; returns every leg, of which ``simulated`` is the first.

    Parameters
    ----------
    simulated : all blocks of ``generate.split``, ``generate.samples`` times each
    order_LC : (legs, chains) the blocks of each chain, one after another
    """
    legs = [simulated]
    samples = prepared.config.generate.samples
    rows = (order_LC[0][:, None] * samples + np.arange(samples)).ravel()
    start, stop = _whole_windows(prepared, order_LC[1:])
    with seconds_bar(samples * int((stop - start).sum()), prepared.split.dt, "running on", progress) as bar:
        for blocks_C in order_LC[1:]:
            blocks = np.repeat(blocks_C, samples)
            legs.append(go_on(model, prepared, legs[-1], rows, blocks, bar.update))
            rows = np.arange(len(rows))
    return legs


def _whole_windows(prepared: Prepared, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last bin of blocks of the simulated part; a rest that fills no window is left out."""
    g, split, current = prepared.config.generate, prepared.split, prepared.builder.shape.current
    _, start, stop = np.moveaxis(split.blocks[g.split][block], -1, 0)
    if g.max_seconds:
        stop = np.minimum(stop, start + round(g.max_seconds / split.dt))
    return start, start + (stop - start) // current * current


def go_on(
    model: Neuroformer,
    prepared: Prepared,
    before: Recording,
    row_Q: np.ndarray,
    block_Q: np.ndarray,
    progress: Callable[[int], object] = lambda bins: None,
) -> Recording:
    """Simulate blocks of a part of the split, each as the continuation of a simulated sequence.

    The time between two trials is left out: the past of a block's first window is the last part of the sequence
    before it. None of the recording's own spikes is read.

    Parameters
    ----------
    before : a simulation, or what this function returned
    row_Q : which of its sequences continue
    block_Q : the block of ``generate.split`` in which each continues

    Returns
    -------
    Recording
        As of :func:`neuroformer.generation.simulate.simulate`, one trial a sequence; ``sample`` counts on, because
        the random numbers differ from those of a loop that starts there.
    """
    g, split, past = prepared.config.generate, prepared.split, prepared.builder.shape.past
    segment = split.blocks[g.split][block_Q, 0]
    start, stop = _whole_windows(prepared, block_Q)  # no silent rest amid a chain
    ident = block_Q * SAMPLES + np.asarray(before.trials["sample"], np.int64)[row_Q] + g.samples
    history, lasted = _last_spikes(before, row_Q, start, past, split.dt)
    sequences = Sequences(segment, start, stop, ident, start - np.minimum(lasted, past), history)
    changed = with_interventions(prepared, sequences)
    size = g.batch_size or batch_size_for(model, len(sequences))
    parts, guard_hits = [], 0
    for first in range(0, len(sequences), size):
        made = rollout(model, changed, sequences[first : first + size], progress)
        parts.append(Spikes(made.spikes.sequence + first, made.spikes.tick, made.spikes.unit))
        guard_hits += made.guard_hits
    return as_recording(prepared, sequences, Spikes.join(parts).ordered(), guard_hits)


def _last_spikes(
    before: Recording, row_Q: np.ndarray, start_Q: np.ndarray, past: int, dt: float
) -> tuple[Spikes, np.ndarray]:
    """The last ``past`` bins of each sequence, laid before each start; and how many bins it lasted."""
    index = SpikeIndex.from_recording(before, before.trial_intervals, dt)
    lasted = index.num_ticks[row_Q]
    parts = []
    for q, (row, ticks) in enumerate(zip(row_Q, lasted, strict=True)):
        end = index.base[row] + ticks
        lo, hi = np.searchsorted(index.keys, [end - min(past, ticks), end])
        tick = index.keys[lo:hi] - end + start_Q[q]
        parts.append(Spikes(np.full(hi - lo, q), tick, index.unit[lo:hi].astype(np.int64)))
    return Spikes.join(parts), lasted
