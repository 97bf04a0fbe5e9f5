"""Baselines: causal (or as far ahead as asked), tuned on training moments only, and as good as scikit-learn says."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import shared_recording
from sklearn.linear_model import Ridge

from neuroformer.baselines import decoders, features, kernel_ridge, networks
from neuroformer.baselines.decoders import ALL, CLASSIFIERS, FAST, Baselines, fit_baseline, in_words
from neuroformer.baselines.features import Binning, Samples, SpikeCounts, contiguous_folds
from neuroformer.baselines.linear import RIDGE_PENALTIES, LassoMethod, RidgeMethod, Standard, ridge_path
from neuroformer.config import from_dict
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape, tile
from neuroformer.metrics import balanced_accuracy, r2
from neuroformer.recording import ObservedIntervals, Recording

DT = 0.01
SHAPE = WindowShape(DT, 5, 10)
CONFIG = from_dict({"decode": {"lags": [0.1, 0.25]}})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Networks that train in a second."""
    monkeypatch.setattr(kernel_ridge, "SEARCH_CENTERS", 100)
    monkeypatch.setattr(networks, "UPDATES", (40, 100))
    monkeypatch.setattr(networks, "MLP_GRID", ({"hidden": (16,), "decay": 1.0},))
    monkeypatch.setattr(networks, "GRU_GRID", ({"hidden": 8, "dropout": 0.0},))


@pytest.fixture(scope="module")
def data():
    """Two units follow a slow variable with opposite signs; a third is noise. Labels: it, and a line of it."""
    rng = np.random.default_rng(0)
    bins = 12_000
    slow = np.convolve(rng.normal(size=bins + 199), np.hanning(200), "valid")
    slow /= slow.std()
    rates = 0.2 * np.exp(np.stack([0.7 * slow, -0.7 * slow, 0 * slow], 1))
    tick, unit = np.nonzero(rng.poisson(rates))
    index = SpikeIndex.from_ticks(np.zeros(len(tick), int), tick, unit, np.zeros(1), np.array([bins]), 3, DT)
    blocks = {"train": [[0, 0, 8_000]], "test": [[0, 8_100, bins]]}
    windows = {p: tile(np.array(b), SHAPE) for p, b in blocks.items()}
    targets = {p: labels(slow, w) for p, w in windows.items()}
    return index, windows, targets


def labels(slow, windows):
    end = windows.tick + SHAPE.current - 1
    return np.stack([slow[end], 3 - 2 * slow[end]], 1)


def fit(data, name="ridge", shape=SHAPE, y=None, **options):
    index, windows, targets = data
    return fit_baseline(name, index, windows["train"], targets["train"] if y is None else y, shape, CONFIG, **options)


@pytest.mark.parametrize("name", ALL)
def test_decodes_what_is_there(data, name):
    _, windows, targets = data
    decoder = fit(data, name)
    predicted = decoder.predict(windows["test"])
    assert predicted.shape == targets["test"].shape
    assert r2(targets["test"], predicted).min() > 0.4
    choice = decoder.choice
    assert choice["lag_s"] <= 0.4 + 1e-9 and 0.3 < choice["cv_score"] < 1
    assert choice["fits"] > 3 and choice["seconds"] > 0 and choice["lags"] in in_words(choice)


def changed(index, which, seed=1):
    """The same spike times, other units where ``which`` says."""
    rng = np.random.default_rng(seed)
    unit = np.where(which, rng.integers(0, 3, len(index.unit)), index.unit)
    return SpikeIndex.from_ticks(np.zeros(len(unit), int), index.keys, unit, index.origins, index.num_ticks, 3, DT)


@pytest.mark.parametrize(
    ("name", "ahead"), list(itertools.product(("ridge", "kalman", "bayes", "kernel_ridge", "gru"), (0, 20)))
)
def test_no_spike_from_after_the_moment_plus_lookahead(data, name, ahead):
    index, windows, _ = data
    decoder = fit(data, name, WindowShape(DT, 5, 10, ahead=ahead))
    seen = windows["test"][:50]
    end = int(seen.tick[-1]) + SHAPE.current
    before = decoder.predict(seen)
    np.testing.assert_array_equal(decoder.predict(seen, changed(index, index.keys >= end + ahead)), before)
    assert not np.array_equal(decoder.predict(seen, changed(index, index.keys >= end + ahead - 20)), before)


