"""YAML files as people and strangers write them: strict about keys, bounded, and clear about paths."""

import json
import os
import time

import numpy as np
import pytest
import yaml

from neuroformer.cli import main
from neuroformer.config import ConfigError, from_dict, load_config, read_yaml, to_dict
from neuroformer.data.recordings import open_only, open_recordings
from neuroformer.recording import RecordingError


def written(folder, text, name="mine.yaml"):
    (folder / name).write_text(text)
    return folder / name


def spikes(path, seed=0):
    """A recording of four units, with a variable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 60, 900))
    speed = {"speed": np.sin(np.arange(0, 60, 0.1)), "speed_rate": 10.0}
    np.savez(path, spike_times=times, spike_units=rng.integers(0, 4, 900), **speed)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {steps: 10}\nseed: 1\ntrain: {batch_size: 32}\n", "'train' is given twice, in lines 1 and 3"),
        ("train:\n  steps: 10\n  steps: 20\n", "'steps' is given twice, in lines 2 and 3"),
        ("inputs:\n- {name: a, name: b}\n", "'name' is given twice, in lines 2 and 2"),
        ('recording: {path: "C:\\data\\a.npz"}', "write '/' between folders, or single quotes"),
        ('recording: {path: "D:\\new\\a.npz"}', "holds control characters"),
        ("seed: !!python/object/apply:os.getcwd []", "names Python objects"),
        ("seed: " + "9" * 5000, "is not valid YAML"),
        ("train: {lr: 1" + "0" * 400 + "}", "a number that a float can hold"),
        ("name: 7", "name is 7 (int); expected str: put it in quotes"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_one_message(tmp_path, text, message):
    with pytest.raises(ConfigError) as e:
        load_config(written(tmp_path, text))
    assert message in str(e.value)


def test_a_section_may_be_repeated_by_an_alias_and_a_merge(tmp_path):
    file = written(tmp_path, "inputs:\n- &a {name: x, samples: 2}\n- {<<: *a, name: y}\n")
    assert [(v.name, v.samples) for v in load_config(file).inputs] == [("x", 2), ("y", 2)]


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
EXCESS = {
    "aliases": BOMB,
    "merges": "a0: &a0 {k: 1}\n"
    + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12)),
    "itself": "a: &a [*a]\n",
    "flow": "a: " + "[" * 50_000,
    "block": "".join(" " * i + "a:\n" for i in range(600)),
    "dashes": "- " * 20_000,
    "length": "a: 1\n" * 100_000,
}


@pytest.mark.parametrize("kind", EXCESS)
def test_what_is_small_to_write_and_vast_to_read_is_refused_at_once(tmp_path, kind):
    file = written(tmp_path, EXCESS[kind])
    start = time.process_time()
    with pytest.raises(ConfigError, match="it holds|of at most"):
        read_yaml(file)
    assert time.process_time() - start < 1


def test_texts_stay_texts(tmp_path):
    text = "name: 2024-05-01\ntrain: {lr: 2e-3}\nseed: 010\nrecording: {path: synthetic:demo, name: 10:30}\n"
    config = load_config(written(tmp_path, text))
    assert (config.name, config.train.lr, config.seed, config.recording.name) == ("2024-05-01", 2e-3, 10, "10:30")


@pytest.mark.parametrize(
    "name", ["rec #1.npz", "2024", "2024-05-01", "a: b.npz", "no", "[a].npz", "null", "x,y.npz", "'a"]
)
def test_a_text_on_the_command_line_is_taken_as_it_is(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert load_config(None, [f"recording.path={name}"]).recording.path == str(tmp_path / name)
    assert load_config(None, [f"name={name}"]).name == name
    several = load_config(None, ["recordings=[a, b]", "recordings.1={path: c}", f"recordings.1.path={name}"])
    assert several.recordings[1].path == str(tmp_path / name)
    quoted = load_config(None, ["targets=[{name: x}]", f"targets.0.name={json.dumps('seven 7')}"])
    assert quoted.targets[0].name == "seven 7"


def test_paths_in_a_file_are_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "net").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    spikes(tmp_path / "data" / "a.npz")
    config = load_config(written(tmp_path, "recording: {path: data/a.npz, options: {video: v.mp4}}"))
    assert config.recording.path == str(tmp_path / "data" / "a.npz")
    assert config.recording.options == {"video": str(tmp_path / "v.mp4")}
    assert open_only(load_config("../mine.yaml", ["recording.options={}"]))[1].name == "a"
    given = load_config(tmp_path / "mine.yaml", ["recording.path=b.npz"])  # the command line: relative to where one is
    assert given.recording.path == str(tmp_path / "elsewhere" / "b.npz")
    for path in ("synthetic:demo", str(tmp_path / "c.npz")):
        assert load_config(written(tmp_path, f"recording: {{path: '{path}'}}")).recording.path == path
    encoder = "model: {frame_encoder: {kind: backbone, backbone: %s}}"
    assert load_config(written(tmp_path, encoder % "net")).model.frame_encoder.backbone == str(tmp_path / "net")
    assert load_config(written(tmp_path, encoder % "lab/net")).model.frame_encoder.backbone == "lab/net"  # a hub id


def test_globs_in_a_file_are_relative_to_it(tmp_path, monkeypatch):
    folder = tmp_path / "day [1]"
    spikes(folder / "m1.npz"), spikes(folder / "m2.npz", 1)
    monkeypatch.chdir(tmp_path)
    for text in ("recordings: m*.npz", "recordings: [m*.npz]", "recordings: [m1.npz, {path: m2.npz}]"):
        recs = open_recordings(load_config(written(folder, text)))[1]
        assert [r.name for r in recs] == ["m1", "m2"]


@pytest.mark.skipif(os.sep != "/", reason="Windows understands its own paths")
def test_a_path_of_windows_says_how_to_write_it(tmp_path):
    file = written(tmp_path, "recording: {path: data\\a.npz}")
    with pytest.raises(ConfigError, match=r"expected '/' between folders, .*: data/a.npz$"):
        load_config(file)
    with pytest.raises(ConfigError, match="C: is a drive of Windows"):
        load_config(None, ["recording.path=C:\\data\\a.npz"])
    spikes(tmp_path / "data\\a.npz")  # a name that a POSIX system allows
    assert open_only(load_config(file))[1].num_units == 4


def test_no_recording_stands_in_for_one_that_is_not_named(tmp_path, capsys):
    file = written(tmp_path, "window: {frames: 0}\n")
    for command in (["audit", str(file)], ["train", "--config", str(file), "--run", str(tmp_path / "run")]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "no recording is named; give recording.path=FILE" in said
        assert said.splitlines()[1:] == ["  more on this: neuroformer explain data"]
    assert not (tmp_path / "run").exists()


SMALL = """
recording: {path: data/a.npz}
window: {past: 0.1, target_past: 0.1, frames: 0}
targets: [{name: speed}]
split: {block: 12}
model: {width: 16, heads: 2}
train: {steps: 2, batch_size: 16, evaluate_every: 2, accelerator: cpu}
generate: {max_seconds: 0.2}
decode: {lags: [0.1]}
"""


def test_a_run_finds_its_recording_from_another_folder(tmp_path, monkeypatch, capsys):
    spikes(tmp_path / "data" / "a.npz")
    written(tmp_path, SMALL)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", "mine.yaml", "--run", "run", "--quiet", "--no-baselines"]) == 0
    stored = json.loads((tmp_path / "run" / "bundle.json").read_text())["config"]["recording"]["path"]
    assert stored == str(tmp_path / "data" / "a.npz")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["generate", "--run", "../run", "--quiet"]) == 0
    assert main(["train", "--config", "../mine.yaml", "--run", "../run", "--resume"]) == 0  # the same run, not another
    (tmp_path / "data" / "a.npz").rename(tmp_path / "elsewhere" / "b.npz")
    capsys.readouterr()
    assert main(["generate", "--run", "../run", "--quiet"]) == 2
    assert f"the run's recording is not at {stored}; say where it is" in capsys.readouterr().err
    assert main(["generate", "--run", "../run", "--quiet", "recording.path=b.npz"]) == 0


def test_plain_mappings_keep_their_paths():
    """What Python gives is relative to the working directory, as everywhere in Python, and comes back as it was."""
    config = from_dict({"recording": {"path": "a.npz"}})
    assert config.recording.path == "a.npz" and from_dict(yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config
    with pytest.raises(RecordingError, match="no file or folder at a.npz"):
        open_only(config)
