"""Damaged folders and files of sorters, tables, MATLAB, pynapple and pose estimates: an error or a recording, no code run."""

import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fuzzing import Worker, corrupt
from samples import save_alf, write_alf_probe

COUNT = 300  # damaged files of each kind in the long test: 3,000 in all


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.close()


def rng():
    return np.random.default_rng(0)


def phy(folder):
    folder.mkdir()
    clusters = rng().integers(0, 5, 300)
    arrays = {
        "spike_times": np.sort(rng().integers(0, 900_000, 300)),
        "spike_clusters": clusters,
        "spike_templates": clusters,
        "amplitudes": rng().uniform(1, 9, 300),
        "templates": rng().normal(size=(5, 8, 6)).astype(np.float32),
        "channel_positions": rng().normal(size=(6, 2)),
        "channel_map": np.arange(6),
        "whitening_mat_inv": np.eye(6),
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    (folder / "params.py").write_text("import os\nos.system('touch ran')\nsample_rate = 30000.\n")
    (folder / "cluster_group.tsv").write_text(
        "cluster_id\tgroup\n" + "".join(f"{i}\t{'good' if i else 'mua'}\n" for i in range(5))
    )
    return folder


def alf(folder):
    write_alf_probe(folder, rng())
    save_alf(folder, wheel__position=np.arange(50.0), wheel__timestamps=np.arange(50.0))
    save_alf(folder, trials__intervals=np.array([[10.0, 12], [20, 24]]), licks__times=np.arange(9.0))
    return folder


def spikeinterface(folder):
    folder.mkdir()
    vector = np.zeros(200, [("sample_index", "i8"), ("unit_index", "i8"), ("segment_index", "i8")])
    vector["sample_index"], vector["unit_index"] = np.sort(rng().integers(0, 9e5, 200)), rng().integers(0, 3, 200)
    np.save(folder / "spikes.npy", vector)
    info = '{"sampling_frequency": 30000.0, "unit_ids": ["a", "b", "c"], "num_segments": 1}'
    (folder / "numpysorting_info.json").write_text(info)
    (folder / "properties").mkdir()
    np.save(folder / "properties" / "quality.npy", np.array(["good", "mua", "good"]))
    return folder


def csv(folder):
    lines = [
        f"{t:.4f},{u},a{u}" for t, u in zip(np.sort(rng().uniform(0, 50, 200)), rng().integers(0, 4, 200), strict=True)
    ]
    folder.with_suffix(".csv").write_text("time,unit,area\n" + "\n".join(lines))
    return folder.with_suffix(".csv")


def parquet(folder):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = folder.with_suffix(".parquet")
    pq.write_table(pa.table({"unit": [1, 2], "spike_times": [[0.5, 1.0, 2.0], [0.7, 3.0]], "area": ["x", "y"]}), path)
    return path


def trains():
    out = np.empty(3, object)
    out[:] = [np.sort(rng().uniform(0, 50, n)) for n in (40, 30, 20)]
    return out


def mat(folder):
    from scipy.io import savemat

    path = folder.with_suffix(".mat")
    savemat(path, {"s": {"st": trains(), "region": np.array(["a", "b", "c"], object), "n": 3}})
    return path


def mat73(folder):
    import h5py

    path = folder.with_suffix(".mat")
    with h5py.File(path, "w", userblock_size=512) as f:
        refs = [f.create_dataset(f"#refs#/{i}", data=t[None]).ref for i, t in enumerate(trains())]
        f.create_dataset("s/st", (1, 3), h5py.ref_dtype, data=np.array([refs], h5py.ref_dtype))
        f["s/st"].attrs["MATLAB_class"] = np.bytes_("cell")
    with open(path, "r+b") as f:
        f.write(b"MATLAB 7.3 MAT-file".ljust(512))
    return path


class Runs:
    def __reduce__(self):
        import os

        return os.system, ("touch ran",)


def pynapple(folder):
    folder.mkdir()
    arrays = {"t": np.arange(40.0), "index": np.repeat([3, 7], 20), "keys": np.array([3, 7])}
    span = {"start": np.zeros(1), "end": np.full(1, 40.0)}
    np.savez(folder / "units.npz", type=["TsGroup"], _metadata={"area": np.array(["a", "b"])}, **arrays, **span)
    np.savez(folder / "speed.npz", type=["Tsd"], t=np.arange(40.0), d=np.arange(40.0), **span)
    # as a file of somebody else may be: what runs when it is unpickled
    np.savez(
        folder / "other.npz", type=["TsdFrame"], t=np.arange(9.0), d=np.ones((9, 2)), columns=np.array([Runs(), 1])
    )
    return folder


def sleap(folder):
    import h5py

    with h5py.File(folder.with_suffix(".h5"), "w") as f:
        f["tracks"], f["node_names"], f["track_names"] = rng().normal(size=(1, 2, 3, 50)), [b"a", b"b", b"c"], [b"x"]
    return folder.with_suffix(".h5")


def deeplabcut(folder):
    import h5py

    names = [("net", part, axis) for part in ("nose", "tail") for axis in ("x", "y", "likelihood")]
    with h5py.File(folder.with_suffix(".h5"), "w") as f:
        record = np.zeros(40, [("index", "i8"), ("values_block_0", "f8", (6,))])
        table = f.create_dataset("df_with_missing/table", data=record)
        table.attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(names, 0))
    return folder.with_suffix(".h5")


READERS = [phy, alf, spikeinterface, csv, parquet, mat, mat73, pynapple]
SOURCES = [sleap, deeplabcut]


def fuzz(make, count, seed, worker, tmp_path):
    """Damage one file of a copy at a time; everything ends in a verdict, and nothing that a file names is run."""
    whole = make(tmp_path / "whole")
    mark = "+" if make in SOURCES else ""
    verdict = worker.open(f"{mark}{whole}")
    assert verdict.startswith("recording ") or make is pynapple, verdict
    random, verdicts = np.random.default_rng(seed), Counter()
    for i in range(count):
        path = tmp_path / f"broken{i}{whole.suffix}"
        files = sorted(f for f in whole.rglob("*") if f.is_file()) if whole.is_dir() else [whole]
        one = files[int(random.integers(len(files)))]
        if whole.is_dir():
            shutil.copytree(whole, path)
        damaged = path / one.relative_to(whole) if whole.is_dir() else path
        damaged.write_bytes(corrupt(one.read_bytes(), random))
        verdict = worker.open(f"{mark}{path}")
        verdicts[verdict.split()[0]] += 1
        assert verdict == "error" or verdict.startswith("recording "), (verdict, one.name, i)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not list(tmp_path.rglob("ran")) and not (Path.cwd() / "ran").exists()
    print(f"{make.__name__}: {dict(verdicts)} of {count}")


@pytest.mark.parametrize("make", READERS + SOURCES, ids=lambda f: f.__name__)
def test_damaged_readers(make, worker, tmp_path):
    fuzz(make, 6, 0, worker, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("make", READERS + SOURCES, ids=lambda f: f.__name__)
def test_damaged_readers_long(make, worker, tmp_path):
    fuzz(make, COUNT, 1, worker, tmp_path)
