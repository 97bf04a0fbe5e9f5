"""The memory of a training step, known before the first one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from lightning.fabric import Fabric

from neuroformer.bundle.cohort import Cohort
from neuroformer.data.prepared import Prepared
from neuroformer.memory import free_memory, kept_bytes
from neuroformer.training.module import Losses, Microbatch

PROBE = 16  # windows
BACKWARD = 2.0  # gradients of activations come on top of what was kept for them
MOST_ON_CPU = (
    1e9  # bytes that a step takes at a time: on a CPU larger pieces are no faster, and people have other programs
)
SHARE = 0.7  # of the free memory that a step may take: baselines, other processes and the system need some
STATE = 3  # gradients and AdamW's two moments, in units of the parameters


class StepMemory(NamedTuple):
    """Bytes of a step in one process: ``fixed`` whatever the batch, ``each`` window's, and what it may take at a time; and how
    many windows its share of a batch has."""

    fixed: float
    each: float
    free: float
    windows: int

    @property
    def needed(self) -> float:
        return self.fixed + self.each * self.windows

    @property
    def pieces(self) -> int:
        """Into as few pieces as fit; a window each where nothing fits."""
        room = self.free - self.fixed
        return self.windows if room <= self.each else math.ceil(self.each * self.windows / room)


def step_memory(cohort: Cohort, recordings: Sequence[Prepared], fabric: Fabric) -> StepMemory:
    """Measured on a few random windows of the recordings with the most units and with the most spikes, and on twice as many;
    the most expensive one counts.
    """
    parameters = sum(p.numel() * p.element_size() for p in cohort.parameters())
    free = max(0.0, SHARE * free_memory(fabric.device) - STATE * parameters)
    free = min(free, MOST_ON_CPU) if fabric.device.type == "cpu" else free
    found, losses = [], Losses(cohort).train()
    for place in largest(recordings):
        prepared = recordings[place]
        windows = prepared.windows("train")
        size = max(1, min(len(windows), prepared.config.train.batch_size) // fabric.world_size)
        num = max(1, min(PROBE, size // 2))
        few, more = (_kept(losses, prepared, place, n, fabric) for n in (num, 2 * num))
        each = max(0.0, more - few) / num
        found.append(StepMemory(BACKWARD * max(0.0, few - num * each), BACKWARD * each, free, size))
    return max(found, key=lambda m: m.needed)


def largest(recordings: Sequence[Prepared]) -> list[int]:
    """Places of few recordings, among which the most expensive is."""
    every = range(len(recordings))
    frames = [i for i in every if recordings[i].normalization.frames is not None] or every
    sizes = (lambda i: recordings[i].num_units, lambda i: sum(recordings[i].normalization.unit_rate))
    return sorted({max(some, key=size) for size in sizes for some in (every, frames)})


def _kept(losses: Losses, prepared: Prepared, place: int, num: int, fabric: Fabric) -> int:
    windows = prepared.windows("train")
    some = windows[np.random.default_rng(0).permutation(len(windows))[:num]]
    batch = prepared.builder(some).to(fabric.device)
    with fabric.autocast():
        return kept_bytes(lambda: losses(Microbatch(batch, recording=place))["loss"], losses)
