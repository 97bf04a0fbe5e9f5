"""Allen Brain Observatory, Visual Coding Neuropixels: six visual areas, movies shown again and again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.public.sessions import forecast_sessions
from benchmarks.public.source import Source

ABOUT = Source(
    title="Allen Brain Observatory, Visual Coding Neuropixels: 58 sessions, six visual areas, thalamus and hippocampus",
    where="DANDI 000021 (NWB), or the AllenSDK; the session's file as it is",
    licence="Allen Institute terms of use (non-commercial, with citation)",
    citation="Siegle, Jia et al., Nature 2021",
    split="the defaults: stretches of time, one in five",
)
CONFIGURATION = {"recording": {"units": {"where": "rate > 0.5", "limit": 300}}, "window": {"frames": 0.0}}


def run(data: Path, folder: Path, lookahead: float = 0.0, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Every session's NWB file in ``data``."""
    return forecast_sessions(ABOUT, sorted(data.glob("*.nwb")), CONFIGURATION, folder, overrides)
