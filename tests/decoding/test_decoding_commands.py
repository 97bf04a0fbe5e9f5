"""finetune, fewshot, folds and decode from the command line."""

import json

import numpy as np
import pytest
import yaml
from driven import CHOICE, PLACE, driven_recording
from helpers import small_config

from neuroformer.bundle.bundle import load_model, read_bundle
from neuroformer.cli import main
from neuroformer.cli.options import parse_targets
from neuroformer.cli.shared import only_process
from neuroformer.cli.studies.fewshot import _keep_other
from neuroformer.config import ConfigError, TargetConfig, to_dict
from neuroformer.data.prepared import prepare
from neuroformer.decoding.decode import predict_targets, true_values
from neuroformer.metrics import r2
from neuroformer.recording.formats.npz import write_npz


def test_the_commands(tmp_path, capsys):
    write_npz(driven_recording(), tmp_path / "r.npz")
    config = to_dict(
        small_config(
            window={"frames": 0.0},
            targets=[],
            loss={"contrast": []},
            split={"gap": 0.2},
            tune={"steps": 5},
            decode={"lags": [0.2]},
        )
    )
    config["recording"]["path"] = str(tmp_path / "r.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    run = str(tmp_path / "run")
    say = lambda *argv: main([*argv, "--quiet"])
    assert say("train", "--config", str(tmp_path / "c.yaml"), "--run", run, "--no-baselines") == 0
    assert say("finetune", "--run", run, "--target", "speed", "--labels", "20s", "--out", run + "_s") == 0
    assert say("finetune", "--run", run + "_s", "--target", "choice:classification", "--out", run + "_sc") == 0
    summary = json.loads((tmp_path / "run_s" / "summary.json").read_text())
    assert summary["finetune_label_seconds"] == 20 and np.isfinite(summary["finetune_speed_score"])
    one = ("--target", "choice:classification", "--labels", "0.5s", "--draw", "1", "--out", run + "_1")
    capsys.readouterr()
    assert say("finetune", "--run", run, *one) == 0
    assert "WARNING the labels of choice hold no 1, which the model can then never name" in capsys.readouterr().out
    # what is loaded again is what was scored: its range is that of the drawn labels
    few = load_model(run + "_s", "speed")
    ready = prepare(driven_recording(), few.config, read_bundle(tmp_path / "run_s").normalization)
    held = ready.windows("test", reach=20)
    score = r2(true_values(ready, held)["speed"], predict_targets(few, ready, held)["speed"])[0]
    assert score == pytest.approx(summary["finetune_speed_score"], abs=1e-5)
    # one after the other: the first task is read as before
    models = [load_model(f, "speed") for f in (run + "_s", run + "_sc")]
    prepared = prepare(driven_recording(), models[0].config)
    windows = prepared.windows("test")
    first = predict_targets(models[0], prepared, windows)["speed"]
    second = predict_targets(models[1], prepare(driven_recording(), models[1].config), windows)["speed"]
    np.testing.assert_allclose(first, second, atol=1e-5)
    before = sorted((tmp_path / "run_sc").rglob("*"))
    decode = ("decode", "--run", run + "_sc", "--baselines", "ridge", "--results", str(tmp_path / "new" / "else"))
    capsys.readouterr()
    assert say(*decode) == 0
    assert sorted((tmp_path / "run_sc").rglob("*")) == before  # the run is only read
    assert json.loads((tmp_path / "new" / "else" / "summary.json").read_text())["decode_speed_r2"] <= 1
    out = capsys.readouterr().out
    assert "fine-tuned on" not in out
    assert all(name in out for name in ("kernel_on_states", "gru_on_states", "ensemble"))
    assert "choice:" in out and "balanced accuracy" in out and "control:" in out
    with only_process(tmp_path / "new" / "else", "decoding into"):
        assert say(*decode) == 2 and "another process is decoding into" in capsys.readouterr().err
    (tmp_path / "new" / "else" / "summary.json").write_text('{"decode_speed_r2": 0.')
    assert say(*decode) == 2 and "summary.json is damaged" in capsys.readouterr().err
    few = ("fewshot", "--run", run, "--target", "speed", "--draws", "1")
    assert say(*few, "--labels", "all", "--baselines", "ridge") == 0
    assert json.loads((tmp_path / "run" / "fewshot_speed.json").read_text())["rows"][-1]["method"] == "ridge"
    assert (tmp_path / "run" / "fewshot_speed.png").is_file()
    assert say(*few, "--labels", "5s", "--baselines", "none", "--pool", run) == 2
    assert "held-out parts overlap" in capsys.readouterr().err
    config = str(tmp_path / "c.yaml")
    folds = ("folds", "--config", config, "--run", run + "_f", "--folds", "2", "--baselines", "ridge")
    rest = ("--members", "2", "targets=[{name: speed}]")
    assert say(*folds, "--only", "1", *rest) == 0 and not (tmp_path / "run_f" / "summary.json").exists()
    assert "only folds 1 of 2" in capsys.readouterr().out
    written = (tmp_path / "run_f" / "fold_1" / "heads.safetensors").stat().st_mtime_ns
    assert say(*folds, *rest) == 0  # a finished fold is not done again
    assert (tmp_path / "run_f" / "fold_1" / "heads.safetensors").stat().st_mtime_ns == written
    assert say(*folds, "--only", "x", *rest) == 2
    with only_process(tmp_path / "run_f", "running folds in", ["fold-0"]):  # as a process with --only 0 does
        assert say(*folds, "--only", "1", *rest) == 0
        capsys.readouterr()
        for others in (["--only", "0,1"], []):
            assert say(*folds, *others, *rest) == 2
            assert "another process is running folds in" in capsys.readouterr().err
    summary = json.loads((tmp_path / "run_f" / "summary.json").read_text())
    low, high = summary["decode_speed_difference_low"], summary["decode_speed_difference_high"]
    assert low <= summary["decode_speed_difference"] + 0.1 and high >= summary["decode_speed_difference"] - 0.1
    assert say("finetune", "--run", run, "--target", "speed:wrong") == 2
    assert "expected NAME[:KIND[:SAMPLES[:PERIOD]]]" in capsys.readouterr().err


def test_a_target_is_what_its_words_say_or_what_the_run_declares():
    heading = TargetConfig("heading", "circular", period=360.0, samples=5)
    words = ["speed:student:5", "heading:circular:1:400", "choice:classification", "place"]
    wanted = [
        TargetConfig("speed", noise="student", samples=5),
        TargetConfig("heading", "circular", period=400.0),
        CHOICE,
        PLACE,
    ]
    assert parse_targets(words, [heading]) == wanted
    assert parse_targets(["heading"], [heading]) == [heading]
    for wrong in ("speed:regression:1:3", "speed:circular:x", "a:circular:1:2:3"):
        with pytest.raises(ConfigError, match=f"--target is '{wrong}'"):
            parse_targets([wrong])
    with pytest.raises(ConfigError, match="names a variable twice"):
        parse_targets(["speed", "speed:student"])


def test_few_shot_results_of_other_options_are_kept(tmp_path, capsys):
    path, other = tmp_path / "fewshot_speed.json", {"labels": "60s"}
    path.write_text(json.dumps({"options": {"labels": "10s"}}))
    path.with_suffix(".png").write_text("curve")
    _keep_other(path, {"labels": "10s"})
    assert path.exists() and not capsys.readouterr().out
    _keep_other(path, other)
    assert "earlier results, of other options, are now in" in capsys.readouterr().out
    assert (tmp_path / "earlier" / "fewshot_speed_1.png").read_text() == "curve"
    path.write_text(json.dumps({"rows": []}))  # of a version that did not write its options
    _keep_other(path, other)
    kept = [json.loads((tmp_path / "earlier" / f"fewshot_speed_{n}.json").read_text()) for n in (1, 2)]
    assert kept == [{"options": {"labels": "10s"}}, {"rows": []}] and not path.exists()
