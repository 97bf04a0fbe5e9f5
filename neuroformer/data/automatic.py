"""Settings that follow the recordings where a configuration leaves them open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neuroformer.config import Config
from neuroformer.recording import Recording

OPEN = {"window.frames": -1.0, "train.batch_size": 0, "train.steps": 0}  # what leaves a setting open
FRAMES_S = 0.2  # seconds of frames that a window sees, and never fewer than FEWEST_FRAMES
FEWEST_FRAMES = 3
SPIKES_A_STEP = 8_000  # at most: memory and time of a step grow with them
WINDOWS = (32, 256)
SPIKES = 6e6  # at most in all steps, whose time grows with them
STEPS = (500, 2000)


def settled(config: Config, recs: Sequence[Recording]) -> Config:
    """The configuration with a number for ``window.frames``, ``train.batch_size`` and ``train.steps`` where it has none.

    ``window.frames`` is 0.2 s (three frames where these last longer) if any recording has frames, else 0. A step holds 256
    windows, fewer where their spikes are more than some thousands, and there are 2,000 steps, fewer where that would be
    more than some millions of spikes. Doing it twice changes nothing.
    """
    if config.window.frames < 0:
        shown = [rec.frames.times for rec in recs if rec.frames is not None and len(rec.frames.times) > 1]
        longest = max((float(np.median(np.diff(times))) for times in shown), default=0.0)
        frames = max(FRAMES_S, round(FEWEST_FRAMES * longest, 9)) if shown else 0.0
        config = replace(config, window=replace(config.window, frames=frames))
    train = config.train
    if train.batch_size and train.steps:
        return config
    seconds = sum(rec.duration for rec in recs)
    spikes = 0 if config.traces.likelihood != "none" else sum(rec.num_spikes for rec in recs)
    each = max(1e-9, spikes / max(seconds, 1e-9) * config.window.current)  # spikes of a window
    batch_size = train.batch_size or _within(SPIKES_A_STEP / each, WINDOWS)
    steps = train.steps or _within(SPIKES / (batch_size * each), STEPS)
    return replace(config, train=replace(train, batch_size=batch_size, steps=steps))


def _within(value: float, bounds: tuple[int, int]) -> int:
    return int(min(max(value, bounds[0]), bounds[1]))
