"""Statistics of spike trains as sums over trials, so that leaving out trials only has to add up the others
again.

Shape suffixes: D draws of trials, T trials, U units, V units in pair statistics, L lags, H interval bins, Q frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.signal import periodogram

from neuroformer.simulation_scores.psth import WIDTH_S, psth_r
from neuroformer.simulation_scores.trials import Trials

FANO_S = 1.0  # windows of the Fano factor
SPECTRUM_S = 4.0  # stretches of the population spectrum
NUM_LAGS = 5  # of the trials' own bins
MAX_PAIR_UNITS = 100  # pair statistics are of so many units, the most active ones
MOST_COUNT = 2000  # of the population in one bin of the histogram; more count as so many
MIN_INTERVALS = 20  # a unit with fewer interspike intervals has no interval statistics


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums of each trial; :meth:`total` of some trials is what :func:`compare` takes.

    Attributes
    ----------
    seconds_TU, counts_TU : duration and spikes; no second of a unit that was not observed
    fano_T3U : number, sum and sum of squares of the counts in windows of 1 s
    isi_T3U : number, sum and sum of squares of the interspike intervals in bins; isi_hist_THU : their histogram
    pair_bins, pair_sum, pair_product_TVV : counts in bins of 50 ms; bins (T, 1, 1) and sums (T, V, 1), or where units were
        not observed in all trials (T, V, V): those of unit v where w was observed too
    lag_bins, lag_sum, lag_square_TV, lag_product_TLVV : likewise in single bins; ``[l, v, w]`` of unit v and of unit w
        ``l + 1`` bins later
    spectra_T, spectrum_TQ : number of stretches of 4 s, and the sum of their periodograms of the population count, in
        trials in which all units were observed
    population_TK : single bins with so many spikes of the population, in the same trials
    """

    seconds_TU: np.ndarray
    counts_TU: np.ndarray
    fano_T3U: np.ndarray
    isi_T3U: np.ndarray
    isi_hist_THU: np.ndarray
    pair_bins: np.ndarray
    pair_sum: np.ndarray
    pair_product_TVV: np.ndarray
    lag_bins: np.ndarray
    lag_sum: np.ndarray
    lag_square_TV: np.ndarray
    lag_product_TLVV: np.ndarray
    spectra_T: np.ndarray
    spectrum_TQ: np.ndarray
    population_TK: np.ndarray

    @classmethod
    def of(cls, trials: Trials, pair_units: np.ndarray) -> Statistics:
        seen = [None] * len(trials) if trials.seen_TU is None else trials.seen_TU
        parts = [_of_trial(x, trials.dt, pair_units, u) for x, u in zip(trials.counts(), seen, strict=True)]
        return cls(*(np.array(column, np.float64) for column in zip(*parts, strict=True)))

    def total(self) -> Statistics:
        """Sums over trials, kept as a single row."""
        return self.totals(np.ones((1, len(self.seconds_TU))))[0]

    def totals(self, times_DT: np.ndarray) -> list[Statistics]:
        """Of each draw, sums over trials, each as often as it was drawn; single rows."""
        num_draws, num_trials = times_DT.shape
        add = lambda x: (times_DT @ x.reshape(num_trials, -1)).reshape(num_draws, *x.shape[1:])
        sums = [add(getattr(self, f.name)) for f in fields(self)]
        return [Statistics(*(x[d : d + 1] for x in sums)) for d in range(num_draws)]


def _of_trial(x_BU: np.ndarray, dt: float, pair_units: np.ndarray, seen_U: np.ndarray | None) -> tuple:
    bins, num_units = x_BU.shape
    weight_U = np.ones(num_units) if seen_U is None else seen_U.astype(np.float64)
    fano = _windows(x_BU, round(FANO_S / dt))
    intervals, histogram = _intervals(x_BU, dt)
    pair = _windows(x_BU[:, pair_units], max(1, round(WIDTH_S / dt))).astype(np.float64)
    fine = x_BU[:, pair_units].astype(np.float64)
    empty = np.zeros((len(pair_units), len(pair_units)))
    lagged = [
        fine[:-lag].T @ fine[lag:] * (bins / (bins - lag)) if bins > lag else empty for lag in range(1, NUM_LAGS + 1)
    ]
    population_B = x_BU.sum(1) if weight_U.all() else x_BU[:0].sum(1)
    num_spectra, spectrum = _spectrum(population_B, dt)
    both_VV = np.ones((1, 1)) if seen_U is None else np.outer(weight_U[pair_units], weight_U[pair_units])
    return (
        bins * dt * weight_U,
        x_BU.sum(0),
        np.stack([len(fano) * weight_U, fano.sum(0), (fano**2).sum(0)]),
        intervals,
        histogram,
        len(pair) * both_VV,
        pair.sum(0)[:, None] * both_VV,
        pair.T @ pair,
        bins * both_VV,
        fine.sum(0)[:, None] * both_VV,
        (fine**2).sum(0),
        np.array(lagged),
        num_spectra,
        spectrum,
        np.bincount(np.minimum(population_B, MOST_COUNT).astype(np.int64), minlength=MOST_COUNT + 1),
    )


