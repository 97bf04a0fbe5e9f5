"""One training run: from a recording and a configuration to a bundle."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision
from lightning.fabric.utilities.rank_zero import rank_zero_only

from neuroformer.audit import Audit, audit
from neuroformer.config import Config, ConfigError, to_dict
from neuroformer.model.bundle import LIKELIHOOD, Member, load_model, read_bundle, save_bundle
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.recording import Recording
from neuroformer.training.checkpoint import FILE
from neuroformer.training.data import Prepared, prepare
from neuroformer.training.loop import Trainer


def train(
    rec: Recording, config: Config, folder: Path, *, progress: bool = True, resume: bool = False
) -> tuple[Prepared, dict[str, Any]]:
    """Train on a recording; the bundle lies in ``folder`` afterwards, and the checkpoint is gone.

    Parameters
    ----------
    progress : bool
        Show a bar: the terms of the loss, spikes a second, time left.
    resume : bool
        Go on from the checkpoint in ``folder``, where there is one.

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
    CheckpointError
        A checkpoint that is damaged, or of another recording.
    NonFiniteLoss
        Names the step, the term and the windows; the last checkpoint stays.
    Stopped
        A signal asked to end; the run was saved.
    """
    t = config.train
    fabric = make_fabric(config)
    fabric.launch()
    if t.threads:
        torch.set_num_threads(t.threads)
    prepared = prepare(rec, config)
    if resume and (folder / "bundle.json").exists():  # only its scores were missing
        return prepared, read_bundle(folder).metrics
    audited = refuse_leak(prepared)
    torch.manual_seed(config.seed)
    model = Neuroformer(config, rec.num_units, prepared.normalization)
    trainer = Trainer(fabric, prepared, model, folder)
    if resume and (folder / FILE).exists():
        trainer.resume()
    trainer.progress.run_id = trainer.progress.run_id or uuid.uuid4().hex[:8]
    wandb = _wandb(config, folder, trainer.progress.run_id) if t.wandb and fabric.is_global_zero else None
    done = trainer.fit(bar=progress, wandb=wandb)
    if wandb is not None:
        wandb.finish()
    metrics = {
        "train_seconds": done.seconds, "train_steps": done.step,
        "windows_per_second": done.windows / done.seconds, "tokens_per_second_train": done.spikes / done.seconds,
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    metrics |= {f"valid_best_{name}": value for name, value in done.best.items()}
    for severity in ("leak", "warning"):
        named = sorted({f.name for f in audited.of(severity)})
        metrics[f"audit_{severity}s"] = ", ".join(named) or "none"
    if fabric.is_global_zero:
        split = prepared.describe()["split"] | {"audit": audited.to_dict()}
        member = Member(rec.name, list(rec.unit_ids), prepared.normalization, split)
        save_bundle(folder, config, [member], metrics)
        (folder / FILE).unlink(missing_ok=True)
    fabric.barrier()
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


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank_zero_only.rank == 0  # pyright: ignore[reportFunctionMemberAccess]


def make_fabric(config: Config) -> Fabric:
    """Lightning's engine for the processes and the precision that the configuration asks for."""
    t = config.train
    precision: Any = "32-true" if t.precision == "32" else t.precision
    strategy = "ddp" if t.devices * t.nodes > 1 else "auto"
    plugins: list[Any] = []
    on_cpu = t.accelerator == "cpu" or (t.accelerator == "auto" and not torch.accelerator.is_available())
    if precision == "16-mixed" and on_cpu:  # asked by name, Fabric would take bfloat16 instead
        precision, plugins = None, [MixedPrecision("16-mixed", "cpu")]
    return Fabric(
        accelerator=t.accelerator,
        devices=t.devices,
        num_nodes=t.nodes,
        precision=precision,
        strategy=strategy,
        plugins=plugins,
    )


def _wandb(config: Config, folder: Path, run_id: str) -> Any:
    """A Weights & Biases run; offline where nobody is logged in, so that it works without an account."""
    import wandb

    mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
    return wandb.init(
        project="neuroformer", name=config.name or None, dir=folder, id=run_id, resume="allow", mode=mode,
        config=to_dict(config),
    )  # fmt: skip


def load_best(folder: Path, objective: str = LIKELIHOOD) -> Neuroformer:
    """The trained model of a run, with the best weights of one objective."""
    return load_model(read_bundle(folder), objective)