def test_counts_golden():
    # two segments of 20 bins; windows of 5 bins end at bin 5 of each
    index = SpikeIndex.from_ticks(
        np.array([0, 0, 0, 1, 1]),
        np.array([0, 4, 5, 3, 4]),
        np.array([0, 1, 1, 0, 0]),
        np.array([0.0, 1.0]),
        np.array([20, 20]),
        2,
        DT,
    )
    at = Windows(np.array([0, 1]), np.array([0, 0]))
    x = SpikeCounts(index, SHAPE)(at, Binning((2, 2, 2))).reshape(2, -1)
    # bins [-1, 1), [1, 3), [3, 5): the spike at 5 is the label's own moment, and nothing before 0 is read
    np.testing.assert_allclose(x, [[1, 0, 0, 0, 0, 1], [0, 0, 0, 0, np.sqrt(2), 0]])
    ahead = SpikeCounts(index, WindowShape(DT, 5, 10, ahead=3))(at, Binning((2,))).reshape(2, -1)
    # [3, 5), then the lookahead in bins of about two: [5, 6), [6, 8) or [5, 7), [7, 8)
    assert ahead.shape == (2, 3 * 2) and ahead[0, 2:].sum() == 1 and ahead[1, 2:].sum() == 0


def test_counts_are_those_of_a_plain_loop(monkeypatch):
    """Windows that overlap, leave gaps and reach over the ends of segments; in pieces of a few."""
    monkeypatch.setattr(features, "_CHUNK", 40)
    rng = np.random.default_rng(0)
    num_ticks = np.array([50, 70])
    segment = np.sort(rng.integers(0, 2, 300))
    tick = rng.integers(0, num_ticks[segment])
    index = SpikeIndex.from_ticks(segment, tick, rng.integers(0, 3, 300), np.array([0.0, 1.0]), num_ticks, 3, DT)
    at = Windows(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 2, 45, 0, 60]))
    counts = SpikeCounts(index, WindowShape(DT, 5, 10, ahead=7))
    edges, keys = counts.edges(Binning((3, 8))), index.keys - index.base[np.searchsorted([50], index.keys, "right")]
    mine = np.searchsorted([50], index.keys, "right")
    for row, x in enumerate(counts(at, Binning((3, 8)))):
        for b, (low, high) in enumerate(itertools.pairwise(edges + at.tick[row] + 5)):
            seen = (mine == at.segment[row]) & (keys >= low) & (keys < high)
            np.testing.assert_allclose(x[b] ** 2, np.bincount(index.unit[seen], minlength=3), rtol=1e-6)


def test_both_readings_of_a_posterior_are_those_of_a_search_of_their_own(data):
    index, windows, targets = data
    both = Baselines(index, windows["train"], targets["train"], SHAPE, CONFIG)
    both.fit("bayes")
    for name in ("bayes", "bayes_mode"):
        here, alone = both.fit(name), fit(data, name)
        assert {k: v for k, v in here.choice.items() if k != "seconds"} == {
            k: v for k, v in alone.choice.items() if k != "seconds"
        }
        np.testing.assert_array_equal(here.predict(windows["test"]), alone.predict(windows["test"]))


def test_folds_of_a_network_beside_each_other_are_folds_in_turn(data, monkeypatch):
    """Nor does their dropout draw from anybody else's stream; and a search ends where more updates are no better."""
    index, windows, targets = data
    monkeypatch.setattr(networks, "UPDATES", (10, 20, 40))
    train = Samples(SpikeCounts(index, SHAPE)(windows["train"], Binning((5, 5))), windows["train"], targets["train"])
    method, params = networks.GruMethod(False), {"hidden": 8, "dropout": 0.3}
    halves = train[:800], train[800:]
    in_turn = [[x for _, x in method.path(a, b, "regression", params)] for a, b in (halves, halves[::-1])]
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    pair = zip(*(method.path(a, b, "regression", params) for a, b in (halves, halves[::-1])), strict=True)
    beside = [[x for _, x in each] for each in pair]
    np.testing.assert_array_equal(np.array(in_turn[0]), np.array([x for x, _ in beside]))
    np.testing.assert_array_equal(np.array(in_turn[1]), np.array([x for _, x in beside]))
    assert torch.equal(torch.rand(3), wanted)
    found = iter([[0.1], [0.5], [0.4], [0.9]])
    baselines = Baselines(index, windows["train"], targets["train"], SHAPE, CONFIG)
    monkeypatch.setattr(baselines, "_scores", lambda *_: zip((50, 100, 200, 400), found, strict=True))
    assert baselines._cross_validate(method, train, [], params) == (0.5, 100)
    assert next(found) == [0.9]


