"""Scores: arrays in, numbers out. Every definition is in a docstring; every score has a golden test.

Shape suffixes: N samples, C columns of a variable, U units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, xlogy

NLB_RATE_FLOOR = 1e-9  # the benchmark's own: a rate of zero would make one spike infinitely unlikely


# -- likelihoods of spike counts ---------------------------------------------------------------------------


def poisson_log_likelihood(counts, rates) -> float:
    """Log likelihood in nats of independent Poisson counts: ``sum of k log(lambda) - lambda - log k!``.

    Parameters
    ----------
    counts : array of whole numbers, spikes per bin
    rates : array of the same or a broadcastable shape, expected spikes per bin

    Returns
    -------
    float
        Minus infinity where a bin that holds a spike was given rate zero.

    Raises
    ------
    ValueError
        Negative or non-finite rates or counts, fractional counts, or shapes that do not fit.
    """
    counts, rates = _counts(counts), np.asarray(rates, dtype=np.float64)
    if not (np.isfinite(rates).all() and (rates >= 0).all()):
        raise ValueError("rates must be finite and 0 or more (expected spikes per bin, not their logarithm)")
    try:
        counts, rates = np.broadcast_arrays(counts, rates)
    except ValueError:
        raise ValueError(f"counts have shape {counts.shape} and rates {rates.shape}; they must fit") from None
    fired = np.flatnonzero(counts)  # most bins are empty, and logarithms are slow
    k = counts.ravel()[fired]
    return float((xlogy(k, rates.ravel()[fired]) - gammaln(k + 1)).sum() - rates.sum())


def null_log_likelihood(counts, unit_rate) -> float:
    """Log likelihood in nats of the null model: each unit fires at its own constant training rate.

    Parameters
    ----------
    counts : (..., U) spikes per bin, over all evaluated bins, silent ones included
    unit_rate : (U,) expected spikes per bin, ``(n_train + 0.5) / bins_train``
        The half spike keeps a unit that never fired in training from minus infinity.

    Raises
    ------
    ValueError
        As :func:`poisson_log_likelihood`, or a rate that is not one per unit.
    """
    counts, unit_rate = np.asarray(counts), np.asarray(unit_rate, dtype=np.float64)
    if unit_rate.ndim != 1 or counts.shape[-1:] != unit_rate.shape:
        raise ValueError(
            f"unit_rate has shape {unit_rate.shape} for counts of shape {counts.shape}; expected one rate per unit"
        )
    return poisson_log_likelihood(counts, unit_rate)


def bits_per_spike(ll_model: float, ll_null: float, num_spikes: float) -> float:
    """What a model knows beyond the mean rates: ``(ll_model - ll_null) / (num_spikes * ln 2)``.

    Both log likelihoods are in nats, of the same bins: held-out windows that tile time without overlap, empty
    ones included. NaN without a spike.
    """
    return float((ll_model - ll_null) / (num_spikes * np.log(2))) if num_spikes > 0 else float("nan")


class RateBits(NamedTuple):
    """Bits/spike of rates, under the two names that the field confuses.

    Attributes
    ----------
    pooled : one ratio over all units: what the Neural Latents Benchmark reports
    per_unit_mean : each unit's own ratio, averaged over the units that fired
    num_silent_units : units without a spike, which have no ratio of their own
    """

    pooled: float
    per_unit_mean: float
    num_silent_units: int


def bits_per_spike_rates(counts, rates) -> RateBits:
    """Bits/spike of predicted rates against each unit's mean rate *in the evaluated data*.

    ``sum(log Poisson(counts; rates) - log Poisson(counts; mean rate)) / (spikes * ln 2)``. The null knows the
    evaluated mean, so the figure is lower than :func:`bits_per_spike`. Rates of zero are raised to 1e-9, as
    the benchmark does. Expected counts only: sampled counts are not rates, and score far below the truth.

    Parameters
    ----------
    counts, rates : (..., U) spikes and expected spikes per bin; counts that are NaN (not observed) are left out

    References
    ----------
    Pei et al., Neural Latents Benchmark '21, NeurIPS 2021, section 3.3 (co-smoothing).
    """
    counts, rates = np.asarray(counts, dtype=np.float64), np.asarray(rates, dtype=np.float64)
    if counts.shape != rates.shape or counts.ndim < 2:
        raise ValueError(f"counts have shape {counts.shape} and rates {rates.shape}; expected equal (..., units)")
    counts, rates = counts.reshape(-1, counts.shape[-1]), rates.reshape(-1, rates.shape[-1])
    known = ~np.isnan(counts)
    counts, rates = _counts(np.where(known, counts, 0.0)), np.where(known, rates, 0.0)
    if not (np.isfinite(rates).all() and (rates >= 0).all()):
        raise ValueError("rates must be finite and 0 or more (expected spikes per bin, not their logarithm)")
    rates = np.maximum(rates, NLB_RATE_FLOOR)
    mean_U = np.maximum(counts.sum(0) / np.maximum(known.sum(0), 1), NLB_RATE_FLOOR)
    # log k! is the same on both sides
    gain_U = np.where(known, xlogy(counts, rates) - rates - xlogy(counts, mean_U) + mean_U, 0.0).sum(0)
    spikes_U = counts.sum(0)
    fired = spikes_U > 0
    if not fired.any():
        return RateBits(float("nan"), float("nan"), len(fired))
    per_unit = gain_U[fired] / (spikes_U[fired] * np.log(2))
    return RateBits(float(gain_U.sum() / (spikes_U.sum() * np.log(2))), float(per_unit.mean()), int((~fired).sum()))


def _counts(counts) -> np.ndarray:
    counts = np.asarray(counts, dtype=np.float64)
    if not (np.isfinite(counts).all() and (counts >= 0).all() and np.array_equal(counts, np.rint(counts))):
        raise ValueError("counts must be whole numbers of 0 or more (spikes per bin)")
    return counts


# -- behavior ------------------------------------------------------------------------------------------------


def r2(true, predicted) -> np.ndarray:
    """Coefficient of determination per column, against the mean of the evaluated data.

    ``1 - sum (y - yhat)^2 / sum (y - mean y)^2``; below zero where a constant would have been better. Samples
    whose label is missing (NaN) are left out, column by column; a column that does not vary gives NaN.

    Parameters
    ----------
    true, predicted : (N, C) or (N,)

    Returns
    -------
    (C,) float64

    Raises
    ------
    ValueError
        Shapes that differ, or a prediction that is not finite where there is a label.
    """
    return np.array([_r2_column(y, p) for y, p in _columns(true, predicted)])


def _r2_column(y: np.ndarray, p: np.ndarray) -> float:
    total = ((y - y.mean()) ** 2).sum() if _varies(y) else 0.0
    return float(1 - ((y - p) ** 2).sum() / total) if total > 0 else float("nan")


def pearson(true, predicted) -> np.ndarray:
    """Pearson's r per column; missing labels as in :func:`r2`, NaN where either side does not vary.

    Parameters
    ----------
    true, predicted : (N, C) or (N,)

    Returns
    -------
    (C,) float64
    """
    true, predicted = _checked(true, predicted)
    known = np.isfinite(true)
    number = known.sum(0)
    varies, centered = number > 1, []
    for x in (true, predicted):
        low = np.min(x, axis=0, where=known, initial=np.inf)
        varies &= np.max(x, axis=0, where=known, initial=-np.inf) > low
        mean = np.sum(x, axis=0, where=known) / np.maximum(number, 1)
        centered.append(np.where(known, x - mean, 0.0))
    a, b = centered
    both, alone = (a * b).sum(0), (a * a).sum(0) * (b * b).sum(0)
    return np.divide(both, np.sqrt(alone), out=np.full(len(both), np.nan), where=varies)


def _varies(x: np.ndarray) -> bool:
    # the mean of equal floats may differ from them in the last digit: compare the values themselves
    return len(x) > 1 and bool(np.ptp(x) > 0)


def _checked(true, predicted) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) float64 of both."""
    true, predicted = np.asarray(true, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if true.shape != predicted.shape or true.ndim not in (1, 2):
        raise ValueError(
            f"true has shape {true.shape} and predicted {predicted.shape}; expected equal (samples, columns)"
        )
    true, predicted = (x if x.ndim == 2 else x[:, None] for x in (true, predicted))
    wrong = (np.isfinite(true) & ~np.isfinite(predicted)).sum(0)
    if wrong.any():
        c = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"column {c}: {wrong[c]} predictions are not finite where a label is known")
    return true, predicted


