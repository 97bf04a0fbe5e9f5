"""The design matrix of the GLM baselines: spike history, behavior inputs and frames, bin by bin.

Shape suffixes: W windows, B bins a window, R = W * B rows, L bins back, K basis functions, U units,
F features, P pixels, Q components of one image, N frames a clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from neuroformer.config import Config
from neuroformer.data.splits import Split
from neuroformer.data.windows import NANOSECONDS, SpikeIndex, Windows, WindowShape, nanoseconds, tile
from neuroformer.recording import FrameSeries, Recording

Variant = Literal["past", "every"]
_CHUNK = 2048  # windows at once
_PCA_IMAGES = 1500  # images and clips that components are learnt from
_IMAGE_COMPONENTS = 96


@dataclass(frozen=True)
class Choice:
    """What validation chooses.

    Attributes
    ----------
    history : features are filtered counts, or their square roots (which a burst does not blow up)
    num_basis : raised cosines of history a unit
    reach : share of ``window.past`` that they span
    harmonics : of every Fourier input
    components : of the clip that ends with a bin
    squares : also squared components and squared linear inputs
    input_penalty : penalty of inputs and frames relative to that of history
    penalty : inverse prior variance of a standardised history weight
    """

    history: Literal["counts", "sqrt"] = "sqrt"
    num_basis: int = 3
    reach: float = 1.0
    harmonics: int = 48
    components: int = 32
    squares: bool = True
    input_penalty: float = 0.1
    penalty: float = 1000.0


class History:
    """Counts on one line, each segment after `past` empty bins, so that no window reads its neighbour."""

    def __init__(self, index: SpikeIndex, shape: WindowShape):
        pad = shape.past
        self.shape = shape
        self.base = index.base + pad * np.arange(1, len(index.base) + 1)
        rows = index.total_ticks + pad * len(index.base)
        at = index.keys + pad * (np.searchsorted(index.base, index.keys, side="right"))
        flat = np.bincount(at * index.num_units + index.unit, minlength=rows * index.num_units)
        self.counts = torch.from_numpy(flat.reshape(rows, index.num_units).astype(np.float32))

    def current(self, windows: Windows) -> Tensor:
        """(R, U) counts of the windows' own bins."""
        start = torch.from_numpy(self.base[windows.segment] + windows.tick)
        return self.counts[start[:, None] + torch.arange(self.shape.current)].flatten(0, 1)

    def features(self, windows: Windows, filters_LBK: Tensor) -> Tensor:
        """(R, U * K) counts of ``[t - past, t + current)`` under the filters of each bin."""
        length, bins, num_basis = filters_LBK.shape
        flat = filters_LBK.flatten(1)
        start = torch.from_numpy(self.base[windows.segment] + windows.tick - self.shape.past)
        out = []
        for part in start.split(_CHUNK):
            seen = self.counts[part[:, None] + torch.arange(length)]
            x = (seen.transpose(1, 2) @ flat).unflatten(2, (bins, num_basis))
            out.append(x.transpose(1, 2).flatten(2).flatten(0, 1))
        return torch.cat(out) if out else torch.zeros(0, self.counts.shape[1] * num_basis)


def raised_cosines(num_lags: int, num_basis: int) -> np.ndarray:
    """(num_lags, num_basis) bumps over lags 1 to num_lags, evenly spaced in log lag, each summing to 1.

    After Pillow et al., Nature 2008, methods. As many functions as lags are the lags themselves; a bump so
    narrow that it falls between two lags is left out.
    """
    if num_basis >= num_lags:
        return np.eye(num_lags)
    x = np.log(np.arange(1, num_lags + 1) + 1.0)
    centres = np.linspace(x[0], x[-1], num_basis) if num_basis > 1 else x[:1]
    width = centres[1] - centres[0] if num_basis > 1 else x[-1] - x[0] + 1e-9
    distance = np.abs(x[:, None] - centres) / width
    bumps = np.where(distance < 1, 0.5 * (1 + np.cos(np.pi * distance)), 0.0)
    bumps = bumps[:, bumps.sum(0) > 1e-9]
    return bumps / bumps.sum(0)


