"""The state of a run in one file: tensors and JSON in safetensors, written so that a kill cannot damage it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from neuroformer.bundle.bundle import CHECKPOINT
from neuroformer.bundle.cohort import Cohort
from neuroformer.bundle.saving import save_tensors
from neuroformer.config import Config, ConfigError, from_dict, to_dict
from neuroformer.data.automatic import OPEN
from neuroformer.training.module import Average
from neuroformer.training.rows import get_state, set_state

FORMAT = 3  # 1: the network of version 0.1; 2: all recordings in one file
FILE = CHECKPOINT
# settings that may change on resuming: where and how a run is computed, never what is computed
MAY_CHANGE = (
    "train.workers",
    "train.checkpoint_every",
    "train.wandb",
    "train.devices",
    "train.nodes",
)


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or of another run."""


@dataclass
class Progress:
    """The progress of a run: what a checkpoint holds beside tensors. There is no random state in it, since batches
    and dropout depend only on the seed and the step number.
    """

    step: int = 0  # optimiser steps done
    windows: int = 0
    spikes: int = 0
    seconds: float = 0.0  # of training, evaluation included
    best: dict[str, float] = field(default_factory=dict)  # by objective, on validation
    marked: dict[str, float] = field(default_factory=dict)  # by objective, its score when one last gained enough
    stale: int = 0  # evaluations since any score gained enough
    scaler: dict[str, Any] = field(default_factory=dict)  # of float16's gradients
    pieces: int = 0  # of a step's batch; 0: not planned yet
    rows: dict[str, str] = field(default_factory=dict)  # by recording's place, the file of what is its own
    run_id: str = ""  # under which Weights & Biases continues the run


def save_checkpoint(
    path: Path, tensors: dict[str, Tensor], progress: Progress, config: Config, data: dict[str, Any]
) -> None:
    """Write atomically; ``data`` identifies what the run trains on.

    Raises
    ------
    OSError
        The disk is full, say; the previous file is intact.
    """
    tree = {
        "format": FORMAT,
        "config": to_dict(config),
        "data": data,
        "progress": dataclasses.asdict(progress),
    }
    save_tensors(path, tensors, {"neuroformer": json.dumps(tree)})


def read_config(path: Path) -> Config:
    """The configuration of a checkpoint's run."""
    return from_dict(_header(path)["config"])


def load_checkpoint(path: Path, config: Config, data: dict[str, Any]) -> tuple[dict[str, Tensor], Progress]:
    """Tensors on the CPU, and the progress.

    Raises
    ------
    CheckpointError
        A file that is damaged, or a recording that is not the one that the run trains on.
    ConfigError
        Another configuration than the run's; names the keys.
    """
    tree = _header(path)
    refuse_other_config(from_dict(tree["config"]), config, path)
    for key, value in data.items():
        if tree["data"].get(key) != value:
            raise CheckpointError(
                f"{path} was made on another recording than this one: its {key} differs; "
                "a run can only be resumed with the data that it began with"
            )
    with safe_open(path, "pt") as f:
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (it is no dict)
    return tensors, Progress(**tree["progress"])


def refuse_other_config(theirs: Config, ours: Config, path: Path) -> None:
    """Raise a ConfigError that names the keys in which two configurations differ; what ours leaves open may be anything."""
    a, b = dict(_flat(to_dict(theirs))), dict(_flat(to_dict(ours)))
    may_change = {*MAY_CHANGE, *(k for k, left_open in OPEN.items() if b[k] == left_open)}
    other = [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k) and k not in may_change]
    if other:
        shown = "; ".join(f"{k} is {b.get(k)!r}, was {a.get(k)!r}" for k in other[:5])
        raise ConfigError(
            f"{path} belongs to a run with another configuration ({shown}); resume with the same settings, "
            "or start again with --overwrite"
        )


def _header(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as f:
            tree = json.loads((f.metadata() or {})["neuroformer"])
        if tree["format"] < FORMAT:
            raise CheckpointError(
                f"{path} has format {tree['format']}, of a run that another version of neuroformer began and this one cannot "
                "continue; end it with that version, or start again with --overwrite"
            )
        if tree["format"] > FORMAT:
            raise CheckpointError(
                f"{path} has format {tree['format']}, this version reads up to {FORMAT}; update neuroformer"
            )
        return tree
    except (SafetensorError, json.JSONDecodeError, KeyError) as e:
        raise CheckpointError(f"{path} is damaged: {type(e).__name__} {e}; start again with --overwrite") from None


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(tree, list) and tree and isinstance(tree[0], dict):
        for i, value in enumerate(tree):
            yield from _flat(value, f"{prefix}.{i}")
    else:
        yield prefix, tree


def state_tensors(model: Cohort, average: Average | None, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that training changes of what recordings share, by name; with one recording, everything."""
    shared = model.trunk()
    out = {f"model.{name}": x.detach() for name, x in shared.items()}
    for name, x in shared.items():
        if isinstance(x, nn.Parameter):
            out |= get_state(optimizer, x, name)
            if average is not None:
                out[f"average.{name}"] = average.of[x]
    return out


@torch.no_grad()
def restore_tensors(
    tensors: dict[str, Tensor],
    model: Cohort,
    average: Average | None,
    optimizer: torch.optim.Optimizer,
) -> None:
    """The inverse of :func:`state_tensors`, in place."""
    for name, x in model.trunk().items():
        x.copy_(tensors[f"model.{name}"])
        if isinstance(x, nn.Parameter):
            set_state(optimizer, x, tensors, name)
            if average is not None:
                average.of[x].copy_(tensors[f"average.{name}"])
