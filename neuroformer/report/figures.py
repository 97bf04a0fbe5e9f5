"""Figures of a run, as matplotlib figures; the caller saves or shows them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from neuroformer.audit import Audit
from neuroformer.recording import Recording
from neuroformer.simulation_scores.psth import WIDTH_S, PsthComparison

TRUE, MODEL, OTHER = "#222222", "#0072B2", "#D55E00"  # Okabe and Ito's colours


def rasters(rec: Recording, simulated: Recording, sequence: int = 0, max_s: float = 20.0) -> Figure:
    """One simulated trial under the recorded one, the same units in the same order."""
    start, stop = simulated.trial_intervals[sequence]
    source = float(simulated.trials["source_start"][sequence])
    length = min(stop - start, max_s)
    fig = Figure(figsize=(9, 6), layout="constrained")
    axes = fig.subplots(2, 1, sharex=True, sharey=True)
    order = np.argsort(np.argsort(-rec.rates()))
    for ax, r, t0, title, color in (
        (axes[0], rec, source, "recorded", TRUE),
        (axes[1], simulated, start, "simulated, closed loop", MODEL),
    ):
        inside = (r.spike_times >= t0) & (r.spike_times < t0 + length)
        ax.scatter(r.spike_times[inside] - t0, order[r.spike_units[inside]], s=3, marker="|", c=color, linewidths=0.7)
        ax.set(title=title, ylabel="unit (by rate)", xlim=(0, length), ylim=(-1, rec.num_units))
    axes[1].set_xlabel(f"time from {source:g} s of the recording (s)")
    return fig


def psths(comparison: PsthComparison, unit_ids: list[str], num_units: int = 6) -> Figure:
    """PSTHs of the most active units: held-out data and simulation."""
    units = np.argsort(-np.nanmean(comparison.held_out_BU, 0))[:num_units]
    fig = Figure(figsize=(10, 1.6 * len(units)), layout="constrained")
    axes = fig.subplots(len(units), 1, sharex=True, squeeze=False)[:, 0]
    time = np.arange(len(comparison.held_out_BU)) * WIDTH_S
    show = slice(0, 400)
    lines = (
        (comparison.held_out_BU, TRUE, f"held out ({comparison.num_held_out})"),
        (comparison.simulated_BU, MODEL, f"simulated ({comparison.num_simulated})"),
    )
    for ax, u in zip(axes, units, strict=True):
        for rate_BU, color, label in lines:
            ax.plot(time[show], rate_BU[show, u], c=color, lw=1, label=label)
        for end in np.cumsum(comparison.num_bins)[:-1]:
            if end < show.stop:
                ax.axvline((end - 0.5) * WIDTH_S, c="0.5", lw=0.8, ls=":")
        ax.set_ylabel(f"unit {unit_ids[u]}\n(Hz)")
    axes[0].legend(loc="upper right", ncols=2, fontsize=8)
    axes[0].set_title(f"PSTH r {comparison.r:.2f}, ceiling {comparison.ceiling:.2f} (median over all units)")
    several = len(comparison.num_bins) > 1
    axes[-1].set_xlabel("time (s), one stimulus after another" if several else "time in the stimulus (s)")
    return fig


def decode_trace(
    times: np.ndarray,
    true_WC: np.ndarray,
    predicted: dict[str, np.ndarray],
    name: str,
    columns: list[str],
    max_s: float = 60.0,
    period: float = 0.0,
) -> Figure:
    """True and decoded values along the first stretch of the held-out windows; a circle of ``period`` is cut where it turns
    over."""
    stop = np.searchsorted(times, times[0] + max_s)
    t = times[:stop]
    apart = np.diff(t) > 2 * np.median(np.diff(times))

    def line(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Times and values, cut at gaps and where a circle turns over."""
        x = x[:stop].astype(float)
        breaks = np.flatnonzero(apart | (np.abs(np.diff(x)) > period / 2) if period else apart) + 1
        return np.insert(t, breaks, np.nan), np.insert(x, breaks, np.nan)

    mark = {"marker": ".", "ms": 2} if period else {}  # a value may stand alone between two turns
    fig = Figure(figsize=(10, 2.2 * true_WC.shape[1]), layout="constrained")
    axes = fig.subplots(true_WC.shape[1], 1, sharex=True, squeeze=False)[:, 0]
    for c, ax in enumerate(axes):
        ax.plot(*line(true_WC[:, c]), c=TRUE, lw=1.2, label="recorded", **mark)
        for (label, values), color in zip(predicted.items(), (MODEL, OTHER), strict=False):
            ax.plot(*line(values[:, c]), c=color, lw=1, label=label, **mark)
        ax.set_ylabel(columns[c] if len(columns) == len(axes) else f"{name} {c}")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=8)
    axes[-1].set_xlabel("time (s)")
    return fig


