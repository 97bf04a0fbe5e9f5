"""Every command of the README is one that the tools have; the demo's lines run, shrunk."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from helpers import small_recording

from neuroformer.cli import main, parser
from neuroformer.config import from_dict
from neuroformer.recording import write_recording

ROOT = Path(__file__).parents[2]
SMALL = [
    "recording.options={num_trials: 15, trial_s: 4.0, num_units: 12}",
    "train.steps=4",
    "train.batch_size=16",
    "train.evaluate_every=2",
    "model.width=16",
    "model.frame_encoder.channels=8",
    "generate.max_seconds=1",
    "generate.samples=1",
]


def commands():
    """Lines of the README's shell blocks that call neuroformer, as arguments."""
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            tool = Path(words[0]).name
            if tool == "neuroformer":
                yield words[1:]
            elif tool == "python" and words[1] in ("train.py", "generate.py"):
                yield [words[1].removesuffix(".py"), *words[2:]]


def test_the_readme_has_commands():
    names = {c[0] for c in commands()}
    assert names >= {"audit", "train", "generate", "decode", "report", "inspect"}


@pytest.mark.parametrize("argv", list(commands()), ids=" ".join)
def test_every_command_parses_and_names_files_that_exist(argv):
    args = parser().parse_args(argv)
    if args.command == "train":
        assert (ROOT / args.config).is_file() or str(args.config) == "mine.yaml"


def test_the_configuration_that_it_shows_is_one():
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert "# mine.yaml" in text
    config = from_dict(yaml.safe_load(text))
    assert config.targets[0].name == "speed" and config.inputs[0].name == "pupil"


def test_the_makefile_runs_what_the_readme_says():
    make = (ROOT / "Makefile").read_text()
    for line in (
        "train.py --config configs/demo.yaml --overwrite",
        "generate.py --run runs/demo",
        "decode --run runs/demo",
        "report --run runs/demo",
    ):
        assert line in make and line in (ROOT / "README.md").read_text()


def test_the_demo_runs_small(tmp_path, capsys):
    run = ["--run", str(tmp_path / "demo")]
    assert main(["train", "--config", str(ROOT / "configs/demo.yaml"), "--quiet", *run, *SMALL]) == 0
    assert main(["generate", "--quiet", *run]) == 0
    assert main(["decode", "--quiet", *run]) == 0
    assert main(["report", *run]) == 0
    assert (tmp_path / "demo" / "report.html").stat().st_size > 50_000
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    for key in (
        "bits_per_spike",
        "bits_per_spike_glm",
        "bits_per_spike_oracle",
        "decode_gaze_x_r2",
        "psth_r_ceiling",
    ):
        assert key in summary
    assert all(not isinstance(v, (dict, list)) for v in summary.values())


@pytest.mark.slow
def test_the_commands_for_a_recording_of_ones_own_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rec = dataclasses.replace(small_recording(num_units=8, seconds=300.0, rate=2.0, frames=False), name="my")
    write_recording(rec, "my.nwb")
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    Path("mine.yaml").write_text(text)
    mine = [argv for argv in commands() if {"my.nwb", "mine.yaml", "runs/mine", "runs/pretrained"} & set(argv)]
    assert [argv[0] for argv in mine] == (
        ["inspect", "audit", "train", "report", "generate", "generate", "decode", "train", "fewshot", "attend"]
    )
    few = {"train": SMALL[1:5], "generate": SMALL[-2:-1], "fewshot": ["--draws", "1", "tune.steps=2"]}
    for argv in mine:
        assert main([*argv, *few.get(argv[0], ())]) == 0, argv
    assert main(["report", "--run", "runs/mine"]) == 0
    assert Path("silenced.npz").is_file() and Path("runs/pretrained/fewshot_speed.json").is_file()
