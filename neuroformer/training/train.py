"""One training run: from a recording and a configuration to a bundle."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision
from lightning.fabric.utilities.rank_zero import rank_zero_only

from neuroformer.audit import Audit, audit
from neuroformer.bundle.bundle import LIKELIHOOD, RecordingEntry, load_model, read_bundle
from neuroformer.bundle.cohort import Cohort
from neuroformer.bundle.saving import save_bundle
from neuroformer.config import Config, ConfigError, member_config, to_dict
from neuroformer.data.automatic import settled
from neuroformer.data.prepared import Prepared, prepare
from neuroformer.data.recordings import lacking
from neuroformer.data.splits import PARTS
from neuroformer.data.stored import StoredPrepared, StoredRecording
from neuroformer.files import write_atomic
from neuroformer.model.network import Neuroformer
from neuroformer.recording import Recording
from neuroformer.training.adapt import Start
from neuroformer.training.checkpoint import FILE, Progress
from neuroformer.training.loop import Trainer
from neuroformer.training.module import load_pretrained
from neuroformer.training.start import start_from_data


def train(
    rec: Recording, config: Config, folder: Path, *, progress: bool = True, resume: bool = False
) -> tuple[Prepared, dict[str, Any]]:
    """Train on a recording; the bundle lies in ``folder`` afterwards. See :func:`train_several`."""
    recordings, metrics = train_several([rec], config, folder, progress=progress, resume=resume)
    return recordings[0], metrics


def train_several(
    recs: Sequence[Recording | StoredRecording],
    config: Config,
    folder: Path,
    *,
    progress: bool = True,
    resume: bool = False,
    start: Start | None = None,
    tell: Callable[[Audit], None] | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> tuple[list[Prepared], dict[str, Any]]:
    """Train on recordings that share a trunk; the bundle lies in ``folder`` afterwards, and the checkpoint is gone.

    Parameters
    ----------
    recs : one for each entry of ``config.recordings``, or one; see :func:`neuroformer.data.stored.recordings_to_train`
    progress : bool
        Show a bar: the terms of the loss, spikes per second, time left.
    resume : bool
        Continue from the checkpoint in ``folder``, if there is one.
    start : initial weights, in place of random ones
    tell : optional
        Called with the audit of each recording before the first step, in the first process.
    say : optional
        Called with a line on what the network starts from.

    Returns
    -------
    list of Prepared
        The recordings as the model saw them.
    dict
        ``train_seconds``, ``windows_per_second``, ``tokens_per_second_train`` and the best validation scores.

    Raises
    ------
    ConfigError, RecordingError
        An impossible run, or a split that leaks (unless ``split.allow_leak``).
    CheckpointError
        A checkpoint that is damaged, or of another recording.
    NonFiniteLoss
        Names the step, the term and the windows; the last checkpoint stays.
    Stopped
        A signal asked to stop; the run was saved.
    """
    config = settled(config, recs)
    fabric = _launched(config)
    recordings = prepare_recordings(recs, config)
    if resume and (folder / "bundle.json").exists():  # only its scores were missing
        return recordings, read_bundle(folder).metrics
    audits = audited(recordings, tell if fabric.is_global_zero else None)
    cohort = initial_cohort(recordings, config)
    origin = start.begin(cohort) if start is not None else None
    if not (resume and (folder / FILE).exists()):
        show = say if fabric.is_global_zero else lambda line: None
        start_from_data(recordings, cohort, trained=start is not None, say=show)
    trainer = Trainer(fabric, recordings, cohort, folder, origin)
    if resume and (folder / FILE).exists():
        trainer.resume()
    metrics = metrics_of(_fit(trainer, progress), cohort, start, audits)
    if fabric.is_global_zero:
        kept = [entry_of(p, audited) for p, audited in zip(recordings, audits, strict=True)]
        save_bundle(folder, config, kept, metrics)
        (folder / FILE).unlink(missing_ok=True)
    fabric.barrier()
    trainer.rows.clear()
    return recordings, metrics


def audited(recordings: Sequence[Prepared], tell: Callable[[Audit], None] | None = None) -> list[Audit]:
    """What the audit finds in each recording; an empty part or a leak is refused before anything is reported."""
    for prepared in recordings:
        refuse_empty(prepared)
    audits = [refuse_leak(prepared) for prepared in recordings]
    if tell is not None:
        for one in audits:
            tell(one)
    return audits


def _launched(config: Config) -> Fabric:
    """The engine, with its processes started."""
    fabric = make_fabric(config)
    fabric.launch()
    return fabric


def _fit(trainer: Trainer, bar: bool) -> Progress:
    """Train to the end, logging to Weights & Biases too if the configuration says so."""
    trainer.progress.run_id = trainer.progress.run_id or uuid.uuid4().hex[:8]
    wandb = None
    if trainer.train.wandb and trainer.fabric.is_global_zero:
        wandb = _wandb(trainer.config, trainer.folder, trainer.progress.run_id)
    done = trainer.fit(bar=bar, wandb=wandb)
    if wandb is not None:
        wandb.finish()
    return done


def prepare_recordings(recs: Sequence[Recording | StoredRecording], config: Config) -> list[Prepared]:
    """Every recording of a run, prepared without what it lacks."""
    every = zip(recs, lacking(recs, config), strict=True)
    alone = [(rec, member_config(config, i, lacks), lacks) for i, (rec, lacks) in enumerate(every)]
    return [
        StoredPrepared(rec, c, lacks) if isinstance(rec, StoredRecording) else prepare(rec, c, lacks=lacks)
        for rec, c, lacks in alone
    ]


def initial_cohort(recordings: Sequence[Prepared], config: Config) -> Cohort:
    """The initial models, drawn with ``config.seed``."""
    torch.manual_seed(config.seed)
    models = (load_pretrained(Neuroformer(p.config, p.num_units, p.normalization)) for p in recordings)
    return Cohort(models, [p.name for p in recordings], config)


def metrics_of(done: Progress, cohort: Cohort, start: Start | None, audits: list[Audit]) -> dict[str, Any]:
    """The numbers that describe a finished training."""
    out = {
        "train_seconds": done.seconds,
        "train_steps": done.step,
        "windows_per_second": done.windows / done.seconds,
        "tokens_per_second_train": done.spikes / done.seconds,
        "parameters": cohort.num_parameters,
    }
    out |= {f"valid_best_{name}": value for name, value in done.best.items()}
    if start is not None:
        out |= {"adapted_from": start.bundle.path.name, "adapted_weights": start.train}
    for severity in ("leak", "warning"):
        named = sorted({f.name for audited in audits for f in audited.of(severity)})
        out[f"audit_{severity}s"] = ", ".join(named) or "none"
    return out


def entry_of(prepared: Prepared, audited: Audit) -> RecordingEntry:
    """The entry of a recording in a bundle."""
    split = prepared.describe()["split"] | {"audit": audited.to_dict()}
    return RecordingEntry(prepared.name, list(prepared.unit_ids), prepared.normalization, split, prepared.lacks)


def refuse_empty(prepared: Prepared) -> None:
    """Refuse a split that leaves a part without a window.

    Raises
    ------
    ConfigError
        Its blocks are too short for what a window reads.
    """
    w = prepared.config.window
    for part in PARTS:
        if len(prepared.windows(part)) == 0:
            blocks = prepared.split.blocks[part]
            longest = float((blocks[:, 2] - blocks[:, 1]).max()) * w.dt
            target_past = f", target_past {w.target_past:g} s" * bool(prepared.config.targets)
            raise ConfigError(
                f"recording '{prepared.name}' has no window for '{part}': its longest block there lasts {longest:g} s, and all "
                f"that a window reads must lie in it (window.current {w.current:g} s, past {w.past:g} s{target_past}); make "
                "split.block longer or these shorter"
            )


def refuse_leak(prepared: Prepared) -> Audit:
    """Audit what is about to be trained on, and refuse a leak.

    Raises
    ------
    ConfigError
        The split leaks, and ``split.allow_leak`` does not say that this is known.
    """
    config = prepared.config
    found = _audit(prepared)
    if found.leaks and not config.split.allow_leak:
        said = "; ".join(f"{f.name}: {f.measured}" for f in found.of("leak"))
        raise ConfigError(
            f"the split of '{prepared.name}' leaks ({said}). {found.of('leak')[0].advice}. See: neuroformer audit. To train all the "
            "same, set split.allow_leak=true; the bundle and every report then say so"
        )
    return found


def _audit(prepared: Prepared) -> Audit:
    """The audit; of a recording on disk it is kept beside the index, and made once."""
    if not isinstance(prepared, StoredPrepared):
        return audit(prepared)
    file = prepared.folder / "audit.json"
    if not file.exists():
        write_atomic(file, json.dumps(audit(prepared.opened).to_dict()).encode())
    return Audit.from_dict(json.loads(file.read_text()))


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank_zero_only.rank == 0  # pyright: ignore[reportFunctionMemberAccess]


def make_fabric(config: Config) -> Fabric:
    """Lightning's engine for the processes and the precision that the configuration asks for.

    Raises
    ------
    ConfigError
        A GPU is asked for, and there is none with CUDA.
    """
    t = config.train
    cuda = torch.cuda.is_available()
    if t.accelerator == "gpu" and not cuda:
        raise ConfigError("train.accelerator is 'gpu', but there is no CUDA device; set train.accelerator=auto or cpu")
    # never Apple's: likelihoods are summed in float64, which that device does not have
    accelerator = "cuda" if cuda and t.accelerator != "cpu" else "cpu"
    precision: Any = "32-true" if t.precision == "32" else t.precision
    strategy: Any = "ddp" if t.devices * t.nodes > 1 else "auto"
    plugins: list[Any] = []
    if precision == "16-mixed" and accelerator == "cpu":  # given the name on a CPU, Fabric would use bfloat16
        precision, plugins = None, [MixedPrecision("16-mixed", "cpu")]
    return Fabric(
        accelerator=accelerator,
        devices=t.devices,
        num_nodes=t.nodes,
        precision=precision,
        strategy=strategy,
        plugins=plugins,
    )


def _wandb(config: Config, folder: Path, run_id: str) -> Any:
    """A Weights & Biases run; offline if nobody is logged in, so that it works without an account."""
    import wandb

    mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
    return wandb.init(
        project="neuroformer",
        name=config.name or None,
        dir=str(folder),
        id=run_id,
        resume="allow",
        mode=mode,
        config=to_dict(config),
    )


def load_best(folder: Path, objective: str = LIKELIHOOD, recording: str = "") -> Neuroformer:
    """The trained model of a run, with the best weights of one objective, for one of its recordings."""
    return load_model(read_bundle(folder), objective, recording)
