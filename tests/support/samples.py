"""Recordings that the format tests write and read back."""

import datetime as dt
import os
from pathlib import Path

import numpy as np
import pytest

from neuroformer.recording import BehaviorVariable, FrameSeries, ObservedIntervals, Recording
from neuroformer.recording.recording import Traces


def shared_data() -> Path:
    """The folder of real recordings; the test skips where it is absent."""
    default = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("NEUROFORMER_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real recordings are not at {folder}")
    return folder


def empty_nwb():
    """An NWBFile without data."""
    pynwb = pytest.importorskip("pynwb")
    return pynwb.NWBFile("a session", "id-1", dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc))


def save_nwb(nwbfile, path: Path) -> Path:
    with pytest.importorskip("pynwb").NWBHDF5IO(str(path), "w") as io:
        io.write(nwbfile)
    return path


def full_recording(seed: int = 0) -> Recording:
    """A recording that has something in every field, awkward names included."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 10, 300))
    times[10] = times[11]  # two spikes at one instant
    units = rng.integers(0, 5, 300)
    order = np.lexsort((units, times))
    return Recording(
        name="mouse/1: day a",
        spike_times=times[order],
        spike_units=units[order],
        units={
            "id": np.array(["a", "b", "c", "d", "e"]),
            "area": np.array(["VISp", "VISp", "VISal", "", "VISp"]),
            "depth": np.arange(5.0),
        },
        domain=np.array([[0, 4], [5, 10.0]]),
        trials={
            "start": np.array([0, 5.0]),
            "stop": np.array([4.0, 9.0]),
            "hit": np.array([True, False]),
            "kind": np.array(["x", "yy"]),
        },
        frames=FrameSeries(rng.integers(0, 255, (4, 6, 8), dtype=np.uint8), np.arange(12) / 4, np.arange(12) % 4),
        behavior={
            "speed": BehaviorVariable(np.arange(100) / 10, _holes(rng.normal(size=100)), "cm/s"),
            "heart_rate": BehaviorVariable(np.sort(rng.uniform(0, 9, 30)), rng.normal(size=30), "bpm"),
            "gaze": BehaviorVariable(np.arange(50) / 5, rng.normal(size=(50, 2)), "deg", ("x", "y")),
        },
        truth={"coupling": rng.normal(size=(5, 5)), "seed": np.array(3)},
        meta={"notes": ["hello"], "species": "Mus musculus", "nested": {"a": [1, 2]}},
        traces=Traces(np.arange(300) / 30, rng.normal(size=(300, 5)), "dF/F"),
        intervals={
            "run fast": {"start": np.array([0, 1.0]), "stop": np.array([3, 2.0])},
            "epochs": {"start": np.array([0.0]), "stop": np.array([3.0]), "tag": np.array(["z"])},
        },
        observed=ObservedIntervals([[0, 4], [0, 2], [3, 4], [5, 10], [5, 10], [0, 10]], [0, 1, 1, 1, 2, 4]),
    )


def _holes(values: np.ndarray) -> np.ndarray:
    values[3:6] = np.nan
    return values


def assert_same_table(got, expected, where=""):
    assert set(got) == set(expected), where
    for key in expected:
        assert np.asarray(got[key]).dtype.kind == np.asarray(expected[key]).dtype.kind, f"{where} {key}"
        np.testing.assert_array_equal(got[key], expected[key], err_msg=f"{where} {key}")


def assert_same(got: Recording, expected: Recording, *, exact: bool = True):
    """Spikes, units, behavior, frames, trials (and, when ``exact``, everything else) are identical."""
    np.testing.assert_array_equal(got.spike_times, expected.spike_times)
    np.testing.assert_array_equal(got.spike_units, expected.spike_units)
    np.testing.assert_array_equal(got.domain, expected.domain)
    assert_same_table(got.units, expected.units, "units")
    assert_same_table(got.trials, expected.trials, "trials")
    assert set(got.intervals) == set(expected.intervals)
    for name, columns in expected.intervals.items():
        assert_same_table(got.intervals[name], columns, name)
    assert set(got.behavior) == set(expected.behavior)
    for name, var in expected.behavior.items():
        back = got.behavior[name]
        np.testing.assert_array_equal(back.times, var.times)
        np.testing.assert_array_equal(back.values, var.values)
        assert (back.unit, back.columns) == (var.unit, var.columns)
    assert (got.traces is None) == (expected.traces is None)
    if expected.traces is not None:
        np.testing.assert_array_equal(got.traces.times, expected.traces.times)
        np.testing.assert_array_equal(got.traces.values, expected.traces.values)
        assert got.traces.unit == expected.traces.unit
    assert (got.observed is None) == (expected.observed is None)
    if expected.observed is not None:
        np.testing.assert_array_equal(got.observed.intervals, expected.observed.intervals)
        np.testing.assert_array_equal(got.observed.units, expected.observed.units)
    assert (got.frames is None) == (expected.frames is None)
    if expected.frames is not None:
        np.testing.assert_array_equal(got.frames.times, expected.frames.times)
        assert got.frames.images.dtype == expected.frames.images.dtype
        shown = np.asarray(expected.frames.images)[expected.frames.index]
        np.testing.assert_array_equal(got.frames.images[got.frames.index], shown)
    if exact:
        assert got.name == expected.name and got.meta == expected.meta
        assert_same_table(got.truth, expected.truth, "truth")
        assert got.sha256() == expected.sha256()


def save_alf(folder, **arrays):
    """Files of an ALF folder: ``object__attribute`` and its array."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name.replace('__', '.')}.npy", values)


def write_alf_probe(folder, rng, spikes=200, clusters=5):
    """An ALF folder of one probe; times and clusters of its spikes."""
    times = np.sort(rng.uniform(10, 60, spikes))
    rows = rng.integers(0, clusters, spikes)
    save_alf(
        folder, spikes__times=times, spikes__clusters=rows.astype(np.uint32), spikes__amps=rng.uniform(size=spikes)
    )
    save_alf(folder, clusters__depths=20.0 * np.arange(clusters), clusters__channels=np.arange(clusters) * 2)
    save_alf(
        folder, clusters__waveforms=np.zeros((clusters, 3, 4)), channels__brainLocationIds_ccf_2017=np.arange(12) + 500
    )
    (folder / "clusters.metrics.csv").write_text(
        "cluster_id,label\n" + "".join(f"{i},{i / 4}\n" for i in range(clusters))
    )
    (folder / "clusters.uuids.csv").write_text("uuids\n" + "".join(f"a-{i}\n" for i in range(clusters)))
    return times, rows


def cells(values):
    """An array of objects, which scipy writes as a cell array of MATLAB."""
    out = np.empty(len(values), object)
    out[:] = values
    return out
