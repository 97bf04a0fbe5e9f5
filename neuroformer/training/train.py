"""One training run: from a recording and a configuration to a bundle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from neuroformer.audit import Audit, audit
from neuroformer.config import Config, ConfigError
from neuroformer.model.bundle import LIKELIHOOD, load_model, read_bundle, save_bundle, save_weights
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.recording import Recording
from neuroformer.training.data import Prepared, WindowData, prepare
from neuroformer.training.module import TrainingModule


class KeepBest(Callback):
    """After each validation, keeps the best weights of every objective in a file of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.best: dict[str, float] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, TrainingModule)
        scores = {LIKELIHOOD: float(trainer.callback_metrics["valid/likelihood"])}
        for target in pl_module.config.targets:
            scores[target.name] = float(trainer.callback_metrics[f"valid/{target.name}_score"])
        for objective, value in scores.items():
            if value > self.best.get(objective, float("-inf")) or objective not in self.best:
                self.best[objective] = value
                save_weights(self.folder / f"{objective}.safetensors", pl_module.scored)


class Counter(Callback):
    """Counts windows and spikes that went through training."""

    def __init__(self):
        self.windows = self.spikes = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.windows += batch.num_windows
        self.spikes += batch.num_spikes


def train(
    rec: Recording, config: Config, folder: Path, *, progress: bool = True
) -> tuple[Prepared, dict[str, Any]]:
    """Train on a recording; the bundle lies in ``folder`` afterwards.

    Returns
    -------
    Prepared
        The recording as the model saw it.
    dict
        ``train_seconds``, ``windows_per_second``, ``tokens_per_second_train`` and the best validation scores.

    Raises
    ------
    ConfigError, RecordingError
        A run that cannot be, or a split that leaks (unless ``split.allow_leak``).
    """
    L.seed_everything(config.seed, workers=True, verbose=False)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    prepared = prepare(rec, config)
    audited = refuse_leak(prepared)
    model = Neuroformer(config, rec.num_units, prepared.normalization)
    module = TrainingModule(model, prepared)
    keep, counter = KeepBest(folder / "weights"), Counter()
    callbacks: list[Callback] = [keep, counter]
    t = config.train
    if t.patience:
        callbacks.append(EarlyStopping("valid/likelihood", mode="max", patience=t.patience))
    loggers: list[Any] = [
        CSVLogger(folder, name="", version="log", flush_logs_every_n_steps=t.evaluate_every)
    ]
    if t.wandb:
        loggers.append(WandbLogger(project="neuroformer", name=config.name, save_dir=folder))
    trainer = L.Trainer(
        max_steps=t.steps, accelerator=t.accelerator, devices=1, precision=t.precision,
        gradient_clip_val=t.clip or None, callbacks=callbacks, logger=loggers,
        val_check_interval=min(t.evaluate_every, t.steps), check_val_every_n_epoch=None,
        num_sanity_val_steps=0, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=progress, log_every_n_steps=max(1, min(10, t.steps // 2)), use_distributed_sampler=False,
    )  # fmt: skip
    start = time.perf_counter()
    trainer.fit(module, datamodule=WindowData(prepared))
    seconds = time.perf_counter() - start
    if not keep.best:  # fewer steps than one evaluation
        trainer.validate(module, datamodule=WindowData(prepared), verbose=False)
    metrics = {
        "train_seconds": seconds, "train_steps": trainer.global_step,
        "windows_per_second": counter.windows / seconds, "tokens_per_second_train": counter.spikes / seconds,
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    metrics |= {f"valid_best_{name}": value for name, value in keep.best.items()}
    for severity in ("leak", "warning"):
        found = sorted({f.name for f in audited.of(severity)})
        metrics[f"audit_{severity}s"] = ", ".join(found) or "none"
    split = {"sha256": prepared.split.sha256(), "claim": config.split.claim, "audit": audited.to_dict()}
    split |= {part: prepared.split.intervals(part).tolist() for part in prepared.split.blocks}
    save_bundle(folder, config, rec, prepared.normalization, split, metrics)
    return prepared, metrics


def refuse_leak(prepared: Prepared) -> Audit:
    """The audit of what is about to be trained on.

    Raises
    ------
    ConfigError
        The split leaks, and ``split.allow_leak`` does not say that this is known.
    """
    config = prepared.config
    found = audit(prepared.rec, config, prepared.split)
    if found.leaks and not config.split.allow_leak:
        said = "; ".join(f"{f.name}: {f.measured}" for f in found.of("leak"))
        raise ConfigError(
            f"the split leaks ({said}). {found.of('leak')[0].advice}. See: neuroformer audit. To train all the "
            "same, set split.allow_leak=true; the bundle and every report then say so"
        )
    return found


def load_best(folder: Path, objective: str = LIKELIHOOD) -> Neuroformer:
    """The trained model of a run, with the best weights of one objective."""
    return load_model(read_bundle(folder), objective)