def history_filters(shape: WindowShape, choice: Choice, variant: Variant) -> Tensor:
    """(L, B, K): weight of each bin of ``[t - past, t + current)`` in the features of each current bin.

    The basis is evaluated at the distance to the predicted bin. ``past`` zeroes the bins from t on, ``every``
    those from the predicted one on.
    """
    length, bins = shape.past + shape.current, shape.current
    num_lags = max(1, round(choice.reach * shape.past)) + bins - 1
    basis = raised_cosines(num_lags, choice.num_basis)
    place, bin_ = np.arange(length)[:, None], np.arange(bins)
    lag = shape.past + bin_ - place
    seen = (lag >= 1) & (lag <= num_lags)
    if variant == "past":
        seen &= place < shape.past
    filters = np.where(seen[..., None], basis[np.clip(lag - 1, 0, num_lags - 1)], 0.0)
    return torch.from_numpy(filters.astype(np.float32))


class ClipComponents:
    """Principal components of the clip of frames on screen up to a bin's end.

    Learnt from training clips in two steps: components of single images, then of their sequence. A bin sees
    the frames whose onset lies before its end and not before the window's own first frame; frames that were
    not shown count as the mean image.

    Parameters
    ----------
    rec, split, index, config, normalization : as for the model
    most : int
        Components to keep.
    """

    def __init__(self, frames: FrameSeries, split: Split, index: SpikeIndex, config: Config, count, most: int):
        self.frames, self.index, self.window, self.count = frames, index, config.window, count
        self.shape = WindowShape.from_config(config)
        self._frame_ns = nanoseconds(frames.times)
        windows = tile(split.blocks["train"], self.shape)
        windows = windows[_evenly(len(windows), _PCA_IMAGES)]
        self._image_scores = self._learn_images(windows, min(_IMAGE_COMPONENTS, most))
        clips_RF = self._clips(windows)
        mean = clips_RF.mean(0)
        _, s, v = torch.linalg.svd(clips_RF - mean, full_matrices=False)
        keep = int((s[:most] > 1e-4 * s[:1]).sum())
        spread = s[:keep] / len(clips_RF) ** 0.5
        self._project, self._mean = v[:keep].T / spread, mean

    def __call__(self, windows: Windows, components: int) -> Tensor:
        """(R, components) of unit variance over training clips."""
        parts = [
            (self._clips(windows[i : i + _CHUNK]) - self._mean) @ self._project[:, :components]
            for i in range(0, len(windows), _CHUNK)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, self._project[:, :components].shape[1])

    def _learn_images(self, windows: Windows, most: int) -> Tensor:
        """(images + 1, Q) scores of every image of the bank; the last row, zeros, is a frame not shown."""
        bank, used = self.frames.images, self._shown(windows)
        used = np.unique(used[used >= 0])
        sample = torch.from_numpy(np.asarray(bank[used[_evenly(len(used), _PCA_IMAGES)]], np.float32)).flatten(1)
        mean = sample.mean(0)
        values, vectors = torch.linalg.eigh(((sample - mean) @ (sample - mean).T).double())
        keep = values.flip(0)[:most] > 1e-6 * values[-1]
        basis_PQ = (sample - mean).T @ vectors.flip(1)[:, :most][:, keep].float()
        basis_PQ = basis_PQ / basis_PQ.norm(dim=0)
        scores = [
            (torch.from_numpy(np.asarray(bank[part], np.float32)).flatten(1) - mean) @ basis_PQ
            for part in np.array_split(np.arange(len(bank)), max(1, len(bank) // _CHUNK))
        ]
        return torch.cat([*scores, torch.zeros(1, basis_PQ.shape[1])])

    def _clips(self, windows: Windows) -> Tensor:
        """(R, N * Q) image scores, oldest frame first."""
        return self._image_scores[torch.from_numpy(self._shown(windows))].flatten(1)

    def _shown(self, windows: Windows) -> np.ndarray:
        """(R, N) image of each frame of each bin's clip, -1 where none was shown."""
        dt_ns = int(nanoseconds(self.index.dt))
        origin = nanoseconds(self.index.origins)[windows.segment]
        start = origin + windows.tick * dt_ns
        ends = start[:, None] + (np.arange(self.shape.current) + 1) * dt_ns
        limit = ends[:, -1] if self.window.frames_until == "stop" else start
        ends = np.minimum(ends, limit[:, None])
        first = np.maximum(limit - nanoseconds(self.window.frames), origin)
        last = np.searchsorted(self._frame_ns, ends.ravel(), side="left") - 1
        place = last[:, None] + np.arange(1 - self.count, 1)
        there = (place >= 0) & (self._frame_ns[np.maximum(place, 0)] >= first.repeat(ends.shape[1])[:, None])
        return np.where(there, self.frames.index[np.maximum(place, 0)], -1)


class Design:
    """Rows of features for windows, given a choice; every row is one bin of one window.

    Parameters
    ----------
    rec, split, index, config, normalization : as for the model
    variant : what of the spikes a bin sees
    most_components : components of frames that a choice may ask for
    """

    def __init__(
        self,
        rec: Recording,
        split: Split,
        index: SpikeIndex,
        config: Config,
        normalization: dict[str, Any],
        variant: Variant,
        most_components: int,
    ):
        self.index, self.config = index, config
        self.variant: Variant = variant
        self.shape = WindowShape.from_config(config)
        self.history = History(index, self.shape)
        self.inputs = [(v, rec.variable(v.name), normalization["inputs"][v.name]) for v in config.inputs]
        self.clips = None
        if config.window.frames > 0 and rec.frames is not None:
            count = normalization["frames"]["count"]
            self.clips = ClipComponents(rec.frames, split, index, config, count, most_components)

    @property
    def has_fourier(self) -> bool:
        return any(v.encoding == "fourier" for v, _, _ in self.inputs)

    @property
    def has_linear(self) -> bool:
        return any(v.encoding == "linear" for v, _, _ in self.inputs)

    def blocks(self, windows: Windows, choice: Choice, index: SpikeIndex | None) -> Iterator[tuple[float, Tensor]]:
        """Relative penalty and (R, features) of each kind of feature.

        ``index`` replaces the recording's spikes.
        """
        if self.shape.past > 0 or (self.variant == "every" and self.shape.current > 1):
            history = self.history if index is None else History(index, self.shape)
            x = history.features(windows, history_filters(self.shape, choice, self.variant))
            yield 1.0, x.clamp_min(0).sqrt() if choice.history == "sqrt" else x
        if self.variant == "past":
            # how much of a bin's history is hidden depends on its place in the window
            yield choice.input_penalty, torch.eye(self.shape.current).repeat(len(windows), 1)
        for x in self._inputs(windows, choice):
            yield choice.input_penalty, x
        if self.clips is not None:
            x = self.clips(windows, choice.components)
            yield choice.input_penalty, torch.cat([x, x**2], 1) if choice.squares else x

    def _inputs(self, windows: Windows, choice: Choice) -> Iterator[Tensor]:
        """Inputs at each bin's centre: the last sample known then; the mean where there is none."""
        centre = (np.arange(self.shape.current) + 0.5) * float(nanoseconds(self.index.dt)) / NANOSECONDS
        at = (windows.starts(self.index)[:, None] + centre).ravel()
        for v, variable, scale in self.inputs:
            values = variable.hold(at).astype(np.float64)
            low, high = np.array(scale["low"]), np.array(scale["high"])
            if v.encoding == "fourier":
                period = np.full(len(low), v.period) if v.period > 0 else np.where(high > low, high - low, 1.0)
                phase = 2 * np.pi * values[:, :, None] / period[:, None] * np.arange(1, choice.harmonics + 1)
                x = np.concatenate([np.sin(phase), np.cos(phase)], 2).reshape(len(at), -1)
            else:
                x = (values - np.array(scale["mean"])) / np.array(scale["std"])
                x = np.concatenate([x, x**2], 1) if choice.squares else x
            yield torch.from_numpy(np.nan_to_num(x).astype(np.float32))


def _evenly(size: int, most: int) -> np.ndarray:
    """At most so many places, spread evenly."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64)) if size else np.zeros(0, np.int64)
