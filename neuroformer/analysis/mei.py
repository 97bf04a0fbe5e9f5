"""Most exciting inputs: the clip that maximises a unit's predicted rate, after Walker et al., Nature
Neuroscience 2019
("inception loops").

Shape suffixes: U units, F frames, H rows, X columns of an image.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuroformer.analysis.influence import log_rates, without
from neuroformer.data.batch import Batch, Clips
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.model.network import Neuroformer
from neuroformer.recording import Recording
from neuroformer.shown import Shown

MOST_AMPLITUDE = 4.0  # of a frequency, times that of natural clips: what is structured has fewer of them


@dataclass(frozen=True, repr=False)
class MostExciting(Shown):
    """Clips by gradient ascent.

    Attributes
    ----------
    images : (units, frames, height, width) in the recording's pixel values
    contrast : (units, frames, height, width) the same in standard deviations of the training frames around their mean
    log_rate : (units,) log of the expected count per bin with the clip
    gray : (units,) the same with a gray screen
    """

    images: np.ndarray
    contrast: np.ndarray
    log_rate: np.ndarray
    gray: np.ndarray

    def __repr__(self) -> str:
        units, frames, height, width = self.images.shape
        gain = float(np.exp(np.median(self.log_rate - self.gray)))
        return (
            f"Most exciting clips of {units} units: {frames} frames of {height} x {width} pixels\n"
            f"  their predicted rate is {gain:.3g} times that with a gray screen (median)"
        )


def most_exciting(
    model: Neuroformer,
    prepared: Prepared,
    windows: Windows,
    *,
    contrast: float = 0.25,
    smooth: float = 1.0,
    steps: int = 60,
    starts: int = 2,
    spectrum_FHX: np.ndarray | None = None,
    seed: int = 0,
) -> MostExciting:
    """For every unit, the clip that maximises its rate readout.

    1. Start from smoothed noise; of ``starts`` such climbs the best is kept, since each may end in another
       local maximum.
    2. Climb the gradient of the mean log rate over the window's bins. Past spikes and behavior are those of random
       ``windows``, drawn anew each step, so that the clip is good on average and not for one past.
    3. Smoothness prior: gradients are blurred by a Gaussian of ``smooth`` pixels before each step.
    4. Norm constraint: after each step the clip has zero mean and the root mean square ``contrast``, in standard
       deviations of the training frames; pixels stay within what the training frames' type can hold.
    5. Spectrum constraint, where ``spectrum_FHX`` is given (amplitudes of a clip with the same root mean square, in space
       and time; :func:`neuroformer.analysis.next_stimuli.natural_spectrum`): no amplitude is more than :data:`MOST_AMPLITUDE`
       times that. Clips then have no high frequencies that a rig or an eye would not pass on.

    Raises
    ------
    ValueError
        A model without frames.
    """
    if "frames" not in model.streams:
        raise ValueError("this model sees no frames, so no image excites its units")
    rng = np.random.default_rng(seed)
    climb = _Climb(model, prepared, windows, contrast, smooth, rng, spectrum_FHX)
    best, score = None, None
    for _ in range(starts):
        x = climb.run(steps)
        s = climb.log_rate(x)
        if best is None or score is None:
            best, score = x, s
            continue
        better = s > score
        best, score = torch.where(better[:, None, None, None], x, best), torch.where(better, s, score)
    assert best is not None and score is not None
    gray = climb.log_rate(torch.zeros_like(best))
    images = best * climb.std + climb.mean
    return MostExciting(*(t.cpu().numpy() for t in (images, best, score, gray)))


class _Climb:
    """Gradient ascent of all units at once: window u shows the clip of unit u."""

    def __init__(
        self,
        model: Neuroformer,
        prepared: Prepared,
        windows: Windows,
        contrast: float,
        smooth: float,
        rng,
        spectrum_FHX: np.ndarray | None = None,
    ):
        assert prepared.rec.frames is not None
        self.model, self.prepared, self.windows, self.rng = model, prepared, windows, rng
        encoder = model.frames.encoder
        self.mean, self.std = float(encoder.mean), float(encoder.std)
        images = prepared.rec.frames.images
        clip = prepared.builder(windows[:1]).clips
        assert clip is not None
        self.shape = (model.num_units, *clip.images_GFHW.shape[1:])
        self.norm = contrast * float(np.prod(self.shape[1:])) ** 0.5
        kind = np.asarray(images[:1])
        low, high = (
            (np.iinfo(kind.dtype).min, np.iinfo(kind.dtype).max) if kind.dtype.kind in "iu" else (-np.inf, np.inf)
        )
        self.low, self.high = (low - self.mean) / self.std, (high - self.mean) / self.std
        self.kernel = _gaussian(smooth, model.first)
        self.most = None if spectrum_FHX is None else torch.from_numpy(MOST_AMPLITUDE * spectrum_FHX).to(model.first)

    def run(self, steps: int) -> Tensor:
        noise = torch.from_numpy(self.rng.standard_normal(self.shape)).to(self.model.first)
        x = self.constrained(self.blurred(noise))
        for step in range(steps):
            x = x.detach().requires_grad_()
            score = self.own(self.shown(x)).sum()
            (slope,) = torch.autograd.grad(score, x)
            slope = self.blurred(slope)
            slope = slope / slope.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
            rate = 0.2 * (1 - step / steps)
            x = self.constrained(x.detach() + rate * self.norm * slope)
        return x.detach()

    @torch.no_grad()
    def log_rate(self, x: Tensor, draws: int = 8) -> Tensor:
        """(U,) mean over draws of pasts; the same draws for whatever is compared."""
        kept, self.rng = self.rng, np.random.default_rng(1)
        out = torch.stack([self.own(self.shown(x)) for _ in range(draws)]).mean(0)
        self.rng = kept
        return out

    def own(self, batch: Batch) -> Tensor:
        """(U,) each unit's log rate in its own window, mean over bins."""
        return log_rates(self.model, batch).mean(1).diagonal()

    def shown(self, x_UFHX: Tensor) -> Batch:
        """Windows drawn at random, window u showing clip u."""
        few = self.windows[np.sort(self.rng.choice(len(self.windows), self.shape[0]))]
        batch = self.prepared.builder(few).to(x_UFHX.device)
        own = torch.arange(len(x_UFHX), device=x_UFHX.device)
        batch = without(batch, own, torch.full_like(own, -1))  # every past spike stays
        assert batch.clips is not None
        clips = Clips(x_UFHX * self.std + self.mean, torch.zeros_like(own), own, own, batch.clips.age_W)
        return dataclasses.replace(batch, clips=clips)

    def blurred(self, x: Tensor) -> Tensor:
        """Along rows and columns."""
        if len(self.kernel) == 1:
            return x
        flat, pad = x.flatten(0, 1)[:, None], len(self.kernel) // 2
        flat = torch.nn.functional.conv2d(flat, self.kernel[None, None, :, None], padding=(pad, 0))
        flat = torch.nn.functional.conv2d(flat, self.kernel[None, None, None, :], padding=(0, pad))
        return flat[:, 0].unflatten(0, x.shape[:2])

    def constrained(self, x: Tensor) -> Tensor:
        x = x - x.mean((1, 2, 3), keepdim=True)
        if self.most is not None:
            x = x * (self.norm / x.flatten(1).norm(dim=1).clamp_min(1e-12))[:, None, None, None]
            z = torch.fft.fftn(x, dim=(1, 2, 3))
            x = torch.fft.ifftn(z * (self.most / z.abs().clamp_min(1e-12)).clamp(max=1), dim=(1, 2, 3)).real
        x = x * (self.norm / x.flatten(1).norm(dim=1).clamp_min(1e-12))[:, None, None, None]
        return x.clamp(self.low, self.high)


