"""The figure with which each thing shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from neuroformer.report import figures
from neuroformer.report.behavior import fewshot_curve
from neuroformer.report.comparison import layers_figure
from neuroformer.report.fields import figure_of, stimuli
from neuroformer.report.figures import MODEL, OTHER, TRUE
from neuroformer.report.forecast import forecast_curves
from neuroformer.report.notebook import matrix

MOST_S, MOST_SPIKES = 20.0, 20_000  # of a raster


def picture(what: Any) -> Figure | None:
    """The figure of a recording, audit, run, map, decoding or comparison; None where there is nothing to draw."""
    for kind in type(what).__mro__:
        draw = PICTURES.get(f"{kind.__module__}.{kind.__qualname__}")
        if draw is not None:
            return draw(what)
    return None


def recording(rec) -> Figure:
    """Spikes of a first stretch, the units in order of their rate, and the behavior variables under them."""
    start = float(rec.domain[0, 0])
    stop = min(start + MOST_S, float(rec.domain[0, 1]))
    lo, hi = np.searchsorted(rec.spike_times, [start, stop])
    if hi - lo > MOST_SPIKES:
        hi = lo + MOST_SPIKES
        stop = float(rec.spike_times[hi])
    names = list(rec.behavior)[:3]
    fig = Figure(figsize=(8, 2.8 + 0.9 * len(names)), layout="constrained")
    axes = fig.subplots(1 + len(names), 1, sharex=True, squeeze=False, height_ratios=[3] + [1] * len(names))[:, 0]
    place = np.argsort(np.argsort(rec.rates()))
    axes[0].scatter(rec.spike_times[lo:hi], place[rec.spike_units[lo:hi]], s=4, marker="|", c=TRUE, linewidths=0.6)
    axes[0].set(ylabel="unit, by rate", xlim=(start, stop), ylim=(-1, rec.num_units), title=rec.name)
    for ax, name in zip(axes[1:], names, strict=True):
        variable = rec.behavior[name]
        a, b = np.searchsorted(variable.times, [start, stop])
        ax.plot(variable.times[a:b], variable.values[a:b, :4], lw=0.9)
        ax.set_ylabel(f"{name}\n({variable.unit})" if variable.unit else name)
    axes[-1].set_xlabel("time (s)")
    return fig


def bundle(found) -> Figure | None:
    return _learning(found.path)


def trained(found) -> Figure | None:
    return _learning(found.folder)


def _learning(folder: Path) -> Figure | None:
    log = folder / "log" / "metrics.csv"
    return figures.learning_curve(log) if log.exists() else None


def simulator(found) -> Figure:
    return prepared(found.prepared)


def exciting(found) -> Figure:
    return figure_of(stimuli(found.contrast, [str(u) for u in range(len(found.contrast))]))


def prepared(p) -> Figure:
    """The split, one line for each part."""
    fig = Figure(figsize=(8, 1.4), layout="constrained")
    ax = fig.subplots()
    for part, color in (("train", TRUE), ("valid", OTHER), ("test", MODEL)):
        ax.broken_barh([(a, b - a) for a, b in p.split.intervals(part)], (0, 1), color=color, lw=0, label=part)
    ax.set(yticks=[], xlabel="time (s); white is in no part")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    return fig


def a_map(found) -> Figure:
    return matrix(found).figure  # pyright: ignore[reportReturnType]


def attended(found) -> Figure | None:
    """The first maps side by side: knock-out, and what it stands beside."""
    square = [m for m in found.maps if m.square][:3]
    if not square:
        return None
    fig = Figure(figsize=(4.2 * len(square), 3.6), layout="constrained")
    for one, ax in zip(square, fig.subplots(1, len(square), squeeze=False)[0], strict=True):
        matrix(one, ax=ax)
    return fig


def decoded(found) -> Figure:
    d, target = found.decoded, found.target
    beside = {k: v for k, v in d.predicted.items() if k in ("model", "ridge")}
    columns = [f"{d.name} ({d.unit})" if d.unit else d.name] if d.true_VC.shape[1] == 1 else []
    return figures.decode_trace(d.times, d.true_VC, beside, d.name, columns, period=target.period)


def few_labels(found) -> Figure:
    return fewshot_curve(found.rows(), found.target.name)


def rate_changes(found) -> Figure:
    """Every unit's change with its interval, sorted."""
    order = np.argsort(found.change_U)
    fig = Figure(figsize=(8, 3), layout="constrained")
    ax = fig.subplots()
    ends = np.stack([found.change_U - found.low_U, found.high_U - found.change_U])[:, order]
    ax.errorbar(
        np.arange(len(order)), found.change_U[order], np.nan_to_num(ends), fmt=".", c=MODEL, ecolor="0.6", lw=0.8
    )
    ax.axhline(0, c=TRUE, lw=0.8)
    ax.set(xlabel="unit, by change", ylabel="change of rate (Hz)")
    return fig


def compared(found) -> Figure | None:
    return layers_figure(found.as_dict()) if any(s.units == "all" for s in found.scores) else None


def forecasts(found) -> Figure:
    return forecast_curves(found.scores)


# by name, since some of these lie beside the report and none may load it
PICTURES: dict[str, Callable[[Any], Figure | None]] = {
    "neuroformer.recording.recording.Recording": recording,
    "neuroformer.audit.findings.Audit": figures.audit_overview,
    "neuroformer.data.prepared.Prepared": prepared,
    "neuroformer.bundle.bundle.Bundle": bundle,
    "neuroformer.analysis.maps.Map": a_map,
    "neuroformer.analysis.attend.Attended": attended,
    "neuroformer.runs.Trained": trained,
    "neuroformer.simulator.Simulator": simulator,
    "neuroformer.analysis.mei.MostExciting": exciting,
    "neuroformer.runs.DecodedTarget": decoded,
    "neuroformer.studies.fewshot.FewShot": few_labels,
    "neuroformer.studies.forecast.Forecast": forecasts,
    "neuroformer.comparison.compare.Comparison": compared,
    "neuroformer.simulation_scores.whatif.RateChanges": rate_changes,
}
