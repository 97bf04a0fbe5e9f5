"""Words in the trials table (left, right) as classes: declared, decoded, reported under their names."""

import dataclasses
import json

import numpy as np
import pytest
import yaml
from helpers import small_config, small_model, small_recording

from neuroformer.cli import main
from neuroformer.config import ConfigError, to_dict
from neuroformer.data.normalization import fit_normalization
from neuroformer.data.prepared import prepare
from neuroformer.data.scales import VariableScale
from neuroformer.data.splits import make_split
from neuroformer.data.windows import SpikeIndex
from neuroformer.decoding.decode import Decoded, score_decoded
from neuroformer.recording.formats.npz import write_npz
from neuroformer.studies.probes import probe

CHOICE = {"name": "choice", "kind": "classification"}


def choosing(words=("left", "right")):
    """Forty trials of a second, each with a word."""
    rec = small_recording(num_trials=40, frames=False)
    words = np.array(words)[np.random.default_rng(1).integers(0, len(words), 40)]
    return dataclasses.replace(rec, trials={**rec.trials, "choice": words})


def config(**sections):
    tree = {"window": {"frames": 0.0}, "inputs": [], "targets": [CHOICE], "loss": {"contrast": []}}
    tree |= {"split": {"by": "trials"}, "decode": {"lags": [0.2]}}
    return small_config(**{**tree, **sections})


def test_words_are_decoded_and_reported_under_their_names(tmp_path, capsys):
    write_npz(choosing(), tmp_path / "r.npz")
    tree = to_dict(config())
    tree["recording"]["path"] = str(tmp_path / "r.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    run = tmp_path / "run"
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--run", str(run), "--no-baselines", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["decode", "--run", str(run), "--baselines", "ridge", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "recall of left" in out and "recall of right" in out
    summary = json.loads((run / "summary.json").read_text())
    recalls = [summary[f"decode_choice_{word}_recall"] for word in ("left", "right")]
    assert np.mean(recalls) == pytest.approx(summary["decode_choice_accuracy"], abs=1e-6)
    assert {"decode_choice_left_recall_ridge_low", "decode_choice_chance"} <= set(summary)
    with np.load(run / "decode_choice.npz") as file:
        assert list(file["words"]) == ["left", "right"] and set(file["true"].ravel()) == {0, 1}
    assert main(["report", "--run", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "choice (0 left, 1 right)" in page and "Decoding of choice, balanced accuracy" in page
    write_npz(choosing(("left", "miss", "right")), tmp_path / "other.npz")
    capsys.readouterr()
    assert main(["decode", "--run", str(run), f"recording.path={tmp_path / 'other.npz'}"]) == 2
    assert "holds left, miss, right, and the model was trained on left, right" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"targets": [{"name": "choice"}]}, "declare the target with kind: classification"),
        ({"targets": [], "inputs": [{"name": "choice"}]}, "an input is numbers"),
    ],
)
def test_words_are_no_numbers(sections, said):
    with pytest.raises(ConfigError, match=rf"'choice' of 'small' is recorded as words \(left, right\); {said}"):
        prepare(choosing(), config(**sections))


def test_words_cannot_be_probed():
    model, prepared = small_model(choosing(), config())
    with pytest.raises(ConfigError, match="'choice' is recorded as words and a probe is a regression"):
        probe(model, prepared, prepared.config.targets[0])


def test_recall_of_a_class_is_the_share_of_its_values_that_are_decoded_as_it():
    true, model = np.array([0.0, 0, 0, 1, np.nan])[:, None], np.array([0.0, 1, 0, 1, 1])[:, None]
    decoded = Decoded("x", np.arange(5.0), np.zeros(5, int), true, {"model": model}, classes={0: "a", 1: "b"})
    found = score_decoded(decoded, config().targets[0], ["x"], intervals=False)
    assert found["decode_x_a_recall"] == pytest.approx(2 / 3) and found["decode_x_b_recall"] == 1
    assert found["decode_x_accuracy"] == pytest.approx(5 / 6)


def test_a_word_that_training_never_saw_keeps_its_name():
    rec = choosing()
    held_out = make_split(rec, config()).intervals("test")[:, 0]
    starts = rec.trials["start"]
    words = np.where(np.isin(np.round(starts), np.round(held_out)), "miss", rec.trials["choice"])
    rec = dataclasses.replace(rec, trials={**rec.trials, "choice": words})
    split = make_split(rec, config())
    index = SpikeIndex.from_recording(rec, split.segments, 0.01)
    scale = fit_normalization(rec, split, config(), index).targets["choice"]
    assert scale == VariableScale(classes=[0, 2], words=["left", "miss", "right"])
