"""Names and tables: what every reader does to what it finds."""

import numpy as np
import pytest

from neuroformer.recording import clean


@pytest.mark.parametrize(
    "paths, names",
    [
        (["processing/behavior/Position/head"], ["head"]),
        (["a/Position/SpatialSeries", "b/running/speed"], ["Position_SpatialSeries", "speed"]),
        (["a/left eye/diameter", "a/right.eye/diameter"], ["left_eye_diameter", "right_eye_diameter"]),
        (["a/x/pupil", "b/x/pupil", "c/y/tail"], ["a_x_pupil", "b_x_pupil", "tail"]),
        (["x", "x", "y", "x_2"], ["x", "x_3", "y", "x_2"]),
        (["data"], ["data"]),
        (["///"], ["unnamed"]),
    ],
)
def test_names(paths, names):
    split = [p.split("/") for p in paths]
    assert clean.short_names(split) == names
    if len(set(paths)) == len(paths):
        assert set(clean.short_names(split[::-1])) == set(names)


def test_samples():
    notes = []
    var = clean.variable("v", [2.0, np.nan, 1.0, 1.0], np.array([[4], [9], [2], [3]]), notes)
    assert var.times.tolist() == [1.0, 2.0] and var.values.tolist() == [[2.0], [4.0]]
    assert [n.split(":")[1].split(";")[0].strip() for n in notes] == [
        "1 samples without a time were dropped",
        "1 samples went back in time",
        "1 samples with the time of the one before were dropped",
    ]
    assert clean.variable("v", [1.0], np.array(["a"]), notes) is None and "left out" in notes[-1]
    assert clean.variable("v", [1.0], np.zeros(3), notes) is None and "3 values but times" in notes[-1]
    assert clean.variable("v", [], np.zeros(0), notes) is None and "empty" in notes[-1]


def test_intervals():
    notes = []
    columns = {"start": [3.0, 0.0, 5.0, 1.0], "stop": [4.0, 2.0, 5.0, 1.5], "tag": ["c", "a", "d", "b"]}
    out = clean.table("t", columns, notes, disjoint=True)
    assert out["start"].tolist() == [0, 1, 3] and out["stop"].tolist() == [1, 1.5, 4]
    assert out["tag"].tolist() == ["a", "b", "c"] and len(notes) == 2
    assert clean.table("t", {"start": [1.0], "stop": [np.nan]}, notes, disjoint=False) is None
    got = clean.without(clean.union(np.array([[5.0, 9], [0, 2], [2, 4]])), np.array([[1.0, 6.0], [8, 8.5]]))
    assert got.tolist() == [[0, 1], [6, 8], [8.5, 9]]


def test_a_row_that_spans_trials_is_none():
    notes = []
    columns = {"start": [0.0, 0, 20, 40, 60, 20], "stop": [100.0, 10, 30, 50, 70, 30]}
    out = clean.table("trials", columns, notes, disjoint=True)
    assert out["start"].tolist() == [0, 20, 40, 60] and out["stop"].tolist() == [10, 30, 50, 70]
    assert "1 rows with the times of another were dropped" in notes[0]
    assert "1 of 5 rows that span others were dropped (first: 0 to 100 s)" in notes[1] and len(notes) == 2
    # whatever is not dropped is disjoint, and a row of the file unless it ran into the next one
    rng = np.random.default_rng(0)
    for _ in range(50):
        start = rng.integers(0, 30, 12).astype(float)
        got = clean.table("t", {"start": start, "stop": start + rng.integers(1, 12, 12)}, [], disjoint=True)
        assert (got["start"][1:] >= got["stop"][:-1]).all() and (got["stop"] > got["start"]).all()


def test_trials_that_tile_time_touch_in_any_type_of_numbers():
    for dtype in (np.float64, np.float32):
        start = (np.arange(200) * 2.2).astype(dtype)
        notes = []
        out = clean.table("t", {"start": start, "stop": start + dtype(2.2)}, notes, disjoint=True)
        assert notes == [] and np.array_equal(out["stop"][:-1], out["start"][1:])


def test_times_that_lost_milliseconds_are_said():
    notes = []
    clean.variable("v", np.arange(100, 140, dtype=np.float16), np.arange(40.0), notes)
    assert "float16" in notes[0] and "125 ms" in notes[0]
    clean.spikes(np.array([1e5], np.float32), np.array([0]), notes)
    assert "float32" in notes[1] and "7.81 ms" in notes[1]
    turned = clean.variable("v", np.arange(9.0), np.zeros((2, 9)), notes)
    assert turned.values.shape == (9, 2) and "transposed" in notes[2]
