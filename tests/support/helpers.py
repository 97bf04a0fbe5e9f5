"""Small recordings and models that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from neuroformer.config import Config, from_dict
from neuroformer.data.prepared import Prepared, prepare
from neuroformer.model.network import Neuroformer
from neuroformer.recording import BehaviorVariable, FrameSeries, Recording

SHARED = Path(os.environ.get("NEUROFORMER_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def shared_recording(name: str) -> Path:
    """A real recording's path; skips the test, with the reason, where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent; the real recordings are not part of the project")
    return path


def small_recording(
    seed: int = 0,
    num_units: int = 6,
    seconds: float = 40.0,
    rate: float = 8.0,
    num_trials: int = 0,
    frames: bool = True,
    doubles: float = 0.1,
) -> Recording:
    """Poisson units with some double spikes in a bin, frames at 20 Hz, speed, gaze, a stimulus phase."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, seconds, rng.poisson(num_units * rate * seconds)))
    twice = rng.choice(len(times), int(doubles * len(times)))
    units = rng.integers(0, num_units, len(times))
    times, units = np.concatenate([times, times[twice]]), np.concatenate([units, units[twice]])
    order = np.argsort(times, kind="stable")
    t = np.arange(0, seconds, 0.05)
    speed = np.abs(np.sin(t / 3)) + 0.1 * rng.standard_normal(len(t))
    gaze = np.cumsum(rng.standard_normal((len(t), 2)) * 0.1, 0)
    images = rng.integers(0, 255, (24, 8, 8), dtype=np.uint8)
    edges = np.linspace(0, seconds, num_trials + 1)
    return Recording(
        name="small",
        spike_times=times[order],
        spike_units=units[order],
        units={"id": np.array([f"u{i}" for i in range(num_units)])},
        domain=np.array([[0.0, seconds]]),
        trials={"start": edges[:-1], "stop": edges[1:]} if num_trials else {},
        frames=FrameSeries(images, t, np.arange(len(t)) % 24) if frames else None,
        behavior={
            "speed": BehaviorVariable(t, speed, "cm/s"),
            "gaze": BehaviorVariable(t, gaze, "deg", ("gaze_x", "gaze_y")),
            "pupil": BehaviorVariable(t, np.cos(t), "mm"),
        },
    )


def small_config(**sections) -> Config:
    """A configuration that is quick to run; sections are merged into it."""
    tree = {
        "name": "small",
        "window": {"dt": 0.01, "current": 0.05, "past": 0.1, "target_past": 0.1, "frames": 0.15},
        "inputs": [{"name": "pupil", "samples": 2}],
        "targets": [{"name": "speed"}, {"name": "gaze"}],
        "split": {"block": 8.0},
        "model": {
            "width": 16,
            "heads": 2,
            "dropout": 0.0,
            "frame_encoder": {"kind": "conv3d", "kernel": [2, 4, 4], "stride": [1, 2, 2], "layers": 1},
        },
        "loss": {"contrast": [{"pair": ["neural", "frames"]}]},
        "train": {"steps": 4, "batch_size": 32, "evaluate_every": 2, "accelerator": "cpu"},
        "generate": {"max_seconds": 0.5},
        "decode": {"lags": [0.1, 0.2]},
    }
    for key, value in sections.items():
        tree[key] = tree[key] | value if isinstance(tree.get(key), dict) else value
    return from_dict(tree)


def small_model(
    rec: Recording | None = None, config: Config | None = None, seed: int = 0
) -> tuple[Neuroformer, Prepared]:
    """An untrained model in float64 whose heads are not at their quiet start, so that every path matters."""
    rec = small_recording() if rec is None else rec
    config = small_config() if config is None else config
    prepared = prepare(rec, config)
    torch.manual_seed(seed)
    model = Neuroformer(config, rec.num_units, prepared.normalization)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.double().eval(), prepared
