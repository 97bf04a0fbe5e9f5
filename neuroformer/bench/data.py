"""How fast batches are built, against the plain loop over windows and spikes; both must agree first."""

from __future__ import annotations

import platform
import time
from typing import Any

import numpy as np
import torch

from neuroformer.config import from_dict
from neuroformer.data.batch import BatchBuilder
from neuroformer.data.windows import SpikeIndex, Windows, tile
from neuroformer.recording import Recording

NUM_UNITS, RATE_HZ, SECONDS, BATCH = 400, 0.75, 600.0, 256


def recording(seed: int = 0) -> Recording:
    """400 independent Poisson units at 0.75 spikes/s."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, SECONDS, rng.poisson(NUM_UNITS * RATE_HZ * SECONDS)))
    units = rng.integers(0, NUM_UNITS, len(times))
    return Recording("bench", times, units, {"id": np.arange(NUM_UNITS)}, np.array([[0.0, SECONDS]]))


def run(repeats: int = 5) -> dict[str, Any]:
    """Windows of 50 ms in bins of 10 ms, 50 ms of past, no frames, in this one process.

    Returns
    -------
    dict
        ``windows_per_second`` (median over repeats), that of the plain loop, their ratio, and the shapes.
    """
    config = from_dict({"window": {"dt": 0.01, "current": 0.05, "past": 0.05, "frames": 0.0}})
    rec = recording()
    index = SpikeIndex.from_recording(rec, rec.domain, config.window.dt)
    builder = BatchBuilder(rec, index, config, {})
    windows = tile(np.array([[0, 0, index.num_ticks[0]]]), builder.shape)
    windows = windows[np.random.default_rng(0).permutation(len(windows))]
    checked = _agree(builder, rec, windows[:64])
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        for i in range(0, len(windows), BATCH):
            builder(windows[i : i + BATCH])
        rates.append(len(windows) / (time.perf_counter() - start))
    few = windows[:128]
    start = time.perf_counter()
    for w in range(len(few)):
        _plain(rec, few[w : w + 1], builder)
    plain = len(few) / (time.perf_counter() - start)
    median = float(np.median(rates))
    return {
        "bench": "data", "checked": checked, "windows_per_second": median, "windows_per_second_plain_loop": plain,
        "ratio_to_plain_loop": median / plain, "units": NUM_UNITS, "rate_hz": RATE_HZ, "batch": BATCH, "repeats": repeats,
        "machine": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__,
    }  # fmt: skip


def _plain(rec: Recording, window: Windows, builder: BatchBuilder) -> list[tuple[int, int]]:
    """One window's (bin, unit) pairs, by a loop over the recording's spikes from a sorted search on."""
    dt = builder.shape.dt
    first = int(window.tick[0])
    found = []
    lo = int(np.searchsorted(rec.spike_times, (first - 1) * dt))
    for t, u in zip(rec.spike_times[lo:], rec.spike_units[lo:], strict=True):
        tick = round(float(t) * 1e9) // round(dt * 1e9) - first
        if tick >= builder.shape.current:
            break
        if tick >= 0:
            found.append((tick, int(u)))
    return sorted(found)


def _agree(builder: BatchBuilder, rec: Recording, windows: Windows) -> bool:
    batch = builder(windows)
    for w in range(len(windows)):
        lo, hi = batch.current.offsets[w : w + 2].tolist()
        ours = list(zip(batch.tick_T[lo:hi].tolist(), batch.unit_T[lo:hi].tolist(), strict=True))
        if ours != _plain(rec, windows[w : w + 1], builder):
            return False
    return True
