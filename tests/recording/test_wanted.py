"""Series chosen by name: what is left is as it was, and what is not asked for is not read."""

import h5py
import numpy as np
import pytest
from samples import full_recording, save_alf, write_alf_probe

from neuroformer.cli import main
from neuroformer.config import load_config
from neuroformer.data.recordings import open_only
from neuroformer.recording import RecordingError, open_recording, write_recording

KINDS = [".npz", ".nwb", ".h5", ".recording"]


def write(kind, folder):
    for module in {".nwb": ["pynwb"]}.get(kind, []):
        pytest.importorskip(module)
    return write_recording(full_recording(), folder / f"a{kind}")


def held(rec):
    there = {"trials": rec.trials, "frames": rec.frames, "traces": rec.traces}
    return {
        *rec.behavior,
        *rec.intervals,
        *(k for k, v in there.items() if v is not None and len(getattr(v, "times", v))),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wanted_is_as_it_was(tmp_path, kind):
    path = write(kind, tmp_path)
    whole = open_recording(path)
    everything = held(whole)
    first, *others = whole.behavior
    for only, without, left in [
        ([first], [], {first, "trials"}),
        ([], [first, "frames"], everything - {first, "frames"}),
        ([], ["trials", "traces"], everything - {"trials", "traces"}),
        (["frames", "traces"], [], {"frames", "traces", "trials"}),
        ([], ["*"], set()),
        ([f"{first[:-1]}?", *whole.intervals], [], {first, *whole.intervals, "trials"}),
    ]:
        rec = open_recording(path, only=only, without=without)
        assert held(rec) == left & everything
        np.testing.assert_array_equal(rec.spike_times, whole.spike_times)
        np.testing.assert_array_equal(rec.domain, whole.domain)
        for name, variable in rec.behavior.items():
            np.testing.assert_array_equal(variable.values, whole.behavior[name].values)
            np.testing.assert_array_equal(variable.times, whole.behavior[name].times)
        assert set(rec.meta.get("sources", {})) <= set(rec.behavior)
        assert ("left out as asked" in " ".join(rec.meta["notes"])) == (held(rec) != everything)


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_no_series_has_is_an_error(tmp_path, kind):
    path = write(kind, tmp_path)
    for key in ("only", "without"):
        with pytest.raises(RecordingError, match=f"recording.{key} names 'sped', .* it has: .*speed"):
            open_recording(path, **{key: ["sped"]})
    with pytest.raises(RecordingError, match="expected a list of names"):
        open_recording(path, only="speed")


@pytest.mark.parametrize("kind", [".nwb", ".h5"])
def test_data_of_other_series_are_not_read(tmp_path, kind, monkeypatch):
    path, read = write(kind, tmp_path), []
    plain = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, *a: read.append(self.name) or plain(self, *a))
    open_recording(path)
    series = [n for n in read if "speed" in n or "traces" in n.lower() and not n.endswith("rois")]
    assert series
    read.clear()
    other = next(n for n in full_recording().behavior if n != "speed")
    open_recording(path, only=[other])
    assert read and not set(series) & set(read)


def test_arrays_of_other_series_are_not_read(tmp_path, monkeypatch):
    path, read = write(".npz", tmp_path), []
    plain = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, k: read.append(k) or plain(self, k))
    open_recording(path, without=["speed", "frames"])
    assert "spike_times" in read and not [k for k in read if k.startswith(("speed", "frames"))]


def test_files_of_other_objects_are_not_read(tmp_path):
    write_alf_probe(tmp_path, np.random.default_rng(0))
    save_alf(tmp_path, wheel__position=np.arange(50.0), wheel__timestamps=np.arange(50.0), licks__times=np.arange(9.0))
    save_alf(tmp_path, leftCamera__times=np.arange(3.0))
    for broken in ("leftCamera.dlc.csv", "wheel.velocity.npy", "blocks.intervals.npy"):
        (tmp_path / broken).write_bytes(b"\xff\x00 no array")
    for only, left in (["wheel_position"], {"wheel_position"}), (["lick*", "wheel_p*"], {"wheel_position", "licks"}):
        rec = open_recording(tmp_path, only=only)
        assert set(rec.behavior) == left and not any("readable" in n for n in rec.meta["notes"])
    assert any("readable" in n for n in open_recording(tmp_path, only=["leftCamera*"]).meta["notes"])


def test_a_recorder_channel_that_only_names_is_read(tmp_path, monkeypatch):
    path = write(".nwb", tmp_path)
    assert "speed" in open_recording(path).behavior
    with h5py.File(path, "a") as f:
        del f["scratch"]  # a file of ours says what it holds, and holds no channel that nobody asked for
    monkeypatch.setattr("neuroformer.recording.clean._LONG", 10)
    monkeypatch.setattr("neuroformer.recording.clean._FAST_HZ", 1.0)
    assert "speed" not in open_recording(path).behavior
    assert list(open_recording(path, only=["speed"]).behavior) == ["speed"]
    assert "speed" not in open_recording(path, only=["s*"]).behavior


@pytest.mark.parametrize("kind", KINDS)
def test_inspect_prints_a_run_that_opens_what_it_shows(tmp_path, kind, capsys):
    path = write(kind, tmp_path)
    asked = ["recording.without=[frames]", "recording.units.where=depth < 4"]
    assert main(["inspect", str(path), *asked]) == 0
    shown = capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text(shown[shown.index("\n\n") :])
    config = load_config(tmp_path / "mine.yaml")
    assert config.recording.units.where == "depth < 4"
    config, again = open_only(config)
    assert config.window.frames == 0
    assert held(again) == held(open_recording(path)) - {"frames"}
    assert main(["inspect", str(tmp_path / "mine.yaml")]) == 0
    assert "4 of 5 units are kept" in capsys.readouterr().out
