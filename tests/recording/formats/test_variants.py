"""Traits of files in whichever reader they may occur: what they do to the numbers is the same everywhere, or is said."""

import datetime

import numpy as np
import pytest
from samples import cells, save_alf

from neuroformer.config import ConfigError, load_config
from neuroformer.data.grid import grid_problem
from neuroformer.recording import Recording, RecordingError, clean, open_recording
from neuroformer.recording.formats.hdf5 import check_links
from neuroformer.recording.sources import add_source

LATE = 40_000.0 + np.sort(np.random.default_rng(0).uniform(0, 60, 40))  # where float32 knows 4 ms
OWNERS = np.arange(40) % 2


def notes(rec):
    return "\n".join(rec.meta.get("notes", ()))


def arrays_mat(folder, times, owners):
    from scipy.io import savemat

    savemat(folder / "a.mat", {"t": times, "unit": owners})
    return folder / "a.mat"


def cells_mat(folder, times, owners):
    from scipy.io import savemat

    savemat(folder / "a.mat", {"st": cells([times[owners == u] for u in range(2)] + [np.zeros(0)])})
    return folder / "a.mat"


def rows_parquet(folder, times, owners):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"t": times, "unit": owners}), folder / "a.parquet")
    return folder / "a.parquet"


def lists_parquet(folder, times, owners):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lists = pa.array([times[owners == u] for u in range(2)])
    pq.write_table(pa.table({"unit": [0, 1], "spike_times": lists}), folder / "a.parquet")
    return folder / "a.parquet"


def two_probes(folder, times, owners):
    for probe, kind in (("probe00", times.dtype), ("probe01", np.float64)):
        save_alf(folder / "s" / probe, spikes__times=times.astype(kind), spikes__clusters=owners)
    return folder / "s"


def nwb(folder, times, owners):
    pynwb = pytest.importorskip("pynwb")
    file = pynwb.NWBFile("a session", "one", datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc))
    for u in range(2):
        file.add_unit(spike_times=times[owners == u])
    with pynwb.NWBHDF5IO(str(folder / "a.nwb"), "w") as io:
        io.write(file)
    return folder / "a.nwb"


def pynapple(folder, times, owners):
    span = {"start": np.array([0.0]), "end": np.array([1e6])}
    np.savez(folder / "a.npz", type=["TsGroup"], keys=np.arange(2), t=times, index=owners, **span)
    return folder / "a.npz"


def csv(folder, times, owners):
    (folder / "a.csv").write_text(
        "t,unit\n" + "\n".join(f"{t!r},{u}" for t, u in zip(times.tolist(), owners, strict=True))
    )
    return folder / "a.csv"


EVERY = [arrays_mat, cells_mat, rows_parquet, lists_parquet, two_probes, nwb, pynapple]


@pytest.mark.parametrize("write", EVERY, ids=lambda f: f.__name__)
def test_late_times_of_single_precision_are_said(write, tmp_path):
    rec = open_recording(write(tmp_path, LATE.astype(np.float32), OWNERS))
    how = "have the digits of" if write is nwb else "are"  # pynwb writes all times in double precision
    assert f"spike times {how} float32, which knows steps of 3.91 ms only" in notes(rec)
    for fine in (LATE, np.floor(LATE), np.arange(40) + 0.5, np.arange(40) / 64):
        assert not clean.was_single(fine)


@pytest.mark.parametrize("write", [*EVERY, csv], ids=lambda f: f.__name__)
def test_spikes_on_a_coarse_grid_are_seen_in_every_format(write, tmp_path):
    bins = np.sort(np.random.default_rng(0).integers(0, 3000, 1500))
    rec = open_recording(write(tmp_path, bins * 0.025 + 3.2, np.arange(1500) % 2))
    (tmp_path / "fine.yaml").write_text("recording: {path: a}\nwindow: {dt: 0.01}\n")
    assert "grid of 0.025 s" in grid_problem(rec, load_config(tmp_path / "fine.yaml"))
    assert not grid_problem(rec, load_config(tmp_path / "fine.yaml", ["window.dt=0.05"]))


