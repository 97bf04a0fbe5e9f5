"""Frames that stay on disk: read by index, resized on the way in, kept in a cache of bounded size."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording.remote import open_hdf5, telling, zarr_store
from neuroformer.recording.validation import RecordingError

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as video decoders and image readers weigh colors


class LazyFrames:
    """Images that are read on access: ``shape``, ``dtype`` and ``[...]`` as for an array.

    Subclasses define ``shape`` (images, height, width), ``dtype`` and :meth:`read`. It holds no open
    file across a fork or a pickle, so that data-loader workers can share it.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype

    def read(self, index: np.ndarray) -> np.ndarray:
        """(n, height, width) of ascending distinct image numbers."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        return 3

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        key, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if isinstance(key, slice):
            index = np.arange(*key.indices(len(self)))
        else:
            index = np.asarray(key)
            index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        low, high = (int(index.min()), int(index.max())) if index.size else (0, 0)
        if index.size and (low < -len(self) or high >= len(self)):
            raise IndexError(f"images {low} to {high} were asked for; there are {len(self)}")
        flat, inverse = np.unique(index % max(len(self), 1), return_inverse=True)
        images = self.read(flat) if len(flat) else np.zeros((0, *self.shape[1:]), self.dtype)
        images = images[inverse.reshape(index.shape)]
        return images[(slice(None),) * index.ndim + rest] if rest else images

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


def gray(images: np.ndarray) -> np.ndarray:
    """(n, h, w) of (n, h, w) or (n, h, w, 3 or 4): luminance in the same dtype; alpha is ignored."""
    if images.ndim == 3:
        return images
    luma = images[..., :3] @ _LUMA
    return np.rint(luma).astype(images.dtype) if images.dtype.kind in "iu" else luma.astype(images.dtype)


class H5Frames(LazyFrames):
    """Frames in an HDF5 file: one dataset (images, h, w[, 3]), or one dataset (h, w[, 3]) an image.

    Parameters
    ----------
    path : path or address
    datasets : names inside the file; exactly one for a stack
    """

    def __init__(self, path: str | Path, datasets: str | Sequence[str]):
        self.path, self.stack = str(path), isinstance(datasets, str)
        self.datasets = [datasets] if isinstance(datasets, str) else list(datasets)
        self._open_files: dict[int, Any] = {}
        with self._open() as f:
            shapes = {f[name].shape for name in self.datasets}
            self.dtype = f[self.datasets[0]].dtype
        if len(shapes) != 1:
            raise RecordingError(f"{path}: images of one set differ in shape ({sorted(shapes)[:3]} ...)")
        shape = shapes.pop() if self.stack else (len(self.datasets), *shapes.pop())
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (3, 4)):
            raise RecordingError(
                f"{path}: {self.datasets[0]} has shape {shape}; expected (images, height, width) or color"
            )
        self.shape = (int(shape[0]), int(shape[1]), int(shape[2]))

    def __getstate__(self):
        return {**self.__dict__, "_open_files": {}}

    def _file(self):
        # an HDF5 handle must not be used on both sides of a fork
        pid = os.getpid()
        if pid not in self._open_files:
            self._open_files = {pid: self._open()}
        return self._open_files[pid]

    def _open(self) -> Any:
        return open_hdf5(self.path)

    def read(self, index: np.ndarray) -> np.ndarray:
        try:
            f = self._file()
            with telling(f):
                if not self.stack:
                    return gray(np.stack([f[self.datasets[i]][()] for i in index]))
                data = f[self.datasets[0]]
                runs = np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)  # HDF5 is slow at scattered rows
                return gray(np.concatenate([data[run[0] : run[-1] + 1] for run in runs]))
        except RecordingError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError, SystemError) as e:
            raise RecordingError(f"{self.path}: frames cannot be read, the file is damaged: {e}") from None


class ZarrFrames(H5Frames):
    """Frames in a Zarr store, as :class:`H5Frames` in a file."""

    def __init__(self, path: str | Path, datasets: str | Sequence[str]):
        super().__init__(path, datasets)
        if self.dtype.kind not in "uifb":
            raise RecordingError(f"{path}: images are {self.dtype}; expected numbers")

    def _open(self) -> Any:
        import zarr

        return zarr.open_group(zarr_store(self.path), mode="r")


class NativeFrames(LazyFrames):
    """Images whose bytes lie in another order than this machine's, swapped as they are read."""

    def __init__(self, images: Any):
        self.images, self.shape = images, tuple(images.shape)
        self.dtype = np.dtype(images.dtype).newbyteorder("=")

    def read(self, index: np.ndarray) -> np.ndarray:
        return np.asarray(self.images[index], self.dtype)


