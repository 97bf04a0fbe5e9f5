"""open_recording: the right reader for a path, and a clear error for anything else."""

import dataclasses
import sys

import numpy as np
import pytest
from helpers import small_recording

from neuroformer.config import ConfigError, RecordingConfig, from_dict
from neuroformer.data.recordings import open_one
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


def test_a_stretch_of_a_recording_is_used_by_a_setting(tmp_path):
    """Rates, spikes and trials are those of the stretch, whoever reads it; measured columns choose by it."""
    rec = small_recording(seconds=60.0, num_trials=6)
    quiet = dataclasses.replace(rec, domain=np.array([[-100.0, 60.0]]), trials={})
    write_npz(rec, tmp_path / "a.npz")
    cut = open_one(RecordingConfig(path=str(tmp_path / "a.npz"), interval=(15.0, 45.0)))
    inside = (rec.spike_times >= 15) & (rec.spike_times < 45)
    assert cut.duration == 30.0 and cut.num_spikes == inside.sum() and "spikes outside are left out" in repr(cut)
    np.testing.assert_array_equal(cut.trials["start"], [20.0, 30.0])
    np.testing.assert_allclose(cut.rates(), np.bincount(rec.spike_units[inside], minlength=6) / 30)
    assert "the first at" in repr(quiet) and "the first at" not in repr(rec)
    narrow = dataclasses.replace(rec, domain=np.array([[15.0, 25.0], [30.0, 45.0]]), trials={})
    held = inside & ~((rec.spike_times >= 25) & (rec.spike_times < 30))
    np.testing.assert_allclose(narrow.rates(), np.bincount(rec.spike_units[held], minlength=6) / 25)
    assert f"{held.sum():,} from 6 units" in repr(narrow) and "outside of the intervals" in repr(narrow)
    with pytest.raises(RecordingError, match="nothing of 'small' lies between 70 and 80 s; it runs from 0 s to 60 s"):
        rec.between(70.0, 80.0)
    with pytest.raises(ConfigError, match="interval"):
        from_dict({"recording": {"interval": [5.0, 1.0]}})
