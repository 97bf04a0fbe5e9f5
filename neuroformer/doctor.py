"""What this machine has, and what a run will need of it: for a look before training, and for reports of faults."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch

import neuroformer
from neuroformer.config import Config, load_config
from neuroformer.data.stored import recordings_to_train
from neuroformer.data.windows import spread
from neuroformer.memory import free_memory
from neuroformer.ops import table
from neuroformer.shown import NamedValues
from neuroformer.training.memory import STATE, step_memory
from neuroformer.training.module import Losses, Microbatch
from neuroformer.training.train import initial_cohort, make_fabric, prepare_recordings, refuse_empty

DEVELOPMENT = ("dev", "docs", "formats")  # of these, what users need is in other extras
HEAD_WIDTH = 32  # of the tensors that ask which kernels would run
MOST_TIMED = 8  # recordings
TIMED, PASSES = 64, 4  # windows; the fastest pass counts, since the first allocates and others may be disturbed


def machine() -> dict[str, Any]:
    """Versions, devices, kernels and what is free.

    Returns
    -------
    dict
        ``system``, ``python`` and ``neuroformer`` versions; ``libraries``, version by name, and ``absent_extras``, those of which a
        library is missing; ``cpu_cores`` and ``torch_threads``; ``devices``, a dict each: ``name``, ``free_gb``, and
        ``kernels``, the implementation by operation that would run in ``float32`` and in ``bfloat16``; ``disk_free_gb``, where
        we are.
    """
    installed, absent = _libraries()
    devices = [_device(torch.device("cpu"), platform.processor() or platform.machine())]
    for i in range(torch.cuda.device_count()):
        devices.append(_device(torch.device("cuda", i), torch.cuda.get_device_name(i)))
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": "Apple GPU", "free_gb": None, "kernels": {}})
    found = {
        "neuroformer": neuroformer.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "libraries": installed,
        "absent_extras": absent,
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "devices": devices,
        "disk_free_gb": shutil.disk_usage(Path.cwd()).free / 1e9,
    }
    return NamedValues(found)


def _libraries() -> tuple[dict[str, str], list[str]]:
    """Versions of what is installed of all that the package names, and the extras that lack something."""
    installed: dict[str, str] = {}
    absent: set[str] = set()
    for line in requires("neuroformer") or ():
        requirement, _, marker = line.partition(";")
        extra = marker.partition("extra ==")[2].strip(" \"'")
        if extra in DEVELOPMENT:
            continue
        name = next((requirement[:i] for i, c in enumerate(requirement) if c in " <>=!~[("), requirement)
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            if extra:
                absent.add(extra)
    installed.pop("neuroformer", None)
    return installed, sorted(absent)


def _device(device: torch.device, name: str) -> dict[str, Any]:
    kernels = {}
    for dtype in (torch.float32, torch.bfloat16):
        q = torch.zeros(1, 1, HEAD_WIDTH, device=device, dtype=dtype)
        kernels[str(dtype).removeprefix("torch.")] = {
            "attention": table.pick_attention(q),
            "cross_entropy": table.pick_cross_entropy(q[0], q[0]),
            "decode": table.pick("decode_attention", table.DECODE, table.DECODE_AUTO, "auto", q),
        }
    return {"device": str(device), "name": name, "free_gb": free_memory(device) / 1e9, "kernels": kernels}


def needs(config: Config | str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What training a configuration will need here, measured on a few windows of its recordings.

    Parameters
    ----------
    config : a configuration, or the path of a YAML file
    overrides : settings that replace the file's

    Returns
    -------
    dict
        ``units``, ``spikes`` and ``seconds`` of the recordings together; ``parameters``; ``windows``, of training; ``device``;
        ``step_gb``, the memory of a step at ``train.batch_size``, and ``free_gb``, what it may take; ``pieces``, into how many
        each batch will be cut; ``seconds_per_step`` (about: a pass over at most 64 windows, scaled up) and
        ``train_seconds_at_most`` (``train.steps`` of them, without evaluations; patience may end sooner); ``disk_gb``, the
        weights and a checkpoint.

    Raises
    ------
    ConfigError, RecordingError
        As training would.
    """
    config = config if isinstance(config, Config) else load_config(Path(config), overrides)
    config, recs = recordings_to_train(config)
    recordings = prepare_recordings(recs, config)
    for prepared in recordings:
        refuse_empty(prepared)
    fabric = make_fabric(config)
    cohort = initial_cohort(recordings, config).to(fabric.device)
    plan = step_memory(cohort, recordings, fabric)
    parameters = sum(p.numel() for p in cohort.parameters())
    places, losses = spread(len(recordings), MOST_TIMED), Losses(cohort).train()
    seconds = sum(_seconds_of_a_step(losses, recordings[i], int(i), fabric) for i in places) / len(places)
    found = {
        "units": sum(r.num_units for r in recs),
        "spikes": sum(r.num_spikes for r in recs),
        "seconds": float(sum(r.duration for r in recs)),
        "parameters": parameters,
        "windows": sum(len(p.windows("train")) for p in recordings),
        "device": str(fabric.device),
        "step_gb": (plan.needed + STATE * 4 * parameters) / 1e9,
        "free_gb": plan.free / 1e9,
        "pieces": plan.pieces,
        "seconds_per_step": seconds,
        "train_seconds_at_most": seconds * config.train.steps,
        "disk_gb": 4 * parameters * (1 + len(config.targets) + 1 + STATE) / 1e9,
    }
    return NamedValues(found)


def _seconds_of_a_step(losses: Losses, prepared, place: int, fabric) -> float:
    """Forward and backward over some windows, scaled to the batch."""
    windows = prepared.windows("train")
    batch_size = min(len(windows), prepared.config.train.batch_size)
    some = windows[torch.randperm(len(windows))[: min(TIMED, batch_size)].numpy()]
    taken = []
    for _ in range(PASSES):
        begun = time.perf_counter()
        batch = prepared.builder(some).to(fabric.device)
        with fabric.autocast():
            losses(Microbatch(batch, recording=place))["loss"].backward()
        if fabric.device.type == "cuda":
            torch.cuda.synchronize(fabric.device)
        taken.append(time.perf_counter() - begun)
    return min(taken) * batch_size / len(some)
