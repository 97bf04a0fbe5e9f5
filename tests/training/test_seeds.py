"""Several seeds of one configuration, and sweeps over its keys."""

import json
import multiprocessing
import time

import pytest
import yaml
from helpers import small_config, small_recording

from neuroformer.bundle.bundle import read_bundle
from neuroformer.cli import main
from neuroformer.config import load_config, to_dict
from neuroformer.recording.formats.npz import write_npz
from neuroformer.training.checkpoint import FILE

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def asked(tmp_path):
    """A configuration on disk, of a recording on disk."""
    write_npz(small_recording(), tmp_path / "small.npz")
    tree = to_dict(small_config(seed=3))
    tree["recording"]["path"] = str(tmp_path / "small.npz")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    return ["--config", str(tmp_path / "small.yaml"), "--run", str(tmp_path / "run"), "--quiet"]


def test_seeds_are_runs_of_their_own_and_are_summarised(asked, tmp_path, capsys):
    train, folder = ["train", *asked, "--no-baselines"], tmp_path / "run"
    assert main([*train, "--seeds", "1"]) == 0
    weights = folder / "seed_3" / "weights" / "likelihood.safetensors"
    before = weights.stat().st_mtime_ns
    assert main([*train, "--seeds", "2"]) == 2
    assert "seed_3 already holds a trained run" in capsys.readouterr().err
    # the folder knows its configuration, and what is finished is not run again
    assert main(["train", "--run", str(folder), "--seeds", "2", "--resume", "--quiet", "--no-baselines"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("nothing to resume") == 1 and weights.stat().st_mtime_ns == before
    assert "bits_per_spike" in shown.split("2 seeds")[-1] and "train_steps" not in shown.split("2 seeds")[-1]
    assert main(["train", *asked[:2], "--run", str(tmp_path / "alone"), *train[-2:], "seed=4"]) == 0
    runs = (folder / "seed_3", folder / "seed_4", tmp_path / "alone")
    third, fourth, alone = (json.loads((f / "summary.json").read_text())["bits_per_spike"] for f in runs)
    tree = json.loads((folder / "seeds.json").read_text())
    score = tree["scores"]["bits_per_spike"]
    assert alone == fourth != third and tree["seeds"] == [3, 4] and score["values"] == [third, fourth]
    assert score["low"] < score["mean"] < score["high"] and score["mean"] == pytest.approx((third + fourth) / 2)
    assert main([*train, "--seeds", "0"]) == 2


def swept(
    asked,
    tmp_path,
    trials,
    *more,
    space="train.lr: {low: 1e-4, high: 1e-2, log: true}\nmodel.width: [16, 32]\n",
):
    (tmp_path / "space.yaml").write_text(space)
    return ["sweep", *asked, "--space", str(tmp_path / "space.yaml"), "--trials", str(trials), *more]


def test_a_sweep_goes_on_and_keeps_the_best_on_validation(asked, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(swept(asked, tmp_path, 2)) == 0
    assert main(swept(asked, tmp_path, 4)) == 0
    shown = capsys.readouterr().out
    for k in range(4):  # once as it ended; then in the table of the first two, and of all four
        assert shown.count(f"trial_{k}  ") == (3 if k < 2 else 2)
    trials = json.loads((folder / "sweep.json").read_text())["trials"]
    scores = [t["score"] for t in trials]
    assert len(trials) == 4 and scores == sorted(scores, reverse=True) and len(set(scores)) > 1
    for t in trials:
        bundle = read_bundle(folder / t["folder"])
        assert bundle.metrics["valid_best_likelihood"] == t["score"]
        assert bundle.config.train.lr == t["values"]["train.lr"] and 1e-4 <= bundle.config.train.lr <= 1e-2
        assert bundle.config.model.width == t["values"]["model.width"] in (16, 32)
        assert not (folder / t["folder"] / "summary.json").exists()  # nobody looked at test data
    best = load_config(folder / "best.yaml")
    assert best.train == read_bundle(folder / trials[0]["folder"]).config.train
    assert main(swept(asked, tmp_path, 4, "train.weight_decay=0.5")) == 2
    assert "train.weight_decay is 0.5, was 0.05" in capsys.readouterr().err
    assert main(swept(asked, tmp_path, 4, space="train.lr: [1e-3, 1e-2]")) == 2
    assert "holds a sweep over" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("train.rl: [1, 2]", "unknown key 'train.rl'"),
        ("train.steps: {low: 1.5, high: 3}", "expected int"),
        ("train.lr: {low: 1, high: 1}", "expected a list of two choices or more, or low < high"),
        ("train.lr: {low: 0, high: 1, log: true}", "above 0 with"),
        ("train.lr: {from: 0, high: 1}", "expected a list"),
        ("train.lr: [1]", "expected a list"),
        ("{}", "names no key"),
    ],
)
def test_a_space_that_cannot_be_is_refused(asked, tmp_path, capsys, space, message):
    assert main(swept(asked, tmp_path, 2, space=space)) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_what_cannot_be_run_is_reported_and_left(asked, tmp_path, capsys):
    assert main(swept(asked, tmp_path, 4, space="model.heads: [2, 3]")) == 0
    trials = json.loads((tmp_path / "run" / "sweep.json").read_text())["trials"]
    assert {t["values"]["model.heads"]: t["score"] is None for t in trials} == {2: False, 3: True}
    assert "cannot be run: model.width is 16; expected a multiple of model.heads = 3" in capsys.readouterr().out


@pytest.fixture
def impatient(monkeypatch):
    """Trials that were killed are noticed soon."""
    from neuroformer.studies import sweep as module

    monkeypatch.setattr(module, "HEARTBEAT_S", 1)
    monkeypatch.setattr(module, "GRACE_S", 2)


def test_a_killed_trial_goes_on(asked, tmp_path, impatient):
    long = ["train.steps=20", "train.checkpoint_every=0", "train.evaluate_every=20"]
    victim = FORK.Process(target=main, args=(swept(asked, tmp_path, 1, *long),))
    victim.start()
    folder = tmp_path / "run"
    while not (folder / "trial_0" / FILE).exists():
        time.sleep(0.01)
    victim.kill()
    victim.join()
    assert (folder / "trial_0" / FILE).exists() and not (folder / "trial_0" / "bundle.json").exists()
    assert main(swept(asked, tmp_path, 1, *long)) == 0
    (trial,) = json.loads((folder / "sweep.json").read_text())["trials"]
    assert trial["folder"] == "trial_0" and read_bundle(folder / "trial_0").metrics["train_steps"] == 20


@pytest.mark.slow
def test_two_processes_share_a_sweep(asked, tmp_path, impatient):
    both = [FORK.Process(target=main, args=(swept(asked, tmp_path, 7),)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [p.exitcode for p in both] == [0, 0]
    trials = json.loads((tmp_path / "run" / "sweep.json").read_text())["trials"]
    assert len(trials) == 7 == len({t["values"]["train.lr"] for t in trials}) == len({t["folder"] for t in trials})
