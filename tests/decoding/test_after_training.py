"""Heads that go on learning after joint training: kept where the validation part gains, and only there."""

import copy
import json

import numpy as np
import pytest
import torch
import yaml
from driven import driven_recording
from helpers import small_config

import neuroformer.decoding.after_training as module
from neuroformer.bundle.bundle import LIKELIHOOD, load_model, read_bundle
from neuroformer.cli import main
from neuroformer.config import to_dict
from neuroformer.data.prepared import prepare
from neuroformer.decoding.after_training import fit_heads_on
from neuroformer.decoding.decode import decode_windows, predict_targets, true_values
from neuroformer.metrics import target_score
from neuroformer.recording.formats.npz import write_npz
from neuroformer.training.train import train


def config(**tune):
    return small_config(
        targets=[{"name": "speed"}, {"name": "place"}],
        window={"frames": 0.0},
        loss={"contrast": []},
        train={"steps": 8, "lr": 1e-3},
        decode={"lags": [0.2]},
        tune={"steps": 40, "lr": 1e-2, **tune},
    )


@pytest.fixture
def run(tmp_path):
    prepared = prepare(driven_recording(), config())
    train(prepared.rec, config(), tmp_path / "run", progress=False)
    return tmp_path / "run", prepared


def valid_score(folder, prepared, target):
    held = decode_windows(prepared, "valid")
    predicted = predict_targets(load_model(read_bundle(folder), target), prepared, held)[target]
    return target_score("regression", true_values(prepared, held)[target], predicted)


def test_weights_of_a_target_change_only_where_validation_gains(run, monkeypatch):
    folder, prepared = run
    before = valid_score(folder, prepared, "speed")
    weights = {f.stem: f.read_bytes() for f in (folder / "weights").iterdir()}
    told = []

    def worse(model, *args):
        for value in model.targets["speed"].parameters():
            value.data.add_(100.0)
        return model

    with monkeypatch.context() as patched:
        patched.setattr(module, "fit_heads", worse)
        found = fit_heads_on(folder, prepared, told.append)
    assert told[0].startswith("speed, ") and told[0].endswith("not kept")
    assert found["valid_fitted_speed"] == pytest.approx(before)
    assert (folder / "weights" / "speed.safetensors").read_bytes() == weights["speed"]

    found = fit_heads_on(folder, prepared, told.append)
    assert "not kept" not in told[2]
    assert valid_score(folder, prepared, "speed") == pytest.approx(found["valid_fitted_speed"])
    assert found["valid_fitted_speed"] > before
    assert (folder / "weights" / f"{LIKELIHOOD}.safetensors").read_bytes() == weights[LIKELIHOOD]
    assert read_bundle(folder).metrics["valid_fitted_speed"] == found["valid_fitted_speed"]


def test_labels_of_validation_and_test_do_not_enter_the_fit(run, monkeypatch):
    folder, prepared = run
    kept = {}
    fit = module.fit_heads
    monkeypatch.setattr(module, "fit_heads", lambda *a: kept.setdefault(len(kept), fit(*a)))
    fit_heads_on(folder, prepared, lambda text: None)
    rec = copy.deepcopy(prepared.rec)
    speed = rec.behavior["speed"]
    for part in ("valid", "test"):
        for a, b in prepared.split.intervals(part):
            speed.values[(speed.times >= a) & (speed.times < b)] += 100.0
    other = prepare(rec, prepared.config, prepared.normalization)
    fit_heads_on(folder, other, lambda text: None)
    one, two = (m.state_dict() for m in kept.values())
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_train_ends_with_it_and_refuses_several_recordings(tmp_path, capsys):
    for name in ("a", "b"):
        write_npz(driven_recording(), tmp_path / f"{name}.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(to_dict(config(after_training=True))))
    begin = ["train", "--config", str(tmp_path / "c.yaml"), "--run", str(tmp_path / "run"), "--quiet"]
    begin += ["--no-baselines", f"recording.path={tmp_path / 'a.npz'}"]
    assert main(begin) == 0
    assert "speed, head fitted on: validation" in capsys.readouterr().out
    assert np.isfinite(json.loads((tmp_path / "run" / "summary.json").read_text())["valid_fitted_place"])
    both = f"recordings=[{{path: {tmp_path / 'a.npz'}, name: a}}, {{path: {tmp_path / 'b.npz'}, name: b}}]"
    assert main([*begin[:-1], "--overwrite", both]) == 2
    assert "this run has 2; set it to false" in capsys.readouterr().err
