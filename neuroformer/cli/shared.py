"""What the commands share: opening a run, its summary.json, its figures."""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import math
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from neuroformer.config import Config, ConfigError, from_dict, to_dict
from neuroformer.training.stopping import Stopped

STOPPED = 75  # the system's code for "try again later"
INTERRUPTED = 130


def keep_freed_memory() -> None:
    """Let the C library keep freed memory: each step needs it again, and fresh pages would have to be zeroed.

    Takes 10 % off a training step of ``configs/demo.yaml`` (glibc's ``mallopt``: neither map nor trim below 1 GB).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mmap_threshold, trim_threshold = -3, -1
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, 1 << 30)


def exit_code(stopped: Stopped) -> int:
    """Ctrl-C comes from the user, any other signal from the system, which may start the run again."""
    return INTERRUPTED if stopped.signal == signal.SIGINT else STOPPED


def open_run(folder: Path, overrides: list[str], recording: str = ""):
    """A run's bundle, and its recording prepared as in training; overrides replace the run's settings.

    ``recording`` names one recording of a run that has several.
    """
    from neuroformer.config import apply_overrides
    from neuroformer.data.members import open_one
    from neuroformer.model.bundle import check_units, read_bundle
    from neuroformer.training.data import prepare

    bundle = read_bundle(folder).of(recording)
    config = _same_model(bundle.config, from_dict(apply_overrides(to_dict(bundle.config), overrides)))
    rec = open_one(config.recording)
    check_units(bundle, rec)
    prepared = prepare(rec, config, bundle.normalization, bundle.member.lacks)
    if prepared.split.sha256() != bundle.split["sha256"]:
        raise ConfigError(
            "the split is not the one that the run was trained on (another recording, or a longer decode.lags, which "
            "widens the gaps), so data that are held out here may have been trained on; train a run with these settings"
        )
    return bundle, prepared


def open_asked(args: argparse.Namespace):
    """:func:`open_run` for the arguments of a command.

    Sets ``args.folder`` to where the results go: in a run of several recordings, each has its own folder.
    """
    refuse_unwritable(args.folder, "--run")
    bundle, prepared = open_run(args.folder, args.override, args.recording)
    args.folder = results_folder(args.folder, bundle)
    return bundle, prepared


def refuse_unwritable(folder: Path, option: str) -> None:
    """Refuse a folder that cannot be created or written, before any time is spent on what goes into it.

    Raises
    ------
    ConfigError
        Names the folder, the reason and the ``option`` that gives another one.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        why = f"{there} is a file"
    elif not os.access(there, os.W_OK | os.X_OK):
        why = f"no permission to write in {there}"
    else:
        return
    raise ConfigError(f"cannot write into the folder {folder}: {why}; give another folder with {option}")


def results_folder(folder: Path, bundle) -> Path:
    """Where the results of a bundle's recording go: the run's folder or, if it has several, one inside it."""
    if bundle.whole is None or len(bundle.whole.recordings) == 1:
        return folder
    out = folder / bundle.recording.replace(":", "_")
    out.mkdir(exist_ok=True)
    return out


def _same_model(trained: Config, asked: Config) -> Config:
    """Refuse overrides of what training fixed."""
    for key in ("window", "inputs", "targets", "split", "model", "loss"):
        if getattr(trained, key) != getattr(asked, key):
            raise ConfigError(
                f"'{key}' was fixed by training and cannot be overridden here; train another run with it"
            )
    if trained.targets and (
        trained.decode.moving != asked.decode.moving or trained.recording.speeds != asked.recording.speeds
    ):
        raise ConfigError(
            "'decode.moving' and 'recording.speeds' say which labels count; train a run with them"
        )
    return asked


def summarise(folder: Path, values: dict[str, Any], unprinted: dict[str, Any] | None = None) -> None:
    """Merge values into the run's flat summary.json and print them; ``unprinted`` are only merged.

    NaN and infinity (the correlation with a constant, say) become null, since JSON has no word for them.
    """
    from neuroformer.model.bundle import write_atomic

    path = folder / "summary.json"
    merged = json.loads(path.read_text()) if path.exists() else {}
    merged |= {k: _rounded(v) if isinstance(v, float) else v for k, v in (values | (unprinted or {})).items()}
    write_atomic(path, json.dumps(merged, indent=1).encode())
    width = max((len(k) for k in values), default=0)
    for k, v in values.items():
        print(f"  {k:<{width}}  {v:.4g}" if isinstance(v, float) else f"  {k:<{width}}  {v}")
    print(f"all numbers in {path}" if unprinted else f"summary in {path}")


def _rounded(x: float) -> float | None:
    return round(x, 6) if math.isfinite(x) else None


def save_figure(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"figure in {path}")


def warn_only_ours() -> None:
    """Lightning's advice is for its own users; ours see our messages."""
    os.environ.setdefault("WANDB_SILENT", "true")
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
