"""What a user meets: stopping and going on from the command line, a loss that is no number, the logs."""

import csv
import json
import multiprocessing
import os
import signal
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from helpers import small_config, small_recording
from safetensors.torch import load_file

from neuroformer.cli import main
from neuroformer.cli.shared import only_process
from neuroformer.config import ConfigError, from_dict, to_dict
from neuroformer.data.prepared import prepare
from neuroformer.model.network import Neuroformer
from neuroformer.recording import Recording
from neuroformer.recording.formats.npz import write_npz
from neuroformer.training import log
from neuroformer.training.checkpoint import FILE
from neuroformer.training.loop import NonFiniteLoss, Trainer
from neuroformer.training.scoring.validation import Validation
from neuroformer.training.train import train

FORK = multiprocessing.get_context("fork")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_the_command_and_resume_ends_the_run(tmp_path, capsys, number, code):
    write_npz(small_recording(), tmp_path / "small.npz")
    tree = to_dict(small_config(train={"steps": 30, "checkpoint_every": 0.0}))
    tree["recording"]["path"] = str(tmp_path / "small.npz")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    folder = tmp_path / "run"
    begin = [
        "train",
        "--config",
        str(tmp_path / "small.yaml"),
        "--run",
        str(folder),
        "--quiet",
        "--no-baselines",
    ]
    process = FORK.Process(target=lambda: sys.exit(main(begin)))
    process.start()
    while not (folder / FILE).exists():
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == code and not (folder / "bundle.json").exists()
    assert main(["inspect", str(folder)]) == 2 and "has not ended" in capsys.readouterr().err
    assert main(begin) == 2
    assert "holds a run that was stopped; --resume it" in capsys.readouterr().err
    assert main([*begin, "--resume", "train.lr=1.0"]) == 2
    assert "train.lr is 1.0, was 0.002" in capsys.readouterr().err
    assert main(["train", "--run", str(folder), "--resume", "--quiet", "--no-baselines"]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["train_steps"] == 30 and "bits_per_spike" in summary
    assert not (folder / FILE).exists()
    capsys.readouterr()
    assert main([*begin, "--resume"]) == 0
    assert "nothing to resume" in capsys.readouterr().out
    assert main([*begin, "--resume", "train.lr=1.0"]) == 2
    assert "train.lr is 1.0, was 0.002" in capsys.readouterr().err
    (folder / "summary.json").unlink()  # killed while scoring
    assert main(["train", "--run", str(folder), "--resume", "--quiet", "--no-baselines"]) == 0
    assert json.loads((folder / "summary.json").read_text())["bits_per_spike"] == summary["bits_per_spike"]


def test_resume_needs_a_run_or_a_configuration(tmp_path, capsys):
    assert main(["train"]) == 2
    assert "give --config FILE, or --run FOLDER --resume" in capsys.readouterr().err
    assert main(["train", "--run", str(tmp_path), "--resume"]) == 2
    assert "holds no run to resume" in capsys.readouterr().err


def test_a_loss_that_is_no_number_names_the_term_and_the_windows(tmp_path, monkeypatch):
    forward = Neuroformer.forward

    def poisoned(self, batch):
        output = forward(self, batch)
        bad = (batch.tick_W == 105) & self.training | (batch.tick_W == 105) & (batch.num_windows == 1)
        rows = bad.repeat_interleave(batch.current.lengths_B + 1)
        output.observed.dt_nll_T = output.observed.dt_nll_T.masked_fill(rows, torch.nan)
        return output

    monkeypatch.setattr(Neuroformer, "forward", poisoned)
    c = small_config(train={"steps": 50, "checkpoint_every": 0.0, "jitter": False, "evaluate_every": 50})
    with pytest.raises(NonFiniteLoss, match=r"dt is not .*windows at 1\.05 s of 'small'; the last good") as e:
        train(small_recording(), c, tmp_path, progress=False)
    assert str(tmp_path / FILE) in str(e.value)
    from safetensors.torch import load_file

    assert all(torch.isfinite(x.float()).all() for x in load_file(tmp_path / FILE).values())


def test_the_bar_and_the_log(tmp_path, capsys):
    train(small_recording(), small_config(train={"steps": 6, "evaluate_every": 3}), tmp_path)
    shown = capsys.readouterr().err
    for part in ("6/6", "dt=", "id=", "contrast_neural_frames=", "tokens/s=", "best_bits=", "step/s"):
        assert part in shown, part
    rows = list(csv.DictReader((tmp_path / "log" / "metrics.csv").open()))
    assert [r["step"] for r in rows if r["train/loss"]] == ["2", "5"]
    assert [r["step"] for r in rows if r["valid/bits_per_spike"]] == ["2", "5"]


def test_validation_follows_the_passes_and_patience_any_score(tmp_path, monkeypatch, capsys):
    """Spikes are best at the first evaluation, speed at the second."""
    rec = small_recording()
    write_npz(rec, tmp_path / "small.npz")
    tree = to_dict(small_config(train={"steps": 400, "batch_size": 32, "evaluate_every": 0, "patience": 1}))
    tree["recording"]["path"] = str(tmp_path / "small.npz")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    found = iter([(2.0, 0.1), (1.0, 0.2), (1.0, 0.2)])

    def scores(self, place, step, most):
        bits, speed = next(found)
        same = dict.fromkeys(("bits_per_spike", "bits_per_spike_rate_readout", "likelihood"), bits)
        return same | {"speed_score": speed, "gaze_score": 0.0}

    monkeypatch.setattr(Validation, "of_recording", scores)
    assert main(["train", "--config", str(tmp_path / "small.yaml"), "--run", str(tmp_path / "run")]) == 0
    num_batches = len(prepare(rec, from_dict(tree)).windows("train")) // 32
    assert 20 < 2 * num_batches < 200
    rows = list(csv.DictReader((tmp_path / "run" / "log" / "metrics.csv").open()))
    evaluated = [int(r["step"]) + 1 for r in rows if r["valid/likelihood"]]
    assert evaluated == [2 * num_batches * n for n in (1, 2, 3)]
    assert f"stopped after {evaluated[-1]} of 400 steps" in capsys.readouterr().out


def test_small_gains_end_training_unless_they_add_up(tmp_path, monkeypatch):
    """Gains of 0.4 % count once three of them are 1 %; then gains of 0.1 % do not. The best weights are kept all the same."""
    found = iter([1.0, 1.004, 1.008, 1.012, 1.013, 1.014, 1.015, 1.016, 1.017])

    def scores(self, place, step, most):
        same = dict.fromkeys(("bits_per_spike", "bits_per_spike_rate_readout", "likelihood"), next(found))
        return same | {"speed_score": 0.0, "gaze_score": 0.0}

    monkeypatch.setattr(Validation, "of_recording", scores)
    config = small_config(train={"steps": 100, "evaluate_every": 1, "patience": 3})
    metrics = train(small_recording(), config, tmp_path, progress=False)[1]
    assert metrics["train_steps"] == 7 and metrics["valid_best_likelihood"] == 1.015


def test_what_is_done_is_said_again_and_kept_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "LONGEST_SILENCE_S", 0.05)
    shown = []
    file = tmp_path / "log" / "metrics.csv"
    rows = log.Log(file, ["train/loss"], 0)
    rows.add(3, {"train/loss": 1.0})
    rows.flush()
    with log.told(tmp_path / "log", shown.append) as say:
        say("fitting")
        time.sleep(0.3)
        say("scoring")
    found = list(csv.DictReader(file.open()))
    assert found[0] == {"step": "3", "train/loss": "1.0", "doing": ""}
    assert [(r["step"], r["train/loss"], r["doing"]) for r in found[1:]] == [("3", "", line) for line in shown]
    log.Log(file, ["train/loss"], 4)  # what a resumed run keeps
    assert list(csv.DictReader(file.open())) == found[:1]
    assert shown[0] == "fitting" and shown[-1] == "scoring" and sum(line.startswith("fitting: ") for line in shown) >= 2
    assert len((tmp_path / "log" / "progress.txt").read_text().splitlines()) == len(shown)
    number = len(shown)
    time.sleep(0.15)
    assert len(shown) == number  # nothing goes on in the background


