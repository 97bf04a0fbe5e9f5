"""NWB in Zarr: what hdmf-zarr exports of a file is the file; pickles within are decoded and never run."""

import json
import pickle
import shutil

import numpy as np
import pytest
from fuzzing import Worker, corrupt
from samples import assert_same, full_recording

from neuroformer.recording import RecordingError, open_recording, write_recording

pynwb = pytest.importorskip("pynwb")
hdmf_zarr = pytest.importorskip("hdmf_zarr")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zarr")
    path = write_recording(full_recording(), folder / "full.nwb")
    with (
        pynwb.NWBHDF5IO(str(path), "r") as source,
        hdmf_zarr.NWBZarrIO(str(folder / "full.nwb.zarr"), mode="w") as io,
    ):
        io.export(src_io=source, write_args={"link_data": False})
    return folder / "full.nwb.zarr"


def changed(store, tmp_path):
    return shutil.copytree(store, tmp_path / "changed.nwb.zarr")


class Runs:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        import os

        return os.mkdir, (self.mark,)


def test_what_was_exported_is_the_file(store):
    rec = open_recording(store)
    assert_same(rec, full_recording())
    assert_same(pickle.loads(pickle.dumps(rec)), full_recording())  # frames, which are lazy, too
    few = open_recording(store, only=["speed"])
    assert list(few.behavior) == ["speed"] and few.frames is None


def test_pickles_of_others_are_not_run(store, tmp_path):
    import numcodecs

    path, ran = changed(store, tmp_path), tmp_path / "ran"
    pickled = [f for f in path.rglob(".zarray") if '"pickle"' in f.read_text()]
    assert pickled  # references to images
    for file in pickled:
        meta = json.loads(file.read_text())
        bad = np.empty(meta["chunks"], object)
        bad[...] = Runs(str(ran))
        chunk = pickle.dumps(bad)
        if meta["compressor"]:
            chunk = numcodecs.get_codec(meta["compressor"]).encode(chunk)
        for one in file.parent.glob("[0-9]*"):
            one.write_bytes(chunk)
    with pytest.raises(RecordingError, match="which is not run"):
        open_recording(path)
    assert not ran.exists()
    assert numcodecs.get_codec({"id": "pickle"}).encode(bad[:0])  # others have their codec back


def test_other_stores_and_what_is_no_nwb_are_refused(store, tmp_path):
    path = changed(store, tmp_path)
    (path / "units" / "id" / "0").rename(tmp_path / "secret")
    (path / "units" / "id" / "0").symlink_to(tmp_path / "secret")
    with pytest.raises(RecordingError, match="units/id/0 is a link out of the store"):
        open_recording(path)
    (path / "units" / "id" / "0").unlink()
    shutil.copytree(store, tmp_path / "secret.zarr")
    for file in path.rglob(".zattrs"):
        file.write_text(file.read_text().replace('"source": "."', '"source": "../secret.zarr"'))
    (path / ".zmetadata").unlink()
    with pytest.raises(RecordingError, match="another store"):
        open_recording(path)
    (path / ".zattrs").write_text("{}")
    with pytest.raises(RecordingError, match="without 'nwb_version'"):
        open_recording(path)
    (path / "zarr.json").write_text("{}")
    with pytest.raises(RecordingError, match="Zarr 3"):
        open_recording(path)


def test_sizes_that_a_codec_cannot_have_cost_one_part(store, tmp_path, monkeypatch):
    """Compiled code answers to an impossible size with a SystemError, which is about the file too."""
    import zarr

    read = zarr.core.Array.__getitem__

    def get(self, key):
        if self.path.endswith("speed/data"):
            raise SystemError("Negative size passed to PyBytes_FromStringAndSize")
        return read(self, key)

    monkeypatch.setattr(zarr.core.Array, "__getitem__", get)
    rec = open_recording(store)
    assert "speed" not in rec.behavior and rec.num_spikes == full_recording().num_spikes
    assert any(note.startswith("speed was left out: SystemError") for note in rec.meta["notes"])


def fuzz(store, tmp_path, count, seed):
    worker, random = Worker(), np.random.default_rng(seed)
    try:
        for i in range(count):
            path = shutil.copytree(store, tmp_path / f"broken{i}.nwb.zarr")
            files = sorted(f for f in path.rglob("*") if f.is_file() and "specifications" not in str(f))
            one = files[int(random.integers(len(files)))]
            one.write_bytes(corrupt(one.read_bytes(), random))
            verdict = worker.open(str(path))
            assert verdict == "error" or verdict.startswith("recording "), (verdict, one, i)
            shutil.rmtree(path)
    finally:
        worker.close()


def test_damaged_stores(store, tmp_path):
    fuzz(store, tmp_path, 4, 0)


@pytest.mark.slow
def test_damaged_stores_long(store, tmp_path):
    fuzz(store, tmp_path, 300, 1)
