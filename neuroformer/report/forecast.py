"""Forecasts as curves against the horizon: a figure, and the panel of the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from neuroformer.report.figures import MODEL, OTHER, TRUE

COLORS = {
    "model": MODEL,
    "glm": OTHER,
    "autoregression": OTHER,
    "last_value": "#E69F00",
    "running_mean": "#999999",
    "psth": "#009E73",
    "repeats": TRUE,
}
GROUPS = {  # of the units of an area
    "units": "number",
    "r": "r, nearest bin",
    "r_error": "standard error",
    "rate_hz": "Hz",
    "fano": "Fano factor",
    "ceiling": "Poisson ceiling of r",
}
SAID = {
    "bits_per_spike": "bits/spike",
    "bits_per_spike_per_unit": "bits/spike, mean over units",
    "pop_rate_r": "r of the population's count",
    "spatial_r": "r over units within a bin",
    "cosine": "cosine of population vectors",
    "unit_r": "r of a unit, mean over units",
    "mae": "absolute error of a count",
    "count_ratio": "expected counts over counts",
    "mse_over_copied": "squared error over that of the last value",
}


def forecast_curves(scores: dict[str, Any]) -> Figure:
    """Every score against the horizon, a line a candidate, the model with its 95 % interval.

    Parameters
    ----------
    scores : of :class:`neuroformer.studies.forecast.Forecast`
    """
    candidates = scores["candidates"]
    keys = list(candidates["model"])
    columns = min(4, len(keys))
    rows = -(-len(keys) // columns)
    fig = Figure(figsize=(3.6 * columns, 3 * rows), layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    x = np.array(scores["horizons_s"])
    for ax, key in zip(axes, keys, strict=False):
        for name, each in candidates.items():
            value, low, high = np.array(each[key], float).T
            ax.plot(x, value, c=COLORS.get(name), marker="o", ms=3, lw=2 if name == "model" else 1, label=name)
            if name == "model":
                ax.fill_between(x, low, high, color=COLORS[name], alpha=0.2, lw=0)
        ax.set(xscale="log", title=SAID.get(key, key), xlabel="seconds ahead")
        ax.set_xticks(x, [f"{h:g}" for h in x])
        ax.set_xticks([], minor=True)
        if key.startswith("bits"):
            ax.set_ylim(bottom=max(-0.5, ax.get_ylim()[0]))
    for ax in axes[len(keys) :]:
        ax.set_axis_off()
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(candidates), fontsize=8)
    return fig


def forecast_charts(file: Path) -> dict[str, Any]:
    """The curves of ``forecast.json`` for the page, and its table by area; bits below -0.5 are cut off."""
    scores = json.loads(file.read_text())
    x = np.log10(scores["horizons_s"]).tolist()
    charts = []
    for key in scores["candidates"]["model"]:
        series = []
        for name, each in scores["candidates"].items():
            ends = [
                [-0.5 if v is not None and key.startswith("bits") and v < -0.5 else v for v in e] for e in each[key]
            ]
            value, low, high = (list(column) for column in zip(*ends, strict=True))
            one = {"name": name.replace("_", " "), "x": x, "y": value}
            series.append(one | ({"low": low, "high": high} if name == "model" and None not in low + high else {}))
        charts.append(
            {"name": SAID.get(key, key), "xlabel": "seconds ahead", "ylabel": "", "log": True, "series": series}
        )
    return {"charts": charts, "groups": _group_rows(scores)}


def _group_rows(scores: dict[str, Any]) -> dict[str, Any] | None:
    """How well the units of each area are predicted, beside their rate and Fano factor; None where units have no groups."""
    if not scores.get("groups"):
        return None
    head = ["units of", *GROUPS.values()]
    return {"head": head, "rows": [[row[key] for key in ("group", *GROUPS)] for row in scores["groups"]]}
