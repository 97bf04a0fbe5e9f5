"""The computation of one process in a step, and the optimiser."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuroformer.bundle.cohort import Cohort
from neuroformer.config import TrainConfig
from neuroformer.data.backbone import load_backbone
from neuroformer.data.batch import Batch
from neuroformer.losses import Gather, loss_terms, total_loss
from neuroformer.model.attention import Block
from neuroformer.model.neuroformer import Neuroformer


class Share:
    """A batch of one recording, the denominators of its whole step, and the function that gathers the other
    processes' windows.

    A plain object, so that wrappers pass it on unchanged: Lightning would round the recording's values to the
    precision of the weights.
    """

    def __init__(
        self,
        batch: Batch,
        totals: dict[str, Tensor] | None = None,
        gather: Gather | None = None,
        recording: int = 0,
    ):
        self.batch, self.totals, self.gather, self.recording = batch, totals, gather, recording


class Losses(nn.Module):
    """The models of all recordings and their losses as one module, which is what distributed training wraps."""

    def __init__(self, cohort: Cohort):
        super().__init__()
        self.cohort = cohort

    def forward(self, share: Share) -> dict[str, Tensor]:
        """Every term of the loss, and the weighted sum as ``loss``; this share's part of the step."""
        model = self.cohort[share.recording]
        output = model(share.batch)
        # whatever the precision of the network, losses are computed in float32
        with torch.autocast(output.dt_nll_T.device.type, enabled=False):
            terms = loss_terms(model, share.batch, output, share.totals, share.gather)
            return terms | {"loss": total_loss(model.config, terms)}


def set_up_blocks(model: nn.Module, t: TrainConfig) -> None:
    """Set how the attention blocks of a model compute: ``train.recompute``, ``train.compile``.

    Only what is dense in the tokens is compiled, as whole graphs that take any number of them. Attention
    itself has kernels of its own, and its layouts differ from batch to batch.
    """
    for block in model.modules():
        if isinstance(block, Block):
            block.recompute = t.recompute
            if t.compile:
                for name in ("project", "finish"):
                    setattr(block, name, torch.compile(getattr(block, name), dynamic=True, fullgraph=True))


def load_pretrained(model: Neuroformer) -> None:
    """Load the initial weights of a backbone that is fine-tuned."""
    if model.frames is not None and model.frames.backbone is not None:
        found = load_backbone(model.config.model.frame_encoder)
        model.frames.backbone.load_state_dict(found.state_dict())


def learning_rate(step: int, t: TrainConfig) -> float:
    """Share of ``train.lr`` at a step: linear warm-up, then a cosine down to ``train.min_lr``."""
    if step < t.warmup:
        return (step + 1) / t.warmup
    done = min(1.0, (step - t.warmup) / max(1, t.steps - t.warmup))
    return t.min_lr + (1 - t.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


_READOUT = re.compile(r"(recordings\.\d+\.)?(frames|what_where|coupling)\.")
_PAIRS = re.compile(r"(recordings\.\d+\.)?coupling\.pair$")


def make_optimizer(cohort: Cohort, t: TrainConfig) -> torch.optim.AdamW:
    """AdamW over :func:`parameter_groups`; one fused pass, except under the gradient scaler of float16."""
    return torch.optim.AdamW(parameter_groups(cohort, t), lr=t.lr, betas=t.betas, fused=t.precision != "16-mixed")


def parameter_groups(cohort: Cohort, t: TrainConfig) -> list[dict]:
    """The trained parameters, in groups. Matrices have weight decay; vectors, norms and biases do not. Receptive
    fields and coupling have their own learning rate, and so has a pretrained network.

    Pair weights of the coupling seldom get a gradient: two units fire at a given lag in a few batches of a hundred.
    Adam would make large steps from such rare gradients, so its ``eps`` is a tenth of a unit's share of the spikes
    here.
    """
    members: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    for name, p in cohort.named().items():
        if p.requires_grad:
            factor = t.readout_lr if _READOUT.match(name) else 1.0
            factor = t.backbone_lr if "frames.backbone." in name else factor
            decay = t.weight_decay if p.ndim >= 2 else 0.0
            eps = 0.1 / p.shape[1] if _PAIRS.match(name) else 1e-8
            members.setdefault((factor, decay, eps), []).append(p)
    return [
        {"params": chosen, "weight_decay": decay, "peak_lr": t.lr * factor, "eps": eps}
        for (factor, decay, eps), chosen in members.items()
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, t: TrainConfig) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * learning_rate(step, t)


@torch.no_grad()
def shrink(model: Neuroformer, step: int, t: TrainConfig) -> None:
    """Move every weight of a coupling of pairs towards 0, and those nearer than a step to it: the proximal step of an L1
    penalty, apart from the gradient as AdamW's decay is. Most pairs of units are not coupled, and stay at 0.
    """
    if t.sparsity and model.coupling is not None and model.coupling.pair is not None:
        most = t.lr * t.readout_lr * learning_rate(step, t) * t.sparsity
        model.coupling.pair.sub_(model.coupling.pair.clamp(-most, most))


@dataclass
class Average:
    """The moving average of a model's weights, which is scored and kept."""

    model: Cohort
    decay: float

    @torch.no_grad()
    def follow(self, model: Cohort, step: int) -> None:
        """After optimiser step number ``step`` (from 1). A young average follows fast, and forgets its start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        ours: list[Tensor] = list(self.model.parameters())
        theirs: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