# -- matrices of MATLAB ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["5", "7.3"])
@pytest.mark.parametrize("kind", ["u1", "i2", "f4", "sparse"])
@pytest.mark.parametrize("turned", [False, True])
def test_counts_of_any_kind_and_either_way_are_the_same(version, kind, turned, tmp_path):
    import h5py
    from scipy.io import savemat
    from scipy.sparse import csc_array

    counts = np.random.default_rng(0).poisson(0.2, (3, 200))
    values = counts.T if turned else counts
    path = tmp_path / "a.mat"
    if version == "5":
        savemat(path, {"counts": csc_array(values.astype(float)) if kind == "sparse" else values.astype(kind)})
    else:
        with h5py.File(path, "w", userblock_size=512) as f:
            if kind == "sparse":
                full = csc_array(values.astype(float))
                f["counts/data"], f["counts/ir"] = full.data, full.indices.astype(np.uint64)
                f["counts/jc"] = full.indptr.astype(np.uint64)
                f["counts"].attrs["MATLAB_sparse"] = np.uint64(values.shape[0])
            else:
                f["counts"] = values.T.astype(kind)  # MATLAB's axes run the other way in HDF5
        with open(path, "r+b") as f:
            f.write(b"MATLAB 7.3 MAT-file".ljust(512))
    rec = open_recording(path, spikes="counts", dt=0.02)
    assert rec.num_units == 3 and rec.domain.tolist() == [[0.0, 4.0]]
    np.testing.assert_array_equal(rec.unit_spikes(), counts.sum(1))
    found = np.zeros_like(counts)
    np.add.at(found, (rec.spike_units, np.floor(rec.spike_times / 0.02 + 1e-6).astype(int)), 1)
    np.testing.assert_array_equal(found, counts)


def test_a_sparse_matrix_that_fills_the_memory_costs_only_itself(tmp_path):
    from scipy.io import savemat
    from scipy.sparse import csc_array

    huge = csc_array(([1.0], ([0], [0])), shape=(2_000_000, 2_000_000))
    savemat(tmp_path / "a.mat", {"huge": huge, "t": np.arange(9.0), "unit": np.arange(9) % 2})
    assert "'huge' was left out: a sparse matrix" in notes(open_recording(tmp_path / "a.mat"))


# -- what is there twice ---------------------------------------------------------------------------------------------


def test_two_rows_for_one_unit_are_said(tmp_path):
    table = "cluster_id\tgroup\n0\tgood\n1\tmua\n0\tnoise\n"
    np.save(tmp_path / "spike_times.npy", np.arange(9))
    np.save(tmp_path / "spike_clusters.npy", np.arange(9) % 2)
    (tmp_path / "params.py").write_text("sample_rate = 30000")
    (tmp_path / "cluster_group.tsv").write_text(table)
    rec = open_recording(tmp_path)
    assert list(rec.units["group"]) == ["good", "mua"]
    assert "cluster_group.tsv has several rows for 0: the first of each counts" in notes(rec)
    save_alf(tmp_path / "alf", spikes__times=np.arange(9.0), spikes__clusters=np.arange(9) % 2)
    (tmp_path / "alf" / "clusters.metrics.csv").write_text(table.replace("\t", ","))
    rec = open_recording(tmp_path / "alf")
    assert list(rec.units["group"]) == ["good", "mua"] and "several rows for 0" in notes(rec)


@pytest.mark.parametrize(
    "text",
    [
        "recording: {path: a, units: {limit: 3, limit: 4}}",
        "recording:\n  path: a\n  sources:\n    - {path: b.csv, offset: 1, offset: 2}",
        "recording:\n  path: a\n  sources:\n    - {path: b.csv, columns: {speed: v, speed: w}}",
        "recording:\n  path: a\n  render: {size: [2, 2], columns: {phase: a, phase: b}}",
        "targets: [{name: a, loss: 1, loss: 2}]",
    ],
)
def test_a_key_that_stands_twice_in_a_section_within_sections_is_refused(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match="twice"):
        load_config(tmp_path / "a.yaml")


