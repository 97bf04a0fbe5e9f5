"""A finished run, opened again: its bundle, and its recording prepared as in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuroformer.config import Config, ConfigError, apply_overrides, from_dict, to_dict
from neuroformer.recording.remote import is_remote

if TYPE_CHECKING:
    from neuroformer.bundle.bundle import Bundle
    from neuroformer.data.prepared import Prepared


def open_run(folder: Path, overrides: Sequence[str] = (), recording: str = "") -> tuple[Bundle, Prepared]:
    """A run's bundle, and its recording prepared as in training; overrides replace the run's settings.

    ``recording`` names one recording of a run that has several.
    """
    from neuroformer.bundle.bundle import check_units, read_bundle
    from neuroformer.data.prepared import prepare
    from neuroformer.data.recordings import open_one

    bundle = read_bundle(folder).of(recording)
    config = _same_model(bundle.config, from_dict(apply_overrides(to_dict(bundle.config), overrides)))
    absent = absent_recording(config)
    if absent:
        raise ConfigError(absent)
    rec = open_one(config.recording)
    check_units(bundle, rec)
    prepared = prepare(rec, config, bundle.normalization, bundle.entry.lacks)
    if prepared.split.sha256() != bundle.split["sha256"]:
        raise ConfigError(
            "the split is not the one that the run was trained on (another recording, or other decode.lags, which "
            "set the gaps), so data that are held out here may have been trained on; train a run with these settings"
        )
    return bundle, prepared


def absent_recording(config: Config) -> str:
    """Where a run's recording was looked for and not found; empty where it was found."""
    path = config.recording.path
    if not path:
        return "the run was trained on a recording that was handed over in Python; say where it is: recording.path=FILE"
    if path.startswith("synthetic:") or is_remote(path) or Path(path).expanduser().exists():
        return ""
    looked = "" if Path(path).is_absolute() else f" (looked from {Path.cwd()})"
    return f"the run's recording is not at {path}{looked}; say where it is: recording.path=FILE"


def _same_model(trained: Config, asked: Config) -> Config:
    """Refuse overrides of what training fixed."""
    for key in ("window", "inputs", "targets", "split", "model", "loss"):
        if getattr(trained, key) != getattr(asked, key):
            raise ConfigError(f"'{key}' was fixed by training and cannot be overridden here; train another run with it")
    if trained.targets and (
        trained.decode.moving != asked.decode.moving or trained.recording.speeds != asked.recording.speeds
    ):
        raise ConfigError("'decode.moving' and 'recording.speeds' say which labels count; train a run with them")
    return asked
