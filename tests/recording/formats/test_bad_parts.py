"""One bad part of a file costs itself, and is named; what is left out is said; spikes are whole or an error."""

import numpy as np
import pytest
from helpers import small_config

from neuroformer.config import ConfigError
from neuroformer.data.prepared import prepare
from neuroformer.recording import RecordingError, clean, open_recording

h5py = pytest.importorskip("h5py")
STAMPS = np.arange(90.0)


def notes(rec) -> str:
    return "; ".join(rec.meta["notes"])


def under_unknown_filter(path, place):
    """A chunk of a compression that no machine has."""
    with h5py.File(path, "a") as h:
        shape, dtype = h[place].shape, h[place].dtype
        del h[place]
        new = h.create_dataset(place, shape, dtype, chunks=shape, compression=32999, allow_unknown_filter=True)
        new.id.write_direct_chunk((0,) * len(shape), b"x" * 10)
    return path


def brainset(path):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as f:
        f.attrs["object"] = "Data"
        f["spikes/timestamps"] = np.sort(rng.uniform(0, 90, 300))
        f["spikes/unit_index"] = rng.integers(0, 3, 300)
        f["units/id"], f["units/depth"] = np.arange(3), np.arange(3.0)
        for name in ("speed", "gaze"):
            f[f"{name}/timestamps"], f[f"{name}/values"] = STAMPS, STAMPS
            f[name].attrs["object"] = "IrregularTimeSeries"
        f["trials/start"], f["trials/end"], f["trials/side"] = STAMPS[::9], STAMPS[::9] + 5, STAMPS[::9]
        f["trials"].attrs["object"] = "Interval"
    return path


@pytest.mark.parametrize(
    "place, lost",
    [("speed/values", "speed"), ("gaze/timestamps", "gaze"), ("units/depth", "depth"), ("trials/side", "side")],
)
def test_a_part_of_a_brainset_costs_only_itself(tmp_path, place, lost):
    rec = open_recording(under_unknown_filter(brainset(tmp_path / "a.h5"), place), check=False)
    there = {*rec.behavior, *rec.units, *rec.trials}
    assert rec.num_spikes == 300 and lost not in there and {"speed", "gaze", "depth", "side"} - {lost} <= there
    assert lost in notes(rec) and "pip install hdf5plugin" in notes(rec)


def test_spikes_of_a_brainset_name_the_cure(tmp_path):
    path = under_unknown_filter(brainset(tmp_path / "a.h5"), "spikes/timestamps")
    with pytest.raises(RecordingError, match="pip install hdf5plugin") as e:
        open_recording(path, check=False)
    assert "damaged" not in str(e.value)


def test_what_a_brainset_has_beside_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(clean, "_LONG", 1000)
    with h5py.File(brainset(tmp_path / "a.h5"), "a") as f:
        f["templates/values"] = np.ones(3)
        f["templates"].attrs["object"] = "ArrayDict"
        f["frames/images"], f["frames/timestamps"] = np.ones((3, 4, 4)), STAMPS[:3]
        f["frames"].attrs["object"] = "IrregularTimeSeries"
        f["lfp/values"] = np.ones((1000, 4), np.float32)
        f["lfp"].attrs["object"], f["lfp"].attrs["sampling_rate"] = "RegularTimeSeries", 2500.0
    rec = open_recording(tmp_path / "a.h5", check=False)
    assert "not read, since no part of a recording holds it: frames, templates" in notes(rec)
    assert "lfp was not read, since it is a recorder's channel ((1000, 4) at 2,500 Hz)" in notes(rec)
    asked = open_recording(tmp_path / "a.h5", only=["lfp", "speed"], check=False)
    assert asked.behavior["lfp"].values.shape == (1000, 4)


