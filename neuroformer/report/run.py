"""A run's folder, opened for the page and for notebooks."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroformer.bundle.bundle import Bundle
from neuroformer.config import ConfigError
from neuroformer.data.recordings import open_one
from neuroformer.data.splits import Split, make_split
from neuroformer.recording import Recording, RecordingError


@dataclass
class Run:
    """A run's folder and its opened parts; ``rec`` is None if the recording cannot be found."""

    folder: Path
    bundle: Bundle
    rec: Recording | None
    split: Split | None

    @property
    def shell(self) -> str:
        """The run, as a command line takes it."""
        if self.bundle.results == self.bundle.path:
            return shlex.quote(str(self.folder))
        return f"{shlex.quote(str(self.bundle.path))} --recording {shlex.quote(self.bundle.recording)}"

    @property
    def values(self) -> dict[str, Any]:
        path = self.folder / "summary.json"
        return json.loads(path.read_text()) if path.exists() else {}


class Missing(Exception):
    """A panel's data are absent: why, and the command that makes them."""

    def __init__(self, why: str, command: str = ""):
        self.why, self.command = why, command


def open_parts(bundle: Bundle, config) -> tuple[Recording | None, Split | None]:
    """The recording and its split; None if the file cannot be found any more."""
    try:
        rec = open_one(config.recording)
    except (ConfigError, RecordingError, OSError):
        return None, None
    if rec.unit_ids != bundle.units:
        return None, None
    return rec, make_split(rec, config)
