"""One panel that says how good a simulation is."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from neuroformer.report.figures import MODEL, OTHER, TRUE
from neuroformer.simulation_scores.statistics import SPECTRUM_S, Statistics, pair_correlations, unit_rates
from neuroformer.simulation_scores.trials import Trials

COLORS = {
    "model": MODEL,
    "true_past": "#56B4E9",
    "ceiling": TRUE,
    "psth_poisson": OTHER,
    "homogeneous": "#999999",
    "readout": "#CC79A7",
    "stimulus": "#F0E442",
}
BARS = ("rate_r", "psth_r", "pair_r", "lagged_r", "classifier")


def simulation_panel(scores: dict[str, Any], simulated: Trials, held_out: Trials) -> Figure:
    """Rates, pair correlations, population spectrum, drift since the loop closed, and the scores side by side.

    Parameters
    ----------
    scores : from :func:`neuroformer.simulation_scores.scores.score_simulation`
    simulated, held_out : what it was given
    """
    fig = Figure(figsize=(12, 7), layout="constrained")
    axes = fig.subplots(2, 3)
    most = np.sort(np.argsort(-np.bincount(held_out.unit, minlength=held_out.num_units))[:100])
    a, b = (Statistics.of(t, most).total() for t in (simulated, held_out))
    _scatter(axes[0, 0], unit_rates(b), unit_rates(a), "rate of a unit (Hz)")
    axes[0, 0].set(xscale="log", yscale="log")
    for axis in (axes[0, 0].xaxis, axes[0, 0].yaxis):
        axis.set_minor_formatter(NullFormatter())
    pairs = np.triu_indices(len(most), 1)
    _scatter(axes[0, 1], pair_correlations(b)[pairs], pair_correlations(a)[pairs], "correlation of a pair")
    _spectra(axes[0, 2], {"recorded": (b, TRUE), "simulated": (a, MODEL)})
    drift = scores["since_closed"]
    for ax, key in ((axes[1, 0], "rate_ratio"), (axes[1, 1], "psth_r" if "psth_r" in drift else "rate_r")):
        for prefix, name in (("", "model"), ("true_past_", "true_past"), ("ceiling_", "ceiling")):
            if prefix + key in drift:
                ax.plot(drift["start_s"], drift[prefix + key], marker="o", ms=3, c=COLORS[name], label=name)
        ax.set(xlabel="seconds since the loop closed", ylabel=key)
        if ax.has_data() and drift["start_s"]:
            ax.legend(fontsize=8)
    axes[1, 0].axhline(1, c=TRUE, lw=0.8, ls=":")
    _bars(axes[1, 2], scores["candidates"])
    return fig


def _scatter(ax: Axes, x: np.ndarray, y: np.ndarray, what: str) -> None:
    ax.scatter(x, y, s=6, c=MODEL, alpha=0.6, linewidths=0)
    low, high = np.nanmin([x, y]), np.nanmax([x, y])
    ax.plot([low, high], [low, high], c=TRUE, lw=0.8, ls=":")
    ax.set(xlabel=f"recorded: {what}", ylabel="simulated")


def _spectra(ax: Axes, sides: dict[str, tuple[Statistics, str]]) -> None:
    for label, (s, color) in sides.items():
        if s.spectra_T[0]:
            power = s.spectrum_TQ[0] / s.spectra_T[0]
            ax.loglog(np.arange(1, len(power) + 1) / SPECTRUM_S, power, c=color, lw=1, label=label)
    ax.set(xlabel="frequency (Hz)", ylabel="power of the population count")
    if ax.has_data():
        ax.legend(fontsize=8)


def _bars(ax: Axes, candidates: dict[str, dict[str, list[float]]]) -> None:
    candidates = {name: values for name, values in candidates.items() if BARS[0] in values}
    keys = [k for k in BARS if any(k in values for values in candidates.values())]
    width = 0.8 / len(candidates)
    for i, (name, values) in enumerate(candidates.items()):
        for k, key in enumerate(keys):
            value, low, high = values.get(key, [np.nan] * 3)
            place = k + (i - (len(candidates) - 1) / 2) * width
            ax.bar(place, value, width, color=COLORS[name], label=name if k == 0 else None)
            if np.isfinite(low):
                ax.plot([place, place], [low, high], c="k", lw=0.8)
    ax.set_xticks(range(len(keys)), [k.replace("_", " ") for k in keys], fontsize=8)
    ax.set_title("classifier: 0.5 is perfect", fontsize=8)
    ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
