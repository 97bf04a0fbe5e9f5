"""How far decoded values lie from the true ones, in the variable's own unit; and the model against its best baselines.

Shape suffixes: V values, C columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroformer.baselines.decoders import ALL
from neuroformer.config import TargetConfig
from neuroformer.decoding.decode import Decoded, paired_difference
from neuroformer.intervals import Terms, error_terms, over_time
from neuroformer.metrics import absolute_errors

OURS = ("model", "ensemble")  # decoders that are compared with baselines, pair by pair


def error_of(decoded: Decoded, target: TargetConfig, decoder: str) -> np.ndarray:
    """(V,) :func:`neuroformer.metrics.absolute_errors` of a decoder; NaN without a label."""
    period = (target.period or 2 * np.pi) if target.kind == "circular" else 0.0
    return absolute_errors(decoded.true_VC, decoded.predicted[decoder], period)


def terms_of_error(decoded: Decoded, target: TargetConfig, decoder: str) -> Terms:
    """Median and mean absolute error as sums over labelled values in time order."""
    error, order = error_of(decoded, target, decoder), np.argsort(decoded.times, kind="stable")
    order = order[np.isfinite(error[order])]
    return error_terms(error[order], decoded.true_VC[order])


def error_scores(decoded: Decoded, target: TargetConfig) -> dict[str, float]:
    """``decode_<variable>_median_error`` and ``_mean_error`` of every decoder in the variable's unit, with 95 % intervals
    over held-out time; nothing for classes. Of several columns, the distance between true and decoded point.

    Of controls there are no intervals.
    """
    if target.kind == "classification":
        return {}
    out: dict[str, float] = {}
    for decoder in decoded.predicted:
        error = error_of(decoded, target, decoder)
        error, suffix = error[np.isfinite(error)], "" if decoder == "model" else f"_{decoder}"
        keys = [f"decode_{decoded.name}_{what}_error{suffix}" for what in ("median", "mean")]
        out |= dict(zip(keys, (float(np.median(error)), float(error.mean())), strict=True)) if len(error) else {}
        if len(error) and not decoder.startswith("control"):
            ends = over_time(terms_of_error(decoded, target, decoder), keys[0]).ends()
            for key, low, high in zip(keys, *ends, strict=True):
                out[f"{key}_low"], out[f"{key}_high"] = float(low), float(high)
    return out


def against_baselines(decoded: Decoded, target: TargetConfig, key: str, scores: dict[str, Any]) -> dict[str, Any]:
    """The model and the ensemble minus the best fitted baseline, paired over held-out time.

    ``decode_<variable>_best_baseline`` by the score ``key``, and ``decode_<variable>_difference``, ``..._low``, ``..._high``
    (``..._ensemble``...); ``decode_<variable>_nearest_baseline`` by median error, and
    ``decode_<variable>_median_error_difference`` likewise: below zero, ours is nearer to the truth.
    """
    fitted = [name for name in decoded.predicted if name in ALL and np.isfinite(scores[f"{key}_{name}"])]
    if not fitted:
        return {}
    name = f"decode_{decoded.name}"
    best = max(fitted, key=lambda n: scores[f"{key}_{n}"])
    out: dict[str, Any] = {f"{name}_best_baseline": best}
    ours = [n for n in OURS if n in decoded.predicted]
    for own in ours:
        out |= _of_difference(f"{name}_difference", own, paired_difference(decoded, target, own, best))
    if target.kind == "classification":
        return out
    nearest = min(fitted, key=lambda n: scores[f"{name}_median_error_{n}"])
    out[f"{name}_nearest_baseline"] = nearest
    for own in ours:
        found = error_difference(decoded, target, own, nearest)
        out |= _of_difference(f"{name}_median_error_difference", own, found)
    return out


def _of_difference(key: str, own: str, found: tuple[float, float, float]) -> dict[str, float]:
    key += "" if own == "model" else f"_{own}"
    return dict(zip((key, f"{key}_low", f"{key}_high"), found, strict=True))


def error_difference(decoded: Decoded, target: TargetConfig, a: str, b: str) -> tuple[float, float, float]:
    """Median error of decoder ``a`` minus that of ``b`` and its 95 % interval; both lose the same blocks of time."""
    median = lambda name: float(np.nanmedian(error_of(decoded, target, name)))
    difference = terms_of_error(decoded, target, a).minus(terms_of_error(decoded, target, b))
    low, high = over_time(difference, f"decode_{decoded.name}, median error of {a} minus {b}").ends()[:, 0]
    return median(a) - median(b), float(low), float(high)
