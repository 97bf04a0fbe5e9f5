"""International Brain Laboratory, repeated site: the same five areas in one session after another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.public.sessions import forecast_sessions
from benchmarks.public.source import Source

ABOUT = Source(
    title="International Brain Laboratory, repeated site (and brain-wide map): Neuropixels, one visual choice task",
    where="openalyx.internationalbrainlab.org through the ONE client; the folder of a session, with its alf/probe*",
    licence="CC BY 4.0",
    citation="International Brain Laboratory, eLife 2025 (reproducible electrophysiology)",
    split="the defaults: stretches of time, one in five",
    published=("SpikeProphecy (arXiv 2605.12992) has 30 of these sessions; see steinmetz",),
)
CONFIGURATION = {"window": {"frames": 0.0}}


def run(data: Path, folder: Path, lookahead: float = 0.0, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Every session's folder in ``data``."""
    sessions = sorted(p for p in data.iterdir() if p.is_dir() and any(p.rglob("spikes.times*")))
    return forecast_sessions(ABOUT, sessions, CONFIGURATION, folder, overrides)
