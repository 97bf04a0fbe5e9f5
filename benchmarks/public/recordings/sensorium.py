"""Sensorium 2023: two-photon calcium of mouse visual cortex, natural videos, some of them repeated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.public.decoding import train_once
from benchmarks.public.source import Source
from neuroformer.bundle.bundle import load_model
from neuroformer.bundle.opening import open_run
from neuroformer.files import save_npz
from neuroformer.studies.forecast import flat_scores, forecast

ABOUT = Source(
    title="Sensorium 2023 (dynamic): about 8,000 neurons a mouse, 10 s videos at 30 Hz, running and pupil",
    where="gin.g-node.org/pollytur/sensorium_2023_dataset; the unpacked folder of a mouse, with data/responses, data/videos",
    licence="CC BY-NC-ND 4.0",
    citation="Turishcheva et al., NeurIPS 2023 (datasets and benchmarks)",
    split="its tiers: training videos train, oracle videos (ten repeats) are scored, the rest validates",
    published=(
        "Turishcheva et al. 2024 have the single-trial correlations of the competition, on its own hidden videos",
    ),
)
RATE_HZ = 30.0
GAP_S = 1.0  # between videos on the common clock


def read(folder: Path, units: int = 300) -> dict[str, np.ndarray]:
    """The arrays of one mouse: responses of its first ``units`` neurons as traces, videos as frames, running and pupil; the
    column ``tier`` of the trials."""
    tiers = np.load(folder / "meta" / "trials" / "tiers.npy").astype(str)
    kept = [k for k, tier in enumerate(tiers) if tier in ("train", "oracle", "val")]
    traces, frames, index, times, starts, behavior = [], [], [], [], [], []
    clock = 0.0
    for k in kept:
        response = np.load(folder / "data" / "responses" / f"{k}.npy")[:units].T
        known = int(np.isfinite(response[:, 0]).sum())
        video = np.load(folder / "data" / "videos" / f"{k}.npy")[..., :known]
        traces.append(response[:known].astype(np.float32))
        index.append(len(np.concatenate(frames)) + np.arange(known) if frames else np.arange(known))
        frames.append(np.moveaxis(video, -1, 0).astype(np.uint8))
        behavior.append(np.load(folder / "data" / "behavior" / f"{k}.npy").T[:known])
        times.append(clock + (np.arange(known) + 0.5) / RATE_HZ)
        starts.append(clock)
        clock += known / RATE_HZ + GAP_S
    every, stops = np.concatenate(times), [t[-1] + 0.5 / RATE_HZ for t in times]
    return {
        "traces": np.concatenate(traces),
        "traces_times": every,
        "frames": np.concatenate(frames),
        "frames_index": np.concatenate(index),
        "frames_times": every - 0.5 / RATE_HZ,
        "pupil": np.concatenate(behavior)[:, :1],
        "pupil_times": every,
        "running": np.concatenate(behavior)[:, -1:],
        "running_times": every,
        "trials_start": np.array(starts),
        "trials_stop": np.array(stops),
        "trials_tier": tiers[kept],
        "domain": np.stack([starts, stops], 1),
    }


def configuration(path: Path) -> dict[str, Any]:
    """Traces from frames and behavior; oracle videos are the test part."""
    return {
        "recording": {"path": str(path)},
        "window": {"dt": 1 / RATE_HZ, "current": 1 / RATE_HZ, "past": 0.5, "frames": 0.5},
        "traces": {"likelihood": "gamma"},
        "inputs": [{"name": "pupil"}, {"name": "running"}],
        "split": {"by": "trials", "hold_out": "tier", "pattern": ["test", "train", "valid"], "claim": "stimuli"},
    }


def run(data: Path, folder: Path, lookahead: float = 0.0, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """One mouse: forecasts of every sample (``unit_r`` at one sample is the single-trial correlation, its past known)."""
    folder.mkdir(parents=True, exist_ok=True)
    save_npz(folder / "recording.npz", read(data))
    train_once(configuration(folder / "recording.npz"), folder / "run", overrides)
    bundle, prepared = open_run(folder / "run")
    dt = prepared.split.dt
    scores = flat_scores(forecast(load_model(bundle), prepared, [dt, 3 * dt, 15 * dt]).scores)
    return {"scores": scores, "table": "\n".join([str(ABOUT), "", *(f"{k}: {v:.4g}" for k, v in scores.items())])}
