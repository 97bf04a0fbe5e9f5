"""A new recording joins a trained model."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from helpers import small_config, small_recording
from safetensors.torch import load_file

from benchmarks.science import adapt as bench
from neuroformer.bundle.bundle import load_model, read_bundle
from neuroformer.bundle.cohort import own_names
from neuroformer.cli import main
from neuroformer.config import ConfigError, RecordingConfig, load_config
from neuroformer.data.prepared import prepare
from neuroformer.recording.formats.npz import write_npz
from neuroformer.training.adapt import Start, adapted_config, join
from neuroformer.training.checkpoint import CheckpointError
from neuroformer.training.loop import Trainer
from neuroformer.training.stopping import Stopped
from neuroformer.training.train import initial_cohort, prepare_recordings, train, train_several

TRAIN = {
    "steps": 6,
    "batch_size": 32,
    "evaluate_every": 3,
    "average": 0.9,
    "accelerator": "cpu",
    "checkpoint_every": 1e6,
}


SHARED = Path(__file__).parents[2] / "configs" / "shared.yaml"


def animal(seed, num_units, **more):
    return dataclasses.replace(small_recording(seed, num_units=num_units, seconds=60.0, **more), name=f"m{seed}")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    names = [{"path": "unused", "name": f"m{i}"} for i in range(2)]
    c = small_config(recordings=names, train=TRAIN)
    train_several([animal(0, 6), animal(1, 9)], c, folder, progress=False)
    return folder


def adapt(base, rec, folder, way, overrides=(), resume=False):
    start = Start(read_bundle(base), way)
    config = start.config_for(rec, adapted_config(start.bundle.config, ["recording.path=x", *overrides]))
    train_several([rec], config, folder, progress=False, resume=resume, start=start)
    return load_file(folder / "weights" / "likelihood.safetensors")


def trunk(base):
    return {
        k: v
        for k, v in load_file(base / "weights" / "likelihood.safetensors").items()
        if not k.startswith("recordings.")
    }


def test_a_new_unit_starts_as_the_mean_of_the_trained_ones_and_its_rate_as_its_own(both):
    rec = animal(2, 5)
    start = Start(read_bundle(both), "new")
    (prepared,) = prepare_recordings(
        [rec], start.config_for(rec, adapted_config(start.bundle.config, ["recording.path=x"]))
    )
    fresh = initial_cohort([prepared], prepared.config)[0].observation.rates.bias.weight.clone()
    cohort = initial_cohort([prepared], prepared.config)
    start.begin(cohort)
    trained = [load_model(both, recording=name) for name in ("m0", "m1")]
    for name in ("embedding.unit", "observation.unit", "observation.own.rows", "streams.frames.readout.what"):
        known = torch.cat([one.get_submodule(name).weight for one in trained])
        mine = cohort[0].get_submodule(name).weight
        torch.testing.assert_close(mine, known.mean(0).expand_as(mine))
    torch.testing.assert_close(cohort[0].observation.rates.bias.weight, fresh)


def test_new_rows_train_and_the_trunk_stays_bit_for_bit(both, tmp_path):
    rec = animal(2, 5)
    after, before = adapt(both, rec, tmp_path, "new", ["recording.share=0.5"]), trunk(both)
    assert set(before) <= set(after) and all(torch.equal(after[k], before[k]) for k in before)
    assert "observation.unit.weight" in set(after) - set(before) and after["observation.unit.weight"].abs().sum() > 0
    bundle = read_bundle(tmp_path)
    assert bundle.recording == "m2" and bundle.config.recording.share == 0.5
    assert bundle.metrics["adapted_from"] == both.name and bundle.metrics["adapted_weights"] == "new"
    assert load_model(tmp_path).num_units == 5


def test_everything_trains_when_asked(both, tmp_path):
    after, before = adapt(both, animal(2, 5), tmp_path, "all"), trunk(both)
    assert sum(not torch.equal(after[k], before[k]) for k in before) > 0.9 * len(before)


def test_a_model_of_one_recording_is_joined_alike_and_what_is_lacking_is_left_out(tmp_path):
    train(animal(0, 6), small_config(train=TRAIN), tmp_path / "one", progress=False)
    rec = animal(2, 5, frames=False)
    rec = dataclasses.replace(rec, behavior={"speed": rec.behavior["speed"]})
    after = adapt(tmp_path / "one", rec, tmp_path / "joined", "new")
    before = {k: v for k, v in trunk(tmp_path / "one").items() if k not in own_names(load_model(tmp_path / "one"))}
    # blocks: current, past, (frames, behavior,) current
    assert torch.equal(after["blocks.2.mlp.1.weight"], before["blocks.4.mlp.1.weight"])
    assert torch.equal(after["first"], before["first"]) and not any(k.startswith("streams.frames.") for k in after)


@pytest.mark.parametrize("several", [True, False])
def test_a_new_recording_joins_the_bundle_of_the_others(both, tmp_path, several):
    base, rec = both, animal(2, 5, frames=False)
    if not several:
        base = tmp_path / "one"
        train(animal(0, 6), small_config(train=TRAIN), base, progress=False)
    adapt(base, rec, tmp_path / "new", "new")
    trained, adapted = read_bundle(base), read_bundle(tmp_path / "new")
    join(trained, adapted, tmp_path / "all")
    bundle = read_bundle(tmp_path / "all")
    names = [m.name for m in trained.recordings]
    assert [m.name for m in bundle.recordings] == [*names, "m2"] and bundle.recordings[-1].lacks == ["frames"]
    for name, of in ((names[0], trained), ("m2", adapted)):
        x, y = (load_model(b, recording=name).state_dict() for b in (bundle, of))
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
    p = prepare(rec, bundle.of("m2").config, bundle.recordings[-1].normalization)
    assert p.split.sha256() == bundle.recordings[-1].split["sha256"]
    with pytest.raises(ConfigError, match="has a recording 'm2' already"):
        join(bundle, adapted, tmp_path / "twice")
    adapt(base, rec, tmp_path / "moved", "all")
    with pytest.raises(ConfigError, match="only a recording adapted with --train new joins it"):
        join(trained, read_bundle(tmp_path / "moved"), tmp_path / "no")


def test_what_training_fixed_cannot_be_overridden(both):
    config = read_bundle(both).config
    assert adapted_config(config, ["model.dropout=0.3", "train.steps=9"]).model.dropout == 0.3
    for override in ("model.width=32", "window.past=0.2", "inputs=[]", "targets=[]"):
        with pytest.raises(ConfigError, match=f"'{override.split('=')[0].split('.')[0]}' was fixed by training"):
            adapted_config(config, [override])
    with pytest.raises(ConfigError, match="one recording joins at a time"):
        adapted_config(config, ["recordings=[x]"])


def test_adapting_goes_on_exactly_and_only_from_the_same_start(both, tmp_path, monkeypatch):
    rec = animal(2, 5)
    whole = adapt(both, rec, tmp_path / "whole", "new")
    advance = Trainer._advance

    def signalled(self, pieces):
        if self.progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        advance(self, pieces)

    monkeypatch.setattr(Trainer, "_advance", signalled)
    with pytest.raises(Stopped):
        adapt(both, rec, tmp_path / "parts", "new", resume=True)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="its start differs"):
        adapt(both, rec, tmp_path / "parts", "all", resume=True)
    parts = adapt(both, rec, tmp_path / "parts", "new", resume=True)
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_the_command_line_of_several_recordings(tmp_path, capsys):
    for i, units in enumerate((6, 9, 5)):
        write_npz(animal(i, units), tmp_path / f"m{i}.npz")
    tree = [
        "window.frames=0.15",
        "inputs=[{name: pupil}]",
        "targets=[{name: speed}]",
        "split.block=8",
        "window.past=0.1",
        "model.width=16",
        "model.heads=2",
        "model.frame_encoder={kind: conv3d, kernel: [2,4,4]}",
        "train.steps=4",
        "train.batch_size=32",
        "train.evaluate_every=2",
        "generate.max_seconds=0.5",
        "decode.lags=[0.1]",
    ]
    config, run = tmp_path / "two.yaml", tmp_path / "run"
    config.write_text(f"recordings: {tmp_path}/m[01].npz\n")
    assert main(["train", "--config", str(config), "--run", str(run), "--quiet", "--no-baselines", *tree]) == 0
    summary = json.loads((run / "summary.json").read_text())
    each = [json.loads((run / name / "summary.json").read_text())["bits_per_spike"] for name in ("m0", "m1")]
    assert summary["bits_per_spike"] == pytest.approx(sum(each) / 2, abs=1e-6) and summary["recordings"] == 2
    assert main(["inspect", str(run)]) == 0
    assert "recording m0: 6 units" in capsys.readouterr().out
    assert main(["generate", "--run", str(run)]) == 2
    assert "say which with --recording" in capsys.readouterr().err
    assert main(["generate", "--run", str(run), "--recording", "m1", "--quiet"]) == 0
    assert (run / "m1" / "simulated.npz").exists() and "9 units" in capsys.readouterr().out
    assert main(["decode", "--run", str(run), "--recording", "m0", "--baselines", "none", "--quiet"]) == 0
    assert "decode_speed_r2" in json.loads((run / "m0" / "summary.json").read_text())
    assert main(["attend", "--run", str(run), "--recording", "m1", "--windows", "8", "--knocked-out", "4"]) == 0
    assert main(["report", "--run", str(run), "--recording", "m1"]) == 0
    assert main(["audit", str(config), *tree]) == 0
    said = capsys.readouterr().out
    assert (run / "m1" / "report.html").exists() and "Audit of 'm0'" in said and "Audit of 'm1'" in said
    assert (
        main(
            [
                "train",
                "--config",
                str(config),
                "--run",
                str(run),
                "--overwrite",
                "--quiet",
                "--no-baselines",
                *tree,
            ]
        )
        == 0
    )
    assert "decode_speed_r2" not in json.loads((run / "m0" / "summary.json").read_text())
    assert not (run / "m1" / "simulated.npz").exists()
    assert main(["folds", "--config", str(config), "--quiet", *tree]) == 2
    assert "this works on one recording, and the configuration names 1" in capsys.readouterr().err
    assert main(["adapt", "--run", str(run)]) == 2
    assert "say which recording joins" in capsys.readouterr().err
    joins = ["adapt", "--run", str(run), f"recording.path={tmp_path}/m2.npz", "--quiet", "--no-baselines"]
    assert main([*joins, "recording.share=0.5", "--join", str(tmp_path / "all")]) == 0
    assert main(["generate", "--run", str(tmp_path / "all"), "--recording", "m2", "--quiet"]) == 0
    out = tmp_path / "run_m2"
    assert read_bundle(out).recordings[0].name == "m2" and "bits_per_spike" in json.loads(
        (out / "summary.json").read_text()
    )
    assert main(["generate", "--run", str(out), "--quiet"]) == 0
    assert main(joins) == 2
    assert "already holds a trained run" in capsys.readouterr().err


def test_the_benchmark_trains_adapts_and_pairs(tmp_path):
    small = {"duration_s": 60.0, "num_units": 6}
    overrides = [f"recordings.{i}.options={{seed: {i}, duration_s: 60.0, num_units: 6}}" for i in range(2)]
    overrides += [
        "split.block=6",
        "train.steps=4",
        "train.evaluate_every=2",
        "model.width=16",
    ]
    result = bench.run(SHARED, 2, overrides, steps=2, tries=((1, -1.0), (2, 0.4)), folder=tmp_path)
    assert set(result["minus"]) >= {"adapt_new - scratch", "adapt_all - scratch_best"}
    assert all(len(v) == 2 for v in result["scores"].values()) and small
    mean, low, high = result["minus"]["adapt_new - scratch"]
    assert low < mean < high and "bits/spike of the third" in bench.table(result)
    again = bench.run(SHARED, 2, overrides, steps=2, tries=((1, -1.0), (2, 0.4)), folder=tmp_path)
    assert again == result
    third = read_bundle(tmp_path / "seed_1" / "adapt_new").config.recording
    assert third == RecordingConfig("synthetic:shared", options=small | {"circuit": 1, "seed": 2}, share=0.1)
    with pytest.raises(ConfigError, match="is of another configuration"):
        bench.run(SHARED, 1, overrides, steps=3, tries=((1, -1.0), (2, 0.4)), folder=tmp_path)


def test_the_shipped_configuration_is_of_two_animals():
    assert len(load_config(SHARED).recordings) == 2
