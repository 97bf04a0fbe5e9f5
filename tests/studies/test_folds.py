"""Folds: everything is held out once, and heads are fitted on the rest."""

import dataclasses

import numpy as np
import pytest
import torch
from driven import SPEED, TUNE, driven_recording, pretrained
from helpers import small_config

from neuroformer.config import ConfigError
from neuroformer.data.prepared import prepare
from neuroformer.data.splits import make_split
from neuroformer.decoding.decode import every_window, predict_targets, true_values
from neuroformer.decoding.finetune import fit_heads
from neuroformer.metrics import r2
from neuroformer.studies.folds import fold_config, labelled_windows


def test_fitting_heads_on_labels_moves_heads_alone_and_helps():
    model, prepared = pretrained([{"name": "speed"}])
    windows = every_window(prepared)
    assert len(windows) > 4 * len(labelled_windows(prepared)[0])  # every phase of the grid
    true = true_values(prepared, windows)["speed"]
    fitted = fit_heads(model, prepared, windows, [SPEED], dataclasses.replace(TUNE, steps=60))
    before, after = model.state_dict(), fitted.state_dict()
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert moved and all(n.startswith("targets.speed") for n in moved)
    score = lambda m: r2(true, predict_targets(m, prepared, windows)["speed"])[0]
    assert score(fitted) > max(0.3, score(model) + 0.2)


def test_folds_hold_out_everything_once():
    rec = driven_recording()
    config = small_config(
        window={"frames": 0.0}, targets=[{"name": "speed"}], split={"gap": 0.2}, loss={"contrast": []}
    )
    held = []
    for fold in range(3):
        prepared = prepare(rec, fold_config(config, rec, fold, 3))
        held.append(prepared.split.intervals("test"))
        assert len(held[-1]) == 1 and held[-1][0, 1] - held[-1][0, 0] > 19
        assert prepared.split.seconds("train") > 10 * prepared.split.seconds("valid") > 0
    edges = np.concatenate(held)
    assert (edges[1:, 0] - edges[:-1, 1] <= 0.2 + 1e-6).all()
    with pytest.raises(ConfigError, match="fold 3 of 3 does not exist"):
        fold_config(config, rec, 3, 3)
    assert fold_config(config, rec, 0, 3).train == config.train  # its validation stretch may stop it
    never = dataclasses.replace(config, train=dataclasses.replace(config.train, patience=0))
    assert fold_config(never, rec, 0, 3).train.evaluate_every == config.train.steps


def test_folds_are_contiguous_where_the_domain_is_many_short_intervals():
    """A recording of trials is one; the pattern used to start again after so many of them as there are stretches."""
    edges = np.arange(0, 60, 2.0)
    rec = dataclasses.replace(driven_recording(), domain=np.stack([edges, edges + 1.5], 1))
    config = small_config(window={"frames": 0.0}, targets=[{"name": "speed"}], loss={"contrast": []})
    for fold in range(3):
        split = make_split(rec, fold_config(config, rec, fold, 3))
        assert split.blocks["test"][:, 0].tolist() == list(range(10 * fold, 10 * fold + 10))
        assert 1 <= len(split.blocks["valid"]) <= 2


def test_folds_of_a_short_recording_leave_windows_to_validate():
    """With 20 stretches a fold, one would last a second, less than the gaps take."""
    rec = driven_recording()
    config = small_config(
        window={"frames": 0.0, "target_past": 1.0}, targets=[{"name": "speed"}], loss={"contrast": []}
    )
    for fold in range(3):
        prepared = prepare(rec, fold_config(config, rec, fold, 3))
        assert all(len(prepared.windows(part)) > 10 for part in ("train", "valid", "test"))
    with pytest.raises(ConfigError, match="lasts 60 s; 7 folds need 70 s or more"):
        fold_config(config, rec, 0, 7)
