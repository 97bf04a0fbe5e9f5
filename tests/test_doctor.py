"""A look at the machine, and at what a run will need of it."""

import json

import pytest
import torch

import neuroformer
from neuroformer.cli import main
from neuroformer.doctor import machine, needs
from neuroformer.ops import table

SMALL = [
    "recording.path=synthetic:demo",
    "recording.options={num_trials: 15, trial_s: 4.0, num_units: 12}",
    "split.by=trials",
    "window.past=0.2",
    "train.batch_size=16",
    "train.steps=10",
    "model.width=16",
    "model.frame_encoder={kind: conv3d, channels: 8}",
]


def test_it_names_what_runs_here():
    found = machine()
    assert found["neuroformer"] == neuroformer.__version__ and found["libraries"]["torch"] == torch.__version__
    assert "pytest" not in found["libraries"]
    cpu = found["devices"][0]
    assert cpu["device"] == "cpu" and 0 < cpu["free_gb"] < 1e5
    q = torch.zeros(4, 2, 32)
    assert cpu["kernels"]["float32"]["attention"] == table.pick_attention(q)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    file = tmp_path_factory.mktemp("doctor") / "mine.yaml"
    file.write_text("name: mine\n")
    return file


def test_what_a_run_needs_grows_with_its_batch(config):
    few, many = (needs(config, [*SMALL, f"train.batch_size={n}"]) for n in (16, 160))
    assert few["units"] == 12 and few["windows"] == many["windows"] > 160
    assert 1.5 * few["step_gb"] < many["step_gb"] < few["free_gb"]
    assert few["train_seconds_at_most"] == pytest.approx(10 * few["seconds_per_step"])


def test_the_command_prints_the_same(config, capsys):
    assert main(["doctor", "--config", str(config), "--json", *SMALL]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["needs"]["units"] == 12 and found["system"]
    assert main(["doctor"]) == 0
    assert "cross_entropy pieces" in capsys.readouterr().out
    assert main(["doctor", "seed=1"]) == 2
    assert "give --config FILE" in capsys.readouterr().err
