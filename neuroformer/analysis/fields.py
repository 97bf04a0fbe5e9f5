"""What a unit sees: receptive fields over the frames, by gradients and by occlusion, and where they lie.

Shape suffixes: W windows, G clips, F frames, H rows, X columns of an image, U units, V occluded copies.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from neuroformer.analysis.influence import LOG_ODDS, log_odds, log_rates, path, without
from neuroformer.analysis.maps import Map
from neuroformer.data.batch import Batch, Clips
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.model.network import Neuroformer


def frame_sensitivity(model: Neuroformer, prepared: Prepared, windows: Windows, *, batch_size: int = 64) -> Map:
    """Each unit's receptive field as the model sees it: mean squared gradient of its log-odds to every pixel.

    Squared, because a unit that follows the energy of its input has gradients of either sign. (units, pixels,
    lags):
    the lag runs back from the last frame that a window saw.
    """
    name, unit = "frame sensitivity", "root mean square of the gradient of log-odds"
    return _of_pixels(name, unit, model, prepared, windows, batch_size, [(1.0, 1.0)], False)


def frame_gradients(
    model: Neuroformer,
    prepared: Prepared,
    windows: Windows,
    *,
    steps: int = 1,
    batch_size: int = 64,
) -> Map:
    """Gradient x input (``steps`` 1) or integrated gradients (Sundararajan et al., ICML 2017) to every pixel.

    The baseline is a gray screen, the mean of the training frames; integrated gradients average the gradient at
    ``steps`` midpoints between it and what was shown. Values are root mean squares over windows, as attributions
    of either sign would cancel. (units, pixels, lags), as :func:`frame_sensitivity`.
    """
    name = "gradient x frame" if steps == 1 else "integrated gradients to frames"
    return _of_pixels(name, LOG_ODDS, model, prepared, windows, batch_size, path(steps), True)


def _of_pixels(
    name: str,
    unit: str,
    model: Neuroformer,
    prepared: Prepared,
    windows: Windows,
    batch_size: int,
    along: list[tuple[float, float]],
    times_input: bool,
) -> Map:
    """Root mean square over clips of gradients along a path from gray to the clip, times the clip if asked for."""
    frames = model.frames
    gray = frames.encoder.mean
    count, sums = 0, None
    for batch in prepared.batches(windows, batch_size, model.device):
        assert batch.clips is not None
        away = batch.clips.images_GFHW.to(model.first.dtype) - gray
        total = away.new_zeros(model.num_units, *away.shape)
        for alpha, share in along:
            images = (gray + alpha * away).requires_grad_()
            total += share * _slopes(model, batch, images)
        sums = _add(sums, (total * away if times_input else total).double().square().sum(1))
        count += len(away)
    assert sums is not None
    values = (sums / count).flip(1).flatten(2).transpose(1, 2).sqrt().cpu().numpy()
    lags = np.arange(values.shape[2]) * frames.period
    height, width = frame_size(prepared)
    ids, places = prepared.rec.unit_ids, _places(height, width)
    return Map(name, values, unit, ids, places, np.full((1, 1, 1), count), lags, (height, width))


def _slopes(model: Neuroformer, batch: Batch, images_GFHW: Tensor) -> Tensor:
    """(U, G, F, H, X) gradient of each unit's log-odds, mean over bins, to the clips."""
    assert batch.clips is not None
    clips = dataclasses.replace(batch.clips, images_GFHW=images_GFHW)
    score_U = log_odds(log_rates(model, dataclasses.replace(batch, clips=clips))).mean(1).sum(0)
    last = model.num_units - 1
    return torch.stack([torch.autograd.grad(s, images_GFHW, retain_graph=u < last)[0] for u, s in enumerate(score_U)])