def _columns(true, predicted):
    """The labels of each column that are known, and their predictions."""
    for y, p in zip(*(x.T for x in _checked(true, predicted)), strict=True):
        known = np.isfinite(y)
        yield y[known], p[known]


def circular_r2(true, predicted, period: float = 2 * np.pi) -> np.ndarray:
    """Share of the circular variance that is explained, per column.

    ``1 - sum(1 - cos(error)) / sum(1 - cos(true - circular mean of true))``: R2 with the chordal distance in
    place of the squared error. Missing labels as in :func:`r2`.

    Parameters
    ----------
    true, predicted : (N, C) or (N,), in the unit of ``period``
    """
    out = []
    for y, p in _columns(true, predicted):
        angle, error = y * (2 * np.pi / period), (p - y) * (2 * np.pi / period)
        mean = np.angle(np.exp(1j * angle).mean()) if len(angle) else 0.0
        total = (1 - np.cos(angle - mean)).sum()
        out.append(float(1 - (1 - np.cos(error)).sum() / total) if total > 0 else float("nan"))
    return np.array(out)


def absolute_errors(true_NC, predicted_NC, period: float = 0.0) -> np.ndarray:
    """(N,) how far a decoded value lies from the true one, in the variable's unit; NaN where a label is missing.

    ``|error|`` of one column; of several (a position) the Euclidean distance, so columns must share a unit. On a circle of
    ``period``, the shorter way around.

    Parameters
    ----------
    true_NC, predicted_NC : (N, C) or (N,)
    """
    true, predicted = _checked(true_NC, predicted_NC)
    error = predicted - true
    if period:
        error = (error + period / 2) % period - period / 2
    return np.sqrt((error**2).sum(1))


