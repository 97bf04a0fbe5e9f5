"""Intervals hold the truth as often as they say, or are not given."""

import warnings

import numpy as np
import pytest

from benchmarks.science import coverage
from neuroformer import metrics
from neuroformer.intervals import (
    Estimate,
    FewBlocksWarning,
    error_terms,
    independent_values,
    left_out,
    mean_interval,
    over_time,
    over_trials,
    pearson_terms,
    ratio_terms,
    target_terms,
)


@pytest.mark.parametrize("kind", ["R2", "R2, difference of equals", "bits/spike, difference"])
@pytest.mark.parametrize(("seconds", "time_constant_s"), [(60, 0.5), (120, 2.0), (300, 8.0)])
def test_nominal_95_percent_holds_the_truth_in_90_or_more(kind, seconds, time_constant_s):
    """Cells of the table of `python -m benchmarks coverage`; 120 draws say 95 with a standard error of 2."""
    given, held = coverage.cell(coverage.KINDS[kind], seconds, time_constant_s, 120)
    assert given > 0.2 and held >= 0.9, (given, held)


@pytest.mark.parametrize("seconds", [60, 120])
def test_where_little_is_independent_there_is_no_interval(seconds):
    """With 7 or 15 time constants even the variance of the labels is unknown."""
    for kind, most in (("R2", 0.05), ("bits/spike, difference", 0.06), ("balanced accuracy", 0.06)):
        given, _ = coverage.cell(coverage.KINDS[kind], seconds, 8.0, 100)
        assert given <= most, kind


def test_a_class_that_occurs_in_few_stretches_has_no_interval():
    """Errors that are independent, and a class that the animal visits four times in a long recording, or every minute."""
    rng = np.random.default_rng(0)
    for visits, given in ((4, False), (60, True)):
        true = np.zeros(12_000)
        for at in (np.arange(visits) + 0.5) * 12_000 / visits:
            true[int(at) : int(at) + 30] = 1.0
        predicted = np.where(rng.random(12_000) < 0.25, 1 - true, true)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewBlocksWarning)
            found = over_time(target_terms("classification", true[:, None], predicted[:, None]), "choice")
        assert np.isfinite(found.ends()[:, 0]).all() == given


def test_a_recording_that_is_too_short_says_so():
    y = np.linspace(0, 1, 400)[:, None]
    with pytest.warns(FewBlocksWarning, match="no 95 % interval of speed: .* fewer than 12 independent"):
        found = over_time(target_terms("regression", y, y**2), "speed")
    assert np.isnan(found.ends()).all() and found.value_S[0] == pytest.approx(metrics.r2(y, y**2)[0])


@pytest.mark.parametrize("kind", ["regression", "circular", "classification"])
def test_sums_give_the_scores_of_metrics(kind):
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=(300, 2)), rng.normal(size=(300, 4, 2))
    if kind == "classification":
        true, predicted = rng.integers(0, 3, (300, 1)), rng.integers(0, 3, (300, 4, 1))
    true, predicted = true.astype(float), predicted.astype(float)
    found = target_terms(kind, true, predicted, 3.0, (2.0, 5.0)).of_all()
    each = [metrics.target_score(kind, true, predicted[:, k], 3.0) for k in range(4)]
    assert found[0] == pytest.approx(np.mean(each))
    if kind == "classification":
        assert found[1] == pytest.approx((predicted == true[:, None])[true[:, 0] == 2].mean()) and np.isnan(found[2])
    else:
        score = metrics.r2 if kind == "regression" else lambda y, p: metrics.circular_r2(y, p, 3.0)
        np.testing.assert_allclose(found[1:], np.mean([score(true, predicted[:, k]) for k in range(4)], 0))


def test_pearson_and_ratios_are_their_definitions():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=200), rng.normal(size=200)
    assert pearson_terms(a, a + b).of_all() == pytest.approx(metrics.pearson(a, a + b))
    assert ratio_terms(a, b**2, 3.0).of_all() == pytest.approx(3 * a.sum() / (b**2).sum())
    assert np.isnan(ratio_terms(a, 0 * a).of_all())