def _add(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total + more


@torch.no_grad()
def occlusion(
    model: Neuroformer,
    prepared: Prepared,
    windows: Windows,
    *,
    patch: int = 1,
    batch_size: int = 16,
    copies: int = 512,
) -> Map:
    """Knock-out of a place: paint it gray in every frame of a clip; measure the change of every unit's log-odds.

    Gray is the mean of the training frames. A place is ``patch`` x ``patch`` pixels; only places that differ
    from the darkest image value are painted, as on a dark screen nothing can be taken away there. The value of
    (i, place) is the mean, over such occasions, of the log-odds that unit i fires in the window's first bin with
    the place shown minus without it: the causal map of the frames.
    """
    gray = float(model.frames.encoder.mean)
    height, width = frame_size(prepared)
    rows, columns = height // patch, width // patch
    device = model.device
    sums = torch.zeros(rows * columns, model.num_units, dtype=torch.float64, device=device)
    count = torch.zeros(rows * columns, dtype=torch.float64, device=device)
    frames = prepared.rec.frames
    dark = float(np.min(frames.images[:1])) if frames is not None else 0.0
    for batch in prepared.batches(windows, batch_size, device):
        base_WU = log_odds(log_rates(model, batch))[:, 0]
        window_V, place_V = _lit(batch, dark, patch, rows, columns)
        for which in torch.arange(len(window_V), device=device).split(copies):
            w, place = window_V[which], place_V[which]
            painted = _painted(batch, w, place, patch, columns, gray)
            change = base_WU[w] - log_odds(log_rates(model, painted))[:, 0]
            sums.index_add_(0, place, change.double())
            count.index_add_(0, place, torch.ones_like(place, dtype=torch.float64))
    values = torch.where(count[:, None] > 0, sums / count[:, None], torch.nan).T.cpu().numpy()
    return Map(
        "occlusion",
        values,
        LOG_ODDS,
        prepared.rec.unit_ids,
        _places(rows, columns),
        count[None].cpu().numpy(),
        None,
        (rows, columns),
    )


def _lit(batch: Batch, dark: float, patch: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Window and place wherever a place is not all dark."""
    assert batch.clips is not None
    bright = (batch.clips.images_GFHW != dark).any(1)[batch.clips.index_W]
    bright = bright[:, : rows * patch, : columns * patch]
    by_place = bright.unflatten(1, (rows, patch)).unflatten(3, (columns, patch)).any(4).any(2)
    found = torch.nonzero(by_place.flatten(1))
    return found[:, 0], found[:, 1]


def _painted(batch: Batch, window_V: Tensor, place_V: Tensor, patch: int, columns: int, gray: float) -> Batch:
    """Copies of windows, each with one place of its clip painted gray; current spikes are left out."""
    c = batch.clips
    assert c is not None
    images = c.images_GFHW[c.index_W[window_V]].to(torch.float32)
    for dy in range(patch):
        for dx in range(patch):
            at = torch.arange(len(images), device=images.device)
            images[at, :, place_V // columns * patch + dy, place_V % columns * patch + dx] = gray
    copies = without(batch, window_V, torch.full_like(window_V, -1))  # no unit is silent
    missing = c.num_missing_G[c.index_W[window_V]]
    own = torch.arange(len(images), device=images.device)
    return dataclasses.replace(copies, clips=Clips(images, missing, own, own, c.age_W[window_V]))


def frame_size(prepared: Prepared) -> tuple[int, int]:
    """Rows and columns of the recording's frames."""
    assert prepared.rec.frames is not None
    height, width = prepared.rec.frames.images.shape[1:3]
    return int(height), int(width)


def _places(height: int, width: int) -> list[str]:
    return [f"row {r}, column {c}" for r in range(height) for c in range(width)]


def centers(field: Map, smooth: float = 1.0) -> np.ndarray:
    """(units, 2: x, y) pixels: the centroid of what exceeds half the peak, around the peak.

    Squared values, summed over lags and smoothed by a Gaussian of ``smooth`` pixels, less their median: the
    noise far from a field is not zero.

    Raises
    ------
    ValueError
        A map that is not over frames.
    """
    if field.grid is None:
        raise ValueError(f"map '{field.name}' is not over the places of a frame; see frame_sensitivity")
    return np.array([_center(x, smooth) for x in energies(field)])


def energies(field: Map) -> np.ndarray:
    """(units, rows, columns) squared values summed over lags."""
    values = np.nan_to_num(np.asarray(field.values, np.float64))
    squared = values**2 if values.ndim == 2 else (values**2).sum(2)
    assert field.grid is not None
    return squared.reshape(-1, *field.grid)


def _center(energy: np.ndarray, smooth: float) -> tuple[float, float]:
    x = ndimage.gaussian_filter(energy, smooth)
    x = np.maximum(x - np.median(x), 0)
    label, _ = ndimage.label(x >= 0.5 * x.max())  # pyright: ignore[reportGeneralTypeIssues]
    inside = label == label[np.unravel_index(x.argmax(), x.shape)]
    row, column = np.ravel(ndimage.center_of_mass(np.where(inside, x, 0.0))).tolist()
    return column, row
