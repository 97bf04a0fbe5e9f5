"""A simulation survives being killed, and several processes share one: the result is the same to the bit."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import small_config, small_model, small_recording
from kill_worker import CONFIG

from neuroformer.config import ConfigError
from neuroformer.generation import simulate as module
from neuroformer.generation.sequences import batch_size_for, prepared_whole, simulation_device
from neuroformer.generation.simulate import simulate
from neuroformer.generation.stimulus import open_stimulus, silence
from neuroformer.generation.store import SimulationError, SimulationFolder
from neuroformer.recording.formats.npz import read_npz

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole():
    """The simulation that nobody disturbed."""
    net, p = small_model(small_recording(seconds=80.0), small_config(**CONFIG))
    result = simulate(net, p, progress=False)
    assert result is not None and result.recording.num_spikes > 100
    return net, p, result


def worker(*arguments):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support"), str(Path(__file__).parent)])
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("kill_worker.py")), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def kill(folder, out, after):
    child = worker(folder, out)
    assert child.stdout is not None
    for _ in range(after):
        assert child.stdout.readline() == "written\n"
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and not out.exists()


def test_a_killed_simulation_goes_on_to_the_identical_result(whole, tmp_path, monkeypatch):
    net, p, result = whole
    folder, out = tmp_path / "parts", tmp_path / "out.npz"
    kill(folder, out, 45)
    done = len(list(folder.glob("*.h5")))
    assert 45 <= done < 80  # of 2 batches of 40 windows; what the killed one wrote was kept
    (folder / ".batch-0000-window-000099.h5.123").write_bytes(b"half a file")
    made = []
    keep = lambda *a, rollout=module.rollout_windows, **k: (made.append(w) or w for w in rollout(*a, **k))
    monkeypatch.setattr(module, "rollout_windows", keep)
    again = simulate(net, p, folder=folder, progress=False)
    assert again is not None and again.recording.sha256() == result.recording.sha256()
    assert again.guard_hits == result.guard_hits and len(made) == 80 - done


@pytest.mark.slow
def test_many_kills(whole, tmp_path):
    folder, out = tmp_path / "parts", tmp_path / "out.npz"
    for after in np.random.default_rng(0).integers(1, 12, 8):
        kill(folder, out, after)
    last = worker(folder, out)
    assert last.wait() == 0
    assert read_npz(out).sha256() == whole[2].recording.sha256()


def test_processes_share_the_batches(whole, tmp_path, monkeypatch):
    net, p, result = whole
    folder = tmp_path / "parts"
    other = worker(folder, tmp_path / "none", "1/2")
    given = (net, p)
    mine, batch = [], module._batch
    monkeypatch.setattr(module, "_batch", lambda *a: (mine.append(a[2]), batch(*a))[1])
    assert simulate(*given, folder=folder, share=(2, 2), progress=False) is None
    assert mine == [1]  # of two batches, and leaves the other one to the other process
    assert other.wait() == 0 and not (tmp_path / "none").exists()
    monkeypatch.setattr(module, "rollout_windows", lambda *a, first, **k: iter([]) if first == 40 else 1 / 0)
    joined = simulate(*given, folder=folder, progress=False)
    assert joined is not None and joined.recording.sha256() == result.recording.sha256()


def test_another_simulations_folder_is_refused(whole, tmp_path):
    net, p, _ = whole
    SimulationFolder(tmp_path / "parts", {"seed": 1, "generate": {"samples": 3}}, 2)
    with pytest.raises(SimulationError, match=r"differs in seed\); .*--restart"):
        SimulationFolder(tmp_path / "parts", {"seed": 2, "generate": {"samples": 3}}, 2)
    assert SimulationFolder(tmp_path / "parts", {"seed": 1, "generate": {"samples": 3}}, 5).batch_size == 2
    (tmp_path / "parts" / "plan.json").write_text("{")
    with pytest.raises(SimulationError, match="plan.json is damaged"):
        SimulationFolder(tmp_path / "parts", {"seed": 1}, 5)
    simulate(net, p, folder=tmp_path / "own", progress=False)
    file = next(iter(sorted((tmp_path / "own").glob("*.h5"))))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(SimulationError, match="is damaged"):
        simulate(net, p, folder=tmp_path / "own", progress=False)


def test_the_batch_fits_the_memory(whole, monkeypatch):
    net, p, _ = whole
    assert batch_size_for(net, 10_000) == 512 and batch_size_for(net, 7) == 7
    from neuroformer.generation import sequences

    monkeypatch.setattr(sequences, "free_memory", lambda device: 2e6)
    small = batch_size_for(net, 10_000)
    assert 1 <= small < 512
    monkeypatch.setattr(sequences, "free_memory", lambda device: 4e6)
    assert small < batch_size_for(net, 10_000) < 512


def test_progress_is_in_simulated_seconds_a_second(capsys):
    with module.seconds_bar(2000, 0.01, "simulated", True) as bar:
        bar.start_t, bar.last_print_t = bar.start_t - 5, bar.last_print_t - 5  # it began five seconds ago
        bar.update(1000)
    text = capsys.readouterr().err
    assert "simulated:  50%" in text and "10.0/20.0 s" in text and re.search(r"[12]\.\d\d s/s", text)


def test_shares_take_the_gpus_in_turn(monkeypatch):
    assert simulation_device("cpu", 3).type == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [simulation_device("auto", i).index for i in (1, 2, 3)] == [0, 1, 0]
    assert simulation_device("cpu", 2).type == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert simulation_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="there is no CUDA device"):
        simulation_device("gpu")


def stimulus_file(folder, **arrays):
    rng = np.random.default_rng(0)
    values = {
        "frames": rng.integers(0, 255, (60, 8, 8), dtype=np.uint8),
        "frames_rate": 20.0,
        "pupil": np.ones(60),
        "pupil_rate": 20.0,
    }
    np.savez(folder / "stimulus.npz", **(values | arrays))
    return folder / "stimulus.npz"


def test_a_stimulus_without_spikes_is_simulated(whole, tmp_path):
    net, p, _ = whole
    rec = open_stimulus(stimulus_file(tmp_path), p.rec.unit_ids)
    assert rec.num_spikes == 0 and rec.unit_ids == p.rec.unit_ids and rec.duration == pytest.approx(3.0)
    made = simulate_new(net, p, rec)
    assert made.duration == pytest.approx(3 * 2.0) and made.num_spikes > 0
    twice = open_stimulus(stimulus_file(tmp_path, trials_start=[0.0, 1.5], trials_stop=[1.5, 3.0]), p.rec.unit_ids)
    made = simulate_new(net, p, twice)
    assert made.num_trials == 6 and set(made.trials["source_trial"]) == {0, 1}


def simulate_new(net, p, rec):
    whole = prepared_whole(rec, dataclasses.replace(p.config, targets=()), p.normalization)
    result = simulate(net, whole, progress=False)
    assert result is not None
    return result.recording


def test_a_stimulus_that_says_nothing_is_refused(tmp_path):
    np.savez(tmp_path / "empty.npz", speed=np.ones(3))
    with pytest.raises(ValueError, match="neither frames nor behavior with times"):
        open_stimulus(tmp_path / "empty.npz", ["a"])
    trains = {"frames": np.ones((9, 4, 4)), "frames_rate": np.array(0)}
    for name, arrays, told in (
        ("rate", trains, "'frames_rate' is .*; expected one number above 0"),
        ("scalar", {"speed": np.ones(3), "speed_times": np.array(1.0)}, "'speed_times' has shape"),
        ("objects", {"info": np.array({}, object), "speed": np.ones(3)}, "not a readable .npz of plain arrays"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(ValueError, match=told):
            open_stimulus(tmp_path / f"{name}.npz", ["a"])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "rate.npz").read_bytes()[:300])
    with pytest.raises(ValueError, match="not a readable .npz"):
        open_stimulus(tmp_path / "cut.npz", ["a"])
    alone = small_config(inputs=[], window={"frames": 0.0, "current": 0.05, "past": 0.1}, loss={"contrast": []})
    assert silence(3.0, ["a", "b"], alone).duration == 3.0
    with pytest.raises(ValueError, match="the model reads frames, pupil"):
        silence(3.0, ["a"], small_config())
    with pytest.raises(ValueError, match="expected at least a window"):
        silence(0.01, ["a"], alone)
