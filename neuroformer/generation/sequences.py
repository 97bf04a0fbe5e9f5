"""Which sequences are simulated: a part of the split, an interval of the recording, or a new stimulus.

Shape suffixes: Q sequences.
"""

from __future__ import annotations

import numpy as np
import torch

from neuroformer.config import Config, ConfigError, block_plan
from neuroformer.data.prepared import Prepared
from neuroformer.data.scales import Normalization
from neuroformer.data.splits import Split
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape, nanoseconds, to_ticks
from neuroformer.generation.spikes import Sequences, Spikes
from neuroformer.memory import free_memory
from neuroformer.model.network import Neuroformer
from neuroformer.model.spikes import SpikeObservation
from neuroformer.recording import Recording
from neuroformer.recording.recording import Traces

SAMPLES = 2**20  # random streams per block: sample k of block b has stream ``b * SAMPLES + k``
MAX_BATCH = 512
MEMORY_SHARE = 0.25  # share of the free memory for the keys and values of a batch


def sequences_of(prepared: Prepared) -> Sequences:
    """Every block of a part of the split, or of the given interval, ``generate.samples`` times. A block that opens its
    segment starts without a past; any other starts from the true spikes before it, and only from those. With
    ``generate.past_from`` all start from the spikes before that second.

    Raises
    ------
    ConfigError
        An interval, or a second to take the past from, that lies outside the recording.
    """
    split, shape, config = prepared.split, prepared.builder.shape, prepared.config.generate
    blocks = _within(split, config.interval, shape) if config.interval else split.blocks[config.split]
    repeat = np.repeat(np.arange(len(blocks)), config.samples)
    segment, start, stop = blocks[repeat].T
    if config.max_seconds:
        stop = np.minimum(stop, start + round(config.max_seconds / split.dt))
    sample = np.tile(np.arange(config.samples), len(blocks))
    known_from = np.zeros(len(segment), np.int64)
    if config.past_from >= 0:
        history = _given_history(prepared, start)
        known_from = start - shape.past
    else:
        history = _own_history(prepared.index, segment, start, shape.past)
    return Sequences(segment, start, stop, repeat * SAMPLES + sample, known_from, history)


def sequences_from(prepared: Prepared, windows: Windows, num_bins: int, samples: int) -> Sequences:
    """``samples`` sequences from the start of each window on, after the true spikes before it; of so many bins, or as many as
    the segment has."""
    repeat = np.repeat(np.arange(len(windows)), samples)
    segment, start = windows.segment[repeat], windows.tick[repeat]
    stop = np.minimum(start + num_bins, prepared.index.num_ticks[segment])
    history = _own_history(prepared.index, segment, start, prepared.builder.shape.past)
    ident = repeat * SAMPLES + np.tile(np.arange(samples), len(windows))
    return Sequences(segment, start, stop, ident, np.zeros(len(segment), np.int64), history)


def _within(split: Split, interval: tuple[float, ...], shape: WindowShape) -> np.ndarray:
    """(blocks, 3) the part of each segment that lies in the interval, in whole bins."""
    dt_ns = nanoseconds(split.dt)
    ends = nanoseconds(split.segments[:, 1] - split.segments[:, 0]) // dt_ns
    first, last = (to_ticks(t, split.segments[:, 0], split.dt) for t in interval)
    first, last = np.clip(first, 0, ends), np.clip(last, 0, ends)
    keep = np.flatnonzero(last - first >= shape.current)
    if len(keep) == 0:
        raise ConfigError(
            f"generate.interval is {list(interval)}; no trial or interval of the recording has a window's "
            f"{shape.current * shape.dt:g} s in it (they run from {split.segments.min():g} to {split.segments.max():g} s)"
        )
    return np.stack([keep, first[keep], last[keep]], 1).astype(np.int64)


def _own_history(index: SpikeIndex, segment: np.ndarray, start: np.ndarray, past: int) -> Spikes:
    """The true spikes of the ``past`` bins before each start."""
    base = index.base[segment]
    parts = []
    for q in range(len(segment)):
        first = base[q] + max(0, start[q] - past)
        lo, hi = np.searchsorted(index.keys, [first, base[q] + start[q]])
        parts.append(Spikes(np.full(hi - lo, q), index.keys[lo:hi] - base[q], index.unit[lo:hi].astype(np.int64)))
    return Spikes.join(parts)


