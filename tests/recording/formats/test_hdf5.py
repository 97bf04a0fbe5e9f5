"""A process of its own meets the file first: what takes that one down is an error here."""

import pytest

import neuroformer.recording.formats.hdf5 as hdf5
from neuroformer.recording import RecordingError
from neuroformer.recording.formats.hdf5 import look_first

h5py = pytest.importorskip("h5py")


def test_healthy_and_unreadable_files_pass(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.attrs["a"], f["b/c"] = "text", [1.0, 2.0]
    look_first(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_text("no HDF5: the reader says so")
    look_first(tmp_path / "b.h5")
    look_first(tmp_path / "gone.h5")


@pytest.mark.parametrize(
    "code, message",
    [
        (
            "import signal, sys; signal.setitimer(signal.ITIMER_PROF, int(sys.argv[2]))\nwhile True: pass",
            "HDF5 stalled on it for 1 s",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "is damaged: HDF5 crashed on it .signal 11."),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "could not be opened: the system ended .* memory"),
    ],
)
def test_a_process_that_stalls_or_dies(tmp_path, monkeypatch, code, message):
    monkeypatch.setattr(hdf5, "STALL_S", 1)
    with pytest.raises(RecordingError, match=message):
        look_first(tmp_path / "a.h5", code)


def test_a_slow_drive_is_no_damage(tmp_path, monkeypatch):
    """Or a busy machine: seconds of waiting do not count."""
    monkeypatch.setattr(hdf5, "STALL_S", 1)
    slow = hdf5._LOOK.replace('see("/", f)', "import time; time.sleep(1.5)")
    assert slow != hdf5._LOOK
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["a"] = [1.0]
    look_first(tmp_path / "a.h5", slow)
