"""Sessions that open as they are: trained, and forecast beside a GLM; by area where the units have one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.public.decoding import train_once
from benchmarks.public.source import Source
from neuroformer.bundle.bundle import load_model
from neuroformer.bundle.opening import open_run
from neuroformer.files import write_atomic
from neuroformer.studies.forecast import flat_scores, forecast

KEYS = ("bits_per_spike", "pop_rate_r", "spatial_r", "cosine", "unit_r", "mae")


def forecast_sessions(
    about: Source, sessions: Sequence[Path], tree: dict[str, Any], folder: Path, overrides: Sequence[str]
) -> dict[str, Any]:
    """Train each session and forecast one bin ahead and further; what the folder holds already is not done again.

    Parameters
    ----------
    tree : the configuration of a session, without its path
    """
    if not sessions:
        raise FileNotFoundError(f"no session was found; get it: {about.where}")
    scores = {}
    for path in sessions:
        place = folder / path.stem
        file = place / "forecast_scores.json"
        if not file.exists():
            recording = {"recording": {**tree.get("recording", {}), "path": str(path)}}
            train_once(tree | recording, place, overrides)
            bundle, prepared = open_run(place)
            found = forecast(load_model(bundle), prepared).scores
            write_atomic(file, json.dumps({"flat": flat_scores(found), "groups": found["groups"]}).encode())
        scores[path.stem] = json.loads(file.read_text())
    rows = ["| session | predictor | " + " | ".join(KEYS) + " |", "|" + "---|" * (len(KEYS) + 2)]
    for name, one in scores.items():
        for who, suffix in (("model", ""), ("GLM", "_glm"), ("running mean", "_running_mean")):
            cells = [f"{one['flat'].get(f'forecast_{key}_0.05s{suffix}', float('nan')):.3f}" for key in KEYS]
            rows.append(f"| {name} | {who} | " + " | ".join(cells) + " |")
    return {"scores": scores, "table": "\n".join([str(about), "", *rows])}
