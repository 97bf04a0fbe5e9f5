"""Probes and embeddings: they find what is there, and say nothing where there is nothing."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from driven import driven_recording
from helpers import small_config, small_model

from neuroformer.cli import main
from neuroformer.config import ConfigError, TargetConfig, to_dict
from neuroformer.decoding.finetune import extend
from neuroformer.recording.formats.npz import write_npz
from neuroformer.studies import embeddings as embedding
from neuroformer.studies.embeddings import agreement, alignment_bits, bits_beside_null, consistency, consistency_across
from neuroformer.studies.probes import probe, representations

SECTIONS = {
    "window": {"frames": 0.0},
    "targets": [],
    "decode": {"lags": [0.2]},
    "split": {"gap": 0.2},
    "loss": {"contrast": [{"pair": ["neural", "behavior"]}]},
}


def test_every_representation_is_probed_on_held_out_windows():
    model, prepared = small_model(driven_recording(), small_config(**SECTIONS))
    model, prepared = extend(model.float(), prepared, [TargetConfig("speed")])
    rows = probe(model, prepared, TargetConfig("speed"))
    names = [r["representation"] for r in rows]
    assert names[:2] == ["random", "past"] and names[-1] == "contrast" and len(names) == 9
    assert "block 2 (past)" in names
    for r in rows:
        assert np.isnan(r["low"]) and np.isnan(r["high"])  # a few seconds of slow speed are held out
    assert max(r["r2"] for r in rows) > 0.2
    with pytest.raises(ConfigError, match="'choice' cannot be probed"):
        probe(model, prepared, TargetConfig("choice", "classification"))


def test_the_past_alone_does_not_know_the_window():
    """A change of the current spikes moves only what has seen them."""
    model, prepared = small_model(driven_recording(), small_config(**SECTIONS))
    windows = prepared.windows("test")[:1]
    before = representations(model, prepared, windows)
    batch = prepared.builder(windows)
    prepared.builder.index.unit[:] = (prepared.builder.index.unit + 1) % 3
    past = prepared.builder.index.keys < int(windows.tick[0])
    prepared.builder.index.unit[past] = (prepared.builder.index.unit[past] + 2) % 3
    after = representations(model, prepared, windows)
    assert batch.num_spikes > 0
    np.testing.assert_allclose(after["past"], before["past"])
    assert not np.allclose(after["past + stimulus + current"], before["past + stimulus + current"])


def test_consistency_is_one_for_a_linear_image_and_none_for_noise():
    rng = np.random.default_rng(0)
    a, noise = rng.normal(size=(400, 5)), rng.normal(size=(400, 5))
    b = a @ rng.normal(size=(5, 5)) + 2
    both = consistency(a[:300], b[:300], a[300:], b[300:])
    assert both["a_to_b"] == pytest.approx(1) and both["b_to_a"] == pytest.approx(1)
    assert consistency(a[:300], noise[:300], a[300:], noise[300:])["a_to_b"] < 0.05


def test_bits_of_an_untrained_alignment_are_about_none():
    model, prepared = small_model(driven_recording(), small_config(**SECTIONS))
    with torch.no_grad():
        model.alignment.log_scale[0].zero_()
    bits = alignment_bits(model, prepared, prepared.windows("test"), batch_size=64)
    assert abs(bits["contrast_neural_behavior_bits"]) < 0.5


def test_the_commands(tmp_path, capsys, monkeypatch):
    import yaml

    write_npz(driven_recording(), tmp_path / "r.npz")
    config = to_dict(small_config(**SECTIONS))
    config["recording"]["path"] = str(tmp_path / "r.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    run = str(tmp_path / "run")
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--run", run, "--no-baselines", "--quiet"]) == 0
    assert main(["probe", "--run", run, "--target", "speed", "--quiet"]) == 0
    assert "past + stimulus + current" in capsys.readouterr().out
    more = ["--against", run, "--features", "contrast", "--components", "3", "--color", "speed", "--quiet"]
    assert main(["embed", "--run", run, *more]) == 0
    assert re.search(r"embed_consistency_a_to_b +1\n", capsys.readouterr().out)  # a run agrees with itself
    assert np.load(tmp_path / "run" / "embedding.npz")["features"].shape[1] == 3
    assert (tmp_path / "run" / "embedding.png").is_file()
    # another animal, split alike: its windows are not ours, whatever their times
    rec, other = driven_recording(), str(tmp_path / "other")
    write_npz(dataclasses.replace(rec, spike_times=rec.spike_times + 1e-3), tmp_path / "r2.npz")
    asked = ["--config", str(tmp_path / "c.yaml"), "--run", other, f"recording.path={tmp_path / 'r2.npz'}"]
    assert main(["train", *asked, "--no-baselines", "--quiet"]) == 0
    across = []
    monkeypatch.setattr(embedding, "consistency_across", lambda *sides: across.append(sides) or {"a_to_b": 0.0})
    assert main(["embed", "--run", run, "--against", other, *more[2:]]) == 0
    assert len(across) == 1 + embedding.SURROGATES


def test_a_consistency_that_comes_from_inputs_is_reached_by_its_null():
    """Without past spikes, states are functions of frames and behavior, whatever units do; with them, units matter."""
    rec = driven_recording()
    blind = small_model(
        rec, small_config(**SECTIONS | {"window": {"past": 0.0, "frames": 0.0}, "loss": {"contrast": []}})
    )
    found = agreement(blind, blind, "state")
    assert found["a_to_b_reached_by_null"] and found["a_to_b_null"] == pytest.approx(1)
    seeing = small_model(rec, small_config(**SECTIONS))
    found = agreement(seeing, seeing, "state")
    assert found["a_to_b"] == pytest.approx(1) and found["a_to_b_null"] < 0.9
    assert not found["a_to_b_reached_by_null"]
    bits = bits_beside_null(*seeing, seeing[1].windows("test"))
    assert set(bits) == {"contrast_neural_behavior_bits", "contrast_neural_behavior_bits_null"}


def test_recordings_of_two_animals_agree_along_a_behavior():
    """Different windows, different units: features that are functions of one variable agree, others do not."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((3, 3))

    def run(count, turn, noise):
        v = rng.uniform(0, 6, count)
        return np.stack([np.sin(v), np.cos(v), v], 1) @ turn + noise * rng.standard_normal((count, 3)), v

    sides = [{"train": run(3000, m, 0.1), "test": run(2000, m, 0.1)} for m in (np.eye(3), mix)]
    assert min(consistency_across(*sides).values()) > 0.95
    noise = {p: (rng.standard_normal(x.shape), v) for p, (x, v) in sides[1].items()}
    assert consistency_across(sides[0], noise)["a_to_b"] < 0.3
    with pytest.raises(ConfigError, match="too few to align"):
        consistency_across(*sides, num_bins=3)
