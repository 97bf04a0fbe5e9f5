"""The reference's size, for benchmarks: 27 M parameters, 400 units at 0.75 spikes/s, three frames of 64 x 112 pixels."""

from __future__ import annotations

import numpy as np
import torch

from neuroformer.config import Config, from_dict
from neuroformer.data.prepared import Prepared, prepare
from neuroformer.model.network import Neuroformer
from neuroformer.recording import FrameSeries, Recording

NUM_UNITS, RATE_HZ, FRAME_SHAPE, FRAME_RATE_HZ = 400, 0.75, (64, 112), 20.0


def config(frames: bool = True, dropout: float = 0.2) -> Config:
    """6 current-self, 6 frame-self, 6 past-cross, 6 frame-cross and 6 final-self blocks of width 256 with 8 heads.

    What the reference lacks (tables of rates, each unit's own history, its place in the frames) is small beside them.
    """
    blocks = [{"attend": "current", "layers": 6}, {"attend": "past", "layers": 6}]
    blocks += [{"attend": "frames", "layers": 6}] * frames + [{"attend": "current", "layers": 6}]
    return from_dict(
        {
            "window": {"dt": 0.01, "current": 0.05, "past": 0.05, "frames": 0.15 * frames},
            "split": {"block": 10.0},
            "model": {
                "width": 256,
                "heads": 8,
                "dropout": dropout,
                "blocks": blocks,
                "frame_encoder": {"kind": "conv3d", "kernel": [3, 5, 5], "stride": [3, 5, 5], "layers": 6},
            },
            "loss": {"rates": 0.0},
            "train": {"batch_size": 32},
        }
    )


def recording(seconds: float = 60.0, num_units: int = NUM_UNITS) -> Recording:
    """Independent Poisson units, 15 spikes in 50 ms, and noise at 20 Hz, every frame another."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, seconds, rng.poisson(num_units * RATE_HZ * seconds)))
    shown = np.arange(round(seconds * FRAME_RATE_HZ)) / FRAME_RATE_HZ
    images = rng.integers(0, 256, (len(shown), *FRAME_SHAPE), dtype=np.uint8)
    return Recording(
        "bench",
        times,
        rng.integers(0, num_units, len(times)),
        {"id": np.arange(num_units)},
        np.array([[0.0, seconds]]),
        frames=FrameSeries(images, shown, np.arange(len(shown))),
    )


def prepared(frames: bool = True, seconds: float = 60.0) -> tuple[Neuroformer, Prepared]:
    """An untrained model whose weights are away from their quiet start, so that every path counts."""
    p = prepare(recording(seconds), config(frames))
    torch.manual_seed(0)
    model = Neuroformer(p.config, p.rec.num_units, p.normalization)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    return model.eval(), p
