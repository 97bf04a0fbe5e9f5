"""Values along a recording: stitched to any time, on the turn on which a circle was recorded."""

import dataclasses

import numpy as np
import pytest
from helpers import small_config, small_model, small_recording

from neuroformer.config import ConfigError, TargetConfig
from neuroformer.data.prepared import prepare
from neuroformer.decoding.decode import (
    Decoded,
    as_recorded,
    at_samples,
    decode_windows,
    predict_targets,
    stitch,
    true_values,
)
from neuroformer.decoding.run import start_decoded
from neuroformer.recording import BehaviorVariable
from neuroformer.report.figures import decode_trace


def three_values(**predicted):
    none = np.zeros(3, int)
    return Decoded("x", np.array([1.0, 1.1, 1.5]), none, np.zeros((3, 1)), predicted)


def test_causal_stitching_holds_and_interpolation_draws_lines_but_not_across_gaps():
    decoded = three_values(model=np.array([[1.0], [2.0], [6.0]]))
    at = np.array([0.99, 1.0, 1.05, 1.1, 1.15, 1.3, 1.5, 1.6, 1.7])
    held = stitch(decoded, "model", at, 0.1)[:, 0]
    np.testing.assert_array_equal(held, [np.nan, 1, 1, 2, 2, np.nan, 6, 6, np.nan])
    drawn = stitch(decoded, "model", at, 0.1, interpolate=True)[:, 0]
    np.testing.assert_allclose(drawn, [np.nan, 1, 1.5, 2, 2, np.nan, 6, 6, np.nan])


@pytest.mark.parametrize("lookahead", [0.0, 0.05])
def test_values_are_given_at_the_samples_of_a_variable_of_another_rate(lookahead):
    rec = small_recording()
    fast = np.arange(0, 40, 1 / 130)
    rec = dataclasses.replace(rec, behavior={**rec.behavior, "speed": BehaviorVariable(fast, np.sin(fast))})
    config = small_config(targets=[{"name": "speed", "samples": 5}], window={"lookahead": lookahead})
    model, prepared = small_model(rec, config)
    target, windows = config.targets[0], decode_windows(prepared, "test")
    decoded = start_decoded(prepared, target, windows, true_values(prepared, windows)["speed"])
    decoded.predicted["model"] = predict_targets(model, prepared, windows)["speed"]
    out = at_samples(decoded, target, prepared)
    place = np.searchsorted(fast, out["sample_times"])
    np.testing.assert_array_equal(out["sample_true"][:, 0], np.sin(fast)[place].astype(np.float32))
    (start, stop), per_window = prepared.split.intervals("test")[0], 0.05 * 130
    assert start < out["sample_times"][0] and out["sample_times"][-1] < stop + 0.01
    assert len(place) == pytest.approx(len(windows) * per_window, rel=0.02)
    before = np.searchsorted(decoded.times, out["sample_times"] + 1e-9, side="right") - 1
    held = np.array_equal(out["sample_model"], decoded.predicted["model"][before].astype(float))
    assert held == (lookahead == 0)


def test_a_circle_is_decoded_on_the_turn_on_which_it_was_recorded():
    rec = small_recording()
    t = np.arange(802) * 0.05
    for low in (0, -180):
        turning = BehaviorVariable(t, low + (np.arange(802) * 5.0 + 12) % 360)
        both = dataclasses.replace(rec, behavior={**rec.behavior, "heading": turning})
        config = small_config(targets=[{"name": "heading", "kind": "circular", "period": 360.0}])
        model, prepared = small_model(both, config)
        target, windows = config.targets[0], decode_windows(prepared, "test")
        labels = true_values(prepared, windows)["heading"]
        decoded = start_decoded(prepared, target, windows, labels)
        ours = predict_targets(model, prepared, windows)["heading"]
        decoded.predicted |= {"model": ours, "ridge": labels}
        out = as_recorded(decoded, target, prepared.normalization.targets["heading"])
        sampled = turning.values[np.rint(decoded.times / 0.05).astype(int)]
        np.testing.assert_allclose(out.true_VC, sampled.reshape(-1, 1), atol=1e-2)
        np.testing.assert_array_equal(out.predicted["ridge"], out.true_VC)
        np.testing.assert_allclose(out.predicted["model"], ours, atol=1e-3)
        assert (ours >= low).all() and (ours < low + 360).all()
        figure = decode_trace(out.times, out.true_VC, {}, "heading", ["heading"], period=360.0)
        line = figure.axes[0].lines[0].get_ydata()
        assert np.isnan(line).any() and np.nanmax(np.abs(np.diff(line))) < 180
        assert np.isfinite(line).sum() == np.isfinite(out.true_VC).sum()  # none is lost beside a turn


def test_what_is_no_circle_stays_as_it_is():
    decoded = three_values(model=np.ones((3, 1)))
    assert as_recorded(decoded, TargetConfig("x"), {}) is decoded


def test_a_part_shorter_than_the_lags_is_refused():
    prepared = prepare(small_recording(), small_config(decode={"lags": [7.9]}, split={"gap": 0.2}))
    with pytest.raises(ConfigError, match="shorter than the 7.9 s .* look back .decode.lags"):
        decode_windows(prepared, "test")
