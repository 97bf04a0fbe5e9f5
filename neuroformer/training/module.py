"""The computation of one process in a step, and the optimiser."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from neuroformer.bundle.cohort import Cohort
from neuroformer.config import TrainConfig
from neuroformer.data.backbone import load_backbone
from neuroformer.data.batch import Batch
from neuroformer.losses import Gather, loss_terms, total_loss
from neuroformer.model.frames import FrameEncoder
from neuroformer.model.network import Neuroformer
from neuroformer.model.units import UnitRows

LAST = 0.02  # share of the learning rate at the end
WARMUP = 0.05  # share of the steps in which it rises
BETAS = (0.9, 0.98)
BACKBONE = 0.02  # a pretrained network's learning rate, times train.lr


class Microbatch:
    """A piece of a step: a batch of one recording, the denominators of the whole step, and the function that gathers the other
    processes' windows."""

    def __init__(
        self,
        batch: Batch,
        totals: dict[str, Tensor] | None = None,
        gather: Gather | None = None,
        recording: int = 0,
    ):
        self.batch, self.totals, self.gather, self.recording = batch, totals, gather, recording


class Losses(nn.Module):
    """The models of all recordings and their losses as one module."""

    def __init__(self, cohort: Cohort):
        super().__init__()
        self.cohort = cohort

    def forward(self, micro: Microbatch) -> dict[str, Tensor]:
        """Every term of the loss, and the weighted sum as ``loss``: what this piece adds to those of the step."""
        model = self.cohort[micro.recording]
        output = model(micro.batch)
        # whatever the precision of the network, losses are computed in float32
        with torch.autocast(model.device.type, enabled=False):
            terms = loss_terms(model, micro.batch, output, micro.totals, micro.gather)
            return terms | {"loss": total_loss(model.config, terms)}


def load_pretrained(model: Neuroformer) -> Neuroformer:
    """The model, with the initial weights of a backbone that is fine-tuned."""
    if "frames" in model.streams and model.frames.encoder.backbone is not None:
        found = load_backbone(model.config.model.frame_encoder)
        model.frames.encoder.backbone.load_state_dict(found.state_dict())
    return model


def learning_rate(step: int, t: TrainConfig) -> float:
    """Share of ``train.lr`` at a step: linear warm-up, then a cosine down to ``LAST``."""
    warmup = round(WARMUP * t.steps)
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, t.steps - warmup))
    return LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(cohort: Cohort, t: TrainConfig) -> torch.optim.AdamW:
    """AdamW over :func:`parameter_groups`; one fused pass, except under the gradient scaler of float16."""
    return torch.optim.AdamW(parameter_groups(cohort, t), lr=t.lr, betas=BETAS, fused=t.precision != "16-mixed")


def parameter_groups(cohort: Cohort, t: TrainConfig) -> list[dict]:
    """The trained parameters, in groups. Matrices have weight decay; vectors, norms and biases do not. Rows of units say
    themselves by how much faster they learn than the rest; a pretrained network learns more slowly.
    """
    pace: dict[int, float] = {}
    for module in cohort.modules():
        if isinstance(module, UnitRows):
            pace[id(module.weight)] = module.pace
        elif isinstance(module, FrameEncoder):
            pace |= {id(p): module.pace for p in module.parameters()}
            backbone = module.backbone.parameters() if module.backbone is not None else ()
            pace |= {id(p): BACKBONE for p in backbone}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for p in cohort.parameters():
        if p.requires_grad:
            groups.setdefault((pace.get(id(p), 1.0), t.weight_decay if p.ndim >= 2 else 0.0), []).append(p)
    return [
        {"params": chosen, "weight_decay": decay, "peak_lr": t.lr * factor}
        for (factor, decay), chosen in groups.items()
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, t: TrainConfig) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * learning_rate(step, t)


class Average:
    """The moving average of weights, which is scored and kept.

    What a recording owns changes only with its own steps, so its average is brought up to date when it is asked for.

    Attributes
    ----------
    of : by parameter
    followed : by recording, the optimiser steps (from 1) that its own averages have followed
    """

    def __init__(self, cohort: Cohort, decay: float):
        self.decay = decay
        self.of = {p: p.detach().clone() for p in cohort.parameters()}
        self.followed: dict[int, int] = dict.fromkeys(range(len(cohort)), 0)

    def kept(self, first: int, last: int) -> float:
        """Share of an average that is left after steps ``first`` to ``last``. A young average follows fast, and forgets its
        start."""
        return math.prod(min(self.decay, (1 + step) / (10 + step)) for step in range(first, last + 1))

    @torch.no_grad()
    def follow(self, parameters: Sequence[nn.Parameter], first: int, last: int) -> None:
        """Of parameters that were as they are now in steps ``first`` to ``last``."""
        ours: list[Tensor] = [self.of[p] for p in parameters]
        if ours and first <= last:
            torch._foreach_lerp_(ours, list(parameters), 1 - self.kept(first, last))  # pyright: ignore[reportPrivateImportUsage]

    @contextlib.contextmanager
    def in_place(self, tensors: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
        """Inside this context, parameters hold these values."""
        before = {p: p.data for p in tensors}
        for p, x in tensors.items():
            p.data = x
        try:
            yield
        finally:
            for p, x in before.items():
                p.data = x
