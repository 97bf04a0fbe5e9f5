"""Scores of a simulation: golden values by hand, and what must hold for truth and for nonsense."""

import dataclasses
import json

import numpy as np
import pytest

from neuroformer.metrics import poisson_log_likelihood
from neuroformer.simulation_scores.drift import chain_order, chained, imitations, late_scores, since_closed
from neuroformer.simulation_scores.poisson_simulators import homogeneous, psth_poisson
from neuroformer.simulation_scores.rates import expected_counts, feve, rate_bits, single_trial_r
from neuroformer.simulation_scores.recorded import RecordedTrials
from neuroformer.simulation_scores.scores import _samples_of_each, flat_scores, score_simulation
from neuroformer.simulation_scores.sides import Side, with_intervals
from neuroformer.simulation_scores.statistics import (
    Statistics,
    compare,
    fano_factors,
    interval_cv,
    interval_moments,
    lagged_correlations,
    pair_correlations,
    population_kl,
)
from neuroformer.simulation_scores.trials import Trials
from neuroformer.simulation_scores.two_sample import segment_features, two_sample

DT, BINS, UNITS = 0.01, 800, 8


def bursting(num_trials, seed, first_source=0, gain=1.0):
    """Units that share a slow stimulus and a faster common fluctuation, so that no Poisson simulator fits them."""
    rng = np.random.default_rng(seed)
    time = np.arange(BINS) * DT
    phase = np.arange(UNITS)
    stimulus = np.exp(np.sin(2 * np.pi * time[:, None] / 2 + phase))
    counts = []
    for _ in range(num_trials):
        shared = np.repeat(rng.gamma(0.7, 1 / 0.7, BINS // 20), 20)
        counts.append(rng.poisson(gain * 0.08 * stimulus * shared[:, None]))
    source = np.arange(num_trials) + first_source
    return Trials.from_counts(counts, source, np.zeros(num_trials), DT)


def stats(x_BU, dt=DT):
    trials = Trials.from_counts([np.asarray(x_BU)], [0], [-1], dt)
    return Statistics.of(trials, np.arange(trials.num_units)).total()


def test_trials_keep_every_spike_and_cut_where_asked():
    counts = [np.random.default_rng(k).integers(0, 3, (30 + k, 4)) for k in range(3)]
    trials = Trials.from_counts(counts, [5, 6, 7], [0, 1, 0], 0.1)
    for x, y in zip(counts, trials.counts(), strict=True):
        assert np.array_equal(x, y)
    assert np.array_equal(trials.rows(np.array([2, 0, 2])).counts()[0], counts[2])
    assert trials.rows(np.array([2, 0])).source.tolist() == [7, 5]
    assert np.array_equal(trials.between(10, 31).counts()[0], counts[1][10:31])
    assert len(trials.between(10, 31)) == 2 and trials.first(7).counts()[1].shape == (7, 4)
    assert np.array_equal(trials.counts(10)[2], counts[2][:30].reshape(3, 10, 4).sum(1))


def test_golden_statistics():
    # windows of 1 s are 2 bins: counts 2, 0, 2, 0 (mean 1, variance 1) and 1, 0, 2, 0 (mean 3/4, variance 11/16)
    x = np.array([[1, 1], [1, 0], [0, 0], [0, 0], [2, 1], [0, 1], [0, 0], [0, 0]])
    s = stats(x, dt=0.5)
    assert fano_factors(s) == pytest.approx([1.0, 11 / 12])
    assert s.isi_T3U[0, :, 0].tolist() == [3.0, 4.0, 1 + 9 + 0]  # gaps 1, 3, 0
    assert np.isnan(interval_cv(s)).all()  # fewer than 20 intervals
    regular = stats((np.arange(200) % 4 == 0).astype(int)[:, None])
    assert interval_cv(regular)[0] == 0.0
    # correlation of counts in 50 ms bins (here 5 bins), by NumPy itself
    rng = np.random.default_rng(0)
    y = rng.poisson(1.0, (100, 3)) + rng.poisson(1.0, (100, 1))
    wide = y.reshape(20, 5, 3).sum(1)
    assert np.allclose(pair_correlations(stats(y)), np.corrcoef(wide.T))
    z = np.stack([y[:, 0], np.roll(y[:, 0], 3)], 1)
    lagged = lagged_correlations(stats(z))
    assert lagged[2, 0, 1] == pytest.approx(1.0, abs=0.06) and abs(lagged[2, 1, 0]) < 0.3


def test_golden_comparison():
    x = np.random.default_rng(1).poisson(0.3, (800, 5))
    same = compare(stats(x), stats(x))
    exact = {
        "rate_ratio": 1,
        "rate_r": 1,
        "rate_error": 0,
        "fano_error": 0,
        "cv_error": 0,
        "isi_distance": 0,
        "pair_r": 1,
        "pair_error": 0,
        "lagged_r": 1,
        "spectrum_error": 0,
    }
    assert {k: same[k] for k in exact} == pytest.approx(exact, abs=1e-9)
    twice = compare(stats(2 * x), stats(x))
    assert twice["rate_ratio"] == pytest.approx(2.0)
    assert twice["rate_error"] == pytest.approx(1.0, abs=0.01)  # one octave
    assert twice["fano"] == pytest.approx(2 * same["fano"])
    assert twice["spectrum_error"] == pytest.approx(20 * np.log10(2))
    assert twice["pair_r"] == pytest.approx(1.0)


def test_the_measures_of_ldns_golden():
    # counts 0, 1, 2 in 1, 2, 1 of four bins against 3, 0, 1: with half a bin each, of 5.5
    p, q = np.array([3.5, 0.5, 1.5]) / 5.5, np.array([1.5, 2.5, 1.5]) / 5.5
    assert population_kl(np.array([1, 2, 1, 0]), np.array([3, 0, 1, 0])) == pytest.approx((p * np.log(p / q)).sum())
    assert np.isnan(population_kl(np.zeros(3), np.ones(3)))
    x = stats([[1, 1], [0, 0], [2, 1], [0, 0]])
    assert x.population_TK[0, :4].tolist() == [2, 0, 1, 1]
    # 25 gaps of 4 bins and of 8 bins against 25 gaps of 5 and of 2 and 10 in turn (mean 6, deviation 4)
    train = lambda gaps: np.bincount(np.cumsum([0, *gaps]), minlength=300)[:300]
    a = stats(np.stack([train([4] * 25), train([8] * 25)], 1))
    b = stats(np.stack([train([5] * 25), train([2, 10] * 13)], 1))
    np.testing.assert_allclose(interval_moments(b)[:, 1], [0.06, 0.04], rtol=1e-6)
    found = compare(a, b)
    assert found["isi_mean_error"] == pytest.approx(0.01 * np.sqrt((1 + 4) / 2))
    assert found["isi_std_error"] == pytest.approx(0.01 * np.sqrt(16 / 2))
    same = compare(a, a)
    assert same["population_kl"] == same["isi_mean_error"] == same["isi_std_error"] == same["pair_error"] == 0


def test_sums_over_trials_are_the_statistics_of_all_trials():
    trials = bursting(4, 0)
    parts = Statistics.of(trials, np.arange(UNITS))
    rows = np.array([0, 2, 2])
    again = Statistics.of(trials.rows(rows), np.arange(UNITS))
    for key, value in compare(parts.totals(np.bincount(rows, minlength=4)[None])[0], again.total()).items():
        if key not in ("fano", "cv", "rate_ratio"):
            assert value == pytest.approx(1.0 if key.endswith("_r") else 0.0, abs=1e-9), key


def test_expected_counts_of_samples_and_of_a_readout():
    samples = np.array([[[0.0, 2.0]], [[1.0, 0.0]]])
    plain = expected_counts(samples)
    assert plain.expected_BU.tolist() == [[0.5, 1.0]] and plain.num_samples == 2
    assert plain.variance_BU.tolist() == [[0.25, 1.0]]  # 0.5 / 2 and 2 / 2
    pulled = expected_counts(samples, prior=2.0, mean_U=np.array([0.1, 0.1]))
    assert pulled.expected_BU == pytest.approx(np.array([[0.3, 0.55]]))
    assert pulled.variance_BU == pytest.approx(plain.variance_BU / 4)
    assert expected_counts(np.log([[0.5, 2.0]]), readout=True).expected_BU == pytest.approx(np.array([[0.5, 2.0]]))
    wide = expected_counts(np.log(np.arange(1.0, 11).reshape(5, 2)), readout=True, join=2)
    assert wide.expected_BU == pytest.approx(np.array([[4.0, 6.0], [12.0, 14.0]]))
    assert expected_counts(
        samples.repeat(2, 1), prior=2.0, mean_U=np.array([0.1, 0.1]), join=2
    ).expected_BU == pytest.approx(2 * pulled.expected_BU)
    with pytest.raises(ValueError, match="give mean_U"):
        expected_counts(samples, prior=1.0)
    with pytest.raises(ValueError, match=r"expected \(samples, bins, units\)"):
        expected_counts(samples[0])


def test_feve_is_one_for_the_truth_whatever_the_number_of_samples():
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(0, 1, (400, 6)))
    recorded = list(rng.poisson(rate, (8, 400, 6)).astype(float))
    kinds = np.zeros(8, int)
    exact = [expected_counts(np.log(rate), readout=True)] * 8
    few = [expected_counts(rng.poisson(rate, (3, 400, 6))) for _ in range(8)]
    assert feve(recorded, exact, kinds)[0] == pytest.approx(1.0, abs=0.03)
    assert feve(recorded, few, kinds)[0] == pytest.approx(1.0, abs=0.06)
    flat = [expected_counts(np.log(np.tile(rate.mean(0), (400, 1))), readout=True)] * 8
    assert feve(recorded, flat, kinds)[0] == pytest.approx(0.0, abs=0.03)
    assert single_trial_r(recorded, few).mean() < single_trial_r(recorded, exact).mean()
    assert np.isnan(feve(recorded, exact, np.full(8, -1))[0])
    # by hand: MSE 1, variance 5/3 (1, 1, 3, 3 about 2, ddof 1: 4/3), no noise
    two = [np.array([[1.0], [3.0]])] * 2
    guess = [expected_counts(np.log([[2.0], [2.0]]), readout=True)] * 2
    assert feve(two, guess, np.zeros(2, int)) == (pytest.approx(1 - 1 / (4 / 3)), 1)


def test_rate_bits_know_the_truth_and_what_few_samples_cost():
    rng = np.random.default_rng(0)
    rate = 0.2 * np.exp(rng.normal(0, 1, (4000, 3)))
    recorded = [rng.poisson(rate).astype(float)]
    exact = expected_counts(np.log(rate), readout=True)
    mean_U = rate.mean(0)
    sampled = lambda k: expected_counts(rng.poisson(rate, (k, 4000, 3)), prior=1.0, mean_U=mean_U)
    scores = [rate_bits(recorded, [x]).pooled for x in (sampled(3), sampled(30), sampled(1000), exact)]
    assert scores == sorted(scores) and scores[2] == pytest.approx(scores[3], abs=0.01)
    flat = expected_counts(np.log(np.tile(recorded[0].mean(0), (4000, 1))), readout=True)
    assert rate_bits(recorded, [flat]).pooled == pytest.approx(0, abs=1e-12)


def test_the_poisson_simulators():
    train, valid, test = bursting(12, 1), bursting(4, 2), bursting(4, 3)
    flat, shaped = homogeneous(train), psth_poisson(train, valid)
    assert shaped is not None and shaped.bits_per_spike(test) > 0.1 > flat.bits_per_spike(test)
    counts = np.stack(test.counts())
    assert shaped.log_likelihood(test) == pytest.approx(
        poisson_log_likelihood(counts, np.tile(shaped.rates(0, BINS), (4, 1, 1)))
    )
    assert np.isfinite(shaped.log_likelihood(test))
    drawn = shaped.sample(test, 0)
    assert drawn.source.tolist() == test.source.tolist()
    assert len(drawn.unit) == pytest.approx(len(train.unit) / 3, rel=0.2)
    assert np.array_equal(shaped.sample(test, 0).unit, drawn.unit)
    unknown = shaped.rates(99, 10)
    assert np.array_equal(unknown, np.tile(flat.mean_U, (10, 1)))
    other = Trials(
        *(getattr(valid, k) for k in ("trial", "tick", "unit", "num_ticks", "source")),
        valid.stimulus + 1,
        DT,
        UNITS,
    )
    assert psth_poisson(train, other) is None


def test_the_classifier_knows_noise_from_data_and_not_data_from_data():
    real, again = bursting(12, 4), bursting(12, 5)
    assert segment_features(real)[0].shape == (12 * 4, UNITS + 10)
    same = two_sample(real, again)
    assert same is not None and 0.3 < same.best < 0.65
    poisson = homogeneous(real).sample(again, 0)
    told = two_sample(real, poisson)
    assert told is not None and told.best > 0.9
    low, high = told.interval()
    assert low <= told.best <= high
    assert two_sample(real.rows(np.array([0])), again.rows(np.array([0]))) is None


@pytest.fixture(scope="module")
def scored():
    held_out = bursting(6, 6, first_source=20)
    parts = RecordedTrials(bursting(12, 7), bursting(4, 8), held_out)
    truth = bursting(12, 9)
    perfect = Trials(
        truth.trial, truth.tick, truth.unit, truth.num_ticks, np.tile(held_out.source, 2), truth.stimulus, DT, UNITS
    )
    return score_simulation(perfect, parts, true_past=perfect), perfect, parts


def test_a_perfect_simulator_reaches_the_ceiling_and_the_floors_do_not(scored):
    scores, _, _ = scored
    c = scores["candidates"]
    assert set(c) == {"model", "true_past", "ceiling", "psth_poisson", "homogeneous"}
    value = lambda name, key: c[name][key][0]
    for key in ("psth_r", "pair_r", "rate_r", "lagged_r"):
        assert value("model", key) > value("ceiling", key) - 0.1, key
        assert value("homogeneous", key) < value("model", key), key
    for key in ("isi_distance", "pair_error", "spectrum_error", "fano_error"):
        assert value("model", key) < value("homogeneous", key), key
        assert value("model", key) < value("psth_poisson", key), key
    assert value("ceiling", "single_trial_r") > value("model", "single_trial_r") > 0.05  # 16 samples against 2
    low, high = c["model"]["psth_r"][1:]
    assert low <= value("model", "psth_r") <= high + 0.1
    json.dumps(scores)


def test_the_oracle_of_a_trial_is_every_other_repeat_and_never_the_trial_itself(scored):
    _, perfect, parts = scored
    join = 5
    held = parts.held_out.counts(join)
    for own, others in zip(held, _samples_of_each("ceiling", perfect, parts, join), strict=True):
        assert len(others) == len(parts.train) + len(held) - 1
        assert not any(np.array_equal(own, x) for x in others)


def test_trials_and_their_imitations_are_left_out_together():
    """A simulation that imitates each trial nearly exactly is sure, however much trials differ."""
    trials = Trials.from_counts([np.full((400, 3), 1 + t % 3) for t in range(9)], np.arange(9), np.zeros(9), DT)
    nearly = Trials.from_counts(
        [np.full((400, 3), 1 + t % 3) + np.eye(400, 3) for t in range(9)], np.arange(9), np.zeros(9), DT
    )
    twice = nearly.rows(np.repeat(np.arange(9)[::-1], 2))
    sides = [Side(x, np.arange(3)) for x in (twice, trials)]
    assert with_intervals(*sides, paired=True)["rate_ratio"] == pytest.approx([1.0] * 3, rel=0.01)
    _, low, high = with_intervals(*sides, paired=False)["rate_ratio"]
    assert high - low > 0.2


def test_the_classifier_does_not_recognise_a_segment_by_its_trial():
    """Every trial has rates of its own, and both sides draw them alike: only who has seen a trial tells its kind."""
    rng = np.random.default_rng(0)
    draw = lambda: [rng.poisson(0.1 * np.tile(rng.gamma(1.0, 1.0, 12), (800, 1))) for _ in range(24)]
    real, simulated = (Trials.from_counts(draw(), np.arange(24), np.zeros(24), DT) for _ in range(2))
    told = two_sample(real, simulated)
    assert told is not None and told.best < 0.7


def test_trials_whose_stimulus_training_never_showed_are_scored_too():
    """Every trial with a stimulus of its own, as where images come in random order: data against data remain."""
    alone = lambda trials, first: dataclasses.replace(trials, stimulus=np.arange(len(trials)) + first)
    held_out = alone(bursting(4, 6, first_source=20), 50)
    parts = RecordedTrials(alone(bursting(6, 7), 0), alone(bursting(3, 8), 30), held_out)
    made = dataclasses.replace(bursting(4, 9), source=held_out.source, stimulus=held_out.stimulus)
    scores = score_simulation(made, parts)
    assert set(scores["candidates"]) == {"model", "ceiling", "homogeneous"}
    ceiling = scores["candidates"]["ceiling"]
    assert 0.7 < ceiling["rate_ratio"][0] < 1.4 and np.isnan(ceiling["psth_r"][0])
    assert all(np.isfinite(v) for v in flat_scores(scores).values())


def test_flat_scores_name_every_candidate(scored):
    flat = flat_scores(scored[0])
    for key in (
        "simulation_psth_r",
        "simulation_psth_r_low",
        "simulation_psth_r_ceiling",
        "simulation_pair_r_psth_poisson",
        "simulation_rate_r_homogeneous",
        "simulation_classifier_true_past",
        "simulation_rate_ratio_late",
        "simulation_late_s",
        "bits_per_spike_psth_poisson",
    ):
        assert np.isfinite(flat[key]), key
    assert all(isinstance(v, (int, float)) for v in flat.values())


def test_drift_shows_where_the_loop_ran_away(scored):
    _, perfect, parts = scored
    order = chain_order(parts.held_out)
    assert order.shape == (8, 6)  # eight trials of 8 s fill 64 s
    assert order[:, 1].tolist() == [1, 2, 3, 4, 5, 0, 1, 2]
    legs = []
    for number, rows in enumerate(order):
        sources = parts.held_out.source[rows]
        leg = perfect.rows(imitations(perfect, sources[::-1]))  # in any order
        gain = 3 if number >= 5 else 1
        legs.append(Trials.from_counts([gain * x for x in leg.counts()], leg.source, leg.stimulus, DT))
    chains = chained(order, legs, parts, perfect)
    drift, late = since_closed(chains), late_scores(chains)
    assert drift["start_s"] == [8.0 * k for k in range(8)]
    assert drift["rate_ratio"][5] / drift["true_past_rate_ratio"][5] == pytest.approx(3.0)
    assert drift["rate_ratio"][4] == drift["true_past_rate_ratio"][4]
    assert late["since_s"] == 32.0 and late["until_s"] == 64.0
    # one of four late trials is as it should be, three are three times too active
    ratio = late["model"]["rate_ratio"][0] / late["true_past"]["rate_ratio"][0]
    assert ratio == pytest.approx(2.5, rel=0.05)
    low, high = late["model"]["rate_ratio"][1:]
    assert low < late["model"]["rate_ratio"][0] < high
    assert abs(late["ceiling"]["rate_ratio"][0] - 1) < 0.3


def test_chains_keep_to_a_stimulus_and_what_they_are_compared_with_is_as_long():
    rng = np.random.default_rng(0)
    counts = [rng.poisson(0.2, (n, 3)) for n in (2000, 2400, 2000, 2400)]
    held_out = Trials.from_counts(counts, np.arange(4) + 10, [0, 1, 0, 1], DT)
    order = chain_order(held_out)
    assert order.tolist() == [[0, 1, 2, 3], [2, 3, 0, 1], [0, 1, 2, 3], [2, 3, 0, 1]]
    short = held_out.first(1995)  # whole windows only
    chains = chained(order, [short] * 4, RecordedTrials(held_out, held_out, held_out), short)
    for trials in (chains.simulated, chains.held_out, chains.ceiling):
        assert trials.num_ticks.tolist() == [4 * 1995] * 4 and trials.stimulus.tolist() == [0, 1, 0, 1]
    for a, b in ((chains.simulated, chains.held_out), (chains.true_past, chains.held_out)):
        for x, y in zip(a.counts(), b.counts(), strict=True):
            assert np.array_equal(x, y)
    assert np.array_equal(chains.held_out.counts()[1][1995:3990], counts[3][:1995])
