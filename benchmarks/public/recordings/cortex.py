"""Macaque motor and somatosensory cortex, reaching: velocity of the hand from counts in 50 ms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.public.decoding import likelihood_table, measure, table
from benchmarks.public.source import Source
from neuroformer.baselines.decoders import ALL

ABOUT = Source(
    title="Macaque motor cortex (171 units, 777 s) and somatosensory cortex, area 2 (52 units, 1,756 s), reaching",
    where="the data of the spykesML project (github.com/KordingLab/spykesML), saved as npz under the names of the README: "
    "spikes (units, bins), spikes_dt 0.05, position and velocity (bins, 2) at 20 Hz",
    licence="MIT",
    citation="Stevenson et al. 2011 (motor); Benjamin et al., Frontiers in Computational Neuroscience 2018; Glaser et al., eNeuro 2020",
    split="one stretch in five (the defaults), with gaps; validation another one in five",
    published=(
        "Glaser et al., eNeuro 2020, figure 4, has velocity R2 of ten decoders on other recordings of the same laboratory",
    ),
)
NAMES = ("motor_cortex", "somatosensory_cortex")


def configuration(path: Path) -> dict[str, Any]:
    """No more than the recording, its bin and its target."""
    return {
        "recording": {"path": str(path)},
        "window": {"frames": 0.0, "dt": 0.05},
        "targets": [{"name": "velocity"}],
    }


def run(data: Path, folder: Path, lookahead: float = 0.0, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Both recordings, trained, decoded, and beside all baselines."""
    scores = {}
    for name in NAMES:
        if (data / f"{name}.npz").exists():
            tree = configuration(data / f"{name}.npz")
            scores[name] = measure(tree, folder / name, overrides, lookahead=lookahead, baselines=ALL)
    if not scores:
        raise FileNotFoundError(f"{data} holds none of {', '.join(f'{n}.npz' for n in NAMES)}; {ABOUT.where}")
    tables = [table(scores, "velocity", "r2"), table(scores, "velocity", "median_error")]
    return {"scores": scores, "table": "\n\n".join([str(ABOUT), *tables, likelihood_table(scores)])}
