"""What a run learnt of each unit, told by columns of the units table: a figure, and the page's panel."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from neuroformer.report.figures import MODEL, OTHER
from neuroformer.report.svg import drawn


def probe_bars(rows: list[dict[str, Any]], column: str) -> Figure:
    """How well each kind of features tells a column, with 95 % intervals; ticks are what shuffled labels reach.

    Parameters
    ----------
    rows : fields of :class:`neuroformer.studies.unit_probes.UnitProbe`; the last one is firing statistics
    """
    fig = Figure(figsize=(7, 1.2 + 0.32 * len(rows)), layout="constrained")
    ax = fig.subplots()
    number = lambda key: np.array([np.nan if r[key] is None else r[key] for r in rows], float)
    value, place = number("score"), -np.arange(len(rows))
    colors = [MODEL] * (len(rows) - 1) + [OTHER]
    ax.hlines(place, number("low"), number("high"), colors=colors, lw=1)
    ax.scatter(value, place, c=colors, s=18, zorder=2)
    ax.scatter(number("null"), place, marker="|", c="0.4", s=60, label="95 % of shuffles lie below")
    chance = rows[0]["chance"]
    ax.axvline(chance or 0.0, c="0.7", lw=0.8)
    ax.set_yticks(place, [r["features"] for r in rows])
    ax.set_xlabel(f"{'balanced accuracy' if chance else 'R2'} of {column} on held-out units")
    ax.legend(fontsize=7)
    return fig


def identity(folders: Iterable[Path]) -> dict[str, Any] | None:
    """What the page's panel shows of ``probe_unit_COLUMN.json`` in some folders; None where there are none."""
    files = {path.name: path for folder in folders for path in sorted(folder.glob("probe_unit_*.json"))}
    figures = []
    for path in files.values():
        tree = json.loads(path.read_text())
        said = "; ".join(f"{r['features']} {r['score']:.3f}" for r in tree["rows"] if r["score"] is not None)
        figures.append(drawn(probe_bars(tree["rows"], tree["column"]), f"{tree['column']} told by {said}"))
    return {"figures": figures} if figures else None
