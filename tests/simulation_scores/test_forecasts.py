"""Scores of forecasts: golden values worked out by hand, perfect and useless predictors."""

import numpy as np
import pytest

from neuroformer.intervals import over_time
from neuroformer.metrics import bits_per_spike_rates
from neuroformer.simulation_scores.forecasts import (
    by_group,
    cosine_similarity,
    forecast_scores,
    forecast_terms,
    spatial_r,
    trace_scores,
    unit_statistics,
)

COUNTS = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [3.0, 1.0, 2.0], [0.0, 1.0, 0.0]])
EXPECTED = np.array([[1.0, 1.0, 1.0], [0.5, 0.0, 0.5], [2.0, 1.0, 3.0], [0.0, 2.0, 0.0]])


def test_golden_values():
    # moments 1 and 2 have a side that is the same for all units; 3: centred (1, -1, 0) and (0, -1, 1); 4: both (0, 1, 0)
    np.testing.assert_allclose(spatial_r(COUNTS, EXPECTED), [np.nan, np.nan, 1 / 2, 1.0], atol=1e-12)
    # 3 / sqrt(5 * 3); silence; (6 + 1 + 6) / sqrt(14 * 14); 1
    np.testing.assert_allclose(cosine_similarity(COUNTS, EXPECTED), [3 / 15**0.5, 0, 13 / 14, 1])
    found = forecast_scores(COUNTS, EXPECTED)
    assert found["spatial_r"] == pytest.approx(0.75) and found["cosine"] == pytest.approx((3 / 15**0.5 + 27 / 14) / 4)
    assert found["mae"] == pytest.approx((2 + 1 + 2 + 1) / 12)
    assert found["count_ratio"] == pytest.approx(12 / 10)
    # population counts 3, 0, 6, 1 and 3, 1, 6, 2: sums of products of (0.5, -2.5, 3.5, -1.5) and (0, -2, 3, -1)
    assert found["pop_rate_r"] == pytest.approx(17 / np.sqrt(21 * 14))
    unit = [np.corrcoef(a, b)[0, 1] for a, b in zip(COUNTS.T, EXPECTED.T, strict=True)]
    assert found["unit_r"] == pytest.approx(np.mean(unit))
    bits = bits_per_spike_rates(COUNTS, EXPECTED)
    assert (found["bits_per_spike"], found["bits_per_spike_per_unit"]) == (bits.pooled, bits.per_unit_mean)
    silent = forecast_scores(np.c_[COUNTS, np.zeros(4)], np.c_[EXPECTED, np.ones(4)])
    assert silent["unit_r"] == pytest.approx(np.mean([*unit, 0]))  # a unit that does not vary has 0


def test_a_perfect_and_a_useless_predictor():
    rng = np.random.default_rng(0)
    rate = rng.gamma(2, 0.5, (2000, 5)) * [0.2, 0.5, 1, 2, 4]
    counts = rng.poisson(rate).astype(float)
    perfect = forecast_scores(counts, counts)
    for key in ("pop_rate_r", "spatial_r", "unit_r"):
        assert perfect[key] == pytest.approx(1)
    assert perfect["mae"] == 0
    useless = forecast_scores(counts, np.broadcast_to(counts.mean(0), counts.shape))
    assert useless["bits_per_spike"] == pytest.approx(0) and useless["bits_per_spike_per_unit"] == pytest.approx(0)
    assert useless["unit_r"] == 0 and useless["spatial_r"] > 0.3  # units' rates differ, and that is all it knows
    true = forecast_scores(counts, rate)
    assert true["bits_per_spike"] > max(0.1, forecast_scores(counts, rate * 1.3)["bits_per_spike"])
    # the r of the true rate is the Poisson ceiling of the counts
    units = unit_statistics(counts, rate)
    np.testing.assert_allclose(units["r"], units["ceiling"], atol=0.06)
    np.testing.assert_allclose(units["fano"], counts.var(0) / counts.mean(0))


def test_sums_give_the_scores():
    rng = np.random.default_rng(1)
    rate = rng.gamma(1, 1, (400, 4))
    counts = rng.poisson(rate).astype(float)
    values = forecast_scores(counts, rate)
    terms = forecast_terms(counts, rate)
    for key, one in terms.items():
        assert one.of_all()[0] == pytest.approx(values[key], abs=1e-9), key
        low, high = over_time(one, key).ends()[:, 0]
        assert low < values[key] < high


def test_traces_against_the_last_value():
    true = np.array([[1.0, 2.0], [3.0, np.nan], [2.0, 4.0]])
    copied = np.array([[2.0, 2.0], [1.0, 0.0], [3.0, 2.0]])
    assert trace_scores(true, copied, copied)["mse_over_copied"] == 1
    # errors 0.5 in each of five against 1, 0, 2, 1, 2
    found = trace_scores(true, np.nan_to_num(true) + 0.5, copied)
    assert found["mse_over_copied"] == pytest.approx((5 * 0.25) / (1 + 0 + 4 + 1 + 4))
    assert found["unit_r"] == pytest.approx(1)


def test_groups_of_units():
    units = {"r": np.array([0.2, np.nan, 0.6]), "mean": np.array([0.1, 0.2, 0.3]), "fano": np.array([1, 2, 3.0])}
    a, b = by_group(["V1", "CA1", "V1"], units | {"ceiling": np.ones(3)}, 0.05)
    assert (a["group"], a["units"], a["r"], b["group"], b["r"]) == ("CA1", 1, 0, "V1", pytest.approx(0.4))
    assert b["rate_hz"] == pytest.approx(4) and b["fano"] == 2 and b["r_error"] == pytest.approx(0.2)
