"""The memory-mapped layout: nothing lost, nothing read, nothing silently wrong."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from samples import assert_same, full_recording

import neuroformer.recording.formats.folder as store
import neuroformer.recording.validation as validation
from neuroformer.recording import Recording, RecordingError, open_recording
from neuroformer.recording.formats.folder import read_store, write_store
from neuroformer.recording.video import read_video


@pytest.fixture
def folder(tmp_path):
    return write_store(full_recording(), tmp_path / "a.recording")


def mapped(array):
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def test_round_trip_loses_nothing(folder):
    rec = open_recording(folder)
    assert_same(rec, full_recording())
    assert mapped(rec.spike_times) and mapped(rec.spike_units) and mapped(rec.traces.values)
    assert mapped(rec.frames.images) and mapped(rec.behavior["speed"].values)
    assert_same(read_store(folder, verify=True), full_recording())
    write_store(rec, folder.with_name("b"))  # from one mapped folder into another
    assert_same(open_recording(folder.with_name("b")), full_recording())


def test_spikes_are_not_looked_through_again(folder, monkeypatch):
    def never(*arrays):
        raise AssertionError("the spikes were read")

    monkeypatch.setattr(validation, "validate_spikes", never)
    monkeypatch.setattr(validation, "count_spikes", never)
    rec = open_recording(folder)
    assert rec.rates().sum() > 0 and repr(rec)
    early = rec.without_spikes_after(5.0)
    assert early.num_spikes < rec.num_spikes and mapped(early.spike_times)
    with pytest.raises(AssertionError, match="the spikes were read"):
        replace(rec, spike_times=rec.spike_times[::-1].copy())


def test_counts_of_a_part_are_counted(folder):
    rec = open_recording(folder).without_spikes_after(5.0)
    np.testing.assert_array_equal(rec.unit_spikes(), np.bincount(rec.spike_units, minlength=5))


def test_writing_is_whole_or_not_at_all(folder, tmp_path):
    with pytest.raises(RecordingError, match="exists; choose another name"):
        write_store(full_recording(), folder)
    write_store(full_recording(1), folder, overwrite=True)
    assert open_recording(folder).sha256() == full_recording(1).sha256()
    (tmp_path / "mine").mkdir()
    with pytest.raises(RecordingError, match="exists"):
        write_store(full_recording(), tmp_path / "mine", overwrite=True)
    objects = {"id": np.arange(5), "x": np.array([None] * 5)}
    with pytest.raises(RecordingError, match="holds Python objects"):
        write_store(replace(full_recording(), units=objects), tmp_path / "objects")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.recording", "mine"]


def test_lazy_frames_are_copied_in_pieces(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(30 * 4 * 4, dtype=np.uint8).reshape(30, 4, 4))
    frames = read_video(tmp_path / "a.npy", rate_hz=10, size=(2, 2))
    rec = replace(full_recording(), frames=frames)
    back = open_recording(write_store(rec, tmp_path / "a"), frame_cache_mb=1)
    np.testing.assert_array_equal(back.frames.images[:], frames.images[:])


@pytest.mark.parametrize("verify", [False, True])
def test_damage_is_noticed(folder, verify):
    file = folder / "spike_times.npy"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(RecordingError, match="spike_times.npy was changed or damaged"):
        read_store(folder, verify=verify)
    file.write_bytes(data[:-8])
    with pytest.raises(RecordingError, match="spike_times.npy"):
        read_store(folder)
    file.unlink()
    with pytest.raises(RecordingError, match="not copied whole"):
        read_store(folder)


def test_large_files_are_sampled_and_verified_on_demand(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_PIECE", 64)
    folder = write_store(full_recording(), tmp_path / "a")
    file = folder / "traces.npy"
    data = bytearray(file.read_bytes())
    data[64 * 3 + 5] ^= 1  # piece 3 is none of the sampled ones
    file.write_bytes(data)
    read_store(folder)
    with pytest.raises(RecordingError, match="traces.npy was changed or damaged .*piece 3"):
        read_store(folder, verify=True)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": "other"}, "is not a recording's"),
        ({"version": 2}, "has version 2; this neuroformer reads version 1"),
        ({"behavior": {"behavior_9": {"name": "x", "unit": "", "columns": []}}}, "does not fit its files"),
        ({"arrays": {"../secret": {}}}, "no name of an array"),
        ({"names": {}}, "units table needs a column 'id'"),
    ],
)
def test_a_manifest_that_does_not_fit(folder, change, message):
    manifest = json.loads((folder / "recording.json").read_text())
    (folder / "recording.json").write_text(json.dumps(manifest | change))
    with pytest.raises(RecordingError, match=message):
        open_recording(folder)
    (folder / "recording.json").write_text("{")
    with pytest.raises(RecordingError, match="cannot be read"):
        open_recording(folder)


# VmHWM is this process's own peak; ru_maxrss would start from that of the process that forked it
_OPEN = """
import pathlib, re, sys, time
from neuroformer.recording import open_recording
start = time.perf_counter()
rec = open_recording(sys.argv[1])
text = repr(rec)
seconds = time.perf_counter() - start
peak = re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())
print(seconds, int(peak[1]) / 1e3, rec.num_spikes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.slow
def test_a_hundred_million_spikes_open_at_once(tmp_path):
    count, step = 100_000_000, 10_000_000
    times = np.lib.format.open_memmap(tmp_path / "t.npy", mode="w+", dtype=np.float64, shape=(count,))
    units = np.lib.format.open_memmap(tmp_path / "u.npy", mode="w+", dtype=np.int32, shape=(count,))
    rng, end = np.random.default_rng(0), 0.0
    for i in range(0, count, step):
        times[i : i + step] = end + np.cumsum(rng.exponential(1e-4, step))
        units[i : i + step], end = rng.integers(0, 1000, step), float(times[i + step - 1])
    rec = Recording(
        name="big",
        spike_times=times,
        spike_units=units,
        units={"id": np.arange(1000)},
        domain=np.array([[0.0, end + 1]]),
    )
    folder = write_store(rec, tmp_path / "big")
    out = subprocess.run([sys.executable, "-c", _OPEN, str(folder)], check=True, capture_output=True, text=True)
    seconds, megabytes, spikes = map(float, out.stdout.split())
    assert spikes == count
    assert seconds < 2 and megabytes < 300, (seconds, megabytes)
