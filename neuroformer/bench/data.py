"""How fast batches are built, against the plain loop over windows and spikes; both must agree first."""

from __future__ import annotations

import platform
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroformer.config import from_dict
from neuroformer.data.batch import BatchBuilder
from neuroformer.data.scales import Normalization
from neuroformer.data.windows import SpikeIndex, Windows, tile
from neuroformer.recording import Recording, open_recording
from neuroformer.recording.formats.folder import write_store

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
    builder = BatchBuilder(rec, index, config, Normalization())
    windows = tile(np.array([[0, 0, index.num_ticks[0]]]), builder.shape)
    windows = windows[np.random.default_rng(0).permutation(len(windows))]
    checked = _agree(builder, rec, windows[:64])
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        for piece in windows.pieces(BATCH):
            builder(piece)
        rates.append(len(windows) / (time.perf_counter() - start))
    few = windows[:128]
    start = time.perf_counter()
    for w in range(len(few)):
        _plain(rec, few[w : w + 1], builder)
    plain = len(few) / (time.perf_counter() - start)
    median = float(np.median(rates))
    return {
        "bench": "data",
        "checked": checked,
        "windows_per_second": median,
        "windows_per_second_plain_loop": plain,
        "ratio_to_plain_loop": median / plain,
        "units": NUM_UNITS,
        "rate_hz": RATE_HZ,
        "batch": BATCH,
        "repeats": repeats,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def large_recording(folder: Path, num_spikes: int, seed: int = 0) -> Path:
    """A memory-mapped recording with that many spikes, at the same rates as :func:`recording`; made in pieces."""
    rate, step, end = NUM_UNITS * RATE_HZ, 5_000_000, 0.0
    rng = np.random.default_rng(seed)
    make = lambda key, dtype: np.lib.format.open_memmap(folder / key, mode="w+", dtype=dtype, shape=(num_spikes,))
    times, units = make("times.npy", np.float64), make("units.npy", np.int32)
    for i in range(0, num_spikes, step):
        count = min(step, num_spikes - i)
        times[i : i + count] = end + np.cumsum(rng.exponential(1 / rate, count))
        units[i : i + count] = rng.integers(0, NUM_UNITS, count)
        end = float(times[i + count - 1])
    rec = Recording("large", times, units, {"id": np.arange(NUM_UNITS)}, np.array([[0.0, end + 1]]))
    path = write_store(rec, folder / "large.recording")
    for key in ("times.npy", "units.npy"):
        (folder / key).unlink()
    return path


def run_large(num_spikes: int, repeats: int = 5) -> dict[str, Any]:
    """Batches of a recording of many spikes on disk against those of the small one, taken in turns.

    Returns
    -------
    dict
        ``open_seconds`` of the large one; ``index_seconds`` until its first batch; windows per second of both
        (medians over repeats), and ``ratio_to_small``.
    """
    config = from_dict({"window": {"dt": 0.01, "current": 0.05, "past": 0.05, "frames": 0.0}})
    with tempfile.TemporaryDirectory(prefix="neuroformer-bench-") as folder:
        path = large_recording(Path(folder), num_spikes)
        start = time.perf_counter()
        large = open_recording(path)
        open_seconds = time.perf_counter() - start
        builders, windows = [], []
        start = time.perf_counter()
        for rec in (large, recording()):
            index = SpikeIndex.from_recording(rec, rec.domain, config.window.dt)
            builders.append(BatchBuilder(rec, index, config, Normalization()))
            grid = tile(np.array([[0, 0, index.num_ticks[0]]]), builders[-1].shape)
            windows.append(grid[np.random.default_rng(0).integers(0, len(grid), 40 * BATCH)])
            if rec is large:
                builders[0](windows[0][:BATCH])
                index_seconds = time.perf_counter() - start
        checked = _agree(builders[0], large, windows[0][:64])
        rates: list[list[float]] = [[], []]
        for _ in range(repeats):
            for which in (0, 1):
                start = time.perf_counter()
                for piece in windows[which].pieces(BATCH):
                    builders[which](piece)
                rates[which].append(len(windows[which]) / (time.perf_counter() - start))
        big, small = (float(np.median(r)) for r in rates)
        return {
            "bench": "data",
            "checked": checked,
            "spikes": num_spikes,
            "open_seconds": open_seconds,
            "index_seconds": index_seconds,
            "peak_memory_mb": _peak_mb(),
            "windows_per_second": big,
            "windows_per_second_small": small,
            "ratio_to_small": big / small,
            "units": NUM_UNITS,
            "rate_hz": RATE_HZ,
            "batch": BATCH,
            "repeats": repeats,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def _peak_mb() -> float:
    """Most memory that this process held, pages of mapped files included; NaN where /proc does not tell."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) / 1e3 if found else float("nan")


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
        ours = list(zip(batch.tick_S[lo:hi].tolist(), batch.unit_S[lo:hi].tolist(), strict=True))
        if ours != _plain(rec, windows[w : w + 1], builder):
            return False
    return True
