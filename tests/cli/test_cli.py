"""What the command line says when a folder cannot be written, a file is missing, or the model is below its baseline."""

import json
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from neuroformer import cli
from neuroformer.cli import _message, main
from neuroformer.cli.shared import refuse_unwritable, summarise
from neuroformer.cli.tables import verdict
from neuroformer.cli.trained.generate import _print_drift, _print_scores
from neuroformer.cli.training.train import _say_if_below_baseline
from neuroformer.config import ConfigError
from neuroformer.intervals import FewBlocksWarning

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/demo.yaml")


def test_training_into_a_path_behind_a_file_ends_at_once_in_one_message(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", "--config", CONFIG, "--run", str(tmp_path / "file" / "run")]) == 2
    out, err = capsys.readouterr()
    assert not out and "is a file; give another folder with --run" in err and "Errno" not in err


def test_simulating_into_such_a_path_is_refused_before_the_run_is_opened(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "sim.npz")
    assert main(["generate", "--run", str(tmp_path / "none"), "--out", out]) == 2
    assert "give another folder with --out" in capsys.readouterr().err


def test_a_folder_without_permission_is_refused_and_a_new_one_is_not_made(tmp_path, monkeypatch):
    refuse_unwritable(tmp_path / "a" / "b", "--run")
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # tests may run as root
    with pytest.raises(ConfigError, match="no permission to write in .* with --run"):
        refuse_unwritable(tmp_path / "a" / "b", "--run")


def test_messages_of_the_system_say_what_to_do(tmp_path):
    with pytest.raises(OSError) as e:
        (tmp_path / "absent").read_text()
    assert _message(e.value) == f"{tmp_path / 'absent'}: no such file or directory; check the path"
    assert _message(OSError("the cable is out")) == "the cable is out"


@pytest.mark.parametrize("ask", [lambda: np.zeros(2**58), lambda: torch.zeros(2**58), lambda: bytearray(2**62)])
def test_no_room_is_one_message(ask, monkeypatch, capsys):
    asked = SimpleNamespace(do=lambda args: ask(), debug=False)
    monkeypatch.setattr(cli, "_parse", lambda argv: asked)
    assert main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("neuroformer: out of memory") and "recording.units" in said and "explain memory" in said
    asked.debug = True
    with pytest.raises((MemoryError, RuntimeError)):
        main([])
    asked.debug, asked.do = False, lambda args: torch.zeros(2) @ torch.zeros(3)  # other faults are not taken for it
    with pytest.raises(RuntimeError):
        main([])


@pytest.mark.parametrize(
    "scores, said",
    [
        ({"bits_per_spike": 0.5, "bits_per_spike_glm": 0.6}, "worse than the Poisson GLM (0.500 against 0.600"),
        ({"bits_per_spike": -0.1}, "worse than constant rates (-0.100 against 0.000"),
        ({"bits_per_sample": 0.1, "bits_per_sample_autoregression": 0.3}, "the linear autoregression"),
        ({"bits_per_spike": 0.7, "bits_per_spike_glm": 0.6}, ""),
        ({"bits_per_spike": 0.1}, ""),
    ],
)
def test_a_model_below_its_baseline_is_called_so_in_words(scores, said, capsys):
    _say_if_below_baseline(scores)
    out = capsys.readouterr().out
    assert said in out if said else not out


def test_a_single_held_out_trial_has_no_intervals_and_no_nan(capsys):
    nan = float("nan")
    _print_scores({"model": {"rate_r": [0.5, nan, nan]}, "ceiling": {"rate_r": [0.6, nan, nan]}})
    said = capsys.readouterr().out
    assert "no 95 % intervals: they are over held-out trials" in said
    late = {"since_s": 32, "until_s": 64, "model": {"rate_r": [0.5, nan, nan]}}
    _print_drift({"start_s": [0.0], "rate_r": [0.5]}, late)
    said += capsys.readouterr().out
    assert "rate_r 0.500\n" in said and "nan" not in said
    _print_scores({"model": {"rate_r": [0.5, 0.1, 0.9]}})
    assert "no 95 %" not in capsys.readouterr().out


def test_the_summary_keeps_what_it_does_not_print(tmp_path, capsys):
    summarise(tmp_path, {"printed": 1.0})
    summarise(tmp_path, {}, {"kept": float("nan")})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"printed": 1.0, "kept": None}
    out = capsys.readouterr().out
    assert "printed  1" in out and "kept" not in out


def test_a_verdict_says_what_the_table_shows():
    scores = {"decode_x_r2": 0.6, "decode_x_r2_control": 0.1, "decode_x_best_baseline": "ridge"}
    ends = lambda low, high: (
        scores | {"decode_x_difference_low": low, "decode_x_difference_high": high, "decode_x_difference": 0.0}
    )
    said = lambda scores: " ".join(verdict("x", "decode_x_r2", scores))
    assert "no evidence that spikes tell x" in said(ends(0.1, 0.2) | {"decode_x_r2_control": 0.59})
    assert "above ridge" in said(ends(0.01, 0.2)) and "below ridge" in said(ends(-0.2, -0.01))
    assert "not shown to differ from ridge" in said(ends(-0.1, 0.1)) and "cannot be told" in said(ends(np.nan, np.nan))
    ensemble = {f"decode_x_difference_ensemble{end}": x for end, x in (("", 0.1), ("_low", 0.05), ("_high", 0.2))}
    assert "the ensemble with its readouts is above ridge" in said(ends(-0.1, 0.1) | ensemble)
    assert said(scores) == ""


def test_that_scores_have_no_interval_is_said_once(monkeypatch, capsys):
    def many(args):
        for name in ("speed R2", "speed r", "position R2"):
            warnings.warn(f"no 95 % interval of {name}: too few", FewBlocksWarning, stacklevel=1)

    monkeypatch.setattr(cli, "_parse", lambda argv: SimpleNamespace(do=many, debug=False))
    for _ in range(2):  # every command anew
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert main([]) == 0
        lines = capsys.readouterr().err.strip().splitlines()
        assert sum("too few" in line for line in lines) == 1
        assert lines[-1].endswith("for the same reason there is none of speed r, position R2")
