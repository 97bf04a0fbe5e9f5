"""What a long recording costs: the peak memory of ``neuroformer train`` with its baselines, and how long these take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MOST_GB = 2.0  # of the whole command
SPEED_HZ = 10.0
COPIED, DELAY_S = 0.2, (0.005, 0.03)  # of a unit's spikes, every second unit has so many, so much later


@dataclass(frozen=True)
class Size:
    units: int
    hours: float
    rate_hz: float


SIZES = {"day": Size(20, 24.0, 2.0), "hour": Size(150, 1.0, 2.0)}


def write(size: Size, path: Path, seed: int = 0) -> None:
    """A recording whose units follow a running speed, each second one also the unit before it."""
    rng = np.random.default_rng(seed)
    seconds = 3600 * size.hours
    speed = np.abs(np.cumsum(rng.standard_normal(int(seconds * SPEED_HZ))) % 40 - 20).astype(np.float32)
    gain = rng.uniform(-0.8, 0.8, size.units)
    base = size.rate_hz * rng.lognormal(0, 0.7, size.units)
    times, units = [], []
    for unit in range(size.units):
        scale = np.exp(gain[unit] * (speed / 10 - 1))
        peak = base[unit] * scale.max()
        at = np.sort(rng.uniform(0, seconds, rng.poisson(peak * seconds)))
        at = at[rng.random(len(at)) * scale.max() < scale[(at * SPEED_HZ).astype(np.int64)]]
        times.append(at)
        if unit % 2:
            copied = times[unit - 1][rng.random(len(times[unit - 1])) < COPIED]
            times[unit] = np.concatenate([at, copied + rng.uniform(*DELAY_S, len(copied))])
        units.append(np.full(len(times[unit]), unit, np.int32))
    every, who = np.concatenate(times), np.concatenate(units)
    order = np.argsort(every)
    keep = order[every[order] < seconds]
    domain = np.array([[0.0, seconds]])
    np.savez(path, spike_times=every[keep], spike_units=who[keep], domain=domain, speed=speed, speed_rate=SPEED_HZ)


def run(names: list[str], overrides: list[str]) -> dict[str, Any]:
    """``train`` at these sizes, its defaults but for ``overrides``, each in a process of its own.

    Returns
    -------
    dict
        For each size ``peak_gb``, ``seconds`` of the command, ``train_seconds``, ``glm_seconds``, ``bits_per_spike`` and
        ``bits_per_spike_glm``; ``checked``: no peak above 2 GB, and no baselines that take longer than training.
    """
    out: dict[str, Any] = {"bench": "long", "sizes": {}}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            out["sizes"][name] = _measure(SIZES[name], Path(folder), overrides)
    good = lambda r: r["code"] == 0 and r["peak_gb"] < MOST_GB and r["glm_seconds"] <= r["train_seconds"]
    return out | {"checked": all(map(good, out["sizes"].values()))}


def _measure(size: Size, folder: Path, overrides: list[str]) -> dict[str, Any]:
    write(size, folder / "a.npz")
    (folder / "a.yaml").write_text("recording: {path: a.npz}\ninputs: [{name: speed}]\n")
    command = ["train", "--config", str(folder / "a.yaml"), "--run", str(folder / "run"), "--quiet", *overrides]
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "neuroformer", *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    out: dict[str, Any] = {"code": process.returncode, "seconds": time.perf_counter() - began, "peak_gb": peak / 1e9}
    summary = folder / "run" / "summary.json"
    found = json.loads(summary.read_text()) if summary.is_file() else {}
    keys = ("train_seconds", "train_steps", "glm_seconds", "bits_per_spike", "bits_per_spike_glm", "test_spikes")
    return out | {key: found.get(key, float("nan")) for key in keys}


def table(result: dict[str, Any]) -> str:
    lines = [
        "| recording | peak | command | training | GLM baselines | bits/spike | of the GLM |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, r in result["sizes"].items():
        size = SIZES[name]
        lines.append(
            f"| {size.units} units, {size.hours:g} h | {r['peak_gb']:.2f} GB | {r['seconds']:.0f} s | "
            f"{r['train_seconds']:.0f} s | {r['glm_seconds']:.0f} s | {r['bits_per_spike']:.3f} | "
            f"{r['bits_per_spike_glm']:.3f} |"
        )
    return "\n".join(lines)
