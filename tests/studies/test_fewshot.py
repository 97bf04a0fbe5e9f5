"""Few-shot curves: nested draws of labels, all methods on the same values, runs pooled."""

import dataclasses

import numpy as np
import pytest
from driven import CHOICE, SPEED, TUNE, pretrained
from helpers import small_config

from neuroformer.config import ConfigError
from neuroformer.data.prepared import prepare
from neuroformer.decoding.decode import Decoded, true_values
from neuroformer.metrics import r2
from neuroformer.studies.fewshot import FewShot, amounts_in_seconds, draw_labels, fewshot, pooled


def test_draws_nest_and_are_chunks(extended):
    _, prepared, windows = extended
    labels = true_values(prepared, windows)["speed"]
    labels[: len(labels) // 3] = np.nan
    few, more = (draw_labels(prepared, windows, labels, 1, s, 3) for s in (2.0, 6.0))
    assert len(few) == 40 and len(more) == 120 and set(few.tick) <= set(more.tick)
    assert few.tick.min() >= windows.tick[len(labels) // 3]
    assert len(np.unique(more.tick // 100)) <= 9  # six chunks of 1 s, and what borders cut
    other = draw_labels(prepared, windows, labels, 1, 6.0, 4)
    assert set(other.tick) != set(more.tick)


def test_amounts_are_understood():
    assert amounts_in_seconds(["10s", "5%", "all", "1000s"], 100.0) == [5.0, 10.0, 100.0]
    with pytest.raises(ConfigError, match="amount of labels 'ten' is not understood"):
        amounts_in_seconds(["ten"], 100.0)
    with pytest.raises(ConfigError, match="none of 200s lies within the 100 s"):
        amounts_in_seconds(["200s"], 100.0)


def test_a_fewshot_curve_has_every_method_on_the_same_values():
    model, prepared = pretrained()
    prepared = dataclasses.replace(prepared, config=dataclasses.replace(prepared.config, tune=TUNE))
    curve = fewshot(model, prepared, SPEED, ["3s", "all"], 2, ["ridge"])
    rows = curve.rows()
    assert [r["method"] for r in rows] == ["pretrained", "kernel_on_states", "ensemble", "scratch", "ridge"] * 2
    for r in rows:
        assert np.isnan(r["low"]) and np.isnan(r["high"])  # a few seconds of slow speed are held out
        assert (r["method"] != "pretrained") or r["pretrained_minus"] == 0
    assert rows[5]["score"] > 0.3 and rows[9]["score"] > 0.3
    with pytest.raises(ConfigError, match="was trained with labels of 'speed'"):
        fewshot(*pretrained([{"name": "speed"}]), SPEED, ["all"], 1, [])


@pytest.mark.parametrize(("value", "what"), [(np.nan, "no value"), (1.0, "one value")])
def test_a_fewshot_curve_needs_held_out_labels_that_vary(value, what):
    model, prepared = pretrained()
    speed, values = prepared.rec.behavior["speed"], prepared.rec.behavior["speed"].values.copy()
    values[speed.times > prepared.split.intervals("test")[0, 0] - 0.1] = value
    behavior = prepared.rec.behavior | {"speed": dataclasses.replace(speed, values=values)}
    rec = dataclasses.replace(prepared.rec, behavior=behavior)
    with pytest.raises(ConfigError, match=f"'speed' has {what} in the 'test' part, so nothing can be scored"):
        fewshot(model, prepare(rec, prepared.config), SPEED, ["3s"], 1, [])


def curve_of_run(first_s, error):
    """60 s of held-out values of one run, one draw, off by ``error`` times the values' spread."""
    times = first_s + np.arange(240) * 0.25
    rng = np.random.default_rng(int(first_s))
    true = rng.standard_normal((240, 1))
    predicted = {
        m: true + e * rng.standard_normal(true.shape) for m, e in (("pretrained", error), ("scratch", 2 * error))
    }
    decoded = Decoded("speed", times, np.zeros(240, int), true, predicted)
    return FewShot(SPEED, small_config(), [5.0 + first_s], [0.05], {(0, 0): decoded})


def test_pooled_runs_are_scored_on_the_values_of_all_and_not_twice():
    one, two = curve_of_run(80.0, 0.3), curve_of_run(0.0, 0.3)
    both = pooled([one, two])
    assert both.seconds == [45.0] and both.share == [0.05]
    decoded = both.decoded[0, 0]
    true = np.concatenate([c.decoded[0, 0].true_VC for c in (two, one)])
    np.testing.assert_array_equal(decoded.true_VC, true)
    predicted = np.concatenate([c.decoded[0, 0].predicted["scratch"] for c in (two, one)])
    rows = {r["method"]: r for r in both.rows()}
    assert rows["scratch"]["score"] == pytest.approx(r2(true, predicted)[0])
    alone = next(r for r in one.rows() if r["method"] == "scratch")
    wide, narrow = (r["pretrained_minus_high"] - r["pretrained_minus_low"] for r in (alone, rows["scratch"]))
    assert narrow < wide
    for other in (one, curve_of_run(120.1, 0.1)):
        with pytest.raises(ConfigError, match="held-out parts overlap"):
            pooled([one, other])
    with pytest.raises(ConfigError, match="other amounts of labels"):
        pooled([one, dataclasses.replace(two, decoded={})])


def test_a_draw_without_a_class_is_named():
    model, prepared = pretrained()
    prepared = dataclasses.replace(prepared, config=dataclasses.replace(prepared.config, tune=TUNE))
    curve = fewshot(model, prepared, CHOICE, ["0.5s", "1000s", "all"], 2, [])
    assert len(curve.notes) == 2 and curve.notes[0].startswith("1000s: left out, there are")
    assert curve.notes[1] == "draw 1 of 0.5 s has no label of 1, which no decoder can then name"
    assert pooled([curve]).notes == curve.notes
