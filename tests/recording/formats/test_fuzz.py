"""Random and corrupted inputs end in a Recording or a RecordingError: no crash, no hang, nothing else."""

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from fuzzing import Worker, corrupt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from samples import full_recording

from neuroformer.recording import Recording, RecordingError, open_recording
from neuroformer.recording.formats.arrays import from_arrays, to_arrays
from neuroformer.recording.formats.folder import write_store
from neuroformer.recording.formats.npz import write_npz


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.close()


def sample_npz(folder):
    return write_npz(full_recording(), folder / "a.npz")


def sample_nwb(folder):
    pytest.importorskip("pynwb")
    from neuroformer.recording.formats.nwb.writer import write_nwb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rec = full_recording()
        # the cached schema is most of a small file; without it the wounds fall on data and tables
        path = write_nwb(replace(rec, truth={}), folder / "a.nwb")
    return path


def sample_h5(folder):
    from neuroformer.recording.formats.torch_brain_writer import write_torch_brain

    return write_torch_brain(full_recording(), folder / "a.h5")


def fuzz_file(make, worker, folder, count, seed):
    original = make(folder)
    whole = worker.open(original)
    assert whole.startswith("recording ")
    data = original.read_bytes()
    rng = np.random.default_rng(seed)
    verdicts, bad = Counter(), {}
    for i in range(count):
        # a new name each: HDF5 keeps a file that it failed on, and would go on failing on that name
        path = folder / f"broken{i}{original.suffix}"
        path.write_bytes(corrupt(data, rng))
        verdict = worker.open(path)
        path.unlink()
        # an .npz has checksums: what opens must be what was written. HDF5 data have none, by the formats' choice
        fine = verdict == "error" or (verdict == whole if make is sample_npz else verdict.startswith("recording "))
        verdicts[verdict.split()[0] if fine else "bad"] += 1
        if not fine and verdict not in bad:
            bad[verdict] = i
    assert not bad, (dict(verdicts), bad)
    print(f"{make.__name__}: {dict(verdicts)} of {count}")
    # wounds are neither all deadly nor none; an .npz has checksums, and next to none of them passes
    assert verdicts["error"] > 0 and (verdicts["recording"] > 0 or make is sample_npz)


SAMPLES = [sample_npz, sample_nwb, sample_h5]


@pytest.mark.parametrize("make", SAMPLES, ids=lambda f: f.__name__)
def test_corrupted_files(make, worker, tmp_path):
    fuzz_file(make, worker, tmp_path, 20, seed=0)


# 10,000 files, in pieces that can be run one at a time: -k "sample_nwb and 3-"
PIECE = 500
PIECES = [
    pytest.param(make, piece, id=f"{make.__name__}-{piece}-")
    for make, count in zip(SAMPLES, (4000, 3000, 3000), strict=True)
    for piece in range(count // PIECE)
]


@pytest.mark.slow
@pytest.mark.parametrize("make, piece", PIECES)
def test_corrupted_files_long(make, piece, worker, tmp_path):
    fuzz_file(make, worker, tmp_path, PIECE, seed=1 + piece)


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_corrupted_folders(count, worker, tmp_path):
    """A damaged file of the memory-mapped layout is never a recording: checksums see every byte."""
    folder = write_store(full_recording(), tmp_path / "a")
    files = sorted(folder.iterdir())
    rng = np.random.default_rng(0)
    for _ in range(count):
        file = files[int(rng.integers(len(files)))]
        whole = file.read_bytes()
        broken = corrupt(whole, rng)
        file.write_bytes(broken)
        verdict = worker.open(folder)
        file.write_bytes(whole)
        manifest = file.name == "recording.json"
        assert verdict == "error" or broken == whole or (manifest and verdict.startswith("recording ")), file.name


# -- arrays of any shape under the names that mean something ------------------------------------------

KEYS = sorted(to_arrays(full_recording())) + [
    "spikes",
    "spikes_dt",
    "events",
    "events_rate",
    "spike_trials",
    "n_trials",
    "trial_duration",
    "n_units",
    "frames_rate",
    "speed_rate",
    "traces_rate",
]
ANY = st.one_of(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.int8, np.uint8, np.bool_, np.complex64]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    hnp.arrays(st.sampled_from(["U3", "S2", "M8[s]", "O"]), hnp.array_shapes(min_dims=0, max_dims=2, max_side=3)),
)
CHANGES = st.dictionaries(st.sampled_from(KEYS), ANY, max_size=3)
DROPPED = st.sets(st.sampled_from(KEYS), max_size=4)


def check_arrays(changes, dropped):
    arrays = {k: v for k, v in to_arrays(full_recording()).items() if k not in dropped} | changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            rec = from_arrays(arrays)
        except RecordingError as e:
            assert str(e)
            return
        assert isinstance(rec, Recording) and repr(rec)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=CHANGES, dropped=DROPPED)
def test_any_arrays(changes, dropped):
    check_arrays(changes, dropped)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=CHANGES, dropped=DROPPED)
def test_any_arrays_long(changes, dropped):
    check_arrays(changes, dropped)


def test_an_entry_that_swallows_the_next_is_noticed(tmp_path):
    """The list of a zip file has no checksum: the length of a field in it can hide the arrays behind it."""
    path = sample_npz(tmp_path)
    data = bytearray(path.read_bytes())
    first = data.find(b"PK\x01\x02")
    second = data.find(b"PK\x01\x02", first + 4)
    third = data.find(b"PK\x01\x02", second + 4)
    data[first + 32 : first + 34] = (third - second).to_bytes(2, "little")  # the length of its comment
    path.write_bytes(data)
    with pytest.raises(RecordingError, match="lists .* arrays, but .* can be found"):
        open_recording(path)
