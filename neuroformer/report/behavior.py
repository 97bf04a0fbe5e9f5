"""Figures of decoding, as matplotlib figures; the caller saves or shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#999999",
    "#222222",
)  # Okabe and Ito


def fewshot_curve(rows: list[dict[str, Any]], name: str) -> Figure:
    """Score against labelled seconds, a line and a 95 % band a decoder; scores below -0.5 are cut off."""
    fig = Figure(figsize=(7, 4.5), layout="constrained")
    ax = fig.subplots()
    methods = list(dict.fromkeys(r["method"] for r in rows))
    for method, color in zip(methods, COLORS * len(methods), strict=False):
        mine = [r for r in rows if r["method"] == method]
        x, y, low, high = (np.array([r[k] for r in mine]) for k in ("seconds", "score", "low", "high"))
        ax.plot(x, y, c=color, marker="o", ms=3, lw=2 if method == "pretrained" else 1, label=method)
        ax.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
        ax.vlines(x, low, high, color=color, alpha=0.4, lw=1)  # a single amount has no band
    ax.set(xscale="log", xlabel="labelled seconds", ylabel=f"held-out score of {name}")
    amounts = sorted({r["seconds"] for r in rows})
    ax.set_xticks(amounts, [f"{s:.3g}" for s in amounts])
    ax.set_xticks([], minor=True)
    ax.set_ylim(bottom=max(-0.5, ax.get_ylim()[0]))
    ax.legend(fontsize=8)
    return fig


def embedding_scatter(low_VD: np.ndarray, values_V: np.ndarray, name: str) -> Figure:
    """The first two components of an embedding, coloured by a behavior variable; grey where it is missing."""
    fig = Figure(figsize=(6, 5), layout="constrained")
    ax = fig.subplots()
    known = np.isfinite(values_V)
    ax.scatter(low_VD[~known, 0], low_VD[~known, 1], s=3, c="#cccccc", lw=0)
    points = ax.scatter(low_VD[known, 0], low_VD[known, 1], s=4, c=values_V[known], cmap="viridis", lw=0)
    fig.colorbar(points, ax=ax, label=name)
    ax.set(xlabel="component 1", ylabel="component 2")
    return fig


def ablation_bars(rows: list[dict[str, Any]]) -> Figure:
    """What each score loses (or gains) without each part, with its paired 95 % interval; a panel a score."""
    rows = [r for r in rows if r["without"] != "full"]
    names = list(dict.fromkeys(r["measure"] for r in rows))
    parts = list(dict.fromkeys(r["without"] for r in rows))
    size = (3 * max(1, len(names)), 1.2 + 0.35 * len(parts))
    fig = Figure(figsize=size, layout="constrained")
    panels = fig.subplots(1, max(1, len(names)), sharey=True, squeeze=False)[0]
    for ax, name in zip(panels, names, strict=False):
        mine = [r for r in rows if r["measure"] == name]
        place = [parts.index(r["without"]) for r in mine]
        value, low, high = (np.array([r[k] for r in mine]) for k in ("minus", "minus_low", "minus_high"))
        ax.axvline(0, c="#999999", lw=1)
        ax.errorbar(value, place, xerr=[np.maximum(value - low, 0), np.maximum(high - value, 0)], fmt="o", c=COLORS[0])
        ax.set(title=name, xlabel="without it, minus full")
        ax.locator_params(axis="x", nbins=4)
    panels[0].set_yticks(range(len(parts)), [f"no {part}" for part in parts])
    panels[0].invert_yaxis()
    return fig


def error_by_value(
    true_VC: np.ndarray, error_by_decoder: dict[str, np.ndarray], name: str, columns: list[str], unit: str = ""
) -> Figure:
    """Absolute error against the true value, such as the position on a track: of one column the median in 20
    equal parts of the range, a line a decoder, and the model's quartiles; of two a map of the median a decoder. Further columns are not shown.

    Parameters
    ----------
    true_VC : (V, C); NaN where it is missing
    error_by_decoder : (V,) errors of each
    """
    known = np.isfinite(true_VC).all(1)
    true, errors = true_VC[known], {n: e[known] for n, e in error_by_decoder.items()}
    said = f"error ({unit})" if unit else "error"
    if true.shape[1] == 1:
        fig = Figure(figsize=(7, 4), layout="constrained")
        ax = fig.subplots()
        edges, cell = _cells(true[:, 0], 20)
        middle = (edges[1:] + edges[:-1]) / 2
        for (decoder, error), color in zip(errors.items(), COLORS, strict=False):
            low, median, high = (_quantiles(error, cell, len(middle), q) for q in (0.25, 0.5, 0.75))
            ax.plot(middle, median, c=color, marker="o", ms=3, label=decoder)
            if decoder == "model":  # of more than one they could not be told apart
                ax.fill_between(middle, low, high, color=color, alpha=0.2, lw=0)
        ax.set(xlabel=columns[0] if columns else name, ylabel=said, ylim=(0, None))
        ax.legend(fontsize=8)
        return fig
    fig = Figure(figsize=(4.2 * len(errors), 4), layout="constrained")
    panels = fig.subplots(1, len(errors), squeeze=False, sharex=True, sharey=True)[0]
    (x, cell_x), (y, cell_y) = (_cells(true[:, c], 20) for c in range(2))
    maps = [_quantiles(e, cell_x * 20 + cell_y, 400, 0.5).reshape(20, 20).T for e in errors.values()]
    top = max((float(np.nanmax(m)) for m in maps if np.isfinite(m).any()), default=1.0)
    for ax, decoder, shown in zip(panels, errors, maps, strict=True):
        mesh = ax.pcolormesh(x, y, shown, vmin=0, vmax=top, cmap="viridis")
        ax.set(title=decoder, xlabel=columns[0] if len(columns) > 1 else f"{name} 0")
    panels[0].set_ylabel(columns[1] if len(columns) > 1 else f"{name} 1")
    fig.colorbar(mesh, ax=panels, label=f"median {said}")
    return fig


def median_by_value(true_V: np.ndarray, error_V: np.ndarray, number: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """(number,) middles of equal parts of the range of a value, and the median error in each; NaN in parts without three."""
    known = np.isfinite(true_V) & np.isfinite(error_V)
    edges, cell = _cells(true_V[known], number)
    return (edges[1:] + edges[:-1]) / 2, _quantiles(error_V[known], cell, number, 0.5)


def _cells(x_V: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges of equal parts of the range, and the part of each value."""
    low, high = (float(x_V.min()), float(x_V.max())) if len(x_V) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, number + 1)
    return edges, np.clip(np.searchsorted(edges, x_V, side="right") - 1, 0, number - 1)


def _quantiles(error_V: np.ndarray, cell_V: np.ndarray, number: int, quantile: float) -> np.ndarray:
    """(number,) quantile of the errors in each cell; NaN in cells without three."""
    parts = (error_V[cell_V == c] for c in range(number))
    return np.array([np.quantile(part, quantile) if len(part) > 2 else np.nan for part in parts])
