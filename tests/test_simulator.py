"""Simulation in Python and on the command line: the same, bit by bit; and every mistake is named before any work."""

import dataclasses

import numpy as np
import pytest
import yaml
from helpers import small_config, small_recording

import neuroformer
from neuroformer.cli import main
from neuroformer.cli.shared import only_process
from neuroformer.config import ConfigError, InterventionConfig, to_dict
from neuroformer.recording.formats.npz import write_npz


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulator")
    write_npz(small_recording(num_trials=20, seconds=60.0, rate=3.0), folder / "small.npz")
    config = to_dict(
        small_config(
            split={"by": "trials", "claim": "repeats"},
            targets=[],
            train={"steps": 1},
            generate={"max_seconds": 0.0},
        )
    )
    config["recording"]["path"] = str(folder / "small.npz")
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    assert (
        main(
            ["train", "--config", str(folder / "small.yaml"), "--run", str(folder / "run"), "--no-baselines", "--quiet"]
        )
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def simulator(folder):
    return neuroformer.Simulator(folder / "run", accelerator="cpu")


def generate(folder, *words):
    """Exit code of ``neuroformer generate``."""
    return main(["generate", "--run", str(folder / "run"), "--quiet", *map(str, words)])


ARRAYS = {
    "frames": np.random.default_rng(0).integers(0, 255, (30, 8, 8), dtype=np.uint8),
    "frames_rate": 20.0,
    "pupil": np.ones(30),
    "pupil_rate": 20.0,
}


def test_python_and_the_command_line_simulate_the_same(folder, simulator, capsys):
    silence = {"do": "silence", "units": [1, 4], "start": 0.25}
    changed = simulator.simulate(samples=2, max_seconds=0.5, interventions=[silence], seed=4)
    out = folder / "silent.npz"
    words = (
        "generate.samples=2",
        "generate.max_seconds=0.5",
        "seed=4",
        "generate.interventions=[{do: silence, units: [1, 4], start: 0.25}]",
    )
    assert generate(folder, "--out", out, *words) == 0
    assert neuroformer.open_recording(out).sha256() == changed.sha256()
    assert "silence [1, 4], from 0.25 s to the end" in capsys.readouterr().out
    as_class = InterventionConfig(do="silence", units=(1, 4), start=0.25)
    again = simulator.simulate(samples=2, max_seconds=0.5, interventions=[as_class], seed=4)
    assert again.sha256() == changed.sha256()


def test_a_stimulus_is_given_as_arrays_a_file_or_a_recording(folder, simulator):
    made = simulator.simulate(ARRAYS, samples=2)
    assert made.duration == pytest.approx(2 * 1.5) and made.num_spikes > 0
    np.savez(folder / "stimulus.npz", **ARRAYS)
    assert simulator.simulate(folder / "stimulus.npz", samples=2).sha256() == made.sha256()
    assert (
        generate(folder, "--stimulus", folder / "stimulus.npz", "--out", folder / "new.nwb", "generate.samples=2") == 0
    )
    back = neuroformer.open_recording(folder / "new.nwb")
    assert np.array_equal(back.spike_times, made.spike_times) and "part" not in made.meta["notes"][0]
    shown = simulator.prepared.rec
    other = dataclasses.replace(shown, spike_units=np.random.default_rng(0).permutation(shown.spike_units))
    sides = [simulator.simulate(r, max_seconds=0.3).sha256() for r in (shown, other)]
    assert sides[0] == sides[1]  # its spikes are not read


def test_scores_of_a_simulation(simulator, folder):
    made = simulator.simulate(samples=2, max_seconds=0.5)
    scores = simulator.score(made)
    assert {"model", "true_past", "ceiling", "homogeneous"} <= set(scores["candidates"])
    write_npz(made, folder / "made.npz")
    again = simulator.score(neuroformer.open_recording(folder / "made.npz"))
    np.testing.assert_equal(again["late"], scores["late"])  # where too few trials give no interval, it is NaN
    changed = simulator.simulate(max_seconds=0.5, interventions=[{"do": "blank_frames"}])
    with pytest.raises(ConfigError, match="expected held-out trials as they were"):
        simulator.score(changed)
    with pytest.raises(ConfigError, match="is not a simulation of 'small'"):
        simulator.score(simulator.prepared.rec)


def test_an_interrupted_call_goes_on_and_another_stimulus_does_not(simulator, tmp_path):
    made = simulator.simulate(ARRAYS, folder=tmp_path / "parts")
    assert simulator.simulate(ARRAYS, folder=tmp_path / "parts").sha256() == made.sha256()
    with pytest.raises(ValueError, match="differs in stimulus"):
        simulator.simulate(ARRAYS | {"pupil": np.zeros(30)}, folder=tmp_path / "parts")


def test_mistakes_are_named_in_python(simulator):
    with pytest.raises(ConfigError, match=r"unknown key 'generate.sampels'; did you mean 'samples'"):
        simulator.simulate(sampels=2)
    with pytest.raises(ConfigError, match="have 7 x 9 pixels; the model was trained on 8 x 8: resize"):
        simulator.simulate(ARRAYS | {"frames": np.zeros((30, 7, 9), np.uint8)})
    with pytest.raises(ValueError, match="no behavior variable 'pupil'"):
        simulator.simulate({k: v for k, v in ARRAYS.items() if "pupil" not in k})
    with pytest.raises(ConfigError, match="the model reads frames"):
        simulator.simulate(5.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x.txt"], "no format is written as 'x.txt'"),
        (["--against", "none.npz"], "none.npz"),
        (["--score", "generate.interventions=[{do: blank_frames}]"], "nor interventions"),
        (["--score", "generate.past_from=3"], "another interval, stimulus or past"),
    ],
)
def test_mistakes_are_named_before_anything_is_simulated(folder, monkeypatch, capsys, words, message):
    monkeypatch.setattr("neuroformer.generation.simulate.simulate", lambda *a, **k: 1 / 0)
    assert generate(folder, *words) == 2
    assert message in capsys.readouterr().err


def test_only_a_simulation_of_the_trials_as_they_were_enters_the_summary(folder, tmp_path):
    (folder / "run" / "psth.png").unlink(missing_ok=True)
    assert generate(folder, "--out", tmp_path / "past.npz", "generate.past_from=3", "generate.max_seconds=0.3") == 0
    assert not (folder / "run" / "psth.png").exists()


def test_shares_run_side_by_side_and_are_joined_after_the_last(folder, capsys):
    words = ("generate.samples=2", "generate.max_seconds=0.5", "generate.batch_size=4")
    out, parts = folder / "shared.npz", folder / "shared.npz.parts"
    with only_process(parts, "simulating into", ["2-of-2"]):  # as the process of the second share does
        assert generate(folder, "--out", out, "--share", "1/2", *words) == 0
        for others in (["--share", "2/2"], [], ["--restart"], ["--share", "1/2", "--restart"]):
            assert generate(folder, "--out", out, *others, *words) == 2
            assert "another process is simulating into" in capsys.readouterr().err
    assert list(parts.glob("batch-*")) and not out.exists()
    assert generate(folder, "--out", out, "--share", "2/2", *words) == 0
    assert generate(folder, "--out", out, *words) == 0 and not parts.exists()
    assert generate(folder, "--out", folder / "whole.npz", *words) == 0
    one, other = (neuroformer.open_recording(folder / name) for name in ("shared.npz", "whole.npz"))
    assert one.sha256() == other.sha256()
