"""Gratings, flashes and dots drawn from numbers, one image at a time as it is asked for.

The screen is flat in visual angle, as one is that was warped for the eye: pixels are squares of equal angle, x runs to the
right and y downwards from its middle. Orientation is that of PsychoPy and of Allen's tables: at 0 degrees bars are vertical,
it grows clockwise, and a grating drifts along it (0: to the right, 90: downwards).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from neuroformer.recording.frames import LazyFrames
from neuroformer.recording.stimuli.presentations import GRAY

GRATING, FLASH, DOT = 0, 1, 2
# what a row of numbers says of an image; degrees are of visual angle
FIELDS = ("kind", "orientation", "spatial_frequency", "phase", "contrast", "x", "y", "size", "sigma", "color")
NAMES: Mapping[str, tuple[str, ...]] = {
    "orientation": ("orientation", "ori", "direction"),  # degrees
    "spatial_frequency": ("spatial_frequency", "spatial_freq", "sf"),  # cycles a degree
    "temporal_frequency": ("temporal_frequency", "temporal_freq", "tf"),  # cycles per second
    "phase": ("phase",),  # cycles
    "contrast": ("contrast",),  # 0 to 1
    "x": ("x", "x_position", "position_x", "position"),  # degrees
    "y": ("y", "y_position", "position_y"),
    "size": ("size", "diameter"),  # degrees across
    "sigma": ("sigma",),  # degrees, of a Gaussian envelope
    "color": ("color", "luminance"),  # -1 black, 0 gray, 1 white
}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_FINEST = 32  # parts of a pixel along a side
_PER_SIGMA = 6.0  # PsychoPy's Gaussian mask of a size reaches three standard deviations to either side


def numbers_of(columns: Mapping[str, np.ndarray], given: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
    """(rows,) of each of NAMES; NaN where nothing says it.

    Parameters
    ----------
    given : our name, and the name of a column or a number
    """
    out = {}
    for name, others in NAMES.items():
        source = given.get(name, next((o for o in others if o in columns), np.nan))
        out[name] = _numbers(columns[source]) if isinstance(source, str) else np.full(count, float(source))
    return out


def _numbers(column: np.ndarray) -> np.ndarray:
    """Numbers of a column; of a text such as ``[250.0, 250.0]`` the first, of another (``null``) NaN."""
    if column.dtype.kind in "fiub":
        return column.astype(np.float64)
    found = [_NUMBER.search(str(text)) for text in column]
    return np.array([float(f[0]) if f else np.nan for f in found])


def drawings(numbers: Mapping[str, np.ndarray], gabor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, FIELDS) what each row draws, and (rows,) whether it draws anything.

    A row with an orientation and a spatial frequency is a grating, whole or in an aperture; one with a color is a dot where it
    has a place and a size, else a flash of the whole screen.

    Parameters
    ----------
    gabor : (rows,) whether a size is that of a Gaussian mask, and not of a disc
    """
    has = {k: np.isfinite(v) for k, v in numbers.items()}
    grating = has["orientation"] & has["spatial_frequency"]
    dot = ~grating & has["color"] & has["size"] & (has["x"] | has["y"])
    flash = ~grating & ~dot & has["color"]
    value = {k: np.nan_to_num(v, nan=1.0 if k == "contrast" else 0.0) for k, v in numbers.items()}
    size, sigma = value["size"], value["sigma"]
    sigma = np.where((sigma == 0) & gabor, size / _PER_SIGMA, sigma)
    value |= {"sigma": sigma, "size": np.where(sigma > 0, 0.0, size)}
    value["kind"] = np.select([grating, dot], [GRATING, DOT], FLASH)
    value["color"] = np.where(grating, 0.0, value["color"] * value["contrast"])
    return np.stack([value[k] for k in FIELDS], 1), grating | dot | flash


class DrawnFrames(LazyFrames):
    """Images of (images, FIELDS) numbers, of gray levels 0 to 255, drawn when they are read.

    A pixel is the mean of what lies in it, exactly for gratings of the whole screen, and from a finer canvas where there is
    an aperture: what is too fine for the pixels fades.

    Parameters
    ----------
    size : (height, width) pixels
    degrees : (height, width) of visual angle
    """

    def __init__(self, fields: np.ndarray, size: tuple[int, int], degrees: tuple[float, float]):
        self.fields, self.pixel = fields, (degrees[0] / size[0], degrees[1] / size[1])
        self.shape, self.dtype = (len(fields), *size), np.dtype(np.uint8)

    def read(self, index: np.ndarray) -> np.ndarray:
        levels = np.stack([self._level(dict(zip(FIELDS, self.fields[i], strict=True))) for i in index])
        return np.rint(GRAY * (1 + np.clip(levels, -1, 1))).astype(np.uint8)

    def _level(self, f: dict[str, float]) -> np.ndarray:
        """(height, width) from -1, black, to 1, white."""
        if f["kind"] == FLASH:
            return np.full(self.shape[1:], f["color"])
        radius = 2 * f["sigma"] or f["size"] / 2  # of the aperture; 0: none
        finer = int(np.clip(np.ceil(8 * max(self.pixel) / radius), 2, _FINEST)) if radius else 1
        (height, width), (high, wide) = self.shape[1:], (p / finer for p in self.pixel)
        y = (np.arange(height * finer)[:, None] - (height * finer - 1) / 2) * high - f["y"]
        x = (np.arange(width * finer)[None] - (width * finer - 1) / 2) * wide - f["x"]
        level = np.full((height * finer, width * finer), f["color"])
        if f["kind"] == GRATING:
            angle = np.deg2rad(f["orientation"])
            along_x, along_y = f["spatial_frequency"] * np.cos(angle), f["spatial_frequency"] * np.sin(angle)
            mean = np.sinc(along_x * wide) * np.sinc(along_y * high)
            level = f["contrast"] * mean * np.cos(2 * np.pi * (along_x * x + along_y * y - f["phase"]))
        if f["sigma"] > 0:
            level = level * np.exp(-0.5 * (x**2 + y**2) / f["sigma"] ** 2)
        elif f["size"] > 0:
            level = level * (np.hypot(x, y) < f["size"] / 2)
        return level.reshape(height, finer, width, finer).mean((1, 3))


def too_fine(fields: np.ndarray, pixel: tuple[float, float]) -> np.ndarray:
    """(rows,) whether a grating has less than two pixels a cycle along an axis."""
    angle, frequency = np.deg2rad(fields[:, 1]), fields[:, 2]
    fine = np.maximum(np.abs(np.cos(angle)) * pixel[1], np.abs(np.sin(angle)) * pixel[0]) * frequency > 0.5
    return fine & (fields[:, 0] == GRATING)
