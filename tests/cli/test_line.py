"""The whole line on one small recording: train, generate, decode, through the command line."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import small_config, small_recording

import neuroformer
from neuroformer.cli import main
from neuroformer.config import to_dict
from neuroformer.recording.formats.npz import write_npz
from neuroformer.simulation_scores.scores import flat_scores


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a recording, its configuration, and a trained run."""
    folder = tmp_path_factory.mktemp("line")
    write_npz(small_recording(num_trials=20, seconds=60.0, rate=3.0), folder / "small.npz")
    config = to_dict(small_config(split={"by": "trials", "claim": "repeats"}, generate={"samples": 2}))
    config["recording"]["path"] = str(folder / "small.npz")
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "--config", str(folder / "small.yaml"), "--run", str(folder / "run"), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def summary(run):
    """What the commands that follow training leave in summary.json."""
    folder = str(run / "run")
    assert main(["generate", "--run", folder, "--score", "--quiet", "--debug"]) == 0
    assert main(["decode", "--run", folder, "--quiet", "--baselines", "ridge"]) == 0
    assert main(["attend", "--run", folder, "--windows", "40", "--knocked-out", "10", "--reliability"]) == 0
    return json.loads((run / "run" / "summary.json").read_text())


def test_python_returns_what_the_commands_print(run, summary, tmp_path):
    """Every number of summary.json, but for seconds, speeds and what training itself said."""
    folder = run / "run"
    simulator = neuroformer.Simulator(folder, accelerator="cpu")
    made = simulator.simulate()
    found = neuroformer.evaluate(folder) | simulator.compare(made) | flat_scores(simulator.score(made))
    for one in neuroformer.decode(folder, baselines=["ridge"], folder=tmp_path / "control").values():
        found |= one.scores
        with np.load(folder / f"decode_{one.target.name}.npz") as saved:
            assert set(saved.files) == set(one.arrays)
            assert all(np.array_equal(saved[k], v, equal_nan=True) for k, v in one.arrays.items())
    found |= neuroformer.attend(folder, num_windows=40, num_knock_out=10, reliability=True).summary
    trained = neuroformer.train(run / "small.yaml", tmp_path / "again").metrics
    found |= trained
    timed = {k for k in summary if "second" in k and "sequence" not in k}
    assert set(found) | timed == set(summary)
    for key in set(summary) - timed:
        value = found[key]
        if isinstance(value, float):
            value = round(value, 6) if np.isfinite(value) else None
        assert value == summary[key], key


def test_train_generate_decode(run, summary):
    folder = run / "run"
    expected = (
        "bits_per_spike",
        "bits_per_spike_glm",
        "decode_speed_r2",
        "decode_speed_r2_ridge",
        "decode_speed_r2_control",
        "decode_gaze_r2",
        "decode_gaze_x_r2",
        "psth_r",
        "psth_r_ceiling",
        "train_seconds",
        "windows_per_second",
        "tokens_per_second_train",
        "tokens_per_second_generate",
        "simulation_rate_r",
        "simulation_psth_r_ceiling",
        "simulation_rate_ratio_true_past",
        "bits_per_spike_psth_poisson",
    )
    for key in expected:
        assert np.isfinite(summary[key]), key
    for name in (
        "learning_curve.png",
        "rasters.png",
        "psth.png",
        "simulation.png",
        "decode_speed.png",
        "decode_gaze.png",
    ):
        assert (folder / name).is_file(), name
    scores = json.loads((folder / "simulation_scores.json").read_text())
    names = {"model", "true_past", "ceiling", "psth_poisson", "homogeneous", "readout", "stimulus"}
    assert names == set(scores["candidates"])
    assert all(np.isfinite(scores["candidates"][n]["rate_bits"][0]) for n in names)
    simulated = neuroformer.open_recording(folder / "simulated.npz")
    assert simulated.num_trials == 2 * 4 and simulated.num_spikes > 0
    decoded = np.load(folder / "decode_speed.npz")
    assert decoded["model"].shape == decoded["ridge"].shape == decoded["true"].shape


def test_the_bundle_stands_alone(run):
    folder = run / "run"
    model = neuroformer.load_model(folder)
    assert not model.training and sum(p.numel() for p in model.parameters()) > 1000
    names = {f.name for f in (folder / "weights").iterdir()}
    assert names == {f"{name}.safetensors" for name in ("likelihood", "stimulus_r", "speed", "gaze")}


