"""pynapple objects to and from a Recording."""

from dataclasses import replace

import numpy as np
import pytest
from samples import assert_same, full_recording

from neuroformer.recording import RecordingError, open_recording
from neuroformer.recording.sources import add_source

nap = pytest.importorskip("pynapple")
pytestmark = pytest.mark.filterwarnings("ignore")

from neuroformer.recording.formats.pynapple import from_pynapple, to_pynapple  # noqa: E402


def comparable():
    """What pynapple can hold: nanoseconds, disjoint intervals, no units of measure, no meta."""
    rec = full_recording()
    behavior = {k: replace(v, unit="", times=np.round(v.times, 9)) for k, v in rec.behavior.items()}
    order = np.lexsort((rec.spike_units, np.round(rec.spike_times, 9)))
    return replace(
        rec,
        spike_times=np.round(rec.spike_times, 9)[order],
        spike_units=rec.spike_units[order],
        intervals={"epochs": rec.intervals["epochs"]},
        traces=replace(rec.traces, times=np.round(rec.traces.times, 9), unit=""),
        behavior=behavior,
        trials={**rec.trials, "start": np.array([0, 4.0]), "stop": np.array([4.0, 9.0])},  # they touch
    )


def test_round_trip():
    rec = comparable()
    objects = to_pynapple(rec)
    assert {k: type(v).__name__ for k, v in objects.items()} == {
        "units": "TsGroup",
        "domain": "IntervalSet",
        "epochs": "IntervalSet",
        "trials": "IntervalSet",
        "speed": "Tsd",
        "heart_rate": "Tsd",
        "gaze": "TsdFrame",
        "traces": "TsdFrame",
        "frames": "TsdTensor",
    }
    assert_same(from_pynapple(objects, name=rec.name), rec, exact=False)
    assert "frames" not in to_pynapple(rec, frames=False)


def test_a_group_alone_and_objects_that_have_no_place():
    group = nap.TsGroup({3: nap.Ts([0.5, 1.0]), 7: nap.Ts([])}, time_support=nap.IntervalSet(0, 5))
    rec = from_pynapple(group)
    assert rec.unit_ids == ["3", "7"] and rec.duration == pytest.approx(5) and rec.num_spikes == 2
    rec = from_pynapple({"cells": group, "licks": nap.Ts([1.0])})
    assert rec.meta["notes"] == ["licks (Ts) was left out"]


def test_overlaps_and_missing_groups_are_refused():
    with pytest.raises(RecordingError, match="intervals 'run fast' overlap"):
        to_pynapple(full_recording())
    with pytest.raises(RecordingError, match="expected one TsGroup of spikes.*got: speed"):
        from_pynapple({"speed": nap.Tsd([0.0, 1.0], [1.0, 2.0])})
    group = nap.TsGroup({0: nap.Ts([0.5, 1.0])})
    with pytest.raises(RecordingError, match="picks one"):
        from_pynapple({"a": group, "b": group})
    assert from_pynapple({"a": group, "b": group}, units="a").num_units == 1
    with pytest.raises(RecordingError, match="got a int; expected a TsGroup or a mapping"):
        from_pynapple(3)


def test_its_own_files(tmp_path):
    """What pynapple saves, file by file, opens as the objects do, also where metadata are a pickle."""
    rng = np.random.default_rng(0)
    trains = {3: nap.Ts(np.sort(rng.uniform(0, 9, 30))), 7: nap.Ts(np.sort(rng.uniform(0, 9, 20)))}
    support = nap.IntervalSet([0, 5], [4, 10])
    group = nap.TsGroup(trains, time_support=support, metadata={"area": ["a", "bb"], "depth": [1.0, 2]})
    objects = {
        "units": group,
        "place": nap.TsdFrame(np.arange(9.0), rng.normal(size=(9, 2)), columns=["x", "y"]),
        "speed": nap.Tsd(np.arange(9.0), rng.normal(size=9)),
        "trials": nap.IntervalSet([0, 5], [3, 8], metadata={"kind": ["u", "v"]}),
        "frames": nap.TsdTensor(np.arange(4.0), rng.normal(size=(4, 2, 3))),
    }
    for name, one in objects.items():
        one.save(str(tmp_path / f"{name}.npz"))
    alone = open_recording(tmp_path / "units.npz")
    whole, want = open_recording(tmp_path), from_pynapple(objects)
    for rec in (alone, whole):
        np.testing.assert_array_equal(rec.spike_times, want.spike_times)
        np.testing.assert_array_equal(rec.spike_units, want.spike_units)
        np.testing.assert_array_equal(rec.domain, want.domain)
        assert list(rec.units["id"]) == [3, 7] and list(rec.units["area"]) == ["a", "bb"]
        assert list(rec.units["depth"]) == [1, 2]
    assert whole.sha256() == want.sha256() and whole.behavior["place"].columns == ("x", "y")
    assert list(whole.trials["kind"]) == ["u", "v"] and not alone.behavior
    source = add_source(alone, tmp_path / "speed.npz")
    np.testing.assert_array_equal(source.behavior["speed"].values, want.behavior["speed"].values)
