"""The memory of a training step, known before the first one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lightning.fabric import Fabric

from neuroformer.bundle.cohort import Cohort
from neuroformer.data.prepared import Prepared
from neuroformer.memory import free_memory, kept_bytes
from neuroformer.training.module import Losses, Share

PROBE = 8  # windows
BACKWARD = 2.0  # gradients of activations come on top of what was kept for them
SHARE = 0.7  # of the free memory that a step may take: baselines, other processes and the system need some
STATE = 3  # gradients and AdamW's two moments, in units of the parameters


def step_memory(cohort: Cohort, recordings: Sequence[Prepared], fabric: Fabric) -> tuple[float, float]:
    """Bytes that one process needs for its share of a whole batch, and those that it may take.

    Measured on a few windows of every recording, evenly spaced, of which the most expensive counts.
    """
    each = []
    losses = Losses(cohort).train()
    for place, prepared in enumerate(recordings):
        windows = prepared.windows("train")
        some = windows[np.unique(np.linspace(0, len(windows) - 1, PROBE).round().astype(int))]
        batch = prepared.builder(some).to(fabric.device)
        with fabric.autocast():
            kept = kept_bytes(lambda b=batch, k=place: losses(Share(b, recording=k))["loss"], cohort)
        size = min(len(windows), prepared.config.train.batch_size) / fabric.world_size
        each.append(BACKWARD * kept / len(some) * size)
    parameters = sum(p.numel() * p.element_size() for p in cohort.parameters())
    return max(each), max(0.0, SHARE * free_memory(fabric.device) - STATE * parameters)
