"""Decoded frames as images: how like they are to what was shown.

Shape suffixes: V values (frames), C pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from neuroformer.data.prepared import Prepared
from neuroformer.decoding.decode import Decoded
from neuroformer.intervals import over_time, ratio_terms

MEAN = "mean_frame"


def image_scores(decoded: Decoded, prepared: Prepared) -> dict[str, Any]:
    """Means over held-out frames of every decoder, and of the mean training frame, which has seen no spike.

    ``decode_frames_ssim`` (Wang et al. 2004: structural similarity, as ``torchmetrics`` has it), ``_r`` (Pearson's r over the
    pixels of a frame; 0 where what was decoded does not vary), ``_mse`` and ``_psnr`` (dB, of the mean squared error, for the
    range of training pixels); ``..._<decoder>``; ``_low`` and ``_high`` of SSIM and r over held-out time.
    """
    assert prepared.rec.frames is not None
    scale = prepared.normalization.targets[decoded.name]
    shape, span = prepared.rec.frames.decoded_shape, float(np.max(scale.high) - np.min(scale.low))
    keep = np.flatnonzero(np.isfinite(decoded.true_VC).all(1))
    keep = keep[np.argsort(decoded.times[keep], kind="stable")]
    true = decoded.true_VC[keep]
    guesses = {k: v[keep] for k, v in decoded.predicted.items()} | {MEAN: np.broadcast_to(scale.mean, true.shape)}
    out: dict[str, Any] = {}
    for name, guess in guesses.items():
        s = "" if name == "model" else f"_{name}"
        mse = float(((guess - true) ** 2).mean())
        out |= {f"decode_frames_mse{s}": mse, f"decode_frames_psnr{s}": float(10 * np.log10(span**2 / max(mse, 1e-12)))}
        each = {"ssim": _ssim(true, guess, shape, span), "r": _r(true, guess)}
        for what, values in each.items():
            key = f"decode_frames_{what}{s}"
            low, high = over_time(ratio_terms(values, np.ones(len(values))), key).ends()[:, 0]
            out |= {key: float(values.mean()), f"{key}_low": float(low), f"{key}_high": float(high)}
    return out


def _ssim(true_VC: np.ndarray, guess_VC: np.ndarray, shape: tuple[int, int], span: float) -> np.ndarray:
    """(V,)."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    out = []
    for part in np.array_split(np.arange(len(true_VC)), -(-len(true_VC) // 2048)):
        a, b = (
            torch.from_numpy(np.ascontiguousarray(x[part], np.float64)).view(-1, 1, *shape) for x in (guess_VC, true_VC)
        )
        found = structural_similarity_index_measure(a, b, data_range=span, reduction="none")
        assert isinstance(found, torch.Tensor)
        out.append(found.reshape(len(part)).numpy())
    return np.concatenate(out)


def _r(true_VC: np.ndarray, guess_VC: np.ndarray) -> np.ndarray:
    """(V,)."""
    a, b = (x - x.mean(1, keepdims=True) for x in (true_VC, guess_VC))
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(1), size, out=np.zeros(len(a)), where=size > 1e-12)