def test_a_part_of_a_matlab_file_costs_only_itself(tmp_path):
    path = tmp_path / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as f:
        f["t"], f["cluster"], f["lfp"] = np.arange(50.0)[None], np.arange(50)[None] % 3, np.ones((1, 9))
    with open(path, "r+b") as f:
        f.write(b"MATLAB 7.3 MAT-file".ljust(512))
    rec = open_recording(under_unknown_filter(path, "lfp"))
    assert rec.num_spikes == 50 and "'lfp' was left out: it is compressed by a filter" in notes(rec)
    with pytest.raises(RecordingError, match="has no 't'|say which are the spikes"):
        open_recording(under_unknown_filter(path, "t"), spikes="t")


def test_parts_of_pynapple_cost_only_themselves(tmp_path):
    span = {"start": np.zeros(1), "end": np.full(1, 90.0)}
    arrays = {"t": STAMPS, "index": np.repeat([3, 7], 45), "keys": np.array([3, 7])}
    metadata = {"unit_id": np.array([1, 1])}  # of two probes
    np.savez(tmp_path / "units.npz", type=["TsGroup"], **arrays, **span, _metadata=np.array(metadata, object))
    np.savez(tmp_path / "speed.npz", type=["Tsd"], t=STAMPS, d=STAMPS, **span)
    np.savez(tmp_path / "lost.npz", type=["Tsd"], t=STAMPS, **span)
    np.savez(tmp_path / "movie.npz", type=["TsdTensor"], t=np.full(4, np.nan), d=np.ones((4, 2, 2)), **span)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "speed.npz").read_bytes()[:200])
    rec = open_recording(tmp_path)
    assert rec.num_spikes == 90 and set(rec.behavior) == {"speed"} and rec.frames is None
    assert rec.unit_ids == ["1", "1_2"] and "unit ids repeat" in notes(rec)
    for said in ("lost was left out", "movie was left out", "cut.npz was left out"):
        assert said in notes(rec)


def test_objects_beside_the_spikes_of_an_npz_are_left_out_and_said(tmp_path):
    arrays = {"spike_times": STAMPS, "spike_units": np.arange(90) % 3, "speed": STAMPS, "speed_times": STAMPS}
    np.savez(tmp_path / "a.npz", **arrays, info=np.array({"animal": "m1"}, object))
    rec = open_recording(tmp_path / "a.npz")
    assert rec.num_spikes == 90 and "left out, since they hold Python objects: info" in notes(rec)
    trains = np.array([STAMPS, STAMPS[:3]], object)
    np.savez(tmp_path / "b.npz", **arrays | {"spike_times": trains})
    with pytest.raises(RecordingError, match="give all spikes in one array"):
        open_recording(tmp_path / "b.npz")


def test_a_table_says_what_it_left_out(tmp_path):
    lines = [f"{i},{i % 3},{i % 3 * 10},{i / 7}" for i in range(90)]
    (tmp_path / "a.csv").write_text("\n".join(["time,unit,depth,amplitude", *lines]))
    rec = open_recording(tmp_path / "a.csv")
    assert set(rec.units) == {"id", "depth"} and "no one value per unit: amplitude" in notes(rec)


def test_a_matlab_file_says_what_it_left_out_and_its_counts_have_a_grid(tmp_path):
    from scipy.io import savemat

    counts = np.random.default_rng(0).poisson(0.7, (4, 900))
    savemat(tmp_path / "a.mat", {"counts": counts, "position": STAMPS})
    rec = open_recording(tmp_path / "a.mat", spikes="counts", dt=0.1)
    assert "not read: position" in notes(rec) and rec.meta["spike_grid_s"] == 0.1
    tree = {"inputs": [], "targets": [], "loss": {"contrast": []}}
    with pytest.raises(ConfigError, match="lie on a grid of 0.1 s"):
        prepare(rec, small_config(window={"frames": 0}, **tree))


def test_labels_of_a_sorting_may_be_numbers_of_another_type(tmp_path):
    facts = {"unit_ids": np.array([3.0, 9.0]), "num_segment": [1], "sampling_frequency": [10.0]}
    spikes = {"spike_indexes_seg0": np.arange(6), "spike_labels_seg0": np.array([9, 3, 9, 9, 3, 3])}
    np.savez(tmp_path / "a.npz", **facts, **spikes)
    assert list(open_recording(tmp_path / "a.npz").spike_units) == [1, 0, 1, 1, 0, 0]
    np.savez(tmp_path / "b.npz", **facts, **spikes | {"spike_labels_seg0": np.full(6, 4)})
    with pytest.raises(RecordingError, match="spikes of unit 4, which is not among the ids"):
        open_recording(tmp_path / "b.npz")


