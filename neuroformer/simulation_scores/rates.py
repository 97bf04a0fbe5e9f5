"""Expected counts from samples; and the scores of expected counts against single trials.

Shape suffixes: K samples, T trials, B bins, U units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroformer.metrics import RateBits, bits_per_spike_rates, pearson

MIN_EXPLAINABLE = 0.15  # units with a smaller explainable share have no meaningful FEVE (the limit of Sensorium)


@dataclass(frozen=True, eq=False)
class Rates:
    """Expected counts, how many samples they come from (0: a readout), and the variance that this adds.

    Attributes
    ----------
    expected_BU : (bins, units) expected counts per bin
    variance_BU : (bins, units) variance of ``expected_BU`` that comes from having few samples; 0 for a readout
    num_samples, prior : K and the weight of the prior, in samples
    """

    expected_BU: np.ndarray
    variance_BU: np.ndarray
    num_samples: int
    prior: float


def expected_counts(
    source_KBU: np.ndarray, *, readout: bool = False, prior: float = 0.0, mean_U=None, join: int = 1
) -> Rates:
    """Expected counts per bin and unit, from a rate readout or from K samples: what every rate score takes.

    From a readout: its log rates are exponentiated. They are the expectation of one window given the past,
    without the window's own spikes. From K samples: ``(sum + prior * mean) / (K + prior)``, a gamma prior worth
    ``prior`` samples at each unit's mean rate. With prior 0 this is unbiased, but its variance (the samples'
    own over K) lowers every score that is not corrected for it; with a prior the variance is ``(K / (K +
    prior))^2`` of that, and the expectation is pulled to the mean by ``prior / (K + prior)``. A likelihood
    needs a prior above 0, since a bin without a sampled spike would have rate 0.

    Parameters
    ----------
    source_KBU : (K, B, U) sampled counts, NaN in samples that do not count; or with ``readout`` (B, U) log of the expected
        counts. Without any sample the mean rate is expected, or nothing.
    prior : samples that the prior is worth
    mean_U : (U,) expected counts per bin of each unit, needed where ``prior > 0``
    join : so many bins are summed into one of the result; a rest is left out

    Raises
    ------
    ValueError
        Shapes that do not fit, or a prior without mean rates.
    """
    x = np.asarray(source_KBU, dtype=np.float64)
    if x.ndim != (2 if readout else 3):
        raise ValueError(
            f"got shape {x.shape}; expected {'(bins, units) log rates' if readout else '(samples, bins, units) counts'}"
        )
    if readout:
        x = _joined(np.exp(x), join)
        return Rates(x, np.zeros_like(x), 0, 0.0)
    x = _joined(x, join)
    if prior > 0 and mean_U is None:
        raise ValueError(f"prior is {prior:g} samples; give mean_U, the rates that it pulls to")
    known = np.isfinite(x)
    number = known.sum(0)  # samples of each bin and unit
    total = np.where(known, x, 0.0).sum(0)
    pull = 0.0 if mean_U is None else prior * join * np.asarray(mean_U)
    around = np.where(known, x - total / np.maximum(number, 1), 0.0)
    spread = np.where(number > 1, (around**2).sum(0) / np.maximum(number - 1, 1), np.nan)
    variance = spread * number / np.maximum(number + prior, 1e-12) ** 2
    return Rates((total + pull) / np.maximum(number + prior, 1e-12), variance, len(x), prior)


def _joined(x: np.ndarray, join: int) -> np.ndarray:
    """(..., bins, units) sums of every ``join`` bins."""
    bins = x.shape[-2] // join
    return x[..., : bins * join, :].reshape(*x.shape[:-2], bins, join, x.shape[-1]).sum(-2)


def rate_bits(recorded: list[np.ndarray], predicted: list[Rates]) -> RateBits:
    """Bits/spike of expected counts as Poisson rates, see :func:`neuroformer.metrics.bits_per_spike_rates`.

    Expected counts of samples need a prior. It pulls them to the mean, so few samples score below what the same
    generator would with many: compare scores of equal K and prior.
    """
    return bits_per_spike_rates(np.concatenate(recorded), np.concatenate([p.expected_BU for p in predicted]))


def single_trial_r(recorded: list[np.ndarray], predicted: list[Rates]) -> np.ndarray:
    """(U,) Pearson's r between recorded and expected counts over all bins of all trials (Sensorium's score).

    Not corrected for the number of samples: compare scores of equal K.

    References
    ----------
    Willeke et al., The Sensorium competition, 2022, section 4.
    """
    return pearson(np.concatenate(recorded), np.concatenate([p.expected_BU for p in predicted]))


def feve(recorded: list[np.ndarray], predicted: list[Rates], stimulus: np.ndarray) -> tuple[float, int]:
    """Fraction of explainable variance explained, the mean over units, and how many units that is.

    ``1 - (MSE - noise) / (variance - noise)``, the noise being the variance over the repeats of a stimulus
    (ddof 1), averaged over bins and stimuli. The MSE is lowered by the variance that few samples add, so that
    it is that of infinitely many. Units whose explainable share, ``1 - noise / variance``, is below 0.15 are left
    out; NaN without a repeated stimulus or without samples to correct by.

    References
    ----------
    Cadena et al., PLoS Comput Biol 2019, equations 2 and 3; neuralpredictors ``measures.np_functions.fev``.
    """
    bins = min(len(x) for x in recorded)
    y = np.stack([x[:bins] for x in recorded])
    wrong = [(x - p.expected_BU[:bins]) ** 2 - p.variance_BU[:bins] for x, p in zip(y, predicted, strict=True)]
    noise = [_variance(y[stimulus == s]) for s in np.unique(stimulus[stimulus >= 0]) if (stimulus == s).sum() > 1]
    if not noise:
        return float("nan"), 0
    noise_U, error_U = _mean(np.stack(noise)), _mean(np.stack(wrong))
    total_U = _variance(y.reshape(-1, y.shape[2]))
    some = (total_U > 0) & (1 - noise_U / np.maximum(total_U, 1e-12) >= MIN_EXPLAINABLE)
    if not some.any():
        return float("nan"), 0
    each = 1 - (error_U[some] - noise_U[some]) / (total_U[some] - noise_U[some])
    return float(each.mean()), int(some.sum())


def _mean(x_TBU: np.ndarray) -> np.ndarray:
    """(U,) mean of what is known."""
    known = np.isfinite(x_TBU)
    number = known.sum((0, 1))
    return np.where(number > 0, np.where(known, x_TBU, 0.0).sum((0, 1)) / np.maximum(number, 1), np.nan)


def _variance(x: np.ndarray) -> np.ndarray:
    """Variance (ddof 1) of what is known along the first axis; NaN for less than two values."""
    known = np.isfinite(x)
    number = known.sum(0)
    mean = np.where(known, x, 0.0).sum(0) / np.maximum(number, 1)
    return np.where(number > 1, (np.where(known, x - mean, 0.0) ** 2).sum(0) / np.maximum(number - 1, 1), np.nan)
