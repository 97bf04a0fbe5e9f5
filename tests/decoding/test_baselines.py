"""Linear decoders: causal, tuned on validation only, and as good as scikit-learn says."""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from neuroformer.config import from_dict
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape, tile
from neuroformer.decoding import baselines
from neuroformer.decoding.baselines import SpikeCounts, fit_ridge
from neuroformer.metrics import balanced_accuracy, r2

SHARED = Path(os.environ.get("NEUROFORMER_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
DT = 0.01
SHAPE = WindowShape(DT, 5, 10)
CONFIG = from_dict({"decode": {"lags": [0.1, 0.25]}})


@pytest.fixture(scope="module")
def data():
    """Two units follow a slow variable with opposite signs; a third is noise."""
    rng = np.random.default_rng(0)
    bins = 40_000
    slow = np.convolve(rng.normal(size=bins + 199), np.hanning(200), "valid")
    slow /= slow.std()
    rates = 0.2 * np.exp(np.stack([0.7 * slow, -0.7 * slow, 0 * slow], 1))
    tick, unit = np.nonzero(rng.poisson(rates))
    index = SpikeIndex.from_ticks(np.zeros(len(tick), int), tick, unit, np.zeros(1), np.array([bins]), 3, DT)
    blocks = {"train": [[0, 0, 24_000]], "valid": [[0, 24_100, 30_000]], "test": [[0, 30_100, bins]]}
    windows = {p: tile(np.array(b), SHAPE) for p, b in blocks.items()}
    ends = {p: w.tick + SHAPE.current for p, w in windows.items()}
    targets = {p: np.stack([slow[e - 1], 3 - 2 * slow[e - 1]], 1) for p, e in ends.items()}
    return index, windows, targets


def test_decodes_what_is_there(data):
    index, windows, targets = data
    decoder = fit_ridge(index, windows, targets, SHAPE, CONFIG)
    predicted = decoder.predict(windows["test"])
    assert predicted.shape == targets["test"].shape
    scores = r2(targets["test"], predicted)
    assert scores.min() > 0.5 and scores[0] == pytest.approx(scores[1], abs=1e-3)
    choice = decoder.choice
    assert choice["lag_s"] <= 0.25 + 1e-9 and choice["penalty"] in baselines.RIDGE_PENALTIES
    assert choice["valid_score"] == pytest.approx(
        r2(targets["valid"], decoder.predict(windows["valid"])).mean(), abs=1e-3
    )


def test_no_spike_at_or_after_the_decoded_moment(data):
    index, windows, targets = data
    decoder = fit_ridge(index, windows, targets, SHAPE, CONFIG)
    window = windows["test"][50:51]
    end = int(window.tick[0]) + SHAPE.current
    rng = np.random.default_rng(1)

    def with_units(changed):
        unit = np.where(changed, rng.integers(0, 3, len(index.unit)), index.unit)
        return SpikeIndex.from_ticks(
            np.zeros(len(unit), int), index.keys, unit, index.origins, index.num_ticks, 3, DT
        )

    same = decoder.predict(window, with_units(index.keys >= end))
    np.testing.assert_array_equal(same, decoder.predict(window))
    lag = round(decoder.choice["lag_s"] / DT)
    np.testing.assert_array_equal(
        decoder.predict(window, with_units(index.keys < end - lag)), decoder.predict(window)
    )
    assert not np.array_equal(decoder.predict(window, with_units(index.keys < end)), same)


def test_counts_golden():
    # two segments of 20 bins; windows of 5 bins end at bin 5 of each
    index = SpikeIndex.from_ticks(
        np.array([0, 0, 0, 1, 1]), np.array([0, 4, 5, 3, 4]), np.array([0, 1, 1, 0, 0]),
        np.array([0.0, 1.0]), np.array([20, 20]), 2, DT,
    )  # fmt: skip
    x = SpikeCounts(index, SHAPE)(Windows(np.array([0, 1]), np.array([0, 0])), 2, 3)
    # bins [-1, 1), [1, 3), [3, 5): the spike at 5 is the label's own moment, and nothing before 0 is read
    np.testing.assert_allclose(x, [[1, 0, 0, 0, 0, 1], [0, 0, 0, 0, np.sqrt(2), 0]])


def test_search_agrees_with_scikit_learn(data):
    index, windows, targets = data
    counts = SpikeCounts(index, SHAPE)
    x, valid = (counts(windows[p], 5, 2) for p in ("train", "valid"))
    score, penalty = baselines._search_ridge(x, targets["train"], valid, targets["valid"])
    models = {a: Ridge(alpha=a).fit(x, targets["train"]) for a in baselines.RIDGE_PENALTIES}
    wanted = {a: r2(targets["valid"], m.predict(valid)).mean() for a, m in models.items()}
    assert score == pytest.approx(max(wanted.values()), abs=1e-5)
    assert wanted[penalty] == pytest.approx(max(wanted.values()), abs=1e-5)


def test_missing_labels_and_test_labels_have_no_say(data):
    index, windows, targets = data
    holes = {p: y.copy() for p, y in targets.items()}
    holes["train"][::7, 1] = np.nan
    holes["test"][:] = np.nan
    decoder = fit_ridge(index, windows, holes, SHAPE, CONFIG)
    assert r2(targets["test"], decoder.predict(windows["test"])).min() > 0.5
    keep = np.isfinite(holes["train"]).all(1)
    less = windows | {"train": windows["train"][keep]}
    other = fit_ridge(index, less, targets | {"train": targets["train"][keep]}, SHAPE, CONFIG)
    np.testing.assert_allclose(other.predict(windows["test"]), decoder.predict(windows["test"]), atol=1e-5)
    with pytest.raises(ValueError, match="has a label"):
        fit_ridge(index, windows, holes | {"valid": holes["valid"] * np.nan}, SHAPE, CONFIG)
    with pytest.raises(ValueError, match="one label a window"):
        fit_ridge(index, windows, targets | {"train": targets["train"][1:]}, SHAPE, CONFIG)


def test_classes(data):
    index, windows, targets = data
    labels = {p: np.digitize(y[:, 0], [-0.5, 0.8]).astype(float)[:, None] * 2 for p, y in targets.items()}
    decoder = fit_ridge(index, windows, labels, SHAPE, CONFIG, kind="classification")
    predicted = decoder.predict(windows["test"])
    assert predicted.shape == labels["test"].shape and set(np.unique(predicted)) <= {0.0, 2.0, 4.0}
    out = balanced_accuracy(labels["test"], predicted)
    assert out.score > out.chance + 0.25 and out.chance == pytest.approx(1 / 3)


def test_hippocampus_position_is_decodable():
    path = SHARED / "hippocampus_linear.npz"
    if not path.exists():
        pytest.skip(f"no {path.name} in {SHARED.name}: the shared recordings are not on this machine")
    from neuroformer.data.splits import make_split
    from neuroformer.recording import open_recording

    rec = open_recording(path)
    config = from_dict({
        "window": {"dt": 0.05, "current": 0.25, "past": 1.0, "frames": 0.0},
        "targets": [{"name": "position"}],
    })  # fmt: skip
    split, shape = make_split(rec, config), WindowShape.from_config(config.window)
    index = SpikeIndex.from_recording(rec, split.segments, config.window.dt)
    windows = {p: tile(split.blocks[p], shape) for p in split.blocks}
    position = rec.variable("position")
    targets = {p: position.interpolate(w.starts(index) + config.window.current) for p, w in windows.items()}
    decoder = fit_ridge(index, windows, targets, shape, config)
    assert r2(targets["test"], decoder.predict(windows["test"]))[0] > 0.3
