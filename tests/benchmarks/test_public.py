"""Public recordings: every module says where its data come from, and reads what its format says."""

import importlib

import h5py
import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.public.command import NAMES
from benchmarks.public.decoding import measure, table
from benchmarks.public.recordings import nlb, rats
from neuroformer.bundle.bundle import load_model
from neuroformer.bundle.opening import open_run
from neuroformer.files import save_npz
from neuroformer.recording import open_recording


def test_every_module_says_where_its_data_come_from(capsys):
    for name in NAMES:
        about = importlib.import_module(f"benchmarks.public.recordings.{name}").ABOUT
        assert about.where and about.licence and about.citation and about.split
        assert main(["public", name]) == 0
        assert "licence: " in capsys.readouterr().out


def test_rats_are_cut_where_the_position_jumps(tmp_path):
    place = np.concatenate([np.linspace(0, 1.5, 100), np.linspace(0.2, 1.0, 80), [0.1], np.linspace(0.5, 1.4, 60)])
    counts = np.random.default_rng(0).poisson(0.1, (len(place), 3)).astype(np.float32)
    np.savez(tmp_path / "buddy.npz", x=counts, b=np.stack([place] * 3, 1).astype(np.float32))
    save_npz(tmp_path / "r.npz", rats.read(tmp_path / "buddy.npz"))
    rec = open_recording(tmp_path / "r.npz")
    # the single bin between two jumps is no stretch; one bin is left out before each jump
    np.testing.assert_allclose(rec.domain, np.array([[0, 99], [100, 179], [181, 240]]) * 0.025)
    assert rec.variable("position").unit == "cm" and rec.variable("position").values.max() == pytest.approx(150)
    with pytest.raises(FileNotFoundError, match="holds none of achilles.npz"):
        rats.run(tmp_path / "nowhere", tmp_path)


def test_a_lookahead_takes_the_causal_network_and_new_heads(tmp_path):
    rng = np.random.default_rng(0)
    place = np.abs((np.cumsum(0.3 + 0.05 * rng.normal(size=4000)) % 200) - 100)
    rate = 0.02 + 0.5 * np.exp(-0.5 * ((place[:, None] - [20, 50, 80]) / 15) ** 2)
    arrays = {"spikes": rng.poisson(rate).T, "spikes_dt": np.array(0.025), "position": place}
    save_npz(tmp_path / "r.npz", arrays | {"position_times": (np.arange(4000) + 0.5) * 0.025})
    tree = rats.configuration(tmp_path / "r.npz") | {"split": {"block": 10.0}, "decode": {"lags": [0.25]}}
    tree["window"] |= {"target_past": 0.5, "past": 0.25}
    small = ["train.steps=5", "model.width=16", "tune.steps=5", "train.batch_size=32"]
    causal, ahead = (
        measure(tree, tmp_path / "run", small, lookahead=seconds, baselines=("ridge",)) for seconds in (0.0, 0.5)
    )
    assert causal["bits_per_spike"] == ahead["bits_per_spike"] and np.isfinite(causal["bits_per_spike_glm_past"])
    first, second = (open_run(p) for p in (tmp_path / "run", tmp_path / "run" / "ahead_0.5"))
    assert second[1].config.window.lookahead == 0.5 and first[1].split.sha256() == second[1].split.sha256()
    old, new = (load_model(bundle).state_dict() for bundle, _ in (first, second))
    for name, weights in old.items():
        assert name.startswith("targets.") or (new[name] == weights).all(), name
    assert ahead["decode_position_median_error_ridge"] < causal["decode_position_median_error_ridge"]


def tensors(folder, rng, number=10, evaluated=4, bins=20):
    """A benchmark of six units that follow one drive, two of them held out, in trials of 20 bins of 10 ms."""
    drive = np.cumsum(rng.normal(0, 0.3, (number + evaluated, bins)), 1)
    counts = rng.poisson(0.3 * np.exp(0.6 * drive[:, :, None] * [1, -1, 1, -1, 1, -1])).astype(float)
    with h5py.File(folder / "train.h5", "w") as f:
        f["train_spikes_heldin"], f["train_spikes_heldout"] = counts[:number, :, :4], counts[:number, :, 4:]
        f["train_behavior"] = drive[:number, :, None]
    with h5py.File(folder / "eval.h5", "w") as f:
        f["eval_spikes_heldin"] = counts[number:, :, :4]
    return counts


def test_nlb_tensors_become_a_recording_and_a_run_its_submission(tmp_path):
    counts = tensors(tmp_path, np.random.default_rng(0), number=60)
    save_npz(tmp_path / "r.npz", nlb.read(tmp_path / "train.h5", tmp_path / "eval.h5", 0.01))
    rec = open_recording(tmp_path / "r.npz")
    assert (
        rec.num_units == 6 and rec.num_trials == 64 and rec.num_spikes == counts[:60].sum() + counts[60:, :, :4].sum()
    )
    assert np.unique(rec.trials["part"]).tolist() == ["eval", "test", "train", "valid"]
    seconds = rec.observed_seconds()
    assert seconds[0] == pytest.approx(64 * 0.2) and seconds[5] == pytest.approx(60 * 0.2)
    out = nlb.run(
        tmp_path,
        tmp_path / "runs",
        overrides=[
            "window.dt=0.01",
            "window.current=0.05",
            "window.past=0.1",
            "model.width=16",
            "model.heads=2",
            "train.steps=4",
            "train.evaluate_every=2",
            "train.accelerator=cpu",
        ],
    )
    assert np.isfinite([out["scores"][k] for k in ("co_bps", "behavior_r2")]).all() and "co_bps" in out["table"]
    with h5py.File(tmp_path / "runs" / "submission.h5") as f:
        found = {key: np.asarray(f[tmp_path.name][key]) for key in f[tmp_path.name]}
    shapes = {key: values.shape for key, values in found.items()}
    assert shapes == {
        "train_rates_heldin": (60, 20, 4),
        "train_rates_heldout": (60, 20, 2),
        "eval_rates_heldin": (4, 20, 4),
        "eval_rates_heldout": (4, 20, 2),
    }
    assert all((values > 0).all() for values in found.values())
    # the rates of held-out units follow what these did, though nobody saw it
    hidden = counts[60:, :, 4:].reshape(-1, 2)
    assert np.corrcoef(found["eval_rates_heldout"].reshape(-1, 2)[:, 0], hidden[:, 0])[0, 1] > 0.2
    with pytest.raises(KeyError, match="has no 'eval_spikes_heldin'"):
        nlb.read(tmp_path / "train.h5", tmp_path / "train.h5", 0.01)


def test_a_table_has_a_row_a_recording_and_both_pairs():
    scores = {"decode_x_r2": 0.5, "decode_x_r2_bayes": 0.4, "decode_x_best_baseline": "bayes"}
    scores |= {"decode_x_difference": 0.1, "decode_x_difference_low": 0.05, "decode_x_difference_high": 0.2}
    lines = table({"one": scores}, "x", "r2").splitlines()
    assert lines[2] == "| recording | model | bayes | against | model minus it | ensemble minus it |"
    assert lines[4] == "| one | 0.500 | 0.400 | bayes | 0.100 (0.050 to 0.200) |  |"