def test_rows_of_slow_steps_reach_the_log(tmp_path, monkeypatch):
    """With steps of a minute, every one is a row, and on the disk at once."""
    monkeypatch.setattr(log, "LONGEST_SILENCE_S", 0.0)
    rows = log.Log(tmp_path / "metrics.csv", ["train/loss"], 0)
    assert rows.silent_s >= 0
    rows.add(0, {"train/loss": 1.0})
    assert (tmp_path / "metrics.csv").read_text().splitlines()[-1] == "0,1.0,"


def test_without_labels_to_validate_by_the_likelihood_chooses_and_patience_ends(tmp_path, monkeypatch):
    """A score that is no number used to count as better each time: the run never ended, its last weights decoded."""
    found = iter([1.0, 2.0, 1.0, 1.0])
    nan = float("nan")

    def scores(self, place, step, most):
        same = dict.fromkeys(("bits_per_spike", "bits_per_spike_rate_readout", "likelihood"), next(found))
        return same | {"speed_score": nan, "gaze_score": nan}

    monkeypatch.setattr(Validation, "of_recording", scores)
    config = small_config(train={"steps": 100, "evaluate_every": 1, "patience": 2})
    assert train(small_recording(), config, tmp_path, progress=False)[1]["train_steps"] == 4
    best, speed = (load_file(tmp_path / "weights" / f"{name}.safetensors") for name in ("likelihood", "speed"))
    assert all(torch.equal(best[name], speed[name]) for name in best)


def test_a_part_without_a_window_is_refused(tmp_path):
    config = small_config(window={"target_past": 5.0}, split={"block": 8.0, "gap": 5.0})
    with pytest.raises(ConfigError, match="no window for 'valid': its longest block there lasts 3 s.*target_past 5 s"):
        train(small_recording(), config, tmp_path)


