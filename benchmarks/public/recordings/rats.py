"""Four rats on a linear track (hippocampus, area CA1): position from spikes, as CEBRA and others decode it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.public.decoding import likelihood_table, measure, table
from benchmarks.public.source import Source
from neuroformer.files import save_npz

ABOUT = Source(
    title="Hippocampus of four rats (Achilles, Buddy, Cicero, Gatsby) on a linear track of 1.6 m, 25 ms bins",
    where="github.com/akshey-kumar/bundlenet_results, data/raw/rat_hippocampus/*.npz (570 kB); the originals are CRCNS hc-11",
    licence="none stated in that repository; CRCNS terms for hc-11",
    citation="Grosmark and Buzsaki, Science 2016; as binned for CEBRA (Schneider, Lee and Mathis, Nature 2023)",
    split="one stretch of a minute in five (the defaults), with gaps; validation another one in five",
    published=(
        "CEBRA: median absolute error about 5 cm on one rat, k nearest neighbours on its embedding, another split",
    ),
)
NAMES = ("achilles", "buddy", "cicero", "gatsby")
BIN_S = 0.025
LEAST_S = 1.0  # of a stretch between two jumps
JUMP_M = 0.05  # between neighbouring bins: 2 m/s, so laps were joined there


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of one rat under the names of the README: counts, position in cm, and the stretches between jumps."""
    with np.load(path) as file:
        counts_TU, behavior_TC = file["x"], file["b"]
    place_T = behavior_TC[:, 0].astype(np.float64)
    cuts = np.flatnonzero(np.abs(np.diff(place_T)) > JUMP_M) + 1
    edges = np.concatenate([[0], cuts, [len(place_T)]]) * BIN_S
    # stretches that touch would be one again: one bin is left out
    domain = np.stack([edges[:-1], edges[1:] - BIN_S], 1)
    return {
        "spikes": np.rint(counts_TU.T).astype(np.int64),
        "spikes_dt": np.array(BIN_S),
        "position": 100 * place_T,
        "position_times": (np.arange(len(place_T)) + 0.5) * BIN_S,
        "position_unit": np.array("cm"),
        "domain": domain[np.diff(domain)[:, 0] >= LEAST_S],
    }


def configuration(path: Path) -> dict[str, Any]:
    """No more than the recording and its target: everything else is a default, but the bin, which is the recording's."""
    return {
        "recording": {"path": str(path)},
        "window": {"frames": 0.0, "dt": BIN_S},
        "targets": [{"name": "position"}],
    }


def run(data: Path, folder: Path, lookahead: float = 0.0, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Every rat whose file is in ``data``: trained, decoded, and beside the baselines."""
    scores = {}
    for name in NAMES:
        source = data / f"{name}.npz"
        if not source.exists():
            continue
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        save_npz(place / "recording.npz", read(source))
        tree = configuration(place / "recording.npz")
        scores[name] = measure(tree, place / "run", overrides, lookahead=lookahead)
    if not scores:
        raise FileNotFoundError(f"{data} holds none of {', '.join(f'{n}.npz' for n in NAMES)}; {ABOUT.where}")
    tables = [table(scores, "position", "median_error", "cm"), table(scores, "position", "r2")]
    return {"scores": scores, "table": "\n\n".join([str(ABOUT), *tables, likelihood_table(scores)])}
