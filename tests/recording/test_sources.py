"""Second sources: the same numbers from every kind of file, on the spikes' clock."""

import csv
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroformer.config import from_dict, load_config
from neuroformer.data.recordings import open_only
from neuroformer.recording import Recording, RecordingError
from neuroformer.recording.sources import add_source
from neuroformer.recording.sources.text import read_text


def spikes(seconds=100.0, **more):
    times = np.linspace(0, seconds, 200, endpoint=False)
    return Recording("m", times, np.arange(200) % 3, {"id": np.arange(3)}, np.array([[0.0, seconds]]), **more)


def write_csv(path, columns, delimiter=","):
    with open(path, "w", newline="") as f:
        writer = csv.writer(f, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def write_parquet(path, columns):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({k: pa.array(v) for k, v in columns.items()}), path)
    return path


def write_mat(path, columns):
    from scipy.io import savemat

    savemat(path, {"data": {k: v[:, None] for k, v in columns.items()}})
    return path


def write_mat73(path, columns):
    """As MATLAB lays out version 7.3: HDF5 behind 512 bytes of text, axes reversed."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as f:
        group = f.create_group("data")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for k, v in columns.items():
            group[k] = v[None]
            group[k].attrs["MATLAB_class"] = np.bytes_("double")
    with open(path, "r+b") as f:
        f.write(b"MATLAB 7.3 MAT-file".ljust(512))
    return path


WRITERS = {
    "a.csv": write_csv,
    "b.tsv": lambda p, c: write_csv(p, c, "\t"),
    "semicolons.csv": lambda p, c: write_csv(p, c, ";"),
    "c.parquet": write_parquet,
    "d.npz": lambda p, c: np.savez(p, **c) or p,
    "e.mat": write_mat,
    "f.mat": write_mat73,
}


@pytest.mark.parametrize("file", WRITERS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_same_numbers_from_every_file(tmp_path_factory, file, seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 200))
    columns = {"t": np.sort(rng.uniform(1000, 1100, count)), "pos": rng.normal(size=count), "ttl": np.zeros(count)}
    path = WRITERS[file](tmp_path_factory.mktemp("s") / file, columns)
    inside = "data." if file.endswith(".mat") else ""
    rec = add_source(spikes(), path, times=f"{inside}t", columns={"wheel": f"{inside}pos"}, offset=-999.5, scale=0.9995)
    np.testing.assert_array_equal(rec.behavior["wheel"].times, -999.5 + 0.9995 * columns["t"])
    np.testing.assert_array_equal(rec.behavior["wheel"].values[:, 0], columns["pos"].astype(np.float32))
    assert rec.meta["sources"] == {"wheel": file} and list(rec.behavior) == ["wheel"]
    np.testing.assert_array_equal(rec.spike_times, spikes().spike_times)


def test_npy_with_its_times(tmp_path):
    np.save(tmp_path / "pos.npy", np.arange(20.0).reshape(10, 2))
    np.save(tmp_path / "at.npy", np.arange(10.0))
    rec = add_source(spikes(), tmp_path / "pos.npy", times=str(tmp_path / "at.npy"), columns={"place": "values"})
    assert rec.behavior["place"].num_columns == 2
    np.testing.assert_array_equal(rec.behavior["place"].times, np.arange(10.0))
    rec = add_source(spikes(), tmp_path / "pos.npy", rate_hz=0.5, offset=3)
    np.testing.assert_array_equal(rec.behavior["values"].times, 3 + 2 * np.arange(10.0))


def test_words_holes_and_columns_together(tmp_path):
    (tmp_path / "b.csv").write_text("time,x,y,state\n0,1,2,run\n1,,4,rest\n2,5,6,\n")
    rec = add_source(spikes(), tmp_path / "b.csv", columns={"place": ["x", "y"], "state": "state"})
    np.testing.assert_array_equal(rec.behavior["place"].values, [[1, 2], [np.nan, 4], [5, 6]])
    assert rec.behavior["place"].columns == ("x", "y")
    assert rec.behavior["state"].classes == ("rest", "run")
    np.testing.assert_array_equal(rec.behavior["state"].values[:, 0], [1, 0, np.nan])
    assert list(add_source(spikes(), tmp_path / "b.csv").behavior) == ["x", "y", "state"]


def test_trials_and_other_intervals(tmp_path):
    (tmp_path / "t.csv").write_text("on,dur,kind\n10,2,a\n20,2,b\n30,2,a\n")
    rec = add_source(spikes(), tmp_path / "t.csv", columns={"start": "on", "duration": "dur"}, scale=2)
    np.testing.assert_array_equal(rec.trials["start"], [20, 40, 60])
    np.testing.assert_array_equal(rec.trials["stop"], [24, 44, 64])
    assert list(rec.trials["kind"]) == ["a", "b", "a"]
    with pytest.raises(RecordingError, match="has trials already"):
        add_source(rec, tmp_path / "t.csv", columns={"start": "on", "duration": "dur"})
    rec = add_source(rec, tmp_path / "t.csv", columns={"start": "on", "duration": "dur"}, name="blocks")
    assert list(rec.intervals["blocks"]["start"]) == [10, 20, 30]
    with pytest.raises(RecordingError, match="need a stop or a duration"):
        add_source(spikes(), tmp_path / "t.csv", columns={"start": "on"})


def test_a_video_with_its_timestamps(tmp_path):
    stack = np.random.default_rng(0).integers(0, 255, (8, 4, 5), dtype=np.uint8)
    np.save(tmp_path / "movie.npy", stack)
    (tmp_path / "at.txt").write_text("".join(f"{t}\n" for t in range(7)))
    rec = add_source(spikes(), tmp_path / "movie.npy", times=str(tmp_path / "at.txt"), offset=10)
    np.testing.assert_array_equal(rec.frames.times, 10 + np.arange(7.0))
    np.testing.assert_array_equal(rec.frames.images[rec.frames.index], stack[:7])
    assert any("7 times for 8 frames" in n for n in rec.meta["notes"])


DLC = """scorer,net,net,net,net,net,net
bodyparts,nose,nose,nose,tail,tail,tail
coords,x,y,likelihood,x,y,likelihood
0,1,2,0.9,10,20,0.1
1,3,4,0.99,30,40,0.7
"""


def test_pose_tables(tmp_path):
    (tmp_path / "dlc.csv").write_text(DLC)
    rec = add_source(spikes(), tmp_path / "dlc.csv", rate_hz=10)
    assert rec.behavior["nose"].columns == ("x", "y")
    np.testing.assert_array_equal(rec.behavior["nose"].values, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(rec.behavior["tail"].values, [[np.nan, np.nan], [30, 40]])
    assert any("1 of 4 positions have a likelihood below 0.6" in n for n in rec.meta["notes"])
    several = DLC.replace("bodyparts", "individuals,a,a,a,b,b,b\nbodyparts", 1)
    (tmp_path / "many.csv").write_text(several)
    assert list(add_source(spikes(), tmp_path / "many.csv", rate_hz=10).behavior) == ["a_nose", "b_tail"]

    import h5py

    tracks = np.random.default_rng(0).normal(size=(1, 2, 3, 50))
    with h5py.File(tmp_path / "sleap.h5", "w") as f:
        f["tracks"], f["node_names"], f["track_names"] = tracks, [b"nose", b"ear", b"tail"], [b"track_0"]
    rec = add_source(spikes(), tmp_path / "sleap.h5", rate_hz=10)
    assert list(rec.behavior) == ["nose", "ear", "tail"]
    np.testing.assert_allclose(rec.behavior["ear"].values, tracks[0, :, 1].T, rtol=1e-6)


def write_pandas_table(path, columns, values):
    """As pandas writes a table through PyTables: a record with a block of values, whose names are a pickle."""
    import h5py

    with h5py.File(path, "w") as f:
        record = np.zeros(len(values), [("index", "i8"), ("values_block_0", "f8", (values.shape[1],))])
        record["index"], record["values_block_0"] = np.arange(len(values)), values
        table = f.create_dataset("df_with_missing/table", data=record)
        table.attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(columns, 0))


@pytest.mark.parametrize("who", [(), ("mouse",)])
@pytest.mark.parametrize("own", [True, False])
def test_pose_tables_in_hdf5(tmp_path, who, own):
    columns = [("net", *who, part, axis) for part in ("nose", "tail") for axis in ("x", "y", "likelihood")]
    values = np.random.default_rng(0).uniform(0, 1, (40, 6))
    if own:
        pytest.importorskip("tables")
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame(values, columns=pd.MultiIndex.from_tuples(columns))
        frame.to_hdf(tmp_path / "a.h5", key="df_with_missing", format="table", mode="w")
    else:
        write_pandas_table(tmp_path / "a.h5", columns, values)
    rec = add_source(spikes(), tmp_path / "a.h5", rate_hz=1)
    names = ["_".join((*who, part)) for part in ("nose", "tail")]
    assert list(rec.behavior) == names
    for i, name in enumerate(names):
        x, y, likelihood = values[:, 3 * i : 3 * i + 3].T
        want = np.where(likelihood[:, None] < 0.6, np.nan, np.stack([x, y], 1))
        np.testing.assert_array_equal(rec.behavior[name].values, want.astype(np.float32))


def test_shared_pulses_give_the_clock(tmp_path):
    rng = np.random.default_rng(0)
    pulses = np.cumsum(rng.uniform(0.5, 1.5, 80))
    np.savetxt(tmp_path / "ours.txt", np.delete(pulses, [3, 40]))
    at = np.arange(0, 100, 0.004)
    ttl = np.zeros(len(at))
    for p in pulses:
        ttl[np.searchsorted(at, p) : np.searchsorted(at, p + 0.05)] = 5
    theirs = (at + 321.0) / 1.0002
    write_csv(tmp_path / "w.csv", {"time": theirs * 1000, "pos": np.sin(at), "ttl": ttl})
    rec = add_source(
        spikes(),
        tmp_path / "w.csv",
        columns={"wheel": "pos"},
        scale=1e-3,
        sync={"ours": str(tmp_path / "ours.txt"), "theirs": "ttl"},
    )
    np.testing.assert_allclose(rec.behavior["wheel"].times, at, atol=5e-3)
    facts = rec.meta["clocks"]["w.csv"]
    assert facts["pulses"] == 78 and facts["residual_s_max"] < 5e-3
    assert facts["scale"] == pytest.approx(1.0002e-3, rel=5e-5)
    assert any("fitted to 78 shared pulses (without a partner: 0 of ours, 2 of theirs)" in n for n in rec.meta["notes"])
    of_trials = spikes(trials={"start": pulses[:-1], "stop": pulses[:-1] + 0.1})
    again = add_source(
        of_trials, tmp_path / "w.csv", columns={"wheel": "pos"}, scale=1e-3, sync={"ours": "trials", "theirs": "ttl"}
    )
    np.testing.assert_allclose(again.behavior["wheel"].times, at, atol=5e-3)


@pytest.mark.parametrize(
    "given, match",
    [
        ({"times": "tt"}, "has no 'tt'; it has: time, speed"),
        ({"columns": {"v": "sped"}}, "has no 'sped'"),
        ({"columns": {"v": 3}}, "expected a name in the file"),
        ({"offset": 1e6}, "share no time; give offset, scale or sync"),
        ({"scale": -1.0}, "expected a scale above 0"),
        ({"sync": {"ours": "x"}}, "sync is"),
        ({"sync": {"ours": "nothing", "theirs": "speed"}}, "neither a file of pulses .* nor in the recording"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, given, match):
    (tmp_path / "b.csv").write_text("time,speed\n0,1\n1,0\n2,5\n")
    with pytest.raises(RecordingError, match=match):
        add_source(spikes(), tmp_path / "b.csv", **given)


def test_a_name_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "b.csv").write_text("time,speed\n0,1\n1,0\n2,5\n")
    rec = add_source(spikes(), tmp_path / "b.csv")
    with pytest.raises(RecordingError, match="'speed' already"):
        add_source(rec, tmp_path / "b.csv")


def test_tables_of_text_keep_their_kinds(tmp_path):
    (tmp_path / "a.csv").write_text('\ufeffid,x,ok,"a, b",hole\n1,2.5,True,u_1,\n02,,false,"7, 8",\n')
    table = read_text(tmp_path / "a.csv")
    assert [table[k].dtype.kind for k in ("id", "x", "ok", "a, b", "hole")] == ["i", "f", "b", "U", "U"]
    (tmp_path / "long.csv").write_text("x\n" + "1\n" * 100_000 + "1_2\n")
    assert list(read_text(tmp_path / "long.csv")["x"][-2:]) == ["1", "1_2"]
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(RecordingError, match="a row of 1 fields"):
        read_text(tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_bytes(b"a,b\n\xff\xfe,\x00\n")
    with pytest.raises(RecordingError, match="not a readable table"):
        read_text(tmp_path / "bad.csv")


def test_paths_in_a_yaml_are_relative_to_it(tmp_path, monkeypatch):
    folder = tmp_path / "session"
    folder.mkdir()
    np.savez(folder / "s.npz", spike_times=np.arange(0, 50, 0.1), spike_units=np.arange(500) % 4)
    pulses = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 40))
    np.save(folder / "ours.npy", pulses)
    np.savez(folder / "ttl.npz", up=pulses - 7, other=np.zeros(3))
    write_csv(folder / "w.csv", {"t": np.arange(40.0), "speed": np.arange(40.0)})
    (folder / "run.yaml").write_text(
        "recording:\n  path: s.npz\n  sources:\n    - {path: w.csv, sync: {ours: ours.npy, theirs: 'ttl.npz:up'}}\n"
    )
    monkeypatch.chdir(tmp_path)
    rec = open_only(load_config(folder / "run.yaml"))[1]
    np.testing.assert_allclose(rec.behavior["speed"].times, np.arange(40.0) + 7, atol=1e-9)
    with pytest.raises(ValueError, match="an offset is what sync finds"):
        from_dict({"recording": {"sources": [{"path": "a.csv", "offset": 1, "sync": {"ours": "a", "theirs": "b"}}]}})
