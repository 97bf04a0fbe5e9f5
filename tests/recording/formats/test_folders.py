"""suite2p folders, the original Neuroformer's layout, and pickles."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from neuroformer.recording import RecordingError, open_recording
from neuroformer.recording.formats.original import from_original


def write_plane(folder, seed=0, samples=200, ops=None):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    spks = (rng.random((4, samples)) < 0.03) * 5.0
    np.save(folder / "F.npy", rng.normal(size=(4, samples)).astype(np.float32) + 10)
    np.save(folder / "Fneu.npy", np.ones((4, samples), np.float32))
    np.save(folder / "spks.npy", spks.astype(np.float32))
    np.save(folder / "iscell.npy", np.array([[1, 0.9], [0, 0.1], [1, 0.8], [1, 0.7]]))
    ops = {"fs": 7.5, "neucoeff": 0.5, "path": Path("x"), "im": np.ones((2, 2))} if ops is None else ops
    np.save(folder / "ops.npy", ops, allow_pickle=True)
    return spks


def test_suite2p_plane(tmp_path):
    spks = write_plane(tmp_path / "suite2p" / "plane0")
    rec = open_recording(tmp_path)
    assert rec.num_units == 3 and rec.unit_ids == ["0", "2", "3"]
    assert rec.num_spikes == int((spks[[0, 2, 3]] > 0).sum())
    assert rec.traces.rate_hz == pytest.approx(7.5) and rec.duration == pytest.approx(200 / 7.5)
    raw = np.load(tmp_path / "suite2p/plane0/F.npy")[[0, 2, 3]] - 0.5
    np.testing.assert_allclose(rec.traces.values, raw.T, rtol=1e-6)
    assert any("1 regions are not cells" in n for n in rec.meta["notes"])
    assert open_recording(tmp_path, cells_only=False).num_units == 4
    assert open_recording(tmp_path / "suite2p" / "plane0").sha256() == rec.sha256()


def test_suite2p_planes_are_joined(tmp_path):
    for i in range(2):
        write_plane(tmp_path / f"plane{i}", seed=i, samples=200 - i)
    rec = open_recording(tmp_path)
    assert rec.num_units == 6 and list(rec.units["plane"]) == [0, 0, 0, 1, 1, 1]
    assert len(rec.traces.times) == 199 and any("cut to 199" in n for n in rec.meta["notes"])


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_suite2p_settings_run_no_code(tmp_path, capsys):
    write_plane(tmp_path / "plane0", ops={"fs": 7.5, "bad": Evil()})
    with pytest.raises(RecordingError, match="plain settings .*print.*give rate_hz"):
        open_recording(tmp_path)
    assert "code ran" not in capsys.readouterr().out
    (tmp_path / "plane0" / "ops.npy").unlink()
    with pytest.raises(RecordingError, match="give rate_hz"):
        open_recording(tmp_path)
    assert open_recording(tmp_path, rate_hz=10.0).duration == pytest.approx(20)


@pytest.mark.parametrize(
    "file, settings, rate, coefficient",
    [
        ("ops.npy", {"fs": np.array([15.0]), "neucoeff": np.array([[0.5]])}, 15, 0.5),
        ("ops.npy", {"fs": np.float32(15), "neucoeff": "x"}, 15, 0.7),
        ("settings.npy", {"fs": 15, "extraction": {"neuropil_coefficient": 0.6}}, 15, 0.6),
        ("settings.npy", {"fs": [15.0, 16.0]}, None, 0.7),
        ("settings.npy", {"tau": 1.0}, None, 0.7),
    ],
)
def test_suite2p_settings_of_any_version(tmp_path, file, settings, rate, coefficient):
    write_plane(tmp_path / "plane0")
    (tmp_path / "plane0" / "ops.npy").unlink(missing_ok=True)
    np.save(tmp_path / "plane0" / file, settings, allow_pickle=True)
    if rate is None:
        with pytest.raises(RecordingError, match="'fs' cannot be read from ops.npy or settings.npy; give rate_hz"):
            open_recording(tmp_path)
        return
    rec = open_recording(tmp_path)
    assert rec.traces.rate_hz == pytest.approx(rate)
    assert f"traces are F - {coefficient:g} Fneu" in rec.meta["notes"]


def test_suite2p_shapes_must_agree(tmp_path):
    write_plane(tmp_path / "plane0")
    np.save(tmp_path / "plane0" / "spks.npy", np.zeros((4, 10)))
    with pytest.raises(RecordingError, match="differ in shape"):
        open_recording(tmp_path)


# -- the original's layout --------------------------------------------------------------------------


@pytest.fixture
def original(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "medial"
    folder.mkdir()
    np.save(folder / "spikerates_dt_0.01.npy", rng.poisson(0.05, (6, 1000)).astype(float))
    for name in ("behavior_speed_dt_0.05", "phi_dt_0.05", "th_dt_0.05"):
        np.save(folder / f"{name}.npy", rng.normal(size=200))
    np.save(folder / "stimulus.npy", rng.integers(0, 255, (200, 8, 14), dtype=np.uint8))
    return folder


def test_original_folder(original):
    rec = open_recording(original)
    assert rec.name == "medial" and rec.num_units == 6 and rec.duration == pytest.approx(10)
    counts = np.load(original / "spikerates_dt_0.01.npy")
    assert rec.num_spikes == counts.sum()
    bins = np.zeros_like(counts)
    np.add.at(bins, (rec.spike_units, np.floor(rec.spike_times / 0.01).astype(int)), 1)
    np.testing.assert_array_equal(bins, counts)
    assert set(rec.behavior) == {"speed", "phi", "th"}
    np.testing.assert_allclose(rec.behavior["phi"].times, np.arange(200) * 0.05)
    assert isinstance(rec.frames.images, np.memmap) and rec.frames.images.shape == (200, 8, 14)
    assert rec.frames.times[1] == pytest.approx(0.05)


def test_original_rates_become_events(original):
    rates = np.load(original / "spikerates_dt_0.01.npy") * 0.37
    np.save(original / "spikerates_dt_0.01.npy", rates)
    rec = open_recording(original)
    assert rec.num_spikes == (rates > 0).sum() and "100%" in rec.meta["notes"][0]


def test_original_dictionary_with_trials():
    rng = np.random.default_rng(0)
    spikes = {t: rng.poisson(0.1, (3, 100)) for t in ("a", "b")}
    data = {
        "spikes": spikes,
        "frames": rng.integers(0, 255, (2, 20, 4, 4), dtype=np.uint8),
        "speed": {t: np.arange(20.0) for t in spikes},
        "train_intervals": np.r_[np.arange(0, 0.5, 0.05), np.arange(0.8, 1.0, 0.05)],
        "callback": print,
    }
    rec = from_original(data)
    assert rec.num_trials == 2 and rec.trials["start"][1] == pytest.approx(2.0)
    assert rec.num_spikes == sum(m.sum() for m in spikes.values())
    np.testing.assert_array_equal(rec.frames.index, np.arange(40))
    np.testing.assert_allclose(rec.frames.times[20], 2.0)
    np.testing.assert_allclose(rec.intervals["train_intervals"]["start"], [0, 0.8])
    np.testing.assert_allclose(rec.intervals["train_intervals"]["stop"], [0.5, 1.0])
    assert rec.behavior["speed"].times[20] == pytest.approx(2.0)
    assert any("'callback' was left out" in n for n in rec.meta["notes"])
    again = from_original({**data, "frames": data["frames"][1:]}, trial_clip=[0, 0])  # one clip, shown twice
    np.testing.assert_array_equal(again.frames.index, np.tile(np.arange(20), 2))
    with pytest.raises(RecordingError, match="give trial_clip"):
        from_original({**data, "frames": np.zeros((3, 20, 4, 4))})
    with pytest.raises(RecordingError, match="no 'spikes'"):
        from_original({"speed": np.zeros(3)})
    with pytest.raises(RecordingError, match=r"expected \(units, bins\)"):
        from_original({"spikes": np.zeros(3)})


def test_pickles_are_refused_with_an_explanation(tmp_path, original):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps({"spikes": [1]}))
    with pytest.raises(RecordingError, match="can run code(.|\n)*np.save"):
        open_recording(path)
    np.save(original / "phi_dt_0.05.npy", np.array({"a": 1}), allow_pickle=True)
    with pytest.raises(RecordingError, match="phi_dt_0.05.npy: it holds pickled"):
        open_recording(original)


def test_other_folders(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(RecordingError, match="a folder that no reader knows; expected .*Zarr"):
        open_recording(tmp_path / "a.zarr")
    with pytest.raises(RecordingError, match="a folder that no reader knows; expected .*suite2p"):
        open_recording(tmp_path)
