"""Controls: what training labels alone say, and nothing else."""

import inspect

import numpy as np
import pytest

from neuroformer.baselines.controls import control_predictions, meaning, trial_wise
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape, tile
from neuroformer.metrics import r2

SHAPE = WindowShape(0.01, 5, 10)


def clock(num_ticks, origins=None):
    num_ticks = np.asarray(num_ticks)
    origins = np.concatenate([[0], np.cumsum(num_ticks * 0.01 + 1)[:-1]]) if origins is None else origins
    none = np.zeros(0, int)
    return SpikeIndex.from_ticks(none, none, none, origins, num_ticks, 2, 0.01)


def windows(*pairs):
    segment, tick = np.array(pairs).T
    return Windows(segment, tick)


def test_golden_neighbours():
    index = clock([100])
    train, test = windows((0, 0), (0, 5), (0, 50)), windows((0, 15), (0, 30), (0, 60))
    out = control_predictions(index, train, np.array([[2.0], [4.0], [13.0]]), test, SHAPE)
    np.testing.assert_allclose(out["mean"][:, 0], [19 / 3] * 3)
    np.testing.assert_allclose(out["hold"][:, 0], [4, 4, 13])
    np.testing.assert_allclose(out["nearest"][:, 0], [4, 13, 13])
    np.testing.assert_allclose(out["linear"][:, 0], [6, 9, 13])
    assert "trial_time" not in out  # one segment: no trial repeats


def test_golden_trial_time():
    index = clock([20, 20, 20])
    train = windows((0, 0), (0, 5), (0, 10), (2, 0), (2, 5), (2, 10))
    labels = np.array([[0.0], [1.0], [2.0], [2.0], [3.0], [6.0]])
    out = control_predictions(index, train, labels, windows((1, 5), (1, 10), (1, 15)), SHAPE)
    np.testing.assert_allclose(out["trial_time"][:, 0], [2, 4, 4])


def test_golden_autoregression():
    """Labels that halve at every window: the rollout goes on halving through the gap."""
    index = clock([2000, 300])
    train = tile(np.array([[0, 0, 2000]]), SHAPE)
    rng = np.random.default_rng(0)
    y = np.zeros(len(train))
    for k in range(1, len(y)):
        y[k] = 0.5 * y[k - 1] + rng.normal()
    y -= y.mean()
    y[-1] = 2.0
    start = index.origins[1]
    assert start == 21.0
    test = windows((1, 0), (1, 5))
    out = control_predictions(index, train, y[:, None], test, SHAPE)["autoregression_1"]
    # least squares on the labels; from the last one at 19.95 s, the first test window is 21 windows on
    z = y - y.mean()
    slope = (z[1:] @ z[:-1]) / (z[:-1] @ z[:-1])
    assert 0.4 < slope < 0.6
    np.testing.assert_allclose(out[:, 0] - y.mean(), z[-1] * slope ** np.array([21, 22]), rtol=0.05)
    near = control_predictions(clock([2100]), train, y[:, None], windows((0, 2000), (0, 2005)), SHAPE)
    np.testing.assert_allclose(near["autoregression_1"][:, 0] - y.mean(), z[-1] * slope ** np.array([1, 2]), rtol=0.005)


def test_smooth_behavior_is_interpolated_but_not_across_a_gap():
    rng = np.random.default_rng(0)
    slow = np.convolve(rng.normal(size=20_199), np.hanning(200), "valid")
    index, every = clock([20_000]), tile(np.array([[0, 0, 20_000]]), SHAPE)
    label = lambda w: slow[w.tick + 4][:, None]

    def scores(train, test):
        predicted = control_predictions(index, train, label(train), test, SHAPE)
        return {name: float(r2(label(test), p)[0]) for name, p in predicted.items()}

    leak = scores(every[::2], every[1::2])
    assert max(leak.values()) > 0.95 and max(leak, key=leak.__getitem__) in ("linear", "nearest", "hold")
    far = scores(tile(np.array([[0, 0, 10_000]]), SHAPE), tile(np.array([[0, 10_500, 20_000]]), SHAPE))
    assert max(far.values()) < 0.1


