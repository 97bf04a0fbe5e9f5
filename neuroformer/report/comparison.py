"""Features and units side by side: a figure of every layer's scores, and the page's panel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from neuroformer.report.svg import drawn

NAMES = {
    "ridge": "ridge: r, median over units",
    "pls": "partial least squares: r, median over units",
    "rsa_correlation": "RSA, 1 - r: Spearman's correlation",
    "rsa_euclidean": "RSA, Euclidean: Spearman's correlation",
    "rsa_crossnobis": "RSA, crossnobis: whitened correlation",
    "cka": "linear CKA, debiased",
}
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")  # Okabe and Ito's


def layers_figure(found: dict[str, Any]) -> Figure:
    """Layers along x, one panel a metric, of all units; the region above the ceiling is shaded, nulls are ticks.

    Parameters
    ----------
    found : :meth:`neuroformer.comparison.Comparison.as_dict`, or ``compare.json`` as it was read
    """
    scores = [s for s in found["scores"] if s["units"] == "all"]
    metrics = list(dict.fromkeys(s["metric"] for s in scores))
    number = max(sum(s["metric"] == m for s in scores) for m in metrics)
    fig = Figure(
        figsize=(max(4.5, 1.5 + 0.42 * number) * min(2, len(metrics)), 3.4 * -(-len(metrics) // 2)),
        layout="constrained",
    )
    axes = fig.subplots(-(-len(metrics) // 2), min(2, len(metrics)), squeeze=False).ravel()
    sources = list(dict.fromkeys(s["source"] for s in scores))
    for ax, metric in zip(axes, metrics, strict=False):
        _panel(ax, [s for s in scores if s["metric"] == metric], sources)
        ax.set_title(NAMES.get(metric, metric), fontsize=9)
    for ax in axes[len(metrics) :]:
        ax.set_axis_off()
    return fig


def _panel(ax, rows: list[dict[str, Any]], sources: list[str]) -> None:
    x = np.arange(len(rows))
    number = lambda key: np.array([np.nan if r[key] is None else r[key] for r in rows], float)
    value, low, high, ceiling = (number(k) for k in ("score", "low", "high", "ceiling"))
    if np.isfinite(ceiling).any():
        level = float(np.nanmedian(ceiling))
        ax.axhspan(level, max(1.0, level + 0.05), color="0.88", lw=0, label="above the ceiling")
    for source in sources:
        mine = np.array([r["source"] == source for r in rows])
        color = COLORS[sources.index(source) % len(COLORS)]
        error = np.nan_to_num(np.stack([value - low, high - value])[:, mine])
        ax.errorbar(x[mine], value[mine], error, fmt="o-", c=color, ms=4, lw=1, capsize=2, label=source)
    ax.scatter(x, number("null"), marker="_", c="0.4", s=60, label="null, 95 %")
    ax.axhline(0, c="0.7", lw=0.6)
    ax.set_xticks(x, [r["layer"] for r in rows], rotation=60, ha="right", fontsize=7)
    ax.legend(fontsize=6)


def tuning_figure(found: dict[str, Any], name: str) -> Figure:
    """Distributions of selectivity side by side: 10, 25, 50, 75 and 90 % of what is tuned, recorded units first."""
    rows = found["tuning"]
    circle = any(np.isfinite(r["orientation"][2]) for r in rows if r["orientation"][2] is not None)
    keys = {"selectivity": "selectivity"} | ({"orientation": "orientation selectivity"} if circle else {})
    fig = Figure(figsize=(max(4, 1 + 0.4 * len(rows)) * len(keys), 3.6), layout="constrained")
    for ax, (key, title) in zip(fig.subplots(1, len(keys), squeeze=False)[0], keys.items(), strict=True):
        boxes = [dict(zip(("whislo", "q1", "med", "q3", "whishi"), r[key], strict=True)) | {"fliers": []} for r in rows]
        ax.bxp(boxes, showfliers=False)
        ax.set_xticks(
            np.arange(len(rows)) + 1,
            [f"{r['source']}: {r['layer']}" for r in rows],
            rotation=60,
            ha="right",
            fontsize=7,
        )
        ax.set_title(f"{title} for {name}", fontsize=9)
    return fig


def comparison(folder: Path) -> dict[str, Any] | None:
    """What the page's panel shows of a run's ``compare.json``; None where there is none."""
    path = folder / "compare.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    rows = [s for s in found["scores"] if s["units"] == "all"]
    tables = [
        {"name": NAMES.get(metric, metric), "rows": [s for s in rows if s["metric"] == metric]}
        for metric in dict.fromkeys(s["metric"] for s in rows)
    ]
    said = "scores of every layer, which the tables below have as numbers"
    return {"figures": [drawn(layers_figure(found), said)], "tables": tables}