def target_score(kind: str, true_NC, predicted_NC, period: float = 0.0) -> float:
    """One number for a target: mean R2 over columns, mean circular R2, or balanced accuracy; NaN without labels that vary."""
    keep = np.isfinite(true_NC).all(1)
    if keep.sum() < 2:
        return float("nan")
    true, predicted = true_NC[keep], predicted_NC[keep]
    if kind == "classification":
        accuracy = balanced_accuracy(true[:, 0], predicted[:, 0])
        return accuracy.score if accuracy.chance < 1 else float("nan")
    each = circular_r2(true, predicted, period or 2 * np.pi) if kind == "circular" else r2(true, predicted)
    known = each[np.isfinite(each)]
    return float(known.mean()) if len(known) else float("nan")


class BalancedAccuracy(NamedTuple):
    """Mean recall, and the mean recall of a guess."""

    score: float
    chance: float


def balanced_accuracy(true, predicted) -> BalancedAccuracy:
    """Recall averaged over the classes that occur in ``true``, and chance, ``1 / number of those classes``.

    A classifier that always names the most common class scores chance, however common it is.

    Parameters
    ----------
    true, predicted : (N,) class labels; a missing label is NaN and left out
    """
    true, predicted = np.asarray(true).ravel(), np.asarray(predicted).ravel()
    if true.shape != predicted.shape:
        raise ValueError(f"{len(true)} labels but {len(predicted)} predictions; give one a label")
    if true.dtype.kind == "f":
        true, predicted = true[np.isfinite(true)], predicted[np.isfinite(true)]
    classes = np.unique(true)
    if len(classes) == 0:
        return BalancedAccuracy(float("nan"), float("nan"))
    recall = [float((predicted[true == c] == c).mean()) for c in classes]
    return BalancedAccuracy(float(np.mean(recall)), 1 / len(classes))
