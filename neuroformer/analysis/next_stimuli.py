"""Stimuli to show next: most exciting clips with their controls, and what models expect of them.

Walker et al., Nature Neuroscience 2019 (inception loops); Bashivan, Kar and DiCarlo, Science 2019.

Shape suffixes: S stimuli, K clips, F frames of a clip, H rows, X columns, U units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neuroformer.analysis.influence import log_rates, without
from neuroformer.analysis.mei import most_exciting
from neuroformer.config import ConfigError
from neuroformer.data.batch import Clips
from neuroformer.data.prepared import Prepared
from neuroformer.model.network import Neuroformer

NATURAL = 200  # clips of the recording against which a most exciting one is held
CANDIDATES = 2000  # among which the best natural one is looked for
PASTS = 4  # pasts over which an expected rate is averaged
KINDS = ("mei", "natural_best", "scrambled", "other_unit")


@dataclass(frozen=True, eq=False)
class Suite:
    """Clips to be shown, each with its design.

    Attributes
    ----------
    clips_SFHX : in the recording's pixel values, all of one mean and one root mean square
    kind_S : one of :data:`KINDS`, or "natural"
    unit_S : place of the unit that a clip is for; -1: none
    contrast : root mean square, in standard deviations of the training frames
    period_s : of a frame
    """

    clips_SFHX: np.ndarray
    kind_S: np.ndarray
    unit_S: np.ndarray
    contrast: float
    period_s: float


def make_suite(
    model: Neuroformer,
    prepared: Prepared,
    units: Sequence[int] = (),
    *,
    contrast: float = 0.25,
    steps: int = 60,
    starts: int = 2,
    seed: int = 0,
) -> Suite:
    """For each unit, its most exciting clip in space and time and three controls of the same mean and contrast; and
    natural clips of that contrast.

    - ``mei``: :func:`neuroformer.analysis.mei.most_exciting`, its spectrum bounded by that of natural clips
    - ``natural_best``: of 2,000 clips of the training part, the one with the largest expected rate
    - ``scrambled``: the most exciting clip with random phases: its amplitudes in space and time without its structure
    - ``other_unit``: the most exciting clip of another unit
    - ``natural``: 200 clips of the training part, drawn at random

    Parameters
    ----------
    units : places of units; by default all

    Raises
    ------
    ConfigError
        A model that does not see frames, or only stored features of them.
    """
    _refuse_blind(model, prepared)
    rng = np.random.default_rng(seed)
    natural_KFHX = natural_clips(prepared, CANDIDATES, contrast, rng)
    spectrum = natural_spectrum(natural_KFHX)
    train = prepared.windows("train")
    best = most_exciting(
        model, prepared, train, contrast=contrast, steps=steps, starts=starts, spectrum_FHX=spectrum, seed=seed
    )
    rate_KU = expected_rates(model, prepared, _pixels(model, natural_KFHX), seed)
    chosen = np.arange(model.num_units) if not len(units) else np.asarray(units)
    mei = best.contrast.astype(np.float64)
    clips, kinds, whose = [], [], []
    for u in chosen.tolist():
        other = int(rng.choice(np.setdiff1d(chosen, [u]))) if len(chosen) > 1 else u
        made = (mei[u], natural_KFHX[int(rate_KU[:, u].argmax())], _scrambled(mei[u], rng), mei[other])
        for kind, clip in zip(KINDS, made, strict=True):
            if kind != "other_unit" or other != u:
                clips.append(matched(clip, contrast))
                kinds.append(kind)
                whose.append(u)
    few = rng.permutation(len(natural_KFHX))[:NATURAL]
    clips += list(natural_KFHX[few])
    kinds += ["natural"] * len(few)
    whose += [-1] * len(few)
    pixels = _pixels(model, np.stack(clips))
    period = model.frames.period
    return Suite(pixels, np.array(kinds), np.array(whose), contrast, float(period))


def _refuse_blind(model: Neuroformer, prepared: Prepared) -> None:
    if "frames" not in model.streams:
        raise ConfigError("the run sees no frames (window.frames is 0), so there is nothing to show its units")
    if prepared.builder.features is not None:
        raise ConfigError(
            "the run sees frames only through stored features of a frozen backbone, so there is no gradient to pixels; train "
            "with model.frame_encoder.finetune=true, or with a convolution"
        )


def natural_clips(prepared: Prepared, most: int, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """(K, F, H, X) clips of the training part, in standard deviations, with zero mean and root mean square ``contrast``; flat
    and cut-off ones are left out.

    Raises
    ------
    ConfigError
        None is left.
    """
    assert prepared.rec.frames is not None
    scale = prepared.normalization.frames
    assert scale is not None
    shown_WF = prepared.builder.shown(prepared.windows("train"))
    whole = np.unique(shown_WF[(shown_WF >= 0).all(1)], axis=0)
    whole = whole[rng.permutation(len(whole))[:most]]
    clips = (prepared.rec.frames.pixels(whole).astype(np.float64) - scale.mean) / scale.std
    clips = clips[clips.std((1, 2, 3)) > 1e-3]
    if not len(clips):
        raise ConfigError("no training window shows a whole clip that is not blank")
    return np.stack([matched(clip, contrast) for clip in clips])


def matched(clip_FHX: np.ndarray, contrast: float) -> np.ndarray:
    """The clip with zero mean and root mean square ``contrast``."""
    x = clip_FHX - clip_FHX.mean()
    return x * (contrast / max(float(np.sqrt((x * x).mean())), 1e-12))


def natural_spectrum(clips_KFHX: np.ndarray) -> np.ndarray:
    """(F, H, X) root mean square amplitude of each frequency in space and time."""
    return np.sqrt(np.mean([np.abs(np.fft.fftn(clip)) ** 2 for clip in clips_KFHX], axis=0))


def _scrambled(clip_FHX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same amplitudes under random phases (those of white noise, so that the clip stays real)."""
    phase = np.angle(np.fft.fftn(rng.standard_normal(clip_FHX.shape)))
    return np.fft.ifftn(np.abs(np.fft.fftn(clip_FHX)) * np.exp(1j * phase)).real