def test_only_training_labels_and_no_spikes_enter():
    names = list(inspect.signature(control_predictions).parameters)
    assert names == ["index", "train", "labels_WC", "test", "shape", "kind"]
    rng = np.random.default_rng(0)
    index, train, test = (
        clock([500, 500, 500]),
        tile(np.array([[0, 0, 500], [2, 0, 500]]), SHAPE),
        windows((1, 30)),
    )
    y = rng.normal(size=(len(train), 2))
    with_spikes = SpikeIndex.from_ticks(
        np.zeros(9, int), np.arange(9), np.zeros(9, int), index.origins, index.num_ticks, 2, 0.01
    )
    one, other = (control_predictions(i, train, y, test, SHAPE) for i in (index, with_spikes))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_order_and_missing_labels_do_not_matter():
    rng = np.random.default_rng(0)
    index, train, test = (
        clock([500, 500, 500]),
        tile(np.array([[0, 0, 500], [2, 0, 500]]), SHAPE),
        windows((1, 30)),
    )
    y = rng.normal(size=(len(train), 2))
    shuffled = rng.permutation(len(train))
    one = control_predictions(index, train, y, test, SHAPE)
    other = control_predictions(index, train[shuffled], y[shuffled], test, SHAPE)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-9)
        assert np.isfinite(one[name]).all() and one[name].shape == (1, 2)
    y[3] = np.nan
    assert all(np.isfinite(p).all() for p in control_predictions(index, train, y, test, SHAPE).values())
    with pytest.raises(ValueError, match="no training window has a label"):
        control_predictions(index, train, y * np.nan, test, SHAPE)
    with pytest.raises(ValueError, match="one label per window"):
        control_predictions(index, train, y[1:], test, SHAPE)


def test_explosive_labels_stay_in_range():
    index, train = clock([4000]), tile(np.array([[0, 0, 1000]]), SHAPE)
    y = np.exp(np.arange(len(train)) / 20)[:, None]
    out = control_predictions(index, train, y, tile(np.array([[0, 1000, 4000]]), SHAPE), SHAPE)
    for prediction in out.values():
        assert prediction.min() >= y.min() - 1e-9 and prediction.max() <= y.max() + 1e-9


def test_classes_are_guessed_as_classes():
    index = clock([20, 20, 20, 20])
    train = windows((0, 0), (0, 5), (1, 0), (1, 5), (2, 0), (2, 5))
    labels = np.array([1.0, 2, 1, 3, 2, 3])[:, None]
    out = control_predictions(index, train, labels, windows((3, 0), (3, 5)), SHAPE, kind="classification")
    assert out["trial_time"].ravel().tolist() == [1, 3]
    assert out["hold"].ravel().tolist() == [3, 3] and out["nearest"].ravel().tolist() == [3, 3]
    assert set(out) == {"mean", "nearest", "hold", "trial_time"}
    assert np.isin(np.concatenate(list(out.values())), labels).all()


def test_a_value_of_each_trial_that_the_neighbors_tell_is_said_to_be_so():
    """Blocks of ten alike trials, every fifth trial held out: 'hold' is right but at a block's start. Random trials: no."""
    trials = np.arange(100)[:, None] * 2.0 + np.array([0.0, 2.0])
    at = np.arange(1, 2001) / 10
    trial = np.ceil(at / 2).astype(int) - 1
    held = trial % 5 == 3
    rng = np.random.default_rng(0)
    blocks, random = (np.arange(100) // 10 % 2).astype(float), rng.integers(0, 2, 100).astype(float)
    found = lambda value: trial_wise(trials, at[~held], value[~held][:, None], at[held], value[held][:, None])
    assert "neighboring trials are alike" in found(blocks[trial]) and "100% of the held-out moments" in found(
        blocks[trial]
    )
    assert found(random[trial]) == "" and found(np.sin(at)) == "" and found(np.ones(len(at))) == ""
    cut = at % 2 > 1  # each trial's second half is held out
    within = trial_wise(trials, at[~cut], random[trial][~cut][:, None], at[cut], random[trial][cut][:, None])
    assert "lie in the trial of that label" in within
    assert (
        trial_wise(np.zeros((0, 2)), at[~held], blocks[trial][~held][:, None], at[held], blocks[trial][held][:, None])
        == ""
    )


def test_every_control_says_what_it_knows():
    index, train = clock([400] * 4), windows(*[(s, 5 * k) for s in range(3) for k in range(60)])
    out = control_predictions(index, train, np.arange(180.0)[:, None], windows((3, 0), (3, 5)), SHAPE)
    assert len(out) > 6 and all(meaning(name) for name in [*out, "shuffled", "model_without_spikes"])
