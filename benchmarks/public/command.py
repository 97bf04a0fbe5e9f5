"""``python -m benchmarks public NAME --data FOLDER``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

NAMES = (
    "allen",
    "cortex",
    "hippocampus",
    "ibl",
    "nlb",
    "patterns",
    "rats",
    "retina",
    "sensorium",
    "steinmetz",
    "straightening",
)


def run(name: str, data: Path | None, folder: Path | None, lookahead: float, overrides: list[str]) -> dict[str, Any]:
    """What a module measures on the user's copy of its data; without a copy, where to get one."""
    module = importlib.import_module(f"benchmarks.public.recordings.{name}")
    if data is None:
        return {"table": str(module.ABOUT)}
    return module.run(data, folder or Path("runs") / "public" / name, lookahead, overrides)
