"""Scores of expected counts against the counts that came, as benchmarks of forecasting define them.

Shape suffixes: N moments, U units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import xlogy

from neuroformer.intervals import Terms, over_time, pearson_terms, ratio_terms
from neuroformer.metrics import NLB_RATE_FLOOR, bits_per_spike_rates, pearson

MOST_UNIT_SUMS = 2_000_000  # moments x units, up to which the mean of the units' r has an interval


def forecast_scores(counts_NU: np.ndarray, expected_NU: np.ndarray) -> dict[str, float]:
    """All scores of expected counts.

    - ``bits_per_spike`` and ``bits_per_spike_per_unit``: of Poisson rates against each unit's mean in the evaluated data, pooled
      and averaged over units (:func:`neuroformer.metrics.bits_per_spike_rates`). SpikeProphecy's "co_bps" lacks the rate term
      of the likelihood, so it is another number.
    - ``pop_rate_r``: Pearson's r over moments of the population's summed counts.
    - ``spatial_r``: r over units within a moment, averaged over the moments in which both sides vary.
    - ``cosine``: cosine of the two population vectors, averaged over moments; 0 where one is silent.
    - ``unit_r``: r over moments of a unit, averaged over units; 0 where a unit does not vary.
    - ``mae``: mean absolute error of a count.
    - ``count_ratio``: all expected counts over all counts; 1 is right.

    Parameters
    ----------
    counts_NU, expected_NU : of the same moments, one row each

    References
    ----------
    Minnick et al., SpikeProphecy, arXiv 2605.12992, 2026 (all but the first and the last); Pei et al., NeurIPS 2021 (the first).
    """
    bits = bits_per_spike_rates(counts_NU, expected_NU)
    spatial, cosine = spatial_r(counts_NU, expected_NU), cosine_similarity(counts_NU, expected_NU)
    return {
        "bits_per_spike": bits.pooled,
        "bits_per_spike_per_unit": bits.per_unit_mean,
        "pop_rate_r": float(pearson(counts_NU.sum(1), expected_NU.sum(1))[0]),
        "spatial_r": float(np.nanmean(spatial)) if np.isfinite(spatial).any() else float("nan"),
        "cosine": float(cosine.mean()),
        "unit_r": float(np.nan_to_num(pearson(counts_NU, expected_NU)).mean()),
        "mae": float(np.abs(counts_NU - expected_NU).mean()),
        "count_ratio": float(expected_NU.sum() / counts_NU.sum()) if counts_NU.sum() > 0 else float("nan"),
    }


def trace_scores(true_NU: np.ndarray, expected_NU: np.ndarray, copied_NU: np.ndarray) -> dict[str, float]:
    """Of continuous activity: ``mse_over_copied``, the squared error over that of the last value held (POCO's measure; below 1
    is better than copying), ``unit_r`` and ``pop_rate_r`` as for counts. Missing samples are left out."""
    known = np.isfinite(true_NU) & np.isfinite(copied_NU)
    error = lambda x: float(((x - true_NU)[known] ** 2).mean())
    whole = known.all(1)
    return {
        "mse_over_copied": error(expected_NU) / max(error(copied_NU), 1e-12),
        "pop_rate_r": float(pearson(true_NU[whole].sum(1), expected_NU[whole].sum(1))[0]),
        "unit_r": float(np.nan_to_num(pearson(np.where(known, true_NU, np.nan), expected_NU)).mean()),
    }


def spatial_r(counts_NU: np.ndarray, expected_NU: np.ndarray) -> np.ndarray:
    """(N,) r over units in each moment; NaN where either side is the same for all units."""
    return pearson(counts_NU.T, expected_NU.T)


def cosine_similarity(counts_NU: np.ndarray, expected_NU: np.ndarray) -> np.ndarray:
    """(N,) cosine of the population vectors; 0 where one is zero."""
    length = np.linalg.norm(counts_NU, axis=1) * np.linalg.norm(expected_NU, axis=1)
    return np.divide((counts_NU * expected_NU).sum(1), length, out=np.zeros(len(length)), where=length > 1e-12)


def unit_statistics(counts_NU: np.ndarray, expected_NU: np.ndarray) -> dict[str, np.ndarray]:
    """By unit (U,): ``r`` of the forecast; ``mean`` count; ``fano`` factor; ``ceiling``, the r that the true rate of a Poisson
    unit with these counts would have, ``sqrt(1 - mean / variance)``: 0 where counts vary no more than Poisson ones with a
    constant rate, and no ceiling of units that are more regular than Poisson."""
    mean_U, variance_U = counts_NU.mean(0), counts_NU.var(0)
    fano_U = np.divide(variance_U, mean_U, out=np.full(len(mean_U), np.nan), where=mean_U > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ceiling_U = np.sqrt(np.clip(1 - 1 / fano_U, 0, 1))
    return {"r": pearson(counts_NU, expected_NU), "mean": mean_U, "fano": fano_U, "ceiling": np.nan_to_num(ceiling_U)}


def with_intervals(counts_NU: np.ndarray, expected_NU: np.ndarray, name: str) -> dict[str, list[float]]:
    """``[value, low, high]`` of the scores, over held-out time; NaN for ends that there are none of."""
    values, terms = forecast_scores(counts_NU, expected_NU), forecast_terms(counts_NU, expected_NU)
    out = {}
    for key, value in values.items():
        ends = over_time(terms[key], f"{key} of {name}").ends()[:, 0] if key in terms else (np.nan, np.nan)
        out[key] = [value, float(ends[0]), float(ends[1])]
    return out


def forecast_terms(counts_NU: np.ndarray, expected_NU: np.ndarray) -> dict[str, Terms]:
    """The scores as sums over moments. Bits are against the evaluated mean rates, taken as known."""
    one = np.ones(len(counts_NU))
    spatial = spatial_r(counts_NU, expected_NU)
    known = np.isfinite(spatial)
    out = {
        "bits_per_spike": bits_terms(counts_NU, expected_NU),
        "pop_rate_r": pearson_terms(counts_NU.sum(1), expected_NU.sum(1)),
        "spatial_r": ratio_terms(np.where(known, spatial, 0.0), known.astype(float)),
        "cosine": ratio_terms(cosine_similarity(counts_NU, expected_NU), one),
        "mae": ratio_terms(np.abs(counts_NU - expected_NU).mean(1), one),
        "count_ratio": ratio_terms(expected_NU.sum(1), counts_NU.sum(1)),
    }
    return out | ({"unit_r": _unit_r_terms(counts_NU, expected_NU)} if counts_NU.size <= MOST_UNIT_SUMS else {})


def bits_terms(counts_NU: np.ndarray, expected_NU: np.ndarray) -> Terms:
    """Bits/spike, pooled, as a ratio of sums over moments."""
    rates, mean_U = np.maximum(expected_NU, NLB_RATE_FLOOR), np.maximum(counts_NU.mean(0), NLB_RATE_FLOOR)
    gain = xlogy(counts_NU, rates) - rates - xlogy(counts_NU, mean_U) + mean_U
    return ratio_terms(gain.sum(1), counts_NU.sum(1) * np.log(2))


def _unit_r_terms(counts_NU: np.ndarray, expected_NU: np.ndarray) -> Terms:
    a, b = counts_NU - counts_NU.mean(0), expected_NU - expected_NU.mean(0)
    number = counts_NU.shape[1]

    def value(sums: np.ndarray) -> np.ndarray:
        n, rest = sums[..., :1], sums[..., 1:].reshape(*sums.shape[:-1], 5, number)
        a, b, aa, ab, bb = (rest[..., k, :] for k in range(5))
        with np.errstate(divide="ignore", invalid="ignore"):
            r = (ab - a * b / n) / np.sqrt((aa - a * a / n) * (bb - b * b / n))
        return np.nan_to_num(r).mean(-1, keepdims=True)

    sums = np.concatenate([np.ones((len(a), 1)), a, b, a * a, a * b, b * b], 1)
    return Terms(sums, value, np.stack([a.sum(1), b.sum(1)], 1), "correlation")


def by_group(groups: list[str], units: dict[str, np.ndarray], bin_s: float) -> list[dict[str, Any]]:
    """A row a group of units, such as an area: ``units``, mean ``r`` and its standard error over units, mean ``rate_hz``,
    ``fano`` and ``ceiling``."""
    rows = []
    for group in sorted(set(groups)):
        mine = np.array([g == group for g in groups])
        r = np.nan_to_num(units["r"][mine])
        rows.append(
            {
                "group": group,
                "units": int(mine.sum()),
                "r": float(r.mean()),
                "r_error": float(r.std(ddof=1) / np.sqrt(len(r))) if len(r) > 1 else float("nan"),
                "rate_hz": float(units["mean"][mine].mean() / bin_s),
                "fano": float(np.nanmean(units["fano"][mine])) if np.isfinite(units["fano"][mine]).any() else np.nan,
                "ceiling": float(units["ceiling"][mine].mean()),
            }
        )
    return rows
