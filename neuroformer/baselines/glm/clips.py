"""What a GLM sees of the frames on screen: principal components of their pixels, or of their energies.

Shape suffixes: W windows, R rows (bins of windows), P pixels, Q components of one image, K components of energies, N frames
per clip.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuroformer.baselines.energy.components import energy_components
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows, nanoseconds

_CHUNK = 2048  # windows at once
_PCA_IMAGES = 1500  # images and clips that components are learnt from
_IMAGE_COMPONENTS = 96
_PIXELS = 50_000_000  # of images in memory at once
_SCORES = 60_000_000  # of all images; a longer bank of images has fewer components
_KEPT = 2**26  # components of windows that are kept


class ClipComponents:
    """Principal components of the clip of frames on screen up to a bin's end.

    Learnt from training clips in two steps: components of single images, then of their sequence. A bin sees
    the frames whose onset lies before its end and not before the window's own first frame; frames that were
    not shown count as the mean image.

    Parameters
    ----------
    prepared : a recording with frames
    most : components to keep
    """

    def __init__(self, prepared: Prepared, most: int):
        assert prepared.rec.frames is not None
        self.frames, self.index, self.window = prepared.rec.frames, prepared.index, prepared.config.window
        scale = prepared.normalization.frames
        assert scale is not None
        self.count, self.shape = scale.count, prepared.builder.shape
        self._frame_ns = nanoseconds(self.frames.times)
        windows = prepared.windows("train")
        windows = windows[_evenly(len(windows), _PCA_IMAGES)]
        affordable = max(1, _SCORES // max(1, len(self.frames.images)))
        self._image_scores = self._learn_images(windows, min(_IMAGE_COMPONENTS, most, affordable))
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
        at_once = max(16, _PIXELS // int(np.prod(bank.shape[1:])))
        sample = used[_evenly(len(used), min(_PCA_IMAGES, at_once))]
        sample = torch.from_numpy(np.asarray(bank[sample], np.float32)).flatten(1)
        mean = sample.mean(0)
        values, vectors = torch.linalg.eigh(((sample - mean) @ (sample - mean).T).double())
        keep = values.flip(0)[:most] > 1e-6 * values[-1]
        basis_PQ = (sample - mean).T @ vectors.flip(1)[:, :most][:, keep].float()
        basis_PQ = basis_PQ / basis_PQ.norm(dim=0)
        scores = [
            (torch.from_numpy(np.asarray(bank[part], np.float32)).flatten(1) - mean) @ basis_PQ
            for part in np.array_split(np.arange(len(bank)), -(-len(bank) // at_once))
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


class ClipEnergies:
    """Components of the energies of windows' clips, :class:`~neuroformer.baselines.energy.components.EnergyComponents`: what the network's
    own readout of frames starts from.

    A search asks for the same windows again and again, so their components are kept, as many as memory should hold.
    """

    def __init__(self, prepared: Prepared):
        self.prepared = prepared
        self._clips: dict[int, Tensor] = {}
        self._windows: dict[tuple[int, int], Tensor] = {}

    def __call__(self, windows: Windows) -> Tensor:
        """(W, K)."""
        components = energy_components(self.prepared.opened)
        most = _KEPT // components.basis_FK.shape[1]
        if max(len(self._clips), len(self._windows)) + len(windows) > most:
            self._clips, self._windows = {}, {}
        keys = list(zip(windows.segment.tolist(), windows.tick.tolist(), strict=True))
        new = [i for i, key in enumerate(keys) if key not in self._windows]
        if new:
            found = components.of(self.prepared, windows[np.array(new)], self._clips)
            self._windows |= zip([keys[i] for i in new], found, strict=True)
        none = torch.zeros(components.basis_FK.shape[1])  # so that there may be no window
        return torch.stack([none, *(self._windows[key] for key in keys)])[1:]


def _evenly(size: int, most: int) -> np.ndarray:
    """At most so many places, spread evenly."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64)) if size else np.zeros(0, np.int64)