def past_place(prepared: Prepared) -> tuple[int, int]:
    """The segment and the bin of the second ``generate.past_from``, which has a window's past before it.

    Raises
    ------
    ConfigError
        There is none.
    """
    second, split, past = prepared.config.generate.past_from, prepared.split, prepared.builder.shape.past
    ticks = to_ticks(second, split.segments[:, 0], split.dt)
    holds = np.flatnonzero((ticks >= past) & (ticks <= prepared.index.num_ticks))
    if len(holds) == 0:
        raise ConfigError(
            f"generate.past_from is {second:g} s; no trial or interval holds the {past * split.dt:g} s before it"
        )
    return int(holds[0]), int(ticks[holds[0]])


def _given_history(prepared: Prepared, start: np.ndarray) -> Spikes:
    """The spikes of a window's past before the second ``generate.past_from``, placed before each start."""
    (segment, tick), past = past_place(prepared), prepared.builder.shape.past
    one = _own_history(prepared.index, np.full(len(start), segment), np.full(len(start), tick), past)
    return Spikes(one.sequence, one.tick - tick + start[one.sequence], one.unit)


def batch_size_for(model: Neuroformer, num_sequences: int) -> int:
    """As many sequences as fit into the free memory, at most 512.

    A sequence keeps keys and values of its past, frames, inputs and own tokens for every block that reads them, and the
    activations of one clip while it is encoded.
    """
    width, observation = model.config.model.width, model.observation
    frames = int(np.prod(model.frames.encoder.grid)) if "frames" in model.streams else 0
    spikes = isinstance(observation, SpikeObservation)
    rate = float(observation.unit_rate.sum()) * model.num_bins if spikes else 0.0  # spikes per window
    sizes = {"past": rate * model.past_bins / model.num_bins, "frames": frames, "current": rate}
    kept = sum(4 * sizes.get(name, 8) for name in block_plan(model.config))  # twice: padded, and taken by row
    encoded = 12 * frames
    each = 4.0 * width * (kept + encoded) + 4.0 * model.num_bins * (6 * model.num_units + 2 * width)
    return int(np.clip(MEMORY_SHARE * free_memory(model.device) / each, 1, min(MAX_BATCH, num_sequences)))


def simulation_device(accelerator: str, share: int = 1) -> torch.device:
    """The device of a simulation: a GPU if there is one (unless ``accelerator`` is cpu); shares take the GPUs in
    turn. From then on, a GPU multiplies float32 matrices in TF32 (10 bits of mantissa), which is several times as
    fast and far more precise than any rate is known. Sums of probabilities stay in float32 and float64.

    Raises
    ------
    ConfigError
        A GPU is asked for and there is none.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if accelerator == "gpu" and not found:
        raise ConfigError("train.accelerator is 'gpu', but there is no CUDA device; set train.accelerator=auto or cpu")
    if not found or accelerator == "cpu":
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda", (share - 1) % found)


def new_stimulus(rec: Recording, unit_ids: list[str]) -> Recording:
    """A recording of frames and behavior to simulate with: it gets the model's units, and no activity of it is read."""
    empty = np.zeros(0)
    return Recording(
        name=rec.name,
        spike_times=empty,
        spike_units=empty.astype(np.int32),
        units={"id": np.array(unit_ids)},
        domain=rec.domain,
        trials=rec.trials,
        frames=rec.frames,
        behavior=rec.behavior,
        meta=rec.meta,
        traces=Traces(
            rec.domain[:1, 0], np.full((1, len(unit_ids)), np.nan, np.float32)
        ),  # unknown, for models of them
    )


def prepared_whole(rec: Recording, config: Config, normalization: Normalization) -> Prepared:
    """A new stimulus, prepared with every part of the split the whole of it: its trials if there are any, else its
    domain.
    """
    segments = rec.trial_intervals if rec.num_trials else rec.domain
    return Prepared.of(rec, config, Split.whole(segments, config.window.dt), normalization)
