"""Labels are values of their own trial, and clocks are compared in whole nanoseconds."""

import numpy as np
from helpers import small_config
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroformer.data.prepared import prepare
from neuroformer.data.scales import VariableScale
from neuroformer.data.windows import SpikeIndex
from neuroformer.recording import BehaviorVariable, Recording
from neuroformer.recording.clock import closed_up, interval_of, joined, num_bins
from neuroformer.recording.formats.arrays import from_arrays


def tiled(num: int, length: float, dt: float, offset: float, origin: float = 0.0) -> Recording:
    """Trials that tile time, with a variable and a column that are 0 or 1 in whole trials."""
    start = origin + np.arange(num) * length
    at = origin + np.arange(round(num * length / dt)) * dt + offset * dt
    kind = np.floor((at - origin) / length + 1e-9) % 2
    return Recording(
        name="tiled",
        spike_times=start + length * np.random.default_rng(0).random(num),
        spike_units=np.zeros(num, int),
        units={"id": np.array(["a"])},
        domain=np.array([[start[0], start[-1] + length]]),
        trials={"start": start, "stop": start + length, "choice": np.arange(num) % 2},
        behavior={"kind": BehaviorVariable(at, kind)},
    )


@settings(max_examples=20, deadline=None)
@given(
    length=st.sampled_from([0.3, 0.7, 1.0, 2.2]),
    offset=st.sampled_from([0.0, 0.3, 0.5]),
    by=st.sampled_from(["trials", "blocks"]),
    name=st.sampled_from(["kind", "choice"]),
    kind=st.sampled_from(["regression", "classification"]),
)
def test_no_label_is_one_of_another_trial(length, offset, by, name, kind):
    rec = tiled(60, length, 0.1, offset)
    window = {"dt": 0.1, "current": 0.1, "past": 0.1, "target_past": 0.1, "frames": 0}
    split = {"by": by, "block": 4.0}
    targets = [{"name": name, "kind": kind}]
    ready = prepare(rec, small_config(window=window, inputs=[], loss={"contrast": []}, split=split, targets=targets))
    for part in ("train", "valid", "test"):
        windows = ready.windows(part)
        labels = ready.builder.labels(windows)[name][:, 0, 0].numpy()
        middle = windows.starts(ready.index) + 0.05
        expected = np.floor(middle / length + 1e-9) % 2
        known = np.isfinite(labels)
        assert known.mean() > 0.9 and np.array_equal(labels[known], expected[known])


def test_within_a_trial_labels_are_interpolated_as_ever():
    at = np.arange(100) * 0.1
    plain = BehaviorVariable(at, np.sin(at))
    starts = BehaviorVariable(at, np.sin(at), starts=np.array([0.0, 5.0]))
    x = np.random.default_rng(0).uniform(-1, 11, 2000)
    border = (x > 4.9) & (x <= 5.0)
    np.testing.assert_array_equal(plain.interpolate(x)[~border], starts.interpolate(x)[~border])
    assert (starts.interpolate(x)[border] == plain.values[49]).all()
    assert starts.interpolate(np.array([5.0])) == plain.values[49] and starts.hold(np.array([5.0])) == plain.values[50]
    gap = BehaviorVariable(np.r_[at[:50], at[70:]], np.ones(80))
    assert np.isnan(gap.interpolate(np.array([5.5]))).all()


@settings(max_examples=50, deadline=None)
@given(
    length=st.sampled_from([0.1, 0.3, 0.7, 1.1, 2.2, 1 / 3]),
    origin=st.sampled_from([0.0, 12.34, 1e5, 1.7e9]),
    dtype=st.sampled_from([np.float64, np.float32]),
)
def test_trials_that_tile_time_do_so_to_the_last_bit(length, origin, dtype):
    if dtype == np.float32 and origin > 100:
        return
    start = (origin + np.arange(300) * length).astype(dtype)
    stop = closed_up(start, start + dtype(length))
    assert np.array_equal(stop[:-1], start[1:]) and len(joined(np.stack([start, stop], 1).astype(float))) == 1
    spans = np.stack([start, stop], 1).astype(np.float64)
    if dtype == np.float64:
        assert (num_bins(spans, length / 10) == 10).all()
        middle = spans.mean(1)
        assert np.array_equal(interval_of(middle, spans), np.arange(300))
        if origin < 1e6:
            assert np.array_equal(interval_of(spans[:, 0], spans), np.arange(300))
    if dtype == np.float32:
        return
    rec = from_arrays(
        {"spike_times": start, "spike_units": np.zeros(300, int), "trials_start": start, "trials_stop": stop}
    )
    assert SpikeIndex.from_recording(rec, rec.trial_intervals, length).keys.tolist() == list(range(300))


def test_a_class_below_zero_goes_by_its_number():
    assert [VariableScale(classes=[-1, 0, 1]).word(label) for label in (-1, 0, 1)] == ["-1", "0", "1"]
    assert [VariableScale(classes=[0, 1], words=["left", "right"]).word(label) for label in (0, 1, -1)] == [
        "left",
        "right",
        "-1",
    ]