def test_inspect_prints_both(run, capsys):
    assert main(["inspect", str(run / "run")]) == 0
    assert "6 units" in capsys.readouterr().out
    assert main(["inspect", str(run / "small.npz")]) == 0
    out = capsys.readouterr().out
    assert "Recording 'small'" in out and "gaze" in out and "trials    20" in out


def say(capsys, *argv):
    code = main([str(a) for a in argv])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.err


def test_a_run_is_not_replaced_unasked(run, capsys):
    code, message = say(capsys, "train", "--config", run / "small.yaml", "--run", run / "run", "--quiet")
    assert code == 2 and "--overwrite" in message


def test_other_units_are_refused(run, capsys, tmp_path):
    write_npz(small_recording(num_units=5, num_trials=20, seconds=60.0), tmp_path / "other.npz")
    code, message = say(capsys, "generate", "--run", run / "run", f"recording.path={tmp_path / 'other.npz'}")
    assert code == 2 and "5 units" in message and "trained on 6" in message


def test_what_training_fixed_cannot_be_overridden(run, capsys):
    code, message = say(capsys, "generate", "--run", run / "run", "window.past=0.2")
    assert code == 2 and "'window' was fixed by training" in message


def test_a_damaged_bundle_is_named(run, capsys, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run / "run", copy)
    weights = copy / "weights" / "likelihood.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    code, message = say(capsys, "generate", "--run", copy)
    assert code == 2 and "likelihood.safetensors" in message and "truncated" in message
    (copy / "bundle.json").write_text("{")
    code, message = say(capsys, "inspect", copy)
    assert code == 2 and "damaged" in message
    code, message = say(capsys, "generate", "--run", tmp_path / "nothing")
    assert code == 2 and "no bundle at" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.steps=3", "unknown key 'trian'; did you mean 'train'?"),
        ("train.lr=fast", "train.lr is 'fast'"),
        ("targets.0.name=sped", "no behavior variable 'sped'; it has: gaze, pupil, speed, trial_time"),
        ("inputs.0.name=speed", "a variable that is not also an input"),
        ("window.current=30", "window.current is 30 s, but the longest trial of 'small' lasts 3 s"),
        ("window.current=0.033", "a whole multiple of window.dt"),
        ("recording.path=absent.npz", f"no file or folder at {Path.cwd() / 'absent.npz'}"),
        ("split.pattern=[train, test]", "at least one 'valid'"),
    ],
)
def test_mistakes_get_one_message_and_exit_code_2(run, capsys, tmp_path, override, message):
    code, said = say(capsys, "train", "--config", run / "small.yaml", "--run", tmp_path / "x", "--quiet", override)
    first, *more = said.splitlines()
    assert (
        code == 2 and message in first and len(more) == 1 and more[0].startswith("  more on this: neuroformer explain ")
    )


def test_debug_shows_the_traceback(run):
    with pytest.raises(ValueError, match="unknown key"):
        main(["train", "--config", str(run / "small.yaml"), "--debug", "trian.steps=3"])


def test_a_silent_unit_an_empty_trial_and_missing_behavior_go_through(tmp_path, capsys):
    rec = small_recording(num_trials=20, seconds=60.0, rate=3.0)
    keep = (rec.spike_units != 2) & ~((rec.spike_times >= 12.0) & (rec.spike_times < 15.0))
    speed = rec.behavior["speed"]
    values = speed.values.copy()
    values[::5] = np.nan
    behavior = rec.behavior | {"speed": dataclasses.replace(speed, values=values)}
    holes = dataclasses.replace(
        rec, spike_times=rec.spike_times[keep], spike_units=rec.spike_units[keep], behavior=behavior
    )
    write_npz(holes, tmp_path / "holes.npz")
    config = to_dict(small_config(split={"by": "trials", "claim": "repeats"}, train={"steps": 2}))
    config["recording"]["path"] = str(tmp_path / "holes.npz")
    (tmp_path / "holes.yaml").write_text(yaml.safe_dump(config))
    run = ["--run", str(tmp_path / "run"), "--quiet"]
    assert main(["train", "--config", str(tmp_path / "holes.yaml"), "--no-baselines", *run]) == 0
    out = capsys.readouterr().out
    assert f"{int(np.isnan(values).sum())} samples missing" in out
    assert main(["generate", *run]) == 0
    assert main(["decode", *run]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for key in ("bits_per_spike", "decode_speed_r2", "psth_r"):
        assert np.isfinite(summary[key]), key