def _pixels(model: Neuroformer, clips_KFHX: np.ndarray) -> np.ndarray:
    """From standard deviations to the recording's pixel values."""
    encoder = model.frames.encoder
    return (clips_KFHX * float(encoder.std) + float(encoder.mean)).astype(np.float32)


@torch.no_grad()
def expected_rates(
    model: Neuroformer, prepared: Prepared, clips_SFHX: np.ndarray, seed: int = 0, at_once: int = 64
) -> np.ndarray:
    """(S, U) log of the expected count per bin while each clip is shown, averaged over bins and over past spikes and behavior of
    a few training windows, the same for all clips.

    Parameters
    ----------
    clips_SFHX : in the recording's pixel values
    """
    train = prepared.windows("train")
    rng = np.random.default_rng(seed)
    few = train[np.sort(rng.choice(len(train), min(PASTS, len(train)), replace=False))]
    base = prepared.builder(few).to(model.device)
    assert base.clips is not None
    out = []
    for part in np.array_split(clips_SFHX, -(-len(clips_SFHX) // at_once)):
        window_V = torch.arange(len(few), device=model.device).repeat(len(part))
        clip_V = torch.arange(len(part), device=model.device).repeat_interleave(len(few))
        batch = without(base, window_V, torch.full_like(window_V, -1))  # every past spike stays
        assert batch.clips is not None
        images = torch.from_numpy(part).to(model.first)
        missing = torch.zeros(len(part), dtype=torch.int64, device=model.device)
        clips = Clips(images, missing, clip_V, clip_V, batch.clips.age_W)
        found = log_rates(model, dataclasses.replace(batch, clips=clips)).mean(1)
        out.append(found.view(len(part), len(few), -1).mean(1).cpu().numpy())
    return np.concatenate(out)


@dataclass(frozen=True)
class Verified:
    """How a model's units answer to a suite that another one made.

    Attributes
    ----------
    units : places of the units
    above_natural : (units,) share of natural clips of the same contrast whose expected rate the most exciting clip's exceeds
    gain : by kind, (units,) log rate with the unit's clip of that kind, less the mean over natural clips
    responsive : (units,) whether natural clips move the unit: the 95 % quantile of its expected rates is 10 % above the median
    """

    units: np.ndarray
    above_natural: np.ndarray
    gain: dict[str, np.ndarray]
    responsive: np.ndarray

    def share_above(self, least: float = 0.95) -> float:
        """Share of responsive units whose most exciting clip beats ``least`` of natural clips; NaN without any."""
        x = self.above_natural[self.responsive]
        return float((x >= least).mean()) if len(x) else float("nan")


def verify(suite: Suite, rate_SU: np.ndarray) -> Verified:
    """What expected rates (:func:`expected_rates`), of the model that made the suite or of another, say of it."""
    units = np.unique(suite.unit_S[suite.unit_S >= 0])
    natural_KU = rate_SU[suite.kind_S == "natural"][:, units]
    rows = {k: {int(u): s for s, u in enumerate(suite.unit_S) if suite.kind_S[s] == k} for k in KINDS}
    of = lambda kind: np.array([rate_SU[rows[kind][u], u] if u in rows[kind] else np.nan for u in units.tolist()])
    above = (natural_KU < of("mei")).mean(0)
    gain = {kind: of(kind) - natural_KU.mean(0) for kind in KINDS}
    spread = np.quantile(natural_KU, 0.95, axis=0) - np.median(natural_KU, axis=0)
    return Verified(units, above, gain, spread > np.log(1.1))
