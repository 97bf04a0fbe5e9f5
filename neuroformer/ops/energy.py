"""Space-time energy of frames: a fixed pyramid of quadrature Gabor filters.

Shape suffixes: G clips, F frames, H rows, W columns, K channels of a pixel, h rows and w columns of the grid, O orientations,
C features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LONGEST = 12  # places along the longer side of the grid, at most
MOST_PIXELS = 256  # along the longer side that are filtered; larger frames are averaged down first
SHORTEST = 4.0  # pixels of a wavelength
SCALES = 5  # octaves, from the shorter side's half down
FARTHEST = 6.0  # standard deviations, then nothing: denormal numbers make products many times slower on some processors
SIGMA = 0.5  # of the envelope, in wavelengths: a bandwidth of about one octave
SEMI_SATURATION = 0.1  # contrast, in standard deviations of the frames, at which normalisation sets in
TEMPORAL = (0.125, 0.25)  # cycles per frame
_PHASES: tuple[Literal["even", "odd"], ...] = ("even", "odd")
CELLS = 2**22  # numbers of the largest intermediate, for as many clips at once as fit


COMPONENTS, BASIS = 512, 2**23  # principal components of a clip's features, and numbers of their basis, at most


def component_count(num_features: int) -> int:
    """How many principal components of so many features (all places and frames of a clip) are kept at most."""
    return max(1, min(COMPONENTS, num_features, BASIS // num_features))


@dataclass(frozen=True)
class Feature:
    """What one feature of :class:`EnergyPyramid` measures.

    Attributes
    ----------
    kind : luminance (signed), contrast (of the surround), even and odd (signed phases), energy (of any phase)
    wavelength : pixels; 0: no spatial modulation
    orientation : radians, direction of modulation, from x (columns) towards y (rows, downwards)
    frequency : cycles per frame; positive: a pattern that drifts along ``orientation``
    """

    kind: Literal["luminance", "contrast", "even", "odd", "energy"]
    wavelength: float = 0.0
    orientation: float = 0.0
    frequency: float = 0.0


class EnergyPyramid(nn.Module):
    """Motion and orientation energy of clips, contrast-normalised, on a coarse grid of places. Nothing is learnt.

    1. Frames larger than ``MOST_PIXELS`` are averaged down; color is luminance.
    2. Quadrature Gabors of several wavelengths (octaves) and orientations. Their Gaussian envelope is round, so that each
       is a product of a filter over rows and one over columns.
    3. Along time, each quadrature pair is filtered by complex exponentials of both signs under a window that ends with the
       frame itself (no later frame is seen): one sign is a drift along the orientation, the other against it. Where a clip
       is shorter than a period, that frequency is left out; a single frame has none.
    4. Energy is the pair's modulus, averaged over the cell of the grid; the signed pair itself is kept where the grid resolves
       its wavelength. Both are divided by the mean energy of all orientations and wavelengths around (divisive
       normalisation).
    5. Luminance (a Gaussian of the cell's size) stays signed, for units that follow light itself: of frames of one pixel it
       is all there is, with its own energies along time.

    Sources: Adelson and Bergen 1985 (JOSA A 2:284); Heeger 1992 (Visual Neuroscience 9:181); Nishimoto et al. 2011 (Current
    Biology 21:1641).

    Parameters
    ----------
    frames, height, width : of every clip
    orientations : int

    Attributes
    ----------
    grid : (frames, rows, columns) of what it gives
    features : a :class:`Feature` for each of the last axis
    """

    def __init__(self, frames: int, height: int, width: int, orientations: int = 4):
        super().__init__()
        if min(frames, height, width, orientations) < 1:
            raise ValueError(
                f"an energy pyramid of {frames} frames of {height} x {width} pixels and {orientations} orientations; "
                "expected at least 1 of each"
            )
        self.size = (frames, height, width)
        self.shrink = -(-max(height, width) // MOST_PIXELS)
        rows, columns = -(-height // self.shrink), -(-width // self.shrink)
        cell = -(-max(rows, columns) // LONGEST)
        self.grid = (frames, -(-rows // cell), -(-columns // cell))
        self.angles = _orientations(rows, columns, orientations)
        self.frequencies = [f for f in TEMPORAL if f * frames >= 1]
        self.fine, self.signed = [], []  # of each wavelength: samples per cell and side; whether its pair is kept
        for i, wavelength in enumerate(_wavelengths(rows, columns)):
            self.signed.append(2 * cell <= wavelength)
            self.fine.append(1 if self.signed[-1] else math.ceil(1.5 * cell / wavelength))
            y, x = (_places(n, g, self.fine[-1]) for n, g in ((rows, self.grid[1]), (columns, self.grid[2])))
            wave = [
                (2 * math.pi / wavelength * math.cos(a), 2 * math.pi / wavelength * math.sin(a)) for a in self.angles
            ]
            down = torch.stack([_gabor(rows, y, wavelength, ky) for _, ky in wave])
            across = 2 * torch.stack([_gabor(columns, x, wavelength, kx) for kx, _ in wave])
            # (O, y * 2, H): real and imaginary part of a place lie side by side; (O, 2 * W, 2 * x): complex product as a real one
            self._keep(f"rows{i}", torch.stack([down.real, down.imag], 2).flatten(1, 2))
            real, imag = across.real.mT, across.imag.mT
            self._keep(f"columns{i}", torch.cat([torch.cat([real, imag], 2), torch.cat([-imag, real], 2)], 1))
        y, x = (_places(n, g, 1) for n, g in ((rows, self.grid[1]), (columns, self.grid[2])))
        self._keep("blur_rows", _gabor(rows, y, cell, 0.0).real.contiguous())
        self._keep("blur_columns", _gabor(columns, x, cell, 0.0).real.mT.contiguous())
        drift = [_drift(frames, f) for f in self.frequencies]
        self._keep("drift", torch.stack([part for w in drift for part in (w.real, w.imag)] or [torch.zeros(0, 0)]))
        self.features = self._describe([n * self.shrink for n in _wavelengths(rows, columns)])

    def _keep(self, name: str, x: Tensor) -> None:
        """A fixed filter: it moves with the module, and is not part of its weights."""
        self.register_buffer(name, x, persistent=False)

    def _filter(self, name: str, like: Tensor) -> Tensor:
        return self.get_buffer(name).to(like.dtype)

    def _describe(self, wavelengths: list[float]) -> list[Feature]:
        found = [Feature("luminance"), *(Feature("energy", 0, 0, f) for f in self.frequencies)]
        signs = [0.0, *(sign * f for f in self.frequencies for sign in (1, -1))]
        for wavelength, signed in zip(wavelengths, self.signed, strict=True):
            for a in self.angles:
                found += [Feature("energy", wavelength, a, f) for f in signs]
                found += [Feature(kind, wavelength, a) for kind in _PHASES] if signed else []
        return found + ([Feature("contrast")] if wavelengths else [])

    def forward(self, images: Tensor) -> Tensor:
        """(G, F, h, w, C) features of clips (G, F, H, W) or, in color, (G, F, H, W, K).

        Intensities should have mean zero (gray) and unit variance. Clips go through a few at a time.

        Raises
        ------
        ValueError
            Clips of another size.
        """
        if images.ndim not in (4, 5) or tuple(images.shape[1:4]) != self.size:
            raise ValueError(
                f"clips of shape {tuple(images.shape)}; expected (clips, {', '.join(map(str, self.size))}), or with channels "
                "behind"
            )
        images = images.mean(4) if images.ndim == 5 else images
        frames, h, w = self.grid
        finest = 2 * h * w * max((each**2 for each in self.fine), default=1)
        largest = frames * max(
            math.prod(self.size[1:]), finest * (1 + 2 * len(self.frequencies)), h * w * len(self.features)
        )
        return torch.cat([self._features(x) for x in images.split(max(1, CELLS // largest))])

    def _features(self, x: Tensor) -> Tensor:
        if self.shrink > 1:
            x = F.avg_pool2d(x, self.shrink, ceil_mode=True, count_include_pad=False)
        light = self._filter("blur_rows", x) @ x @ self._filter("blur_columns", x)
        found = [light, *self._drifts(light[..., None, :])[::2]]
        gabors: list[Tensor] = []
        still: list[Tensor] = []
        for i in range(len(self.fine)):
            for o in range(len(self.angles)):
                z = self._quadrature(x, i, o)
                energy = self._pooled(_modulus(z[..., 0, :], z[..., 1, :]), i)
                still.append(energy)
                gabors += [energy, *(self._pooled(e, i) for e in self._drifts(z))]
                gabors += [z[..., 0, :], z[..., 1, :]] if self.signed[i] else []
        if not gabors:
            return torch.stack(found, -1)
        around = self._around(torch.stack(still).mean(0))
        share = 1 / (SEMI_SATURATION + around)
        contrast = torch.log1p(around / SEMI_SATURATION)
        return torch.stack([*found, *(g * share for g in gabors), contrast], -1)

    def _quadrature(self, x: Tensor, scale: int, orientation: int) -> Tensor:
        """(G, F, y, 2, x) even and odd responses of one wavelength and orientation at its own places."""
        rows, columns = (self._filter(f"{name}{scale}", x)[orientation] for name in ("rows", "columns"))
        down = (rows @ x).unflatten(2, (-1, 2)).flatten(3)  # (G, F, y, 2 * W)
        return (down @ columns).unflatten(3, (2, -1))

    def _drifts(self, z: Tensor) -> list[Tensor]:
        """Moduli (G, F, y, x) of a pair (G, F, y, 2, x), or of a single response (G, F, y, 1, x), along time: of each
        frequency, with and against the orientation."""
        found = []
        for k in range(len(self.frequencies)):
            real_FF, imag_FF = self._filter("drift", z)[2 * k : 2 * k + 2]
            a, b = ((m @ z.flatten(2)).view_as(z) for m in (real_FF, imag_FF))
            if z.shape[3] == 1:
                found += 2 * [_modulus(a[..., 0, :], b[..., 0, :])]
                continue
            (even_a, odd_a), (even_b, odd_b) = a.unbind(3), b.unbind(3)
            found += [_modulus(even_a - odd_b, even_b + odd_a), _modulus(even_a + odd_b, odd_a - even_b)]
        return found

    def _pooled(self, energy: Tensor, scale: int) -> Tensor:
        """Means (G, F, h, w) over the cells of the grid."""
        return F.avg_pool2d(energy, self.fine[scale]) if self.fine[scale] > 1 else energy

    @staticmethod
    def _around(energy: Tensor) -> Tensor:
        """(G, F, h, w) means over each place and those next to it."""
        return F.avg_pool2d(energy, 3, 1, 1, count_include_pad=False)


def _modulus(real: Tensor, imag: Tensor) -> Tensor:
    return (real.square() + imag.square() + 1e-12).sqrt()  # its slope at zero is zero


def _wavelengths(rows: int, columns: int) -> list[float]:
    """Octaves from half the shorter side (of those longer than a pixel) down to a few pixels."""
    sides = [n for n in (rows, columns) if n > 1]
    longest = min(sides, default=0) / 2
    found = [longest / 2**i for i in range(SCALES) if longest / 2**i >= SHORTEST]
    return found or ([SHORTEST] if sides and min(sides) >= SHORTEST else [])


def _orientations(rows: int, columns: int, num: int) -> list[float]:
    """Directions of modulation; along the one side that is longer than a pixel, if the other is not."""
    if rows == 1:
        return [0.0]
    if columns == 1:
        return [math.pi / 2]
    return [math.pi * i / num for i in range(num)]


def _places(pixels: int, cells: int, each: int) -> Tensor:
    """Where filters are centred: ``each`` to a cell, evenly spaced over an axis of pixels at 0, 1, ..."""
    return (torch.arange(cells * each) + 0.5) * pixels / (cells * each) - 0.5


def _gabor(pixels: int, place: Tensor, wavelength: float, wave_number: float) -> Tensor:
    """(places, pixels) complex exponential along one axis under a Gaussian, whose weights sum to 1 over an endless axis."""
    if pixels == 1:
        return torch.ones(len(place), 1, dtype=torch.complex64)
    sigma = SIGMA * wavelength
    away = torch.arange(pixels) - place[:, None]
    everywhere = torch.arange(-math.ceil(5 * sigma), math.ceil(5 * sigma) + 1)
    envelope = torch.exp(-(away**2) / (2 * sigma**2)) / torch.exp(-(everywhere**2) / (2 * sigma**2)).sum()
    envelope = envelope * (away.abs() <= FARTHEST * sigma)
    # the sign of the phase makes a drift along the orientation turn by +frequency
    return torch.polar(envelope, -wave_number * away)


def _drift(frames: int, frequency: float) -> Tensor:
    """(F, F) filter from frames to frames: a period under a raised cosine that ends with the frame itself, blind to what
    does not change."""
    length = min(frames, round(1.5 / frequency))
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * (torch.arange(length) + 1) / (length + 1))
    window = window / window.sum()
    lag = torch.arange(length)
    wave = torch.polar(window, -2 * math.pi * frequency * lag)
    wave = wave - window * wave.sum()
    out = torch.zeros(frames, frames, dtype=torch.complex64)
    for k in range(length):
        out += torch.diag(wave[k].expand(frames - k), -k)
    return out