def test_the_search_agrees_with_scikit_learn(data):
    index, windows, targets = data
    counts = SpikeCounts(index, SHAPE)
    train, held = (Samples(counts(windows[p], Binning((5, 5))), windows[p], targets[p]) for p in ("train", "test"))
    for penalty, predicted in RidgeMethod().path(train, held, "regression", {}):
        scale = Standard(train)
        wanted = Ridge(alpha=penalty * len(train)).fit(scale.x(train), train.y_VC).predict(scale.x(held))
        np.testing.assert_allclose(predicted, wanted, atol=1e-3)
    assert fit(data).choice["setting"] in RIDGE_PENALTIES


def test_lasso_takes_features_that_hardly_correlate():
    """In single precision these are among the features whose products scikit-learn refused: they nearly cancel."""
    rng = np.random.default_rng(22)
    counts = rng.poisson(rng.uniform(0.01, 3, (1, 5, 40)), (900, 5, 40))
    rows = Windows(np.zeros(900, int), np.arange(900))
    train = Samples(np.sqrt(counts).astype(np.float32), rows, rng.standard_normal((900, 1)))
    assert LassoMethod().fit(train, "regression", {}, 0.03)(train).shape == (900, 1)


def test_bins_of_several_resolutions_fill_the_lag():
    for lag, finest in ((1, 1), (7, 1), (40, 1), (200, 5)):
        binning = Binning.graded(lag, finest)
        assert binning.lag == lag and (np.diff(binning.widths) >= -binning.widths[-1]).all()
    assert Binning.graded(40, 1).widths == (1, 2, 3, 4, 7, 10, 13)
    assert Binning.even(40, 5).widths == (8,) * 5
    assert Binning((2, 6)).describe(0.05) == "0.4 s in 2 bins of 0.1 to 0.3 s"


def test_ridge_solves_the_smaller_side():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 80)), rng.normal(size=(30, 2))
    for penalty, weights in ridge_path(x, y, (0.01, 1.0)):
        np.testing.assert_allclose(weights, Ridge(alpha=penalty * 30, fit_intercept=False).fit(x, y).coef_.T, atol=1e-8)


def test_moments_at_every_phase_are_filtered_step_by_step(data):
    """A Kalman filter on moments at every tick is the filters of each phase beside each other."""
    index, windows, targets = data
    kalman = fit(data, "kalman")
    test = windows["test"][:40]
    ticks = np.arange(test.tick[0], test.tick[-1] + SHAPE.current)
    every = kalman.predict(Windows(np.zeros(len(ticks), int), ticks))
    np.testing.assert_allclose(every[:: SHAPE.current], kalman.predict(test), atol=1e-9)
    assert np.abs(np.diff(kalman.predict(test)[:, 0])).mean() < np.abs(np.diff(targets["test"][:40, 0])).mean() * 3


def test_more_moments_than_the_budget_are_thinned(data, monkeypatch):
    index, windows, targets = data
    monkeypatch.setattr(decoders, "MOST_CELLS", 3_000)
    for name in ("ridge", "kalman"):
        decoder = fit(data, name)
        assert decoder.choice["moments"] * decoder.choice["num_bins"] * 3 <= 3_000
        assert r2(targets["test"], decoder.predict(windows["test"])).min() > 0.3