# -- tables ----------------------------------------------------------------------------------------------------------


def test_trials_within_a_block_in_alf(tmp_path):
    """Four trials and the block around them: the block is no trial."""
    spans = np.array([[0, 40], [0, 9], [10, 19], [20, 29], [30, 39]]).astype(">f4")
    save_alf(tmp_path, spikes__times=np.arange(40.0), spikes__clusters=np.zeros(40, np.uint16))
    save_alf(tmp_path, trials__intervals=spans, trials__choice=np.array([9, -1, 1, -1, 1], np.int8))
    rec = open_recording(tmp_path)
    assert rec.trials["choice"].tolist() == [-1, 1, -1, 1] and "span others" in notes(rec)


def test_trials_that_tile_time_in_single_precision_touch_in_a_source(tmp_path):
    rec = Recording("m", np.arange(0, 50, 0.5), np.zeros(100, int), {"id": np.arange(1)}, np.array([[0.0, 50.0]]))
    edges = (1.1 * np.arange(40)).astype(np.float32)
    length = np.full(39, 1.1, np.float32)
    for name, table in {"a": {"duration": length}, "b": {"stop": edges[:-1] + length}}.items():
        np.savez(tmp_path / f"{name}.npz", start=edges[:-1], **table)
        columns = {"start": "start", **{k: k for k in table}}
        found = add_source(rec, tmp_path / f"{name}.npz", columns=columns, scale=0.9, offset=0.3)
        np.testing.assert_array_equal(found.trials["start"][1:], found.trials["stop"][:-1])
        assert "ran into" not in notes(found)


def test_metrics_go_by_the_units_of_their_rows(tmp_path):
    """Metrics that were computed for the units in another order."""
    analyzer, home = tmp_path / "analyzer", tmp_path / "analyzer" / "sorting"
    home.mkdir(parents=True)
    vector = np.zeros(6, [("sample_index", "i8"), ("unit_index", "i8"), ("segment_index", "i8")])
    vector["sample_index"], vector["unit_index"] = np.arange(6), np.arange(6) % 3
    np.save(home / "spikes.npy", vector)
    info = '{"sampling_frequency": 30000.0, "unit_ids": ["u1", "u2", "u10"], "num_segments": 1}'
    (home / "numpysorting_info.json").write_text(info)
    metrics = analyzer / "extensions" / "quality_metrics"
    metrics.mkdir(parents=True)
    (metrics / "metrics.csv").write_text(",snr\nu10,10\nu1,1\nu2,2\n")
    assert open_recording(analyzer).units["snr"].tolist() == [1, 2, 10]
    (metrics / "metrics.csv").write_text(",snr\nu10,10\nu1,1\n")
    rec = open_recording(analyzer)
    assert "snr" not in rec.units and "quality_metrics were left out" in notes(rec)


def test_bytes_of_other_files_are_not_read_through_a_symbolic_link(tmp_path):
    """A folder that was unpacked may hold links to any file of this machine."""
    import h5py

    home, secret = tmp_path / "home", tmp_path / "secret.bin"
    (home / ".git" / "annex" / "objects").mkdir(parents=True)
    secret.write_bytes(bytes(400))
    (home / ".git" / "annex" / "objects" / "x").write_bytes(bytes(400))
    with h5py.File(home / "a.h5", "w") as f:
        f.create_dataset("x", (50,), "f8", external=[(str(home / "beside.bin"), 0, 400)])
    for target, inside in ((secret, False), (home / ".git" / "annex" / "objects" / "x", True)):
        (home / "beside.bin").unlink(missing_ok=True)
        (home / "beside.bin").symlink_to(target)
        if inside:
            check_links(home / "a.h5", [])
            continue
        with pytest.raises(RecordingError, match="outside the folder of the file"):
            check_links(home / "a.h5", [])
