"""What the commands share: opening a run, its summary.json, its figures."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import math
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroformer.bundle.opening import open_run
from neuroformer.config import ConfigError
from neuroformer.files import merge_values, read_values, replacing
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


@contextlib.contextmanager
def only_process(folder: Path, doing: str, parts: Sequence[str] = ()):
    """Hold a folder against a second process that would write the same files; the system lets go when this one ends.

    Where the file system knows no locks, nothing is held.

    Parameters
    ----------
    doing : what the other process does, for the message
    parts : hold only these, beside processes that hold others, but against one that holds the whole

    Raises
    ------
    ConfigError
        Another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for name in (".lock", *(f".lock-{part}" for part in parts)):
            file = stack.enter_context(open(folder / name, "w"))
            try:
                kind = fcntl.LOCK_SH if parts and name == ".lock" else fcntl.LOCK_EX
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"another process is {doing} {folder}; wait for it, or give another place") from None
            except OSError:
                pass
        yield


def open_asked(args: argparse.Namespace):
    """:func:`open_run` for the arguments of a command.

    Sets ``args.folder`` to where the results go: to that of ``--results``, or to the run's, where each of several
    recordings has its own.
    """
    refuse_results(args)
    bundle, prepared = open_run(args.folder, args.override, args.recording)
    args.folder = results_folder(bundle, args.results)
    read_values(args.folder / "summary.json")
    return bundle, prepared


def refuse_results(args: argparse.Namespace) -> None:
    """Refuse a folder of results that cannot be written, or holds a damaged summary, before any time is spent."""
    folder = args.folder if args.results is None else args.results
    refuse_unwritable(folder, "--results")
    read_values(folder / "summary.json")


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


def results_folder(bundle, asked: Path | None = None) -> Path:
    """The folder of results that was asked for, or the bundle's, made if it is not there."""
    folder = bundle.results if asked is None else asked
    folder.mkdir(parents=asked is not None, exist_ok=True)
    return folder


def summarise(folder: Path, values: dict[str, Any], unprinted: dict[str, Any] | None = None) -> None:
    """Merge values into the run's flat summary.json and print them; ``unprinted`` are only merged.

    NaN and infinity (the correlation with a constant, say) become null, since JSON has no word for them.
    """
    path = folder / "summary.json"
    every = values | (unprinted or {})
    merge_values(path, {k: _rounded(v) if isinstance(v, float) else v for k, v in every.items()})
    width = max((len(k) for k in values), default=0)
    for k, v in values.items():
        print(f"  {k:<{width}}  {v:.4g}" if isinstance(v, float) else f"  {k:<{width}}  {v}")
    print(f"all numbers in {path}" if unprinted else f"summary in {path}")


def plain_json(tree: Any) -> Any:
    """The same with null for NaN and infinity, for which JSON has no word."""
    if isinstance(tree, dict):
        return {k: plain_json(v) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [plain_json(v) for v in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _rounded(x: float) -> float | None:
    return round(x, 6) if math.isfinite(x) else None


def save_figure(figure, path: Path) -> None:
    with replacing(path) as part:
        figure.savefig(part, dpi=110, format=path.suffix[1:])
    print(f"figure in {path}")


def save_error_figure(decoded, target, columns: list[str], scores: dict[str, Any], folder: Path) -> None:
    """Errors of a decoded variable against its true value, for the model, the ensemble, the nearest baseline and the Bayesian
    decoder; nothing for classes."""
    from neuroformer.decoding.errors import error_of
    from neuroformer.report.behavior import error_by_value

    if target.kind == "classification":
        return
    nearest = str(scores.get(f"decode_{target.name}_nearest_baseline", "bayes"))
    shown = [n for n in dict.fromkeys(["model", "ensemble", nearest, "bayes"]) if n in decoded.predicted]
    errors = {n: error_of(decoded, target, n) for n in shown}
    figure = error_by_value(decoded.true_VC, errors, target.name, columns, decoded.unit)
    save_figure(figure, folder / f"error_{target.name}.png")


def warn_only_ours() -> None:
    """Lightning's advice is for its own users; ours see our messages."""
    os.environ.setdefault("WANDB_SILENT", "true")
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