def test_accumulated_pieces_add_up_to_the_batch(tmp_path):
    """The same losses and nearly the same weights, whether a batch is computed whole or in ragged pieces."""
    settings = {"steps": 6, "batch_size": 50, "evaluate_every": 6, "checkpoint_every": 1e6}
    logs = []
    for pieces in (1, 3):
        c = small_config(loss={"contrast": []}, train=settings | {"accumulate": pieces})
        train(small_recording(), c, tmp_path / str(pieces), progress=False)
        rows = csv.DictReader((tmp_path / str(pieces) / "log" / "metrics.csv").open())
        logs.append([float(v) for r in rows for v in r.values() if v])
    assert logs[0] == pytest.approx(logs[1], rel=2e-5, abs=1e-6) and len(logs[0]) > 15


def test_weights_and_biases_works_offline_without_an_account(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("WANDB"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(small_recording(), small_config(train={"wandb": True}), tmp_path / "run", progress=False)
    files = list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 1 and b"bits_per_spike" in files[0].read_bytes()


def test_times_that_look_like_milliseconds_are_reported_before_the_audit_walks_through_them(
    tmp_path, capsys, monkeypatch
):
    def walked(*args):
        raise ValueError("the audit began")

    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 200_000, 400))
    rec = Recording(
        name="ms",
        spike_times=times,
        spike_units=rng.integers(0, 4, 400),
        units={"id": np.arange(4)},
        domain=np.array([[0.0, 200_000.0]]),
    )
    write_npz(rec, tmp_path / "ms.npz")
    monkeypatch.setattr("neuroformer.training.train.audit", walked)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"window": {"frames": 0.0}, "inputs": [], "targets": []}))
    begin = ["train", "--config", str(tmp_path / "c.yaml"), "--run", str(tmp_path / "run"), "--quiet"]
    assert main([*begin, f"recording.path={tmp_path / 'ms.npz'}"]) == 2
    got = capsys.readouterr()
    assert "the audit began" in got.err and got.out.count("milliseconds_as_seconds") == 1


def test_ctrl_c_within_folds_saves_and_the_same_command_goes_on(tmp_path, capsys, monkeypatch):
    write_npz(small_recording(frames=False), tmp_path / "small.npz")
    tree = to_dict(
        small_config(
            window={"frames": 0.0},
            loss={"contrast": []},
            targets=[{"name": "speed"}],
            train={"steps": 12},
            decode={"lags": [0.2]},
            tune={"steps": 2},
        )
    )
    tree["recording"]["path"] = str(tmp_path / "small.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    folds = ["folds", "--config", str(tmp_path / "c.yaml"), "--run", str(tmp_path / "f"), "--only", "0"]
    folds += ["--baselines", "ridge", "--quiet"]
    advance, begun = Trainer._advance, []

    def interrupted(self, pieces):
        begun.append(self.progress.step)
        if self.progress.step == 5 and len(begun) < 8:
            os.kill(os.getpid(), signal.SIGINT)
        advance(self, pieces)

    monkeypatch.setattr(Trainer, "_advance", interrupted)
    assert main(folds) == 130
    assert "SIGINT: saved at step 6 of 12" in capsys.readouterr().err
    assert main(folds) == 0
    assert begun == list(range(12))


def test_bins_that_are_not_the_generators_have_no_ceiling_and_all_other_scores(tmp_path, capsys):
    tree = to_dict(small_config(window={"dt": 0.05, "past": 0.1, "frames": 0.1}, train={"steps": 1}))
    tree |= {"recording": {"path": "synthetic:shared"}, "inputs": [], "targets": [], "loss": {"contrast": []}}
    tree["split"]["block"] = 60.0
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    argv = ["train", "--config", str(tmp_path / "c.yaml"), "--run", str(tmp_path / "run"), "--quiet"]
    assert main([*argv, "--no-baselines"]) == 0
    assert "bits_per_spike_oracle is left out: the generator's bin is 0.01 s" in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "bits_per_spike" in summary and "bits_per_spike_oracle" not in summary


def test_a_second_process_does_not_train_into_the_same_folder(tmp_path, capsys):
    tree = to_dict(small_config())
    tree["recording"]["path"] = str(tmp_path / "small.npz")
    write_npz(small_recording(), tmp_path / "small.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    argv = ["train", "--config", str(tmp_path / "c.yaml"), "--run", str(tmp_path / "run"), "--quiet"]
    holding, done = FORK.Event(), FORK.Event()

    def hold():
        with only_process(tmp_path / "run", "training into"):
            holding.set()
            done.wait(60)
            os.kill(os.getpid(), signal.SIGKILL)

    other = FORK.Process(target=hold)
    other.start()
    assert holding.wait(60)
    assert main([*argv, "--overwrite"]) == 2
    assert "another process is training into" in capsys.readouterr().err
    done.set()
    other.join()
    assert main([*argv, "--no-baselines"]) == 0  # the system let go of it
