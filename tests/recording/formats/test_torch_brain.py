"""torch_brain / brainsets HDF5: a round trip, and both ways through the library itself."""

from dataclasses import replace

import numpy as np
import pytest
from samples import assert_same, full_recording

from neuroformer.recording import RecordingError, open_recording
from neuroformer.recording.formats import torch_brain_writer

h5py = pytest.importorskip("h5py")
td = pytest.importorskip("temporaldata")

from neuroformer.recording.formats.torch_brain_writer import write_torch_brain  # noqa: E402


def test_round_trip_loses_nothing(tmp_path):
    rec = full_recording()
    assert_same(open_recording(write_torch_brain(rec, tmp_path / "a.h5")), rec)
    rec = replace(rec, units={"id": np.array([4, 2, 0, 9, 1])}, frames=None)
    assert_same(open_recording(write_torch_brain(rec, tmp_path / "b.hdf5")), rec)


@pytest.mark.parametrize("lazy", [True, False])
def test_the_library_reads_what_we_write(tmp_path, lazy):
    rec = full_recording()
    path = write_torch_brain(rec, tmp_path / "a.h5")
    data = td.Data.load(path, lazy=lazy)
    np.testing.assert_array_equal(data.spikes.timestamps[:], rec.spike_times)
    np.testing.assert_array_equal(data.spikes.unit_index[:], rec.spike_units)
    assert list(data.units.id[:].astype(str)) == rec.unit_ids and data.session.id == rec.name
    part = data.slice(1.0, 3.0)
    inside = (rec.spike_times >= 1) & (rec.spike_times < 3)
    np.testing.assert_allclose(part.spikes.timestamps[:], rec.spike_times[inside] - 1.0)
    speed = rec.behavior["speed"]
    keep = (speed.times >= 1) & (speed.times < 3)
    np.testing.assert_array_equal(part.speed.values[:], speed.values[keep, 0])
    if lazy:
        data.close()


def test_no_name_of_ours_hides_one_of_the_librarys():
    public = lambda kind: {name for name in dir(kind) if not name.startswith("_")}
    assert public(td.Data) <= torch_brain_writer._OF_DATA | torch_brain_writer._OWN_NAMES
    assert public(td.Interval) <= torch_brain_writer._OF_INTERVAL


def brainset(path, **extra):
    """A file as brainsets' pipelines write them: nested descriptions, splits, several fields a series."""
    times = np.arange(50) / 10
    domain = td.Interval(0.0, 5.0)
    data = td.Data(
        brainset=td.Data(id="a_set"),
        session=td.Data(id="session_1"),
        spikes=td.IrregularTimeSeries(
            timestamps=np.array([0.5, 0.5, 2.0]), unit_index=np.array([1, 0, 2]), domain=domain
        ),
        units=td.ArrayDict(id=np.array(["u0", "u1", "u2"]), brain_region=np.array(["M1", "M1", "S1"])),
        cursor=td.IrregularTimeSeries(timestamps=times, pos=np.zeros((50, 2)), vel=np.ones((50, 2)), domain="auto"),
        running=td.RegularTimeSeries(running_speed=np.arange(20.0), sampling_rate=4.0, domain_start=1.0),
        trials=td.Interval(
            start=np.array([0.0, 2.0]),
            end=np.array([1.0, 3.0]),
            go=np.array([0.5, 2.5]),
            timekeys=["start", "end", "go"],
        ),
        domain=domain,
        **extra,
    )
    data.train_domain = td.Interval(0.0, 3.0)
    data.valid_domain = td.Interval(3.0, 4.0)
    data.test_domain = td.Interval(4.0, 5.0)
    with h5py.File(path, "w") as f:
        data.to_hdf5(f)
    return path


def test_we_read_what_the_library_writes(tmp_path):
    rec = open_recording(brainset(tmp_path / "session_1.h5"))
    assert rec.name == "session_1" and rec.unit_ids == ["u0", "u1", "u2"]
    assert list(rec.units["brain_region"]) == ["M1", "M1", "S1"]
    np.testing.assert_array_equal(rec.spike_units, [0, 1, 2])  # ties by unit
    assert set(rec.behavior) == {"cursor_pos", "cursor_vel", "running_speed"}
    np.testing.assert_allclose(rec.behavior["running_speed"].times, 1.0 + np.arange(20) / 4)
    np.testing.assert_array_equal(rec.domain, [[0.0, 5.0]])
    np.testing.assert_array_equal(rec.trials["go"], [0.5, 2.5])
    assert {k: (v["start"][0], v["stop"][0]) for k, v in rec.intervals.items()} == {
        "train_domain": (0.0, 3.0),
        "valid_domain": (3.0, 4.0),
        "test_domain": (4.0, 5.0),
    }
    assert rec.meta["session"] == "session_1" and rec.meta["sources"]["cursor_vel"] == "cursor/vel"


def test_calcium_traces(tmp_path):
    rng = np.random.default_rng(0)
    traces = rng.normal(size=(40, 3))
    calcium = td.RegularTimeSeries(df_over_f=traces, sampling_rate=10.0)
    rec = open_recording(brainset(tmp_path / "a.h5", calcium=calcium))
    np.testing.assert_allclose(rec.traces.values, traces, rtol=1e-6)
    data = td.Data(units=td.ArrayDict(id=np.array(["a", "b", "c"])), calcium=calcium, domain="auto")
    with h5py.File(tmp_path / "b.h5", "w") as f:
        data.to_hdf5(f)
    rec = open_recording(tmp_path / "b.h5", events="none")
    assert rec.num_units == 3 and rec.num_spikes == 0 and rec.traces is not None


def test_bad_files(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["x"] = np.zeros(3)
    with pytest.raises(RecordingError, match="HDF5, but not of torch_brain"):
        open_recording(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(RecordingError, match="text.h5 cannot be read as torch_brain HDF5"):
        open_recording(tmp_path / "text.h5")
    with h5py.File(tmp_path / "half.h5", "w") as f:
        f["spikes/timestamps"] = np.zeros(3)
    with pytest.raises(RecordingError, match="spikes lack unit_index; they have: timestamps"):
        open_recording(tmp_path / "half.h5")
    with h5py.File(tmp_path / "floats.h5", "w") as f:
        f["spikes/timestamps"], f["spikes/unit_index"] = np.zeros(3), np.zeros(3)
    with pytest.raises(RecordingError, match="one whole number per spike"):
        open_recording(tmp_path / "floats.h5")
    rec = replace(full_recording(), truth={}, units={"id": np.array(["ä", "b", "c", "d", "e"])})
    with pytest.raises(RecordingError, match="cannot be written for torch_brain"):
        write_torch_brain(rec, tmp_path / "umlaut.h5")


@pytest.mark.filterwarnings("ignore")
def test_torch_brain_itself_samples_what_we_write(tmp_path):
    # not a test dependency: it brings in ray
    datasets = pytest.importorskip("torch_brain.datasets")
    rec = full_recording()
    write_torch_brain(rec, tmp_path / "rec1.h5")
    dataset = datasets.Dataset(str(tmp_path))
    sample = dataset[datasets.DatasetIndex("rec1", 1.0, 3.0)]
    inside = (rec.spike_times >= 1) & (rec.spike_times < 3)
    np.testing.assert_allclose(sample.spikes.timestamps, rec.spike_times[inside] - 1.0)
    np.testing.assert_array_equal(sample.spikes.unit_index, rec.spike_units[inside])
    domain = dataset.get_sampling_intervals()["rec1"]
    np.testing.assert_array_equal(np.stack([domain.start, domain.end], 1), rec.domain)
