"""Full-field white noise on eight retinal ganglion cells, predicted on a frozen segment: 41 trials of 1,800 frames of Gaussian noise
that never repeats (all but five train, five validate) and 600 that are the same in every trial (the test). The cells were
recorded one by one and share only the stimulus, so a model sees no past spikes here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.public.source import Source, found_folder
from neuroformer.bundle.bundle import STIMULUS
from neuroformer.config import Config, apply_overrides, from_dict
from neuroformer.recording import FrameSeries, Recording
from neuroformer.training.scoring.rates import held_out_rates
from neuroformer.training.train import load_best, train

ABOUT = Source(
    title="retinal ganglion cells: eight, full-field Gaussian white noise at 75 Hz",
    where="github.com/gollischlab/GGNB-python-course: --data is a clone, or its data_LN_model",
    licence="none stated",
    citation="the course material of the Gollisch lab; stimulus and analysis after Chichilnisky, Network 12:199 (2001)",
    split="five trials of running noise validate, the frozen segment tests",
)
RUNNING, FROZEN, LAGS = 1800, 600, 45  # frames; how many of them a linear filter spans
FRAME = 0.0133  # seconds: 75 Hz, to whole tenths of a millisecond
VALID = 5  # trials
CONFIG: dict[str, Any] = {  # all that differs from the defaults
    "window": {"dt": FRAME, "current": FRAME, "past": 0.0, "frames": LAGS * FRAME},
    "split": {"by": "trials", "hold_out": "part", "pattern": ["train", "valid", "test"]},
    "train": {"steps": 1000},
}


def recording(folder: Path) -> Recording:
    """The recording on the clock of its frames, of one pixel each; running and frozen stretches are trials."""
    light = np.loadtxt(folder / "stimulus_fullfieldnoise.txt")
    onset = np.loadtxt(folder / "frametimes_fullfieldnoise.txt")
    cells = sorted(folder.glob("fullfieldnoise_C*.txt"))
    each = RUNNING + FROZEN
    number = min(len(light), len(onset) - 1) // each
    onset = onset[: number * each + 1]
    place = [np.interp(np.loadtxt(f), onset, np.arange(len(onset)), -1, -1) for f in cells]  # in frames
    place = [x[(x >= 0) & (x < number * each)] for x in place]
    flat = np.concatenate(place) * FRAME
    order = np.argsort(flat, kind="stable")
    start = (np.arange(number)[:, None] * each + [0, RUNNING]).ravel()
    stop = np.append(start[1:], number * each)
    last = np.arange(number) >= number - VALID
    part = np.stack([np.where(last, "2 valid", "1 train"), np.full(number, "3 test")], 1).ravel()
    frozen = np.arange(number * each) % each >= RUNNING
    index = np.arange(number * each)
    index[frozen] = np.tile(index[RUNNING:each], number)
    return Recording(
        name="retina",
        spike_times=flat[order],
        spike_units=np.repeat(np.arange(len(place)), [len(x) for x in place])[order].astype(np.int32),
        units={"id": np.array([f.stem.split("_")[-1] for f in cells])},
        domain=np.array([[0.0, number * each * FRAME]]),
        trials={"start": start * FRAME, "stop": stop * FRAME, "part": part},
        frames=FrameSeries(
            light[: number * each, None, None].astype(np.float32), np.arange(number * each) * FRAME, index
        ),
    )


def linear_nonlinear(rec: Recording) -> tuple[np.ndarray, np.ndarray]:
    """(bins, units) mean counts of the frozen segment over trials, and what linear-nonlinear models expect there: the
    spike-triggered average over ``LAGS`` frames, then the mean count by forty quantiles of the filtered stimulus."""
    assert rec.frames is not None
    each = RUNNING + FROZEN
    count = np.zeros((len(rec.frames.index), rec.num_units))
    np.add.at(count, ((rec.spike_times / FRAME + 1e-9).astype(int), rec.spike_units), 1)
    light = np.asarray(rec.frames.images)[rec.frames.index, 0, 0]
    clips = np.lib.stride_tricks.sliding_window_view(np.pad(light, (LAGS - 1, 0)), LAGS)
    trial, at = np.divmod(np.arange(len(light)), each)
    fits = (at >= LAGS) & (at < RUNNING) & (trial < trial.max() + 1 - VALID)
    frozen = count.reshape(-1, each, rec.num_units)[:, RUNNING:].mean(0)
    expected = np.zeros_like(frozen)
    for u in range(rec.num_units):
        drive = clips @ (clips[fits].T @ count[fits, u])
        edges = np.quantile(drive[fits], np.linspace(0, 1, 41))
        group = np.clip(np.searchsorted(edges, drive, side="right") - 1, 0, 39)
        number = np.bincount(group[fits], minlength=40)
        rate = np.bincount(group[fits], count[fits, u], 40) / number
        middle = np.bincount(group[fits], drive[fits], 40) / number
        expected[:, u] = np.interp(drive[RUNNING:each], middle, rate)
    return frozen, expected


def config(overrides: Sequence[str]) -> Config:
    return from_dict(apply_overrides(CONFIG, list(overrides)))


def run(data: Path, folder: Path, lookahead: float = 0.0, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """By cell, Pearson's r with the mean response to the frozen segment, of the model and its baselines."""
    rec = recording(found_folder(data, "data_LN_model"))
    prepared, _ = train(rec, config(overrides), folder, progress=False)
    scores = held_out_rates(load_best(folder, STIMULUS), prepared).scores()
    frozen, expected = linear_nonlinear(rec)
    scores["linear_nonlinear"] = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(frozen.T, expected.T, strict=True)])
    better = int((scores["model"] > scores["linear_nonlinear"]).sum())
    out = {"better_in": better, "cells": rec.num_units} | {k: np.round(x, 3).tolist() for k, x in scores.items()}
    return out | {"table": f"{ABOUT}\n\n{json.dumps(out, indent=1)}"}