def _windows(x_BU: np.ndarray, join: int) -> np.ndarray:
    n = len(x_BU) // join
    return x_BU[: n * join].reshape(n, join, x_BU.shape[1]).sum(1)


def _interval_edges(dt: float) -> np.ndarray:
    """Edges of the histogram of intervals, in bins: every bin up to ten, then ten a decade up to 100 s."""
    first = np.arange(11)
    rest = np.unique(np.round(np.logspace(1, np.log10(max(100 / dt, 20)), 40)).astype(int))
    return np.unique(np.concatenate([first, rest])) - 0.5


def _intervals(x_BU: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """(3, U) moments and (H, U) histogram of the intervals; spikes of one bin are zero bins apart."""
    edges, num_units = _interval_edges(dt), x_BU.shape[1]
    unit, at = np.nonzero(x_BU.T)
    repeat = x_BU[at, unit].astype(np.int64)
    unit, at = np.repeat(unit, repeat), np.repeat(at, repeat)
    of_one = np.flatnonzero(np.diff(unit) == 0)
    unit, gaps = unit[of_one], np.diff(at)[of_one].astype(np.float64)
    moments = [np.bincount(unit, weights=gaps**k, minlength=num_units) for k in range(3)]
    which = (np.searchsorted(edges, gaps) - 1) * num_units + unit
    histogram = np.bincount(which, minlength=len(edges) * num_units)[: len(edges) * num_units]
    return np.stack(moments), histogram.reshape(len(edges), num_units)


def _spectrum(total_B: np.ndarray, dt: float) -> tuple[int, np.ndarray]:
    length = round(SPECTRUM_S / dt)
    n = len(total_B) // length
    if n == 0:
        return 0, np.zeros(length // 2)
    _, power = periodogram(total_B[: n * length].reshape(n, length), fs=1 / dt, window="hann")
    return n, power[:, 1 : length // 2 + 1].sum(0)


# -- from sums to scores -----------------------------------------------------------------------------


def unit_rates(s: Statistics) -> np.ndarray:
    """(U,) spikes per second, half a spike added; NaN for units that were not observed."""
    seconds_U = s.seconds_TU[0]
    return np.where(seconds_U > 0, (s.counts_TU[0] + 0.5) / np.maximum(seconds_U, 1e-9), np.nan)


def fano_factors(s: Statistics) -> np.ndarray:
    """(U,) variance over mean of the counts in windows of 1 s; NaN for silent units."""
    return _variance_over(s.fano_T3U[0], power=1)


def interval_cv(s: Statistics) -> np.ndarray:
    """(U,) standard deviation over mean of the interspike intervals; NaN below 20 intervals."""
    cv = np.sqrt(_variance_over(s.isi_T3U[0], power=2))
    return np.where(s.isi_T3U[0, 0] >= MIN_INTERVALS, cv, np.nan)


def _variance_over(moments_3U: np.ndarray, power: int) -> np.ndarray:
    n, total, square = moments_3U
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n
        variance = np.maximum(square / n - mean**2, 0)
        return np.where((n > 1) & (mean > 0), variance / mean**power, np.nan)


def pair_correlations(s: Statistics) -> np.ndarray:
    """(V, V) Pearson correlation of counts in bins of 50 ms, over all bins of all trials."""
    n = np.maximum(s.pair_bins[0], 1)
    mean = s.pair_sum[0] / n
    covariance = s.pair_product_TVV[0] / n - mean * mean.T
    return _correlation(covariance, np.diag(covariance))


def lagged_correlations(s: Statistics) -> np.ndarray:
    """(L, V, V) correlation of unit v with unit w one to five bins later."""
    n = np.maximum(s.lag_bins[0], 1)
    mean = s.lag_sum[0] / n
    own = np.arange(len(mean)) if mean.shape[1] > 1 else np.zeros(len(mean), int)
    variance = s.lag_square_TV[0] / n.diagonal() - mean[np.arange(len(mean)), own] ** 2
    return _correlation(s.lag_product_TLVV[0] / n - mean * mean.T, variance)


def _correlation(covariance: np.ndarray, variance_V: np.ndarray) -> np.ndarray:
    scale = np.sqrt(np.outer(variance_V, variance_V))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scale > 1e-12, covariance / scale, np.nan)


def compare(a: Statistics, b: Statistics) -> dict[str, float]:
    """How far the totals ``a`` (simulated) are from ``b`` (recorded).

    Returns
    -------
    dict
        ``rate_ratio``: population rate of a over b. ``rate_r``: r over units between log rates, half a spike
        added. ``rate_error``: median over units of ``|log2(rate_a / rate_b)|``, likewise. ``fano``, ``cv``:
        medians over units of a (see :func:`fano_factors`, :func:`interval_cv`); ``fano_error``,
        ``cv_error``: median absolute differences between a and b. ``isi_distance``: median over units of the
        Kolmogorov-Smirnov distance between their interval distributions, on a grid of single bins up to ten
        and of ten steps a decade above. ``pair_r``, ``pair_error``: r and root mean square difference between
        the pair correlations of a and b. ``lagged_r``: r between the lagged ones, off the diagonal.
        ``spectrum_error``: root mean square over frequencies (0.25 Hz up) of the difference of the
        log population spectra, in dB. With ``pair_error``, three more are the measures of LDNS: ``population_kl``,
        Kullback-Leibler divergence in nats of the population's count in a single bin, a from b, half a bin added to every
        count up to the largest; ``isi_mean_error`` and ``isi_std_error``, root mean square differences over units, in
        seconds, of the mean and the standard deviation of interspike intervals, of units with 20 intervals or more on both
        sides. A unit counts in the trials in which it was observed throughout.
    """
    log_a, log_b = np.log2(unit_rates(a)), np.log2(unit_rates(b))
    fano_a, fano_b, cv_a, cv_b = fano_factors(a), fano_factors(b), interval_cv(a), interval_cv(b)
    pairs = np.triu_indices(a.lag_square_TV.shape[1], 1)
    pair_a, pair_b = pair_correlations(a)[pairs], pair_correlations(b)[pairs]
    apart = ~np.eye(a.lag_square_TV.shape[1], dtype=bool)
    lag_a, lag_b = lagged_correlations(a)[:, apart].ravel(), lagged_correlations(b)[:, apart].ravel()
    shared = (a.seconds_TU[0] > 0) & (b.seconds_TU[0] > 0)
    population = lambda s: (s.counts_TU[0] / np.maximum(s.seconds_TU[0], 1e-9))[shared].sum()
    return {
        "rate_ratio": float(population(a) / population(b)) if population(b) > 0 else float("nan"),
        "rate_r": correlation(log_a, log_b),
        "rate_error": _median(np.abs(log_a - log_b)),
        "fano": _median(fano_a),
        "fano_error": _median(np.abs(fano_a - fano_b)),
        "cv": _median(cv_a),
        "cv_error": _median(np.abs(cv_a - cv_b)),
        "isi_distance": _isi_distance(a, b),
        "pair_r": correlation(pair_a, pair_b),
        "pair_error": _rms(pair_a - pair_b),
        "lagged_r": correlation(lag_a, lag_b),
        "spectrum_error": _spectrum_error(a, b),
        "population_kl": population_kl(a.population_TK[0], b.population_TK[0]),
        "isi_mean_error": _rms(interval_moments(a)[0] - interval_moments(b)[0]),
        "isi_std_error": _rms(interval_moments(a)[1] - interval_moments(b)[1]),
    }


def interval_moments(s: Statistics) -> np.ndarray:
    """(2, U) mean and standard deviation of the interspike intervals in seconds; NaN below 20 intervals."""
    n, total, square = s.isi_T3U[0]
    bin_s = s.seconds_TU[0].max() / max(s.lag_bins[0].max(), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n
        both = np.stack([mean, np.sqrt(np.maximum(square / n - mean**2, 0))]) * bin_s
    return np.where(n >= MIN_INTERVALS, both, np.nan)


def population_kl(simulated_K: np.ndarray, recorded_K: np.ndarray) -> float:
    """``sum p log(p / q)`` in nats, p being how often recorded bins have each count and q simulated ones.

    Half a bin is added to every count up to the largest of both sides, or a count that was only recorded would make it
    infinite. NaN without a bin.

    References
    ----------
    Kapoor, Schulz et al., Latent diffusion for neural spiking data, NeurIPS 2024, section 4 and table 1.
    """
    if not simulated_K.sum() or not recorded_K.sum():
        return float("nan")
    most = int(np.flatnonzero(simulated_K + recorded_K).max())
    q, p = (x[: most + 1] + 0.5 for x in (simulated_K, recorded_K))
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r where both are known; NaN without variance."""
    return float(psth_r(a.reshape(-1, 1), b.reshape(-1, 1)).r)


def _median(x: np.ndarray) -> float:
    x = x[np.isfinite(x)]
    return float(np.median(x)) if len(x) else float("nan")


def _rms(x: np.ndarray) -> float:
    x = x[np.isfinite(x)]
    return float(np.sqrt((x**2).mean())) if len(x) else float("nan")


def _isi_distance(a: Statistics, b: Statistics) -> float:
    some = (a.isi_T3U[0, 0] >= MIN_INTERVALS) & (b.isi_T3U[0, 0] >= MIN_INTERVALS)
    share = lambda s: (s.isi_hist_THU[0].cumsum(0) / np.maximum(s.isi_hist_THU[0].sum(0), 1))[:, some]
    return _median(np.abs(share(a) - share(b)).max(0)) if some.any() else float("nan")


def _spectrum_error(a: Statistics, b: Statistics) -> float:
    if min(a.spectra_T[0], b.spectra_T[0]) == 0:
        return float("nan")
    mean = lambda s: s.spectrum_TQ[0] / s.spectra_T[0]
    known = (mean(a) > 0) & (mean(b) > 0)
    return _rms(10 * np.log10(mean(a)[known] / mean(b)[known])) if known.any() else float("nan")
