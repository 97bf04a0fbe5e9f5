"""open_recording: the right reader for a path, and a clear error for anything else."""

import sys

import numpy as np
import pytest

from neuroformer.recording import RecordingError, open_recording, write_recording
from neuroformer.recording.formats.npz import write_npz


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "mouse7.npz"
    np.savez(path, spike_times=np.array([0.1, 0.2]), spike_units=np.array([0, 1]))
    return path


def test_npz_by_path_and_by_string(npz):
    for source in (npz, str(npz)):
        rec = open_recording(source)
        assert rec.name == "mouse7" and rec.num_spikes == 2
    again = write_npz(rec, npz.with_name("again.npz"))
    assert open_recording(again).sha256() == rec.sha256()


def test_errors_name_what_was_looked_for(tmp_path, npz):
    with pytest.raises(RecordingError, match="no file or folder at .*gone.npz.*synthetic:NAME"):
        open_recording(tmp_path / "gone.npz")
    other = tmp_path / "notes.docx"
    other.write_text("hello")
    with pytest.raises(RecordingError, match="'.docx' file that no reader knows; expected"):
        open_recording(other)
    with pytest.raises(RecordingError, match="cannot open a int"):
        open_recording(7)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RecordingError, match="no option 'speed'"):
        open_recording(npz, speed=2)


def test_synthetic_by_name(monkeypatch, npz):
    from types import ModuleType

    module = ModuleType("neuroformer.recording.synthetic")
    module.synthetic = lambda name, seed=0: open_recording(npz) if name == "small" and seed == 3 else None  # pyright: ignore
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert open_recording("synthetic:small", seed=3).num_spikes == 2


@pytest.mark.parametrize("suffix", [".npz", ".nwb", ".h5", ".recording"])
@pytest.mark.filterwarnings("ignore")
def test_write_by_suffix(tmp_path, npz, suffix):
    pytest.importorskip({".nwb": "pynwb"}.get(suffix, "numpy"))
    rec = open_recording(npz)
    back = open_recording(write_recording(rec, tmp_path / f"b{suffix}"))
    assert back.sha256() == rec.sha256() and back.name == rec.name


def test_write_to_an_unknown_suffix(tmp_path, npz):
    with pytest.raises(RecordingError, match="no format is written as 'b.mat'; expected .npz"):
        write_recording(open_recording(npz), tmp_path / "b.mat")
