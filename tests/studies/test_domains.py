"""Kinds of stimuli: each model is trained on what it says, and scored on the same held-out windows of every kind."""

import dataclasses
import json

import numpy as np
import pytest
import yaml
from helpers import small_config, small_recording

from neuroformer.bundle.bundle import read_bundle
from neuroformer.cli import main
from neuroformer.config import ConfigError, to_dict
from neuroformer.data.splits import make_split
from neuroformer.recording.formats.npz import write_npz
from neuroformer.studies.domains import ALL, domains


def two_kinds():
    """Trials in turn of movies and of noise; units fire twice as much to noise."""
    rec = small_recording(num_trials=20, seconds=40.0, frames=False)
    kind = np.where(np.arange(20) % 2 == 0, "movie", "noise")
    stimulus = np.array([f"{k}{n // 2}" for n, k in enumerate(kind)])
    inside = np.searchsorted(rec.trials["start"], rec.spike_times, side="right") - 1
    keep = (kind[inside] == "noise") | (np.arange(rec.num_spikes) % 2 == 0)
    trials = {**rec.trials, "kind": kind, "stimulus": stimulus}
    return dataclasses.replace(rec, spike_times=rec.spike_times[keep], spike_units=rec.spike_units[keep], trials=trials)


def config(**split):
    pattern = ["train"] * 6 + ["valid"] * 2 + ["test"] * 2
    return small_config(
        inputs=[],
        targets=[],
        loss={"contrast": []},
        window={"frames": 0.0},
        split={"by": "trials", "claim": "stimuli", "pattern": pattern} | split,
        train={"steps": 2},
    )


def test_every_model_is_trained_on_its_kind_and_scored_on_all(tmp_path):
    rec = two_kinds()
    rows = {(r.trained, r.tested): r for r in domains(rec, config(), "kind", tmp_path, progress=False)}
    assert set(rows) == {(a, b) for a in (ALL, "movie", "noise") for b in ("movie", "noise")}
    assert rows["movie", "movie"].beyond == 0 and np.isnan(rows["movie", "movie"].low)
    for name in ("movie", "noise"):
        split = make_split(rec, read_bundle(tmp_path / name).config)
        used = np.concatenate([split.blocks["train"][:, 0], split.blocks["valid"][:, 0]])
        assert set(rec.trials["kind"][used]) == {name}
        assert set(rec.trials["kind"][split.blocks["test"][:, 0]]) == {"movie", "noise"}
    both, one = rows[ALL, "movie"].train_seconds, rows["noise", "movie"].train_seconds
    assert both == pytest.approx(2 * one)
    # two steps teach nothing but the rates, and those of the other kind are wrong by a factor of two
    assert (
        rows["noise", "movie"].beyond < -0.02
        and rows["noise", "movie"].bits_per_spike < rows["movie", "movie"].bits_per_spike
    )
    again = domains(rec, config(), "kind", tmp_path, progress=False)
    assert [dataclasses.astuple(r)[:5] for r in again] == [dataclasses.astuple(r)[:5] for r in rows.values()]


def test_what_cannot_be_compared_is_refused(tmp_path):
    rec = two_kinds()
    for wrong, message, column in (
        (config(), "no column", "domain"),
        (config(pattern=["train", "test", "train", "valid"]), "has no trial whose 'kind'", "kind"),
        (config(by="blocks"), "use split.by: trials", "kind"),
    ):
        with pytest.raises(ConfigError, match=message):
            domains(rec, wrong, column, tmp_path, progress=False)


def test_the_command(tmp_path, capsys):
    write_npz(two_kinds(), tmp_path / "r.npz")
    tree = to_dict(config())
    tree["recording"]["path"] = str(tmp_path / "r.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    command = [
        "domains",
        "--config",
        str(tmp_path / "c.yaml"),
        "--run",
        str(tmp_path / "runs"),
        "--column",
        "kind",
        "--quiet",
    ]
    assert main(command) == 0
    assert "beyond its own kind" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "runs" / "domains.json").read_text())["rows"]) == 6