def test_a_large_population_enters_through_patterns(monkeypatch):
    """60 units follow a slow variable, each with its own sign: few patterns say what all units do, in all methods."""
    rng = np.random.default_rng(0)
    bins, units = 6_000, 60
    slow = np.convolve(rng.normal(size=bins + 199), np.hanning(200), "valid")
    rates = 0.05 * np.exp(slow[:, None] / slow.std() * rng.choice([-0.7, 0.7], units))
    tick, unit = np.nonzero(rng.poisson(rates))
    index = SpikeIndex.from_ticks(np.zeros(len(tick), int), tick, unit, np.zeros(1), np.array([bins]), units, DT)
    windows = {"train": tile(np.array([[0, 0, 4_000]]), SHAPE), "test": tile(np.array([[0, 4_100, bins]]), SHAPE)}
    targets = {p: labels(slow / slow.std(), w) for p, w in windows.items()}
    monkeypatch.setattr(features, "MOST_FEATURES", 80)
    fitter = Baselines(index, windows["train"], targets["train"], SHAPE, CONFIG)
    for name in ("ridge", "bayes", "kernel_ridge"):
        decoder = fitter.fit(name)
        assert r2(targets["test"], decoder.predict(windows["test"])).min() > 0.8
        assert decoder.choice["patterns"] * decoder.choice["num_bins"] <= 80
    assert fitter.counts.pattern_UQ is not None and fitter.counts.pattern_UQ.shape == (units, 10)


def test_fast_holds_the_strong_simple_decoders():
    assert {"ridge", "kernel_ridge", "wiener_cascade", "bayes", "mlp"} <= set(FAST) < set(ALL)


def test_folds_are_contiguous_and_keep_their_gap(data):
    index, windows, _ = data
    at = windows["train"].tick
    for train, held in contiguous_folds(windows["train"], index, gap=200, num_folds=5):
        assert (np.diff(held) == 1).all() and not set(train) & set(held)
        assert np.abs(at[train][:, None] - at[held]).min() > 200
    held = np.concatenate([h for _, h in contiguous_folds(windows["train"], index, 200, 5)])
    np.testing.assert_array_equal(held, np.arange(len(at)))
    few = windows["train"][:10]  # half a second of labels: no gap would leave anything
    assert all(len(train) == 8 for train, _ in contiguous_folds(few, index, 200, 5))


def test_missing_labels_change_nothing(data):
    index, windows, targets = data
    holes = targets["train"].copy()
    holes[::7, 1] = np.nan
    keep = np.isfinite(holes).all(1)
    decoder = fit(data, y=holes)
    other = fit_baseline("ridge", index, windows["train"][keep], targets["train"][keep], SHAPE, CONFIG)
    np.testing.assert_allclose(other.predict(windows["test"]), decoder.predict(windows["test"]), atol=1e-5)


def test_mistakes_are_named(data):
    with pytest.raises(ValueError, match=r"0 of \d+ windows have a label"):
        fit(data, y=data[2]["train"] * np.nan)
    with pytest.raises(ValueError, match="one label per window"):
        fit(data, y=data[2]["train"][1:])
    with pytest.raises(ValueError, match="no baseline 'ridgy' for a regression; there are: ridge, lasso"):
        fit(data, "ridgy")
    with pytest.raises(ValueError, match="no baseline 'bayes' for a regression of 4 columns"):
        fit(data, "bayes", y=np.tile(data[2]["train"], 2))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classes(data, name):
    _, windows, targets = data
    classes = {p: np.digitize(y[:, 0], [-0.5, 0.8]).astype(float)[:, None] * 2 for p, y in targets.items()}
    predicted = fit(data, name, y=classes["train"], kind="classification").predict(windows["test"])
    assert predicted.shape == classes["test"].shape and set(np.unique(predicted)) <= {0.0, 2.0, 4.0}
    out = balanced_accuracy(classes["test"], predicted)
    assert out.score > out.chance + 0.2 and out.chance == pytest.approx(1 / 3)