def test_a_paired_difference_is_surer_than_its_sides():
    """Two decoders that share their errors differ by little, which unpaired intervals could not tell."""
    rng = np.random.default_rng(2)
    y, shared = coverage.autoregression(rng, 3000, 0.5, 2).T[:, :, None]
    ours, theirs = (
        target_terms("regression", y, y + 0.5 * shared + c * rng.standard_normal(y.shape)) for c in (0.1, 0.2)
    )
    wide = np.diff(over_time(ours, "ours").ends()[:, 0])[0]
    low, high = over_time(ours.minus(theirs), "difference").ends()[:, 0]
    assert 0 < low < high and high - low < wide / 2
    same = over_time(ours.minus(ours), "itself")
    assert same.value_S[0] == 0 and np.isnan(same.ends()).all()


def test_independent_values_of_known_series():
    rng = np.random.default_rng(3)
    white = rng.standard_normal((1280, 20))
    slow = coverage.autoregression(rng, 1280, 1.0, 20)  # an integrated time of 20 steps
    worth = lambda x: float(np.median(independent_values(x)))
    assert worth(white) > 700 and 35 < worth(slow) < 75
    assert worth(slow + 0.5 * white) < 110  # noise on it does not make it worth much more
    assert worth(np.zeros((64, 2))) == 64 and worth(white[:15]) == 0


def test_trials_are_left_out_a_third_at_a_time():
    gone = left_out(9)
    assert gone.shape[1] == 9 and (gone.sum(1) == 3).all()
    x = np.random.default_rng(4).normal(size=9)
    means = np.array([x[~some].mean() for some in gone])[:, None]
    (found,) = over_trials([x.mean()], means, 9, ["plain"])
    assert found.ends()[:, 0] == pytest.approx(mean_interval(x.tolist())[1:], rel=0.15)
    assert np.isnan(over_trials([0.0], means, 5, ["plain"])[0].ends()).all()


@pytest.mark.slow
def test_scores_of_simulations_hold_over_trials():
    found = coverage.trial_cell(9, 60)
    for name in ("psth_r", "rate_ratio", "pair_r", "fano"):
        assert found[name][0] == 1.0 and found[name][1] >= 0.9, (name, found[name])


def test_repeats_add_their_spread():
    one = Estimate(np.array([0.5]), np.array([0.5]), np.array([0.03]), np.array([9.0]))
    assert one.with_repeats(np.array([[0.5]])) is one
    more = one.with_repeats(np.array([[0.4], [0.5], [0.6]]))
    assert more.error_S[0] == pytest.approx(np.hypot(0.03, 0.1 / np.sqrt(3))) and 2 < more.degrees_S[0] < 9


def test_values_without_labels_have_neither_score_nor_interval():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = over_time(target_terms("regression", np.zeros((0, 1)), np.zeros((0, 1))), "nothing")
    assert np.isnan(found.value_S).all() and np.isnan(found.ends()).all()


def test_mean_interval_golden_and_covers():
    # R: t.test(c(1, 2, 4))$conf.int
    mean, low, high = mean_interval([1.0, 2.0, 4.0])
    assert (mean, low, high) == pytest.approx((7 / 3, -1.4612501, 6.1279168))
    assert 0.935 < coverage.seeds_cell(4, 2000)[1] < 0.965
    with pytest.raises(ValueError, match="two values or more"):
        mean_interval([1.0])


def test_the_interval_of_a_median_error_is_around_it_and_a_pair_is_surer():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(4000, 1))
    a, b = np.abs(rng.normal(size=4000)), np.abs(rng.normal(size=4000))
    both = np.abs(rng.normal(size=4000))
    for error in (a, a * 0 + 3.0):
        terms = error_terms(error, true)
        np.testing.assert_allclose(terms.of_all(), [np.median(error), error.mean()], rtol=0.01)
    (low, mean_low), (high, mean_high) = over_time(error_terms(a, true), "error").ends()
    assert low < 0.6745 < high < low + 0.15 and mean_low < np.sqrt(2 / np.pi) < mean_high
    nearer = error_terms(both + 0.5 * a, true).minus(error_terms(both + 0.5 * b + 0.3, true))
    low, high = over_time(nearer, "difference").ends()[:, 0]
    assert -0.4 < low < -0.3 < high < -0.2
