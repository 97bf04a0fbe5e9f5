"""Receptive fields and most exciting inputs: matplotlib axes, and a short animation over the frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from neuroformer.analysis.fields import energies
from neuroformer.analysis.maps import Map
from neuroformer.report.behavior import COLORS

SCALE = 8  # pixels of the animation for one of the frames


def receptive_fields(field: Map, centers: np.ndarray | None = None, num_units: int = 48) -> np.ndarray:
    """Small multiples of each unit's field, summed over lags, its centre marked; (panels,) matplotlib axes."""
    shown = energies(field)[:num_units]
    panels = _panels(len(shown))
    for u, (ax, energy) in enumerate(zip(panels, shown, strict=True)):
        ax.imshow(energy, cmap="magma", interpolation="nearest")
        if centers is not None:
            ax.plot(*centers[u], "+", c="white", ms=5, mew=0.8)
        ax.set_title(field.rows[u], fontsize=6, pad=2)
    return panels


def stimuli(contrast_UFHX: np.ndarray, unit_ids: list[str], num_units: int = 48) -> np.ndarray:
    """Small multiples of each unit's most exciting input, its frame of largest contrast; (panels,) matplotlib axes."""
    panels = _panels(min(num_units, len(contrast_UFHX)))
    for ax, clip, name in zip(panels, contrast_UFHX, unit_ids, strict=False):
        frame = clip[np.abs(clip).sum((1, 2)).argmax()]
        most = float(np.abs(frame).max()) or 1.0
        ax.imshow(frame, cmap="gray", vmin=-most, vmax=most, interpolation="nearest")
        ax.set_title(name, fontsize=6, pad=2)
    return panels


def _panels(count: int) -> np.ndarray:
    columns = min(12, max(1, count))
    rows = -(-count // columns)
    fig = Figure(figsize=(0.9 * columns, 1.05 * rows), layout="constrained")
    grid = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in grid:
        ax.set_axis_off()
    return grid[:count]


def figure_of(axes: Axes | np.ndarray) -> Figure:
    """The figure that axes lie in, to save or show it."""
    ax = axes if isinstance(axes, Axes) else np.ravel(axes)[0]
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def animation(
    path: Path, images_FHX: np.ndarray, field: Map, rate_FU: np.ndarray, period_s: float, num_units: int = 8
) -> None:
    """A GIF of frames with the outlines of the strongest fields, each as bright as its unit's predicted rate.

    Parameters
    ----------
    images_FHX : frames as they were shown
    field : receptive fields, on the pixels of the frames
    rate_FU : predicted rate of every unit at every frame
    """
    energy = energies(field)
    units = np.argsort(-energy.max((1, 2)))[:num_units]
    outlines = [_outline(energy[u]) for u in units]
    bright = rate_FU[:, units] / np.maximum(np.quantile(rate_FU[:, units], 0.99, axis=0), 1e-12)
    low, high = float(images_FHX.min()), float(images_FHX.max())
    colors = [np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)], float) for c in COLORS[: len(units)]]
    pages = []
    for image, level in zip(images_FHX, bright.clip(0, 1), strict=True):
        gray = (image.astype(np.float64) - low) / max(high - low, 1e-12) * 255
        page = np.repeat(np.repeat(gray, SCALE, 0), SCALE, 1)[..., None].repeat(3, 2)
        for outline, color, v in zip(outlines, colors, level, strict=False):
            page[outline] = (1 - v) * page[outline] + v * color
        pages.append(Image.fromarray(page.astype(np.uint8)))
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=max(20, round(1000 * period_s)), loop=0)


def _outline(energy: np.ndarray) -> np.ndarray:
    """(height, width) bool at the animation's scale: two pixels around where a field exceeds half its peak."""
    smooth = ndimage.gaussian_filter(energy, 1.0)
    large = np.asarray(ndimage.zoom(smooth, SCALE, order=1, grid_mode=True, mode="nearest"))
    inside = large >= 0.5 * large.max()
    return inside & ~ndimage.binary_erosion(inside, iterations=2)
