"""Settings that follow the recordings where a configuration leaves them open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from neuroformer.config import Config

OPEN = {"window.frames": -1.0, "train.batch_size": 0, "train.steps": 0}  # what leaves a setting open
FRAMES_S = 0.2  # seconds of frames that a window sees, and never fewer than FEWEST_FRAMES
FEWEST_FRAMES = 3
SPIKES_A_STEP = 8_000  # at most: memory and time of a step grow with them
WINDOWS = (32, 256)
SPIKES = 12e6  # at most in all steps, whose time grows with them
STEPS = (500, 2000)


class Described(Protocol):
    """What a run has to know of a recording before it is opened."""

    @property
    def duration(self) -> float: ...
    @property
    def num_spikes(self) -> int: ...
    @property
    def frame_period(self) -> float: ...


def settled(config: Config, recs: Sequence[Described]) -> Config:
    """The configuration with a number for ``window.frames``, ``train.batch_size`` and ``train.steps`` where it has none.

    ``window.frames`` is 0.2 s (three frames where these last longer) if any recording has frames, else 0. A step holds 256
    windows, fewer where their spikes are more than some thousands, and there are 2,000 steps, fewer where that would be
    more than some millions of spikes. Doing it twice changes nothing.
    """
    if config.window.frames < 0:
        longest = max((rec.frame_period for rec in recs), default=0.0)
        frames = max(FRAMES_S, round(FEWEST_FRAMES * longest, 9)) if longest else 0.0
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
