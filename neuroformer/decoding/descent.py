"""How heads and readouts descend on a few labels: AdamW after a short warm-up, clipped gradients, an average of weights.

Training has its own (:mod:`neuroformer.training.module`), which differs in each: rates by kind of parameter over a schedule,
averages that follow each recording's steps, one fused pass. Baselines' networks (:mod:`neuroformer.baselines.networks`) are
scored as they are after so many updates, without warm-up or average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

WEIGHT_DECAY = 0.05  # AdamW's
AVERAGE = 0.95  # decay of the moving average of weights, which is kept
WARMUP = 10  # steps


class Descent:
    """A descent on groups of parameters, each with its learning rate.

    Parameters
    ----------
    groups : of ``params`` and their ``lr``, as optimisers take them
    steps : over which a cosine takes the rates to zero; 0: they stay
    """

    def __init__(self, groups: Sequence[dict], steps: int = 0):
        self.groups, self.steps, self.done = groups, steps, 0
        # AdamW keeps the dicts that it is given, and writes the rates of every step into them
        self.optimizer = torch.optim.AdamW([dict(g) for g in groups], weight_decay=WEIGHT_DECAY)
        self.average = self._values()

    def _values(self) -> list[list[Tensor]]:
        return [[p.detach().clone() for p in g["params"]] for g in self.groups]

    def down(self, loss: Tensor) -> None:
        """One step; the average follows, a young one fast."""
        self.done += 1
        cosine = 0.5 * (1 + math.cos(math.pi * self.done / self.steps)) if self.steps else 1.0
        for g, base in zip(self.optimizer.param_groups, self.groups, strict=True):
            g["lr"] = base["lr"] * min(1.0, self.done / WARMUP) * cosine
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.optimizer.step()
        decay = min(AVERAGE, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            for values, group in zip(self.average, self.groups, strict=True):
                for value, p in zip(values, group["params"], strict=True):
                    value.lerp_(p, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Parameters take their averages, and the averages what the parameters were."""
        before = self._values()
        for values, group in zip(self.average, self.groups, strict=True):
            for value, p in zip(values, group["params"], strict=True):
                p.copy_(value)
        self.average = before
