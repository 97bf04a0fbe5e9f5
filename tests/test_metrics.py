"""Scores against values worked out by hand, and the properties that make them honest."""

from math import log

import numpy as np
import pytest

from neuroformer import metrics

LN2 = log(2)


def test_poisson_log_likelihood_golden():
    # 0 at rate 1: -1; 1 at 2: log 2 - 2; 3 at 2: 3 log 2 - 2 - log 6
    assert metrics.poisson_log_likelihood([0, 1, 3], [1, 2, 2]) == pytest.approx(4 * log(2) - 5 - log(6))


def test_poisson_zero_rate():
    assert metrics.poisson_log_likelihood([0], [0.0]) == 0
    assert metrics.poisson_log_likelihood([1], [0.0]) == -np.inf


@pytest.mark.parametrize(
    "counts, rates", [([1], [-1]), ([1], [np.nan]), ([-1], [1]), ([0.5], [1]), ([1, 2], [1, 2, 3])]
)
def test_poisson_refuses(counts, rates):
    with pytest.raises(ValueError):
        metrics.poisson_log_likelihood(counts, rates)


def test_null_golden():
    counts = np.array([[1, 0], [0, 2]])
    unit_rate = np.array([0.5, 1.0])  # (n + 0.5) / bins
    # unit 0: log 0.5 - 0.5, -0.5; unit 1: -1, 2 log 1 - 1 - log 2
    want = log(0.5) - 1.0 - 2.0 - log(2)
    assert metrics.null_log_likelihood(counts, unit_rate) == pytest.approx(want)
    assert metrics.null_log_likelihood(counts.reshape(1, 2, 2), unit_rate) == pytest.approx(want)
    with pytest.raises(ValueError, match="one rate per unit"):
        metrics.null_log_likelihood(counts, unit_rate[:1])


def test_bits_per_spike():
    assert metrics.bits_per_spike(-10.0, -10.0, 7) == 0
    assert metrics.bits_per_spike(-10.0 + 6 * LN2, -10.0, 4) == pytest.approx(1.5)
    assert np.isnan(metrics.bits_per_spike(0.0, 0.0, 0))


def test_bits_per_spike_rates_golden():
    counts = np.array([[2, 0, 0], [0, 2, 0]])
    rates = np.array([[2.0, 1.0, 1e-9], [1e-300, 1.0, 1e-9]])
    # unit 0: mean 1; model 2 log 2 - 2, null 2 log 1 - 2: gain 2 log 2 over 2 spikes = 1 bit; unit 1: null
    out = metrics.bits_per_spike_rates(counts, rates)
    assert out.pooled == pytest.approx(0.5, abs=1e-6)
    assert out.per_unit_mean == pytest.approx(0.5, abs=1e-6)
    assert out.num_silent_units == 1
    three = metrics.bits_per_spike_rates(np.array([[2, 2], [0, 6]]), np.array([[2.0, 4.0], [0.0, 4.0]]))
    assert three.pooled == pytest.approx(0.2, abs=1e-6)  # 2 bits over 10 spikes
    assert three.per_unit_mean == pytest.approx(0.5, abs=1e-6)  # 1 and 0


def test_evaluation_mean_scores_zero_and_samples_are_not_rates():
    rng = np.random.default_rng(0)
    truth = np.exp(rng.normal(-1.5, 1, (2000, 5)))
    counts = rng.poisson(truth)
    mean = np.broadcast_to(counts.mean(0), counts.shape)
    assert metrics.bits_per_spike_rates(counts, mean).pooled == pytest.approx(0, abs=1e-12)
    good = metrics.bits_per_spike_rates(counts, truth).pooled
    sampled = metrics.bits_per_spike_rates(counts, rng.poisson(truth).astype(float)).pooled
    assert good > 0.2 and sampled < -1


def test_r2_and_pearson_golden():
    true = np.array([1.0, 2.0, 3.0, np.nan])
    predicted = np.array([1.0, 2.0, 4.0, 9.0])
    assert metrics.r2(true, predicted) == pytest.approx([0.5])
    # deviations -1 0 1 against -4/3 -1/3 5/3: r = 3 / sqrt(2 * 42/9)
    assert metrics.pearson(true, predicted) == pytest.approx([3 / np.sqrt(28 / 3)])
    two = metrics.r2(np.stack([true, true], 1), np.stack([predicted, true], 1)[:, :])
    assert two == pytest.approx([0.5, 1.0])


def test_r2_of_the_mean_is_zero_and_constants_have_none():
    y = np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 6.0]])
    assert metrics.r2(y, np.full_like(y, 3.0))[1] == pytest.approx(0)
    assert np.isnan(metrics.r2(y, y)[0]) and np.isnan(metrics.pearson(y, y)[0])
    assert np.isnan(metrics.pearson(y[:, 1], y[:, 0])[0])
    with pytest.raises(ValueError, match="not finite"):
        metrics.r2(y[:, 1], np.array([1.0, np.nan, 2.0]))
    with pytest.raises(ValueError, match="shape"):
        metrics.r2(y, y[:, :1])


def test_labels_of_one_class_score_nothing():
    """Naming it always would be perfect, and says nothing."""
    ones = np.ones((5, 1))
    assert np.isnan(metrics.target_score("classification", ones, ones))
    assert metrics.target_score("classification", np.arange(5.0)[:, None] % 2, ones) == 0.5


def test_balanced_accuracy_golden():
    out = metrics.balanced_accuracy([0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 0, 2])
    assert out.score == pytest.approx((2 / 3 + 1 + 1 / 2) / 3) and out.chance == pytest.approx(1 / 3)
    lazy = metrics.balanced_accuracy(np.array([0.0] * 99 + [1.0, np.nan]), np.zeros(101))
    assert lazy.score == lazy.chance == 0.5


def test_absolute_errors_golden():
    np.testing.assert_allclose(metrics.absolute_errors([1.0, 2.0, np.nan], [4.0, 2.0, 0.0]), [3, 0, np.nan])
    np.testing.assert_allclose(metrics.absolute_errors([[0.0, 0.0], [1.0, 1.0]], [[3.0, 4.0], [1.0, 2.0]]), [5, 1])
    np.testing.assert_allclose(metrics.absolute_errors([350.0, 10.0], [10.0, 200.0], 360.0), [20, 170])
