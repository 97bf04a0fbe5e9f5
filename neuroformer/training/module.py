"""The Lightning module: losses in, optimiser, validation scores out."""

from __future__ import annotations

import copy
import math

import lightning as L
import numpy as np
import torch
from torch import nn

from neuroformer.config import TrainConfig
from neuroformer.data.batch import Batch
from neuroformer.losses import loss_terms, total_loss
from neuroformer.metrics import target_score
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.model.targets import TargetHead
from neuroformer.training.data import Prepared
from neuroformer.training.scores import Scores


class TrainingModule(L.LightningModule):
    """Trains a :class:`Neuroformer`; with ``train.average`` its moving average is what is scored and kept."""

    def __init__(self, model: Neuroformer, prepared: Prepared):
        super().__init__()
        self.model, self.prepared, self.config = model, prepared, prepared.config
        self.average = None
        if self.config.train.average > 0:
            self.average = copy.deepcopy(model).requires_grad_(False)
        self.scores = self._new_scores()

    def _new_scores(self) -> Scores:
        return Scores(np.asarray(self.prepared.normalization["unit_rate"]))

    @property
    def scored(self) -> Neuroformer:
        """The model whose scores count: the moving average, where there is one."""
        return self.model if self.average is None else self.average

    def transfer_batch_to_device(self, batch: Batch, device, dataloader_idx: int) -> Batch:
        return batch.to(device, non_blocking=True)

    def training_step(self, batch: Batch, batch_idx: int):
        terms = loss_terms(self.model, batch, self.model(batch))
        loss = total_loss(self.config, terms)
        logged = {f"train/{name}": term.detach() for name, term in terms.items()}
        self.log_dict(logged | {"train/loss": loss.detach()}, batch_size=batch.num_windows)
        bits = sum(terms[k].detach() for k in ("dt", "id", "traces") if k in terms) / math.log(2)
        self.log("nll_bits", bits, prog_bar=True, logger=False, batch_size=batch.num_windows)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx: int) -> None:
        if self.average is None:
            return
        # a young average follows fast, so that it forgets where it started
        step = self.global_step
        decay = min(self.config.train.average, (1 + step) / (10 + step))
        with torch.no_grad():
            ours, theirs = list(self.average.parameters()), list(self.model.parameters())
            for a, b in zip(ours, theirs, strict=True):
                a.lerp_(b, 1 - decay)

    def on_validation_epoch_start(self) -> None:
        self.scores = self._new_scores()
        self.scored.eval()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.scores.add(self.scored, batch, self.scored(batch))

    def on_validation_epoch_end(self) -> None:
        if self.model.traces is None:
            values = {
                "bits_per_spike": self.scores.bits_per_spike(),
                "bits_per_spike_rates": self.scores.bits_per_spike_rates(),
            }
        else:
            values = {"bits_per_sample": self.scores.bits_per_sample()}
        values["likelihood"] = self.scores.likelihood()
        values |= {f"{name}_score": self._target_score(name) for name in self.scores.predicted}
        self.log_dict({f"valid/{k}": v for k, v in values.items()})
        self.log("bits", values["likelihood"], prog_bar=True, logger=False)

    def _target_score(self, name: str) -> float:
        """By the target's kind, see :func:`neuroformer.metrics.target_score`; higher is better."""
        predicted, true = self.scores.decoded(name)
        head = self.model.targets[name]
        assert isinstance(head, TargetHead)
        return target_score(head.kind, true, predicted, head.period)

    def configure_optimizers(self):
        t = self.config.train
        groups = parameter_groups(self.model, t)
        optimizer = torch.optim.AdamW(groups, lr=t.lr, betas=t.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, t))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def learning_rate(step: int, t: TrainConfig) -> float:
    """Share of ``train.lr`` at a step: linear warm-up, then a cosine down to ``train.min_lr``."""
    if step < t.warmup:
        return (step + 1) / t.warmup
    done = min(1.0, (step - t.warmup) / max(1, t.steps - t.warmup))
    return t.min_lr + (1 - t.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(model: Neuroformer, t: TrainConfig) -> list[dict]:
    """Matrices decay; vectors, norms and biases do not. Receptive fields and coupling have a rate of their own."""
    parts = {"rest": 1.0, "readout": t.readout_lr}
    members: dict[str, list[nn.Parameter]] = {part: [] for part in parts}
    for name, p in model.named_parameters():
        members["readout" if name.startswith(("frames.", "what_where.", "coupling.")) else "rest"].append(p)
    groups = []
    for part, factor in parts.items():
        for is_matrix in (True, False):
            chosen = [p for p in members[part] if (p.ndim >= 2) == is_matrix]
            if chosen:
                decay = t.weight_decay if is_matrix else 0.0
                groups.append({"params": chosen, "weight_decay": decay, "lr": t.lr * factor})
    return groups