def decoded_frames(
    true_VC: np.ndarray, predicted: dict[str, np.ndarray], shape: tuple[int, int], number: int = 10
) -> Figure:
    """Frames as they were shown and as they were decoded, evenly spread over the held-out part, each on its own gray scale."""
    rows = {"shown": true_VC, **predicted}
    which = np.linspace(0, len(true_VC) - 1, min(number, len(true_VC))).astype(int)
    fig = Figure(figsize=(0.9 * len(which), 0.95 * len(rows)), layout="constrained")
    for line, (name, values) in zip(fig.subplots(len(rows), len(which), squeeze=False), rows.items(), strict=True):
        for ax, v in zip(line, which, strict=True):
            ax.imshow(values[v].reshape(shape), cmap="gray")
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=7)
    return fig


def adapting(points: Sequence[Any]) -> Figure:
    """Held-out bits against seconds of a new animal, a line for each way of training
    (:func:`neuroformer.studies.adapting.adapting_curve`)."""
    fig = Figure(figsize=(6, 4), layout="constrained")
    axes = fig.subplots()
    for way in dict.fromkeys(p.way for p in points):
        mine = [p for p in points if p.way == way]
        x, y = np.array([p.seconds for p in mine]), np.array([p.bits for p in mine])
        around = np.abs(np.array([[p.low, p.high] for p in mine]).T - y)
        axes.errorbar(x, y, yerr=np.nan_to_num(around), marker="o", ms=3, capsize=2, label=way)
    axes.set(xscale="log", xlabel="seconds of the new recording", ylabel="held-out bits, 95 % interval")
    axes.legend(fontsize=8)
    return fig


def learning_curve(log: Path) -> Figure:
    """Training loss terms and validation bits/spike from a run's ``metrics.csv``."""
    with open(log) as f:
        rows = list(csv.DictReader(f))
    fig = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = fig.subplots(1, 2)
    for key in [k for k in rows[0] if k.startswith("train/") and k != "train/loss"]:
        points = np.array([(int(r["step"]) + 1, float(r[key])) for r in rows if r[key]])
        left.plot(points[:, 0], points[:, 1], lw=0.9, label=key.removeprefix("train/"))
    left.set(xlabel="step", ylabel="training loss term, unweighted")
    left.legend(fontsize=8)
    drawn = (
        ("valid/bits_per_spike", MODEL),
        ("valid/bits_per_spike_rate_readout", OTHER),
        ("valid/bits_per_sample", MODEL),
    )
    for key, color in drawn:
        points = [(int(r["step"]) + 1, float(r[key])) for r in rows if r.get(key)]
        if points:
            x, y = np.array(points).T
            right.plot(x, y, c=color, marker="o", ms=3, label=key.removeprefix("valid/"))
    right.set(xlabel="step", ylabel="validation bits")
    right.legend(fontsize=8)
    return fig


def audit_overview(audit: Audit) -> Figure:
    """Rates over time, the split as a strip under them, and how many tokens a window holds."""
    fig = Figure(figsize=(10, 5.5), layout="constrained")
    rates, strip, tokens = fig.subplots(3, 1, height_ratios=(2, 0.7, 2))
    rates.plot(audit.series["rate_times"], audit.series["rates"], c=TRUE, lw=0.9)
    rates.set(ylabel="population rate (Hz)", title=f"{audit.recording}", ylim=(0, None))
    for part, color in (("train", TRUE), ("valid", OTHER), ("test", MODEL)):
        blocks = audit.series.get(f"split_{part}", np.zeros((0, 2)))
        if len(blocks):
            spans = [(a, b - a) for a, b in blocks]
            strip.broken_barh(spans, (0, 1), color=color, lw=0, label=part)
    if strip.collections:
        strip.legend(loc="upper left", bbox_to_anchor=(1.0, 1.1), fontsize=8, frameon=False)
    strip.set(xlim=rates.get_xlim(), yticks=[], ylabel="split", xlabel="time (s); white is in no part")
    counts = audit.series["tokens"]
    if len(counts):
        tokens.hist(counts, bins=np.arange(-0.5, counts.max() + 1.5), color=MODEL)
        tokens.axvline(float(np.quantile(counts, 0.99)), c=OTHER, lw=1, label="99 %")
        tokens.legend(fontsize=8)
    tokens.set(xlabel="spikes in a window", ylabel="windows")
    return fig