def test_kalman_filter_and_smoother_are_the_mean_of_their_gaussian():
    """Against the joint Gaussian of three moments, conditioned by brute force."""
    from neuroformer.baselines.kalman import _filter, _smooth

    rng = np.random.default_rng(0)
    move, moved, spread = np.array([[0.9, 0.2], [-0.1, 0.7]]), np.diag([0.3, 0.2]), np.diag([1.0, 2.0])
    see, noise, x = rng.normal(size=(4, 2)), rng.uniform(0.5, 1.5, 4), rng.normal(size=(3, 4))
    follows = np.array([False, True, True])
    states = _filter(x, follows, move, moved, see, noise, spread)
    # z_k = move^k z_0 + sum_j move^(k - j) w_j, stacked
    power = [np.linalg.matrix_power(move, k) for k in range(3)]
    mix = np.block([[power[k - j] if j <= k else np.zeros((2, 2)) for j in range(3)] for k in range(3)])
    source = np.kron(np.diag([0.0, 1.0, 1.0]), moved) + np.kron(np.diag([1.0, 0.0, 0.0]), spread)
    prior = mix @ source @ mix.T
    for lag in range(4):
        ours = _smooth(states, follows, move, lag)
        for t in range(3):
            n = min(t + lag, 2) + 1  # moments that are seen
            seeing = np.kron(np.eye(n, 3), see)
            joint = seeing @ prior @ seeing.T + np.kron(np.eye(n), np.diag(noise))
            mean = prior @ seeing.T @ np.linalg.solve(joint, x[:n].ravel())
            np.testing.assert_allclose(ours[t], mean[2 * t : 2 * t + 2], atol=1e-9)


def test_hippocampus_position_is_decodable():
    path = shared_recording("hippocampus_linear.npz")
    from neuroformer.data.splits import make_split
    from neuroformer.recording import open_recording

    rec = open_recording(path)
    config = from_dict(
        {
            "window": {"dt": 0.05, "current": 0.25, "past": 1.0, "frames": 0.0},
            "targets": [{"name": "position"}],
            "decode": {"lags": [1.0]},
        }
    )
    split, shape = make_split(rec, config), WindowShape.from_config(config)
    index = SpikeIndex.from_recording(rec, split.segments, config.window.dt)
    windows = {p: tile(split.blocks[p], shape) for p in split.blocks}
    position = rec.variable("position")
    targets = {p: position.interpolate(w.starts(index) + config.window.current) for p, w in windows.items()}
    decoder = fit_baseline("ridge", index, windows["train"], targets["train"], shape, config)
    assert r2(targets["test"], decoder.predict(windows["test"]))[0] > 0.3


@pytest.mark.parametrize("name", ["ridge", "kernel_ridge", "bayes"])
def test_units_that_were_not_observed_say_nothing(name):
    """Half of the units stop being observed: what is decoded then follows from the others, and silence is no evidence."""
    rng = np.random.default_rng(0)
    num, ticks = 12, 6000
    speed = np.convolve(rng.normal(size=ticks + 99), np.hanning(100), "valid")
    speed = (speed - speed.mean()) / speed.std()
    counts = rng.poisson(0.4 * np.exp(np.outer(speed, np.repeat([0.8, -0.8], num // 2))))
    tick, unit = np.nonzero(counts)
    tick, unit = np.repeat(tick, counts[tick, unit]), np.repeat(unit, counts[tick, unit])
    stop = ticks * DT
    rec = Recording(
        "r", tick * DT + DT / 2, unit.astype(np.int32), {"id": np.arange(num).astype(str)}, np.array([[0.0, stop]])
    )
    half = [np.array([[0, stop if u < num // 2 else 0.6 * stop]]) for u in range(num)]
    seen = replace(rec, observed=ObservedIntervals.from_units(half))
    mute = seen.spike_times < np.where(seen.spike_units < num // 2, stop, 0.6 * stop)
    silent = replace(rec, spike_times=rec.spike_times[mute], spike_units=rec.spike_units[mute])
    config = from_dict({"decode": {"lags": [0.5]}})
    at = Windows(np.zeros(ticks // 5 - 20, np.int64), np.arange(20, ticks // 5) * 5 - 5)
    train, test = at[: len(at) // 2], at[int(0.7 * len(at)) :]
    score = {}
    for which, one in (("observed", seen), ("silent", silent), ("all", rec)):
        index = SpikeIndex.from_recording(one, one.domain, DT)
        fitted = fit_baseline(name, index, train, speed[train.tick + 4][:, None], SHAPE, config)
        score[which] = r2(speed[test.tick + 4], fitted.predict(test)[:, 0])[0]
    assert score["silent"] + 0.02 < score["observed"] < score["all"] + 0.02, score
