"""Rat hippocampus on a linear track and a W-maze: position while the animal moves, over folds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.public.decoding import SCORES, table
from benchmarks.public.source import Source
from neuroformer.baselines.decoders import FAST
from neuroformer.config import apply_overrides, from_dict
from neuroformer.data.recordings import open_only
from neuroformer.files import write_atomic
from neuroformer.studies.folds import decode_folds

ABOUT = Source(
    title="Rat hippocampus (CA1) tetrodes: 31 units on a linear track, 24 on a W-maze, run and rest",
    where="the example data of the nelpy project, github.com/nelpy/example-data, saved as npz under the names of the README: "
    "spike_times, spike_units, position (T, 2) in pixels, position_times",
    licence="MIT",
    citation="Frank laboratory; Ackermann, Kemere and Cunningham (nelpy)",
    split="five contiguous parts, each held out once; only moments in which the animal moves faster than 10 pixels a second",
)
NAMES = ("hippocampus_linear", "hippocampus_wmaze")
FOLDS = 5


def configuration(path: Path, lookahead: float) -> dict[str, Any]:
    """As ``configs/hippocampus.yaml``, position alone, while moving."""
    return {
        "recording": {"path": str(path), "speeds": [{"name": "speed", "of": "position", "smooth": 0.25}]},
        "window": {"frames": 0.0, "dt": 0.05, "current": 0.25, "past": 1.0, "target_past": 2.0, "lookahead": lookahead},
        "targets": [{"name": "position"}],
        "decode": {"moving": {"variable": "speed", "above": 10.0}},
        "model": {"dropout": 0.2},
        "tune": {"steps": 1000, "lr": 4.0e-3},
    }


def run(data: Path, folder: Path, lookahead: float = 0.0, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Both recordings over folds; finished folds are not done again."""
    scores = {}
    for name in NAMES:
        if not (data / f"{name}.npz").exists():
            continue
        place = folder / f"{name}_{lookahead:g}"
        if not (place / SCORES).exists():
            tree = apply_overrides(configuration(data / f"{name}.npz", lookahead), list(overrides))
            config, rec = open_only(from_dict(tree))
            found = {}
            for _, _, one in decode_folds(rec, config, place, FOLDS, FAST, progress=False):
                found |= one
            write_atomic(place / SCORES, json.dumps(found, indent=1).encode())
        scores[name] = json.loads((place / SCORES).read_text())
    if not scores:
        raise FileNotFoundError(f"{data} holds none of {', '.join(f'{n}.npz' for n in NAMES)}; {ABOUT.where}")
    tables = [table(scores, "position", what, unit) for what, unit in (("median_error", "pixels"), ("r2", ""))]
    return {"scores": scores, "table": "\n\n".join([str(ABOUT), *tables])}
