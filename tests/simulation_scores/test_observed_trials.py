"""Units that were observed in some trials only: no score counts the other trials as silence."""

from dataclasses import fields, replace

import numpy as np

from neuroformer.metrics import bits_per_spike_rates
from neuroformer.recording import ObservedIntervals, Recording
from neuroformer.simulation_scores.poisson_simulators import homogeneous, psth_poisson
from neuroformer.simulation_scores.psth import psth, spike_counts
from neuroformer.simulation_scores.rates import expected_counts, feve
from neuroformer.simulation_scores.recorded import RecordedTrials
from neuroformer.simulation_scores.scores import score_simulation
from neuroformer.simulation_scores.statistics import Statistics, compare, pair_correlations
from neuroformer.simulation_scores.trials import Trials
from neuroformer.simulation_scores.two_sample import segment_features

DT, BINS, UNITS = 0.02, 400, 5


def poisson(num_trials: int, seed: int, first: int = 0) -> Trials:
    rng = np.random.default_rng(seed)
    time = np.arange(BINS)[:, None] * DT
    rate = 0.15 * np.exp(np.sin(2 * np.pi * time / 2 + np.arange(UNITS)))
    shared = [np.repeat(rng.gamma(4, 1 / 4, BINS // 20), 20)[:, None] for _ in range(num_trials)]
    counts = [rng.poisson(rate * s) for s in shared]
    return Trials.from_counts(counts, np.arange(num_trials) + first, np.zeros(num_trials), DT)


def halved(trials: Trials, unit: int = 2) -> Trials:
    """A unit that was observed in every other trial only."""
    seen = np.ones((len(trials), UNITS), bool)
    seen[::2, unit] = False
    return trials.seen_as(seen)


def of(trials: Trials) -> Statistics:
    return Statistics.of(trials, np.arange(UNITS)).total()


def test_where_all_is_observed_nothing_changes():
    trials, other = poisson(6, 0), poisson(6, 1)
    every = trials.seen_as(np.ones((6, UNITS), bool))
    a, b = compare(of(trials), of(other)), compare(of(every), of(other))
    assert a.keys() == b.keys()
    np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-9)


def test_statistics_of_a_unit_are_those_of_the_trials_in_which_it_was_observed():
    trials = poisson(8, 0)
    half, cut, rest = of(halved(trials)), of(trials.rows(np.arange(1, 8, 2))), of(trials)
    for name in ("seconds_TU", "counts_TU", "fano_T3U", "isi_T3U", "isi_hist_THU"):
        x, y, z = (getattr(s, name)[0] for s in (half, cut, rest))
        assert np.array_equal(x[..., 2], y[..., 2]) and np.array_equal(x[..., 0], z[..., 0]), name
    found, alone, every = (pair_correlations(s) for s in (half, cut, rest))
    assert np.allclose(found[0, [1, 3, 4]], every[0, [1, 3, 4]])
    # of a pair, covariance in the trials in which both were observed; the other's spread is that of all its trials
    scale = np.sqrt(np.diag(half.pair_product_TVV[0]) / half.pair_bins[0].diagonal())
    assert np.abs(found[2, 0] - alone[2, 0]) < 0.1 and scale[2] > 0
    assert {f.name for f in fields(Statistics)} >= {"pair_bins", "lag_bins"}


def test_scores_of_a_faithful_simulation_stay_those_of_a_faithful_simulation():
    """Its imitations are of the units that were observed; the ceiling, the floors and the rates leave the others out."""
    train, valid, held = (halved(poisson(n, s, f)) for n, s, f in ((12, 0, 0), (4, 1, 12), (8, 2, 16)))
    simulated = poisson(8, 3, 16).seen_as(held.seen_TU)
    mute = lambda t: replace(t, seen_TU=None)  # the same spikes, and silence where none was observed
    scores = score_simulation(simulated, RecordedTrials(train, valid, held))["candidates"]
    silent = score_simulation(poisson(8, 3, 16), RecordedTrials(*map(mute, (train, valid, held))))["candidates"]
    assert abs(scores["model"]["rate_ratio"][0] - 1) < 0.1
    assert silent["model"]["rate_error"][0] >= scores["model"]["rate_error"][0]
    assert abs(np.log2(silent["model"]["rate_ratio"][0])) > abs(np.log2(scores["model"]["rate_ratio"][0]))
    for name in ("model", "ceiling", "psth_poisson", "homogeneous"):
        assert np.isfinite(scores[name]["rate_bits"][0]), name
    assert scores["ceiling"]["single_trial_r"][0] > 0.2
    assert scores["model"]["classifier"][0] < silent["model"]["classifier"][0]  # silence gives the recorded trials away
    # the rates of both simulators are those of observed time
    full = homogeneous(poisson(12, 0, 0)).mean_U
    assert np.allclose(homogeneous(train).mean_U, full, rtol=0.15)
    smooth = psth_poisson(train, valid)
    assert smooth is not None and abs(smooth.rates(0, BINS)[:, 2].mean() / full[2] - 1) < 0.2
    assert segment_features(held, np.array([0, 1]))[0].shape[1] == 12


def test_psths_and_rates_know_what_was_not_observed():
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 8, 800))
    rec = Recording("r", times, rng.integers(0, 2, 800), {"id": np.arange(2)}, np.array([[0, 8.0]]))
    seen = replace(rec, observed=ObservedIntervals.from_units([np.array([[0, 8.0]]), np.array([[0, 4.0]])]))
    intervals = np.arange(0, 8, 2.0)[:, None] + np.array([0, 2.0])
    counts = spike_counts(seen, intervals, 0.05)
    assert np.isnan(counts[2:, :, 1]).all() and np.isfinite(counts[:2]).all() and np.isfinite(counts[:, :, 0]).all()
    rate = psth(counts, 0.05).mean(0)
    assert np.allclose(rate, psth(spike_counts(rec, intervals, 0.05), 0.05).mean(0), rtol=0.1)
    trials = Trials.from_recording(seen, intervals, 0.05, np.arange(4), np.zeros(4))
    assert trials.seen_TU is not None and trials.seen_TU.tolist() == [[True, True]] * 2 + [[True, False]] * 2
    assert np.isnan(trials.known_counts()[2][:, 1]).all() and not trials.counts()[2][:, 1].any()


def test_scores_of_rates_leave_out_what_is_not_known():
    rng = np.random.default_rng(1)
    counts, rates = rng.poisson(2.0, (40, 3)).astype(float), rng.uniform(1, 3, (40, 3))
    holes = counts.copy()
    holes[20:, 1] = np.nan
    got, alone = (
        bits_per_spike_rates(holes, rates),
        [bits_per_spike_rates(counts[:n, [u]], rates[:n, [u]]) for u, n in ((0, 40), (1, 20), (2, 40))],
    )
    assert np.isclose(got.per_unit_mean, np.mean([a.pooled for a in alone]))
    samples = np.stack([counts, holes, counts + 1])
    expected = expected_counts(samples)
    assert np.allclose(expected.expected_BU[20:, 1], counts[20:, 1] + 0.5)
    assert np.allclose(expected.variance_BU[20:, 1], 0.25) and np.allclose(expected.variance_BU[:20], 1 / 9)
    truth = np.abs(rng.normal(3, 2, (30, 2)))
    trials = [rng.poisson(truth).astype(float) for _ in range(40)]
    for t in trials[::2]:
        t[:, 1] = np.nan
    rate = expected_counts(np.log(truth), readout=True)
    value, units = feve(trials, [rate] * 40, np.zeros(40, int))
    assert units == 2 and abs(value - 1) < 0.1