def _gaussian(sigma: float, like: Tensor) -> Tensor:
    reach = int(np.ceil(3 * sigma))
    place = torch.arange(-reach, reach + 1, dtype=like.dtype, device=like.device)
    kernel = torch.exp(-0.5 * (place / max(sigma, 1e-6)) ** 2)
    return kernel / kernel.sum()


def projection(images_UFHX: np.ndarray, even_UHX: np.ndarray, odd_UHX: np.ndarray) -> np.ndarray:
    """(U,) share of each clip's norm that lies in the plane of a quadrature pair, over all its frames; 0 to 1."""
    out = np.zeros(len(images_UFHX))
    for u, clip in enumerate(images_UFHX):
        pair = np.stack([even_UHX[u].ravel(), odd_UHX[u].ravel()], 1)
        size = np.linalg.norm(clip)
        if size > 0 and np.linalg.norm(pair) > 0:
            plane = np.linalg.qr(pair)[0]
            out[u] = np.linalg.norm(clip.reshape(len(clip), -1) @ plane) / size
    return out


def true_log_rates(clips_SFHX: np.ndarray, rec: Recording) -> np.ndarray:
    """(S, U) what the stimulus adds to the log rates of the units of ``synthetic:demo`` in the bins that see a clip of three frames,
    with the eye at rest: the answer that an animal would give, where the animal is known.

    Parameters
    ----------
    clips_SFHX : in the recording's pixel values
    """
    truth = rec.truth
    assert rec.frames is not None
    filters_HXU = np.moveaxis(truth["rf_even"] + 1j * truth["rf_odd"], 0, -1)
    seen = lambda x: np.tensordot((np.asarray(x, np.float64) - 128.0) / 45.0, filters_HXU, 2)
    images = rec.frames.images
    power_U = sum((np.abs(seen(part)) ** 2).sum(0) for part in np.array_split(images, 16)) / len(images)
    z_SFU = seen(clips_SFHX) / np.sqrt(np.maximum(power_U, 1e-12))
    energy = np.where(truth["is_simple"], 2 * np.maximum(z_SFU.real, 0) ** 2, np.abs(z_SFU) ** 2)
    lags_FU = truth["rf_temporal"].T[::-1]  # oldest first, like the frames
    return truth["stimulus_gain"] * (lags_FU * energy / (1 + energy)).sum(1)
