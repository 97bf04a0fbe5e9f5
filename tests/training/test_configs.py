"""Configurations for recordings that are not part of the project train on recordings of the same kind."""

from pathlib import Path

import numpy as np
import pytest

import neuroformer
from neuroformer.bundle.bundle import read_bundle
from neuroformer.recording import BehaviorVariable, Recording
from neuroformer.recording.formats.npz import write_npz

CONFIGS = Path(__file__).parents[2] / "configs"
FEW = ["train.steps=2", "train.evaluate_every=1", "train.batch_size=16", "model.width=16", "train.accelerator=cpu"]


def recording(seconds: float, trials: int = 0, **behavior) -> Recording:
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, seconds, int(8 * seconds)))
    edges = np.linspace(0, seconds, trials + 1)
    columns = {"start": edges[:-1], "stop": edges[1:], "stimulus": np.zeros(trials)} if trials else {}
    return Recording(
        name="stand-in",
        spike_times=times,
        spike_units=rng.integers(0, 4, len(times)),
        units={"id": np.arange(4)},
        domain=np.array([[0.0, seconds]]),
        trials=columns,
        behavior=behavior,
    )


def test_hippocampus(tmp_path):
    """Its speed is that of the position, and both are targets whose heads go on learning after training."""
    t = np.arange(0, 620, 0.1)
    place = BehaviorVariable(t, np.stack([np.sin(t / 5), np.cos(t / 5)], 1) * 50, "px", ("x", "y"))
    write_npz(recording(620.0, position=place), tmp_path / "rat.npz")
    asked = [*FEW, f"recording.path={tmp_path / 'rat.npz'}", "tune.steps=2"]
    metrics = neuroformer.train(CONFIGS / "hippocampus.yaml", tmp_path / "run", asked).metrics
    assert metrics["train_steps"] == 2 and {"valid_fitted_position", "valid_fitted_speed"} <= set(metrics)
    bundle = read_bundle(tmp_path / "run")
    mean = bundle.normalization.targets["speed"].mean[0]
    assert mean == np.clip(mean, 9.5, 10.1)  # a circle of radius 50 px in 10 pi seconds
    found = neuroformer.decode(tmp_path / "run", baselines=["ridge"])
    assert found["position"].arrays["model"].shape[1] == 2 and found["speed"].arrays["model"].shape[1] == 1


def test_retina(tmp_path):
    """Whole trials are held out, and time in the movie is an input."""
    write_npz(recording(90.0, trials=30), tmp_path / "movie.npz")
    asked = [*FEW, f"recording.path={tmp_path / 'movie.npz'}"]
    neuroformer.train(CONFIGS / "retina.yaml", tmp_path / "run", asked)
    split = read_bundle(tmp_path / "run").split
    assert split["claim"] == "repeats" and [len(split[p]) for p in ("train", "valid", "test")] == [18, 6, 6]
    assert read_bundle(tmp_path / "run").normalization.inputs["trial_time"].high == pytest.approx([3.0], abs=0.002)
    found = neuroformer.evaluate(tmp_path / "run", baselines=False)
    made = neuroformer.Simulator(tmp_path / "run", accelerator="cpu").simulate()
    assert np.isfinite(found["bits_per_spike"]) and made.num_trials == 18