def in_native_order(images: Any) -> Any:
    """``images`` as they are, or swapped on access if their bytes lie in another order than this machine's."""
    return images if np.dtype(images.dtype).isnative else NativeFrames(images)


class JoinedFrames(LazyFrames):
    """Several stacks of equally large images, one after another."""

    def __init__(self, parts: Sequence[Any]):
        sizes = {tuple(p.shape[1:]) for p in parts}
        if len(sizes) != 1:
            raise RecordingError(f"frames of {sorted(sizes)} cannot be joined; give frames_size=(height, width)")
        self.parts = list(parts)
        self.starts = np.concatenate([[0], np.cumsum([p.shape[0] for p in parts])])
        self.shape = (int(self.starts[-1]), *sizes.pop())
        self.dtype = np.result_type(*[p.dtype for p in parts])

    def read(self, index: np.ndarray) -> np.ndarray:
        which = np.searchsorted(self.starts, index, side="right") - 1
        out = [np.asarray(self.parts[k][index[which == k] - self.starts[k]], self.dtype) for k in np.unique(which)]
        return np.concatenate(out)


class ResizedFrames(LazyFrames):
    """Frames at another size: area averages when they shrink, as in Pillow's box filter."""

    def __init__(self, images: Any, size: tuple[int, int]):
        if len(size) != 2 or min(size) < 1:
            raise RecordingError(f"frames_size is {size}; expected (height, width) in pixels")
        self.images = images
        self.shape = (int(images.shape[0]), int(size[0]), int(size[1]))
        self.dtype = np.dtype(images.dtype) if images.dtype == np.uint8 else np.dtype(np.float32)

    def read(self, index: np.ndarray) -> np.ndarray:
        from PIL import Image

        out = np.empty((len(index), *self.shape[1:]), self.dtype)
        for i, image in enumerate(np.asarray(self.images[index], self.dtype)):
            small = Image.fromarray(image).resize(
                (self.shape[2], self.shape[1]), Image.Resampling.BOX, reducing_gap=None
            )
            out[i] = np.asarray(small)
        return out


def of_size(images: Any, size: Sequence[int]) -> Any:
    """``images`` at a size (height, width), resized as they are read."""
    return images if tuple(images.shape[1:]) == tuple(size) else ResizedFrames(images, (size[0], size[1]))


class CachedFrames(LazyFrames):
    """Frames whose most recently used images are kept in memory, up to ``max_bytes``."""

    def __init__(self, images: Any, max_bytes: int):
        self.images, self.max_bytes = images, int(max_bytes)
        self.shape, self.dtype = tuple(images.shape), np.dtype(images.dtype)  # pyright: ignore
        each = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        if self.max_bytes < each:
            raise RecordingError(f"a frame cache of {max_bytes} bytes holds no image of {each} bytes")
        self.capacity = self.max_bytes // max(each, 1)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getstate__(self):
        return {**self.__dict__, "_kept": OrderedDict()}

    def read(self, index: np.ndarray) -> np.ndarray:
        out = np.empty((len(index), *self.shape[1:]), self.dtype)
        missing = []
        for row, i in enumerate(index.tolist()):
            image = self._kept.get(i)
            if image is None:
                missing.append(row)
            else:
                self._kept.move_to_end(i)
                out[row] = image
        if missing:
            out[missing] = self.images[index[missing]]
            for row in missing[-self.capacity :]:
                self._kept[int(index[row])] = out[row].copy()
            while len(self._kept) > self.capacity:
                self._kept.popitem(last=False)
        return out
