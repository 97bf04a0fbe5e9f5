"""The Bayesian decoder: its posterior by brute force, its walk, and what it may see."""

import itertools

import numpy as np
import pytest

from neuroformer.baselines.bayes import BayesMethod, _Grid
from neuroformer.baselines.features import Binning, Samples, SpikeCounts
from neuroformer.baselines.kalman import KalmanMethod
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape


def place_cells(seconds=400, units=8, seed=0):
    """A track walked up and down; place cells of 0.15 of its length, 8 Hz at their middle. Bins of 0.05 s."""
    rng = np.random.default_rng(seed)
    bins, dt = round(seconds / 0.05), 0.05
    walk = np.cumsum(0.006 * np.sin(np.arange(bins) / 197) + 0.003 * rng.normal(size=bins))
    place = np.abs((walk % 2) - 1)
    middles = np.linspace(0, 1, units)
    rate = 0.02 + 8 * dt * np.exp(-0.5 * ((place[:, None] - middles) / 0.1) ** 2)
    counts = rng.poisson(rate)
    tick, unit = np.nonzero(counts)
    tick, unit = np.repeat(tick, counts[tick, unit]), np.repeat(unit, counts[tick, unit])
    index = SpikeIndex.from_ticks(np.zeros(len(tick), int), tick, unit, np.zeros(1), np.array([bins]), units, dt)
    return index, place, rate


def samples(index, place, binning, ahead=0, part=slice(100, 4000)):
    ticks = np.arange(len(place))[part]
    windows = Windows(np.zeros(len(ticks), int), ticks)
    counts = SpikeCounts(index, WindowShape(0.05, 1, 0, ahead=ahead))
    return Samples(counts(windows, binning, True), windows, place[ticks][:, None], counts.edges(binning))


def test_the_posterior_is_bayes_rule_over_every_path():
    """Three bins before the moment and one after it: the sum over all paths of places, one by one."""
    index, place, _ = place_cells(200, units=3)
    binning = Binning((2, 2, 2))
    train = samples(index, place, binning, ahead=2, part=slice(100, 3000, 50))
    grid = _Grid(train, 0.1)
    rows = train[np.arange(4)]
    found = grid._walked(grid.evidence(rows), (0.5, 1.0))
    move, rate = grid.transitions(1.0), np.exp(grid.log_rate_UG.T)
    counts = np.rint(rows.x_VBU.astype(float) ** 2)
    keep = np.argsort(-found.sum(0))[:6]  # too many paths otherwise: a world of six places
    grid.log_rate_UG, grid.total_G = grid.log_rate_UG[:, keep], grid.total_G[keep]
    grid.log_prior_G, grid.apart_GGC = grid.log_prior_G[keep], grid.apart_GGC[np.ix_(keep, keep)]
    found, move, rate = grid._walked(grid.evidence(rows), (0.5, 1.0)), grid.transitions(1.0).astype(float), rate[keep]
    log_likelihood = 0.5 * (counts @ np.log(rate).T - rate.sum(1))  # (rows, bins, places)
    for row, one in enumerate(log_likelihood):
        wanted = np.zeros(6)
        for path in itertools.product(range(6), repeat=4):
            steps = np.prod([move[a, b] for a, b in itertools.pairwise(path)])
            wanted[path[2]] += np.exp(grid.log_prior_G[path[0]] + sum(one[b, p] for b, p in enumerate(path))) * steps
        np.testing.assert_allclose(found[row], wanted / wanted.sum(), rtol=1e-4)


def test_a_walk_and_a_look_ahead_each_make_the_decoder_better():
    index, place, _ = place_cells()
    error = {}
    for name, binning, ahead in (
        ("once", Binning((5,)), 0),
        ("walk", Binning((2,) * 10), 0),
        ("smoothed", Binning((2,) * 10), 10),
    ):
        train, held = (samples(index, place, binning, ahead, p) for p in (slice(100, 5000), slice(5200, 7900)))
        found = [
            np.median(np.abs(predicted - held.y_VC))
            for bandwidth in (0.02, 0.04)
            for _, predicted in BayesMethod().path(train, held, "regression", {"bandwidth": bandwidth})
        ]
        error[name] = min(found)
    assert error["smoothed"] < 0.85 * error["walk"] < 0.85**2 * error["once"]


def test_known_rates_come_back():
    index, place, rate = place_cells(2000)
    train = samples(index, place, Binning((1,)), part=slice(10, None))
    grid = _Grid(train, 0.02)
    near = np.abs(grid.place_GC[:, 0] - 0.5).argmin()
    true = 0.02 + 8 * 0.05 * np.exp(-0.5 * ((0.5 - np.linspace(0, 1, 8)) / 0.1) ** 2)
    np.testing.assert_allclose(np.exp(grid.log_rate_UG[:, near]), true, rtol=0.15, atol=0.01)


def test_the_mode_is_a_place_and_the_mean_lies_between():
    index, place, _ = place_cells()
    train = samples(index, place, Binning((5,)))
    grid = _Grid(train, 0.04)
    (read,) = grid.decode(train, [1.0])
    assert np.isin(read.mode_VC, grid.place_GC).all()
    assert not np.isin(read.mean_VC, grid.place_GC).all()
    mode = BayesMethod("bayes_mode")
    true = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    # distances from the median 2 are 2, 1, 0, 1, 2: 1.2 on average, 1 in the middle
    assert mode.score(true, true) == 1 and mode.score(true, true * 0 + 2) == pytest.approx(1 - 1 / 1.2)
    resting = np.array([[3.0], [3.0], [3.0], [5.0]])  # for more than half of the time
    assert mode.score(resting, resting + 0.25) == pytest.approx(1 - 0.25 / 0.5)
    assert np.isnan(mode.score(true * 0, true)) and BayesMethod().score(true, true) is None


def test_two_columns_keep_to_the_track():
    """A track in a plane is cut finely, an arena coarsely; no posterior leaves what was visited."""
    from neuroformer.baselines.bayes import MOST_PLACES, _visited

    rng = np.random.default_rng(0)
    arena, _, coarse = _visited(rng.uniform(size=(20_000, 2)))
    line = rng.uniform(size=(20_000, 1))
    track, cell, fine = _visited(np.concatenate([line, line], 1))
    assert len(arena) <= MOST_PLACES * 1.05 and fine < coarse
    assert len(track) <= MOST_PLACES and cell.max() == len(track) - 1


def test_the_kalman_smoother_sees_no_count_after_the_moment_and_its_followers():
    index, place, _ = place_cells()
    binning, smooth = Binning((4,)), {"smoother": True}
    train, held = (samples(index, place, binning, 10, p) for p in (slice(100, 5000, 2), slice(5200, 7900, 2)))
    method = KalmanMethod(2, 10)
    assert method.candidates("regression") == [{"smoother": False}, smooth] and method.lag == 5
    fitted = method.fit(train, "regression", smooth, 3.0)
    before = fitted(held)
    held.x_VBU[500:] += 1.0
    after = fitted(held)
    np.testing.assert_array_equal(before[:495], after[:495])
    assert np.abs(before[495:500] - after[495:500]).min() > 0
    wrong = lambda predict: np.median(
        np.abs(predict(samples(index, place, binning, 10, slice(5200, 7900, 2))) - held.y_VC)
    )
    filtered = KalmanMethod(2, 0).fit(samples(index, place, binning, 0, slice(100, 5000, 2)), "regression", {}, 3.0)
    causal = samples(index, place, binning, 0, slice(5200, 7900, 2))
    assert wrong(fitted) < np.median(np.abs(filtered(causal) - held.y_VC))
