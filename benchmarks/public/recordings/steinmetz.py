"""Steinmetz et al. 2019: 39 Neuropixels sessions of mice that choose between gratings, thirty areas and more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.public.sessions import forecast_sessions
from benchmarks.public.source import Source

ABOUT = Source(
    title="Steinmetz et al. 2019, distributed coding of choice, action and engagement: 39 sessions, 10 mice, Neuropixels",
    where="figshare.com/articles/dataset/9598406 (folders of ALF files), or DANDI 000017 (NWB); one folder or file a session",
    licence="CC BY 4.0",
    citation="Steinmetz, Zatka-Haas, Carandini and Harris, Nature 2019",
    split="the defaults: stretches of time, one in five; SpikeProphecy takes the last parts of each session",
    published=(
        "SpikeProphecy (arXiv 2605.12992), over Steinmetz and IBL sessions, one bin ahead: its abstract gives no single "
        "figure; compare its tables by pop_rate_r, spatial_r, cosine and per-neuron r, not by its co_bps",
    ),
)
CONFIGURATION = {"window": {"frames": 0.0}}


def run(data: Path, folder: Path, lookahead: float = 0.0, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Every session in ``data``: NWB files, or folders of ALF files."""
    sessions = sorted(
        [*data.glob("*.nwb"), *(p for p in data.iterdir() if p.is_dir() and any(p.glob("spikes.times*")))]
    )
    return forecast_sessions(ABOUT, sessions, CONFIGURATION, folder, overrides)
