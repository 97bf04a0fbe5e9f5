"""Files with many spikes: sorted once, out of core, and mapped from then on."""

import numpy as np
import pytest
from samples import assert_same, full_recording

import neuroformer.recording.formats.spike_index as spike_index
import neuroformer.recording.validation as validation
from neuroformer.recording import RecordingError, open_recording
from neuroformer.recording.formats.spike_index import by_unit, in_pairs, indexed_spikes


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(spike_index, "LARGE", 50)
    monkeypatch.setattr(spike_index, "BUCKET", 40)
    monkeypatch.setattr(spike_index, "_BINS", 64)
    monkeypatch.setattr(validation, "CHUNK", 32)


def write(rec, path):
    if path.suffix == ".nwb":
        pytest.importorskip("pynwb")
        from neuroformer.recording.formats.nwb.writer import write_nwb

        return write_nwb(rec, path)
    from neuroformer.recording.formats.torch_brain_writer import write_torch_brain

    return write_torch_brain(rec, path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["a.nwb", "a.h5"])
def test_the_same_recording_and_the_index_is_used_again(tmp_path, name, monkeypatch):
    path = write(full_recording(), tmp_path / name)
    assert_same(open_recording(path), full_recording())
    assert (tmp_path / f"{name}.spikes" / "spikes.json").exists()
    monkeypatch.setattr(spike_index, "_build", None)
    rec = open_recording(path)
    assert_same(rec, full_recording())
    assert rec.checked_spikes is not None and not rec.spike_times.flags.writeable


@pytest.mark.filterwarnings("ignore")
def test_a_changed_file_is_indexed_anew(tmp_path):
    path = write(full_recording(), tmp_path / "a.h5")
    open_recording(path)
    write(full_recording(1), path)
    assert_same(open_recording(path), full_recording(1))
    (tmp_path / "a.h5.spikes" / "spikes.json").write_text("{")  # cut off while it was written
    assert_same(open_recording(path), full_recording(1))
    file = tmp_path / "a.h5.spikes" / "times.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(RecordingError, match="changed or damaged"):
        open_recording(path)


@pytest.mark.parametrize("ties", [False, True])
def test_any_order_and_lost_times(tmp_path, ties):
    source = tmp_path / "x"
    source.write_text("")
    rng = np.random.default_rng(0)
    times = rng.choice([1.0, 2.0], 1000) if ties else rng.uniform(-1, 1, 1000)
    times[::100] = np.nan
    units = rng.integers(0, 7, 1000)
    notes = []
    got, who, proof = indexed_spikes(source, in_pairs(times, units), 7, notes)
    keep = np.isfinite(times)
    order = np.lexsort((units[keep], times[keep]))
    np.testing.assert_array_equal(got, times[keep][order])
    np.testing.assert_array_equal(who, units[keep][order])
    np.testing.assert_array_equal(proof.unit_spikes(got, who), np.bincount(units[keep], minlength=7))
    assert notes == ["10 spikes without a finite time were dropped"]


def test_units_one_after_another():
    ends = np.array([2, 2, 5])
    parts = list(by_unit(np.arange(5.0), ends)())
    assert np.concatenate([u for _, u in parts]).tolist() == [0, 0, 2, 2, 2]


def test_errors(tmp_path):
    source = tmp_path / "x"
    source.write_text("")
    with pytest.raises(RecordingError, match="spikes of unit 3, but there are 2 units"):
        indexed_spikes(source, in_pairs(np.zeros(4), np.arange(4)), 2, [])
    with pytest.raises(RecordingError, match="none of 2 spikes has a finite time"):
        indexed_spikes(source, in_pairs(np.full(2, np.nan), np.zeros(2, int)), 2, [])
    (tmp_path / "y").write_text("")
    (tmp_path / "y.spikes").write_text("a file where the index should go")
    (tmp_path / "z.spikes").mkdir()
    (tmp_path / "z.spikes" / "thesis.txt").write_text("the only copy")
    (tmp_path / "z").write_text("")
    with pytest.raises(RecordingError, match="copy the file to a folder"):
        indexed_spikes(tmp_path / "z", in_pairs(np.zeros(2), np.zeros(2, int)), 2, [])
    assert (tmp_path / "z.spikes" / "thesis.txt").exists()
    with pytest.raises(RecordingError, match="copy the file to a folder"):
        indexed_spikes(tmp_path / "y", in_pairs(np.zeros(2), np.zeros(2, int)), 2, [])