def test_region_of_a_channel_of_any_type_of_numbers(tmp_path):
    from samples import save_alf

    rng = np.random.default_rng(0)
    regions = {"channels__brainLocationIds_ccf_2017": np.arange(12) + 500}
    save_alf(tmp_path, spikes__times=STAMPS, spikes__clusters=rng.integers(0, 3, 90), **regions)
    for dtype in (np.int64, np.uint16, np.float32, ">i4"):
        save_alf(tmp_path, clusters__channels=np.array([2, 4, 11]).astype(dtype))
        (tmp_path / "clusters.metrics.csv").write_text("cluster_id,label\n2.0,0.2\n0.0,0.5\n1.0,1\n")
        rec = open_recording(tmp_path)
        assert list(rec.units["brainLocationIds_ccf_2017"]) == [502, 504, 511]
        assert list(rec.units["label"]) == [0.5, 1.0, 0.2]


def test_spikes_of_no_unit_are_dropped_and_said(tmp_path):
    (tmp_path / "a.csv").write_text("time,unit,area\n0.5,-1,V1\n0.7,1,CA1\n0.8,,V1\n0.9,1,CA1\n")
    rec = open_recording(tmp_path / "a.csv")
    assert rec.unit_ids == ["-1", "1"] and rec.num_spikes == 3 and list(rec.units["area"]) == ["V1", "CA1"]
    assert "1 spikes of no unit were dropped" in notes(rec)
    (tmp_path / "b.csv").write_text("time,unit\n0.5,a\n0.7,\n0.8,b\n")
    assert open_recording(tmp_path / "b.csv").unit_ids == ["a", "b"]


def test_a_decimal_comma_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("time;unit\n0,5;1\n0,7;2\n")
    with pytest.raises(RecordingError, match="decimal comma: write them with a point"):
        open_recording(tmp_path / "a.csv")


def spikes_of_a_minute():
    from neuroformer.recording import Recording

    return Recording("m", np.arange(60.0), np.arange(60) % 2, {"id": ["a", "b"]}, [[0, 60]])


def test_single_numbers_beside_the_behavior_of_a_source_are_left_out(tmp_path):
    from scipy.io import savemat

    from neuroformer.recording.sources import add_source

    savemat(tmp_path / "a.mat", {"pos": np.arange(50.0), "t": np.arange(50.0), "fs": 30.0, "empty": np.zeros((0, 0))})
    rec = add_source(spikes_of_a_minute(), tmp_path / "a.mat", times="t")
    assert set(rec.behavior) == {"pos"} and "'fs' was left out" in notes(rec) and "'empty' was left out" in notes(rec)
    with pytest.raises(RecordingError, match="fs was left out"):
        add_source(spikes_of_a_minute(), tmp_path / "a.mat", times="t", columns={"fs": "fs"})


def test_coarse_times_of_a_source_are_said(tmp_path):
    from neuroformer.recording.sources import add_source

    times = np.arange(50).astype(np.float16)
    np.savez(tmp_path / "a.npz", t=times[:, None], pos=np.arange(50.0))
    rec = add_source(spikes_of_a_minute(), tmp_path / "a.npz")
    assert rec.behavior["pos"].values.shape == (50, 1) and "float16, which knows steps of" in notes(rec)
    np.savez(tmp_path / "b.npz", start=times[::5], stop=times[::5] + 1)
    assert "b.npz: start are float16" in notes(add_source(spikes_of_a_minute(), tmp_path / "b.npz", name="rest"))
    np.savez(tmp_path / "c.npz", start=np.arange(5.0), duration=np.arange(3.0))
    with pytest.raises(RecordingError, match="expected one each a row"):
        add_source(spikes_of_a_minute(), tmp_path / "c.npz", columns={"start": "start", "duration": "duration"})
