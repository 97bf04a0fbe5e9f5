"""The first run: every step is a command that works, and shows what it promises."""

import dataclasses
import os

import pytest
import yaml

from neuroformer.cli import demo, main
from neuroformer.config import load_config
from neuroformer.recording.synthetic import DemoParameters

SMALL = {
    "recording": {"path": "synthetic:demo", "options": {"num_units": 8, "num_trials": 15, "trial_s": 4.0}},
    "model": {"width": 16, "frame_encoder": {"channels": 4}},
    "train": {"steps": 4, "batch_size": 16, "evaluate_every": 2},
    "generate": {"samples": 1, "max_seconds": 1.0},
}


def test_its_recording_is_known_and_small():
    config = load_config(demo.CONFIG)
    options = config.recording.options
    known = {f.name for f in dataclasses.fields(DemoParameters)}
    assert set(options) <= known and config.recording.path == "synthetic:demo"
    assert options["num_units"] * options["num_trials"] * options["trial_s"] < 10_000  # unit seconds
    assert config.split.claim == "repeats"


def small(folder):
    tree = yaml.safe_load(demo.CONFIG.read_text())
    for section, values in SMALL.items():
        tree[section] = tree.get(section, {}) | values
    (folder / "small.yaml").write_text(yaml.safe_dump(tree))
    return folder / "small.yaml"


def test_its_steps_are_commands_of_one_run(tmp_path, monkeypatch, capsys):
    asked = []
    for module, *_ in demo.STEPS:
        monkeypatch.setattr(module, "run", asked.append)
    assert main(["demo", "--quiet", "--run", str(tmp_path)]) == 0
    assert asked[0].run == tmp_path and asked[0].config == demo.CONFIG and asked[0].overwrite
    assert [a.folder for a in asked[1:]] == [tmp_path] * 4 and all(a.quiet for a in asked)
    out = capsys.readouterr().out
    for number, (module, _, shows, _) in enumerate(demo.STEPS, 1):
        assert f"[{number} of 5] neuroformer {module.__name__.rpartition('.')[2]} " in out
        assert f"{tmp_path / shows} (" in out


@pytest.mark.slow
def test_it_shows_what_it_promises(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "CONFIG", small(tmp_path))
    folder = tmp_path / "run"
    assert main(["demo", "--quiet", "--run", str(folder)]) == 0
    assert all((folder / shows).stat().st_size > 1000 for _, _, shows, _ in demo.STEPS)


def test_a_step_that_fails_ends_it(tmp_path, monkeypatch, capsys):
    broken = tmp_path / "broken.yaml"
    broken.write_text("recording: {path: absent.npz}\n")
    monkeypatch.setattr(demo, "CONFIG", broken)
    assert main(["demo", "--quiet", "--run", str(tmp_path / "run")]) == 2
    assert "absent.npz" in capsys.readouterr().err and not os.path.exists(tmp_path / "run" / "report.html")
    monkeypatch.setattr(demo, "STEPS", [(demo.train, "--nonsense", "", "")])
    with pytest.raises(SystemExit):
        main(["demo", "--quiet"])
