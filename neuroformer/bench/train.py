"""A training step at the reference's size: ours against the same weights run the padded way."""

from __future__ import annotations

import ctypes
import gc
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroformer.bench.padded import padded_loss
from neuroformer.bench.plain import plain
from neuroformer.bench.reference_size import config, recording
from neuroformer.bundle.cohort import Cohort
from neuroformer.config import Config
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared, prepare
from neuroformer.model.network import Neuroformer
from neuroformer.recording import Recording
from neuroformer.training.module import Losses, Microbatch, make_optimizer

WINDOWS, THREADS, DROPOUT = 32, 2, 0.2
TOLERANCE = 2e-5  # relative; float32 sums in another order


def run(repeats: int = 3, sides: tuple[bool, ...] = (True, False)) -> dict[str, Any]:
    """Both sides in this process, in turn, after a check that without dropout they give the same loss.

    Returns
    -------
    dict
        ``checked``; and with and without frames: ``ratio_*`` (padded over ours, the median of paired steps),
        ``seconds_*`` of both, ``memory_ratio_*`` and ``memory_mib_*`` of both (peak of the step above what lies there
        before it: parameters, gradients, optimiser state), ``loader_ratio_*`` (windows/s of the loader alone
        over the step's).
    """
    torch.set_num_threads(THREADS)
    out: dict[str, Any] = {"bench": "train", "checked": True}
    rec = recording()
    for frames in sides:
        name = "with_frames" if frames else "without_frames"
        found = _compare(rec, config(frames), repeats)
        out["checked"] &= found.pop("agrees")
        out |= {f"{key}_{name}": value for key, value in found.items()}
        if not out["checked"]:
            break
    return out | {
        "windows": WINDOWS,
        "dropout": DROPOUT,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
    }


def _compare(rec: Recording, c: Config, repeats: int) -> dict[str, Any]:
    prepared = prepare(rec, c)
    model = _model(prepared)
    windows = prepared.windows("train")
    batch = prepared.builder(windows[:WINDOWS])
    losses = Losses(Cohort([model]))
    ours = lambda: losses(Microbatch(batch))["loss"]
    other = plain(model)
    padded = lambda: padded_loss(other, batch, DROPOUT)
    for each in (model, other):
        each.eval()
    with torch.no_grad():
        a, b = float(ours()), float(padded())
    out: dict[str, Any] = {"loss_ours": a, "loss_padded": b, "agrees": abs(a - b) <= TOLERANCE * abs(b)}
    if not out["agrees"]:
        return out
    for each in (model, other):
        each.train()
    optimizer = make_optimizer(Cohort([model]), c.train)
    for group in optimizer.param_groups:
        group["lr"] = 1e-6
    for loss in (ours, padded):
        _step(model, optimizer, loss)
    pairs = [(_timed(model, optimizer, ours), _timed(model, optimizer, padded)) for _ in range(repeats)]
    memory = [peak_memory(partial(_step, model, optimizer, loss)) for loss in (ours, padded)]
    seconds = [statistics.median(p[i] for p in pairs) for i in (0, 1)]
    loader = _loader_rate(prepared)
    return out | {
        "parameters": sum(p.numel() for p in model.parameters()),
        "spikes": batch.num_spikes / WINDOWS,
        "past_spikes": batch.past.total / WINDOWS,
        "clips": 0 if batch.clips is None else len(batch.clips.images_GFHW),
        "ratio": statistics.median(b / a for a, b in pairs),
        "seconds_ours": seconds[0],
        "seconds_padded": seconds[1],
        "memory_ratio": memory[0] / memory[1],
        "memory_mib_ours": memory[0] / 2**20,
        "memory_mib_padded": memory[1] / 2**20,
        "loader_windows_per_second": loader,
        "loader_ratio": loader * seconds[0] / WINDOWS,
    }


def _model(prepared: Prepared) -> Neuroformer:
    """Weights away from their quiet start, so that every path counts in the comparison."""
    torch.manual_seed(0)
    model = Neuroformer(prepared.config, prepared.rec.num_units, prepared.normalization)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn_like(p))
    return model


def _step(model: Neuroformer, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    optimizer.zero_grad(set_to_none=False)
    loss().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _timed(model: Neuroformer, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    _step(model, optimizer, loss)
    return time.perf_counter() - start


def _loader_rate(prepared: Prepared, seconds: float = 1.0) -> float:
    """Windows/s of batches built one after another in this process."""
    windows = prepared.windows("train")
    order = np.random.default_rng(0).permutation(len(windows))
    built, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        at = built % (len(windows) - WINDOWS)
        batch: Batch = prepared.builder(windows[order[at : at + WINDOWS]])
        built += batch.num_windows
    return built / (time.perf_counter() - start)


def peak_memory(step: Callable[[], None]) -> float:
    """Bytes by which the resident memory rose at most during a step (Linux: it counts what libraries allocate too).

    Raises
    ------
    ValueError
        Another system.
    """
    if platform.system() != "Linux":
        raise ValueError("peak memory is read from /proc, which only Linux has")
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    before = _status("VmRSS")
    step()
    return _status("VmHWM") - before


def _status(key: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return float(line.split()[1]) * 1024
