"""Two processes compute what one does."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ddp_worker import train_in
from helpers import small_config, small_model
from safetensors.torch import load_file

from neuroformer.config import ConfigError
from neuroformer.training.steps import StepSampler

TRAIN = {
    "steps": 8,
    "batch_size": 33,
    "evaluate_every": 4,
    "accelerator": "cpu",
    "average": 0.9,
}


def settings(**more):
    """Dropout off; alignment on; 33 windows, so that the processes' shares differ in size as well as in spikes."""
    model = {
        "width": 16,
        "heads": 2,
        "dropout": 0.0,
        "frame_encoder": {"kind": "conv3d", "kernel": [2, 4, 4], "stride": [1, 2, 2], "layers": 1},
    }
    return {"model": model, "train": TRAIN | more}


def rows(folder):
    with open(folder / "log" / "metrics.csv") as f:
        return [{k: float(v) for k, v in r.items() if v} for r in csv.DictReader(f)]


SEVERAL = {"recordings": [{"path": "unused", "name": n} for n in ("a", "b")]}  # windows of both in every step


def test_two_processes_give_the_losses_scores_and_weights_of_one(tmp_path):
    runs = {"alone": settings(), "several": settings(batch_size=67) | SEVERAL}
    for name, alone in runs.items():
        train_in(tmp_path / f"{name}_one", alone)
    here = Path(__file__)
    asked = [(str(tmp_path / f"{name}_two"), c | {"train": c["train"] | {"devices": 2}}) for name, c in runs.items()]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(here.with_name("ddp_worker.py")),
        json.dumps(asked),
    ]
    path = os.pathsep.join([str(here.parents[1] / "support"), str(here.parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in runs:
        folders = [tmp_path / f"{name}_one", tmp_path / f"{name}_two"]
        one, two = (rows(folder) for folder in folders)
        assert [r.keys() for r in one] == [r.keys() for r in two]
        for key in ("valid/bits_per_spike", "train/contrast_neural_frames"):
            assert any(key in r for r in one)
        for a, b in zip(one, two, strict=True):
            assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
        files = sorted(
            f.relative_to(folders[0]) for f in (folders[0] / "weights").rglob("likelihood*/**/*.safetensors")
        )
        files.append(Path("weights", "likelihood.safetensors"))
        assert len(files) == (3 if name == "several" else 1)
        for file in files:
            x, y = (load_file(folder / file) for folder in folders)
            assert x.keys() == y.keys() and all(np.allclose(x[k], y[k], atol=2e-4) for k in x)


def windows_of(pieces):
    return [(s, t) for p in pieces for s, t in zip(p.windows.segment.tolist(), p.windows.tick.tolist(), strict=True)]


def test_the_processes_share_every_batch_without_overlap_or_loss():
    _, prepared = small_model(config=small_config(train={"batch_size": 50}))
    whole = iter(StepSampler([prepared]))
    shares = [iter(StepSampler([prepared], rank=r, processes=3, pieces=2)) for r in range(3)]
    for _ in range(2 * StepSampler([prepared]).num_groups[0] + 1):
        dealt = [next(s) for s in shares]
        together = [w for pieces in dealt for w in windows_of(pieces)]
        assert sorted(together) == sorted(windows_of(next(whole))) and len(set(together)) == len(together)
        for i in range(2):
            assert all(d[i].sizes == tuple(len(x[i].windows) for x in dealt) for d in dealt)


def test_an_epoch_holds_every_training_window_once():
    _, prepared = small_model(config=small_config(train={"jitter": False}))
    steps = StepSampler([prepared])
    epochs = iter(steps)
    for _ in range(2):
        seen = [w for _ in range(steps.num_groups[0]) for w in windows_of(next(epochs))]
        every = prepared.windows("train")
        assert sorted(seen) == sorted(zip(every.segment.tolist(), every.tick.tolist(), strict=True))


def test_steps_go_on_anywhere():
    _, prepared = small_model()
    whole = iter(StepSampler([prepared]))
    every = [windows_of(next(whole)) for _ in range(40)]
    for first in (0, 1, 17, 39):
        assert windows_of(next(iter(StepSampler([prepared], first=first)))) == every[first]


def test_a_batch_that_cannot_be_dealt_is_refused():
    _, prepared = small_model(config=small_config(train={"batch_size": 4}))
    with pytest.raises(ConfigError, match="4 windows of 'small' cannot be divided among 2 processes in 3 pieces"):
        StepSampler([prepared], processes=2, pieces=3)
