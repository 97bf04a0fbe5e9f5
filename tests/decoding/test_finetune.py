"""Fine-tuning: nothing held out has a say, and what should stay the same stays."""

import dataclasses

import numpy as np
import pytest
import torch
from driven import SPEED, TUNE, driven_recording, pretrained
from helpers import small_config

from neuroformer.config import TargetConfig
from neuroformer.data.prepared import prepare
from neuroformer.decoding.closed_form import fit_ridge, linear_features, start_from
from neuroformer.decoding.decode import predict_spreads, predict_targets, true_values
from neuroformer.decoding.finetune import (
    EVALUATE_EVERY,
    PATIENCE,
    TOP_BLOCKS,
    _Run,
    extend,
    finetune,
    know_only,
    with_targets,
)
from neuroformer.metrics import r2
from neuroformer.recording import BehaviorVariable
from neuroformer.studies.fewshot import draw_labels, fewshot
from neuroformer.studies.folds import labelled_windows


def test_new_targets_leave_split_and_trunk_alone(extended):
    model, prepared, _ = extended
    old, before = pretrained()
    assert prepared.split.sha256() == before.split.sha256()
    for name, value in old.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    assert set(model.targets) == {"speed", "place", "choice"}


def test_the_head_starts_as_the_ridge(extended):
    model, prepared, windows = extended
    features = linear_features(model, prepared, windows, "place")
    ridge = fit_ridge(features, prepared, windows, 1)
    linear = features.counts @ ridge.counts + features.state @ ridge.state + ridge.bias
    head = model.targets["place"]
    start_from(head, ridge)
    ours = predict_targets(model, prepared, windows)["place"]
    np.testing.assert_allclose(ours, linear * head.std.numpy() + head.mean.numpy(), atol=1e-4)
    assert r2(true_values(prepared, windows)["place"], ours).min() > 0.3


def test_a_readout_that_learns_its_scale_claims_the_error_of_labels_that_it_has_not_seen():
    """A tenth of the labels fit almost without error; on the others the claim holds within a third."""
    speed = dataclasses.replace(SPEED, noise="gaussian")
    model, prepared = extend(*pretrained(), [speed])
    windows, _ = labelled_windows(prepared)
    few, held = windows[200:320], prepared.windows("test", reach=20)
    tuned, _ = finetune(model, prepared, few, [speed], dataclasses.replace(TUNE, steps=0))
    claimed = predict_spreads(tuned, prepared, held)["speed"].mean()
    error = predict_targets(tuned, prepared, held)["speed"] - true_values(prepared, held)["speed"]
    assert claimed == pytest.approx(np.sqrt((error**2).mean()), rel=0.34)


def test_labels_that_were_not_drawn_change_nothing():
    model, prepared = pretrained()
    config = dataclasses.replace(prepared.config, tune=dataclasses.replace(TUNE, steps=0))
    prepared = dataclasses.replace(prepared, config=config)
    ready = extend(model, prepared, [SPEED])[1]
    windows, labels = labelled_windows(ready)
    few = draw_labels(ready, windows, labels["speed"], 1, 2.0, 0)
    speed = prepared.rec.behavior["speed"]
    ends = few.starts(ready.index) + config.window.current
    values = speed.values.reshape(len(speed.times), -1)
    near = np.abs(speed.times[:, None] - ends).min(1) < 0.11  # its own sample and that before it
    spoiled = BehaviorVariable(speed.times, np.where(near[:, None], values, 50 + 9 * values))
    rec = dataclasses.replace(prepared.rec, behavior=prepared.rec.behavior | {"speed": spoiled})
    other = dataclasses.replace(prepared, rec=rec)
    one, two = (fewshot(model, p, SPEED, ["2s"], 1, []).decoded[0, 0].predicted for p in (prepared, other))
    for method, values in one.items():
        np.testing.assert_allclose(two[method], values, atol=1e-4)
    fresh, ready = extend(model, prepared, [SPEED])
    known = know_only(fresh, ready, few, [SPEED])
    drawn = true_values(ready, few)["speed"]
    low, high = drawn.min(), drawn.max()
    ours = fresh.targets["speed"].values(torch.tensor([[-99.0], [0.0], [99.0]]))[:, 0]
    wanted = [low - 0.1 * (high - low), drawn.mean(), high + 0.1 * (high - low)]
    assert ours.tolist() == pytest.approx(wanted, rel=1e-5)
    assert known.normalization.targets["speed"].high == [high]
    assert ready.normalization.targets["speed"].high > [high]


def test_descent_counts_only_where_it_is_clearly_better(extended):
    model, prepared, windows = extended
    idle = dataclasses.replace(TUNE, lr=0.0)
    tuned, info = finetune(model, prepared, windows, [SPEED], idle)
    assert (info["start"], info["steps"], info["gain"]) == ("closed form", 0, 0.0)
    features = linear_features(model, prepared, windows, "speed")
    ridge, head = fit_ridge(features, prepared, windows, 1), tuned.targets["speed"]
    ours = predict_targets(tuned, prepared, windows)["speed"]
    unclipped = ridge.predict(features) * head.std.numpy() + head.mean.numpy()
    np.testing.assert_allclose(ours, np.clip(unclipped, head.least, head.most), atol=1e-4)


@pytest.mark.parametrize("how", ["head", "top", "all", "adapters"])
def test_what_trains_is_what_was_asked(extended, how):
    model, prepared, windows = extended
    tune = dataclasses.replace(TUNE, train=how)
    tuned, info = finetune(model, prepared, windows[:400], [SPEED], tune)
    assert info["steps"] in (0, 10) and set(info["ridges"]) == {"speed"}
    before, after = model.state_dict(), tuned.state_dict()
    assert set(before) == set(after)
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert any(n.startswith("targets.speed") for n in moved)
    assert not any(n.startswith("targets.choice") for n in moved)
    trunk = {n for n in moved if not n.startswith("targets.")}
    top = tuple(f"blocks.{i}." for i in range(len(model.blocks))[-TOP_BLOCKS:])
    assert len(model.blocks) > TOP_BLOCKS
    if how == "head" or info["steps"] == 0:
        assert not trunk
    elif how == "top":
        assert trunk and all(n.startswith((*top, "norm.")) for n in trunk)
    elif how == "adapters":
        assert trunk and all(n.startswith("blocks.") and n.endswith("weight") for n in trunk)
    else:
        assert "embedding.unit.weight" in trunk


def test_held_out_labels_and_spikes_change_nothing(extended):
    model, prepared, windows = extended
    tuned, info = finetune(model, prepared, windows, [SPEED], TUNE)
    rec, (start, stop) = prepared.rec, prepared.split.intervals("test")[0]
    values = rec.behavior["speed"].values.copy()
    times = rec.behavior["speed"].times
    values[(times >= start) & (times < stop)] = 1e3
    inside = (rec.spike_times >= start) & (rec.spike_times < stop)
    spoiled = dataclasses.replace(
        rec,
        spike_units=np.where(inside, 0, rec.spike_units),
        behavior=rec.behavior | {"speed": BehaviorVariable(times, values)},
    )
    other = prepare(spoiled, prepared.config, prepared.normalization)
    again, same = finetune(model, other, windows, [SPEED], TUNE)
    assert info == same
    for a, b in zip(tuned.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_heads_may_look_farther_back_than_the_gaps_of_a_run_without_heads():
    rec = driven_recording()
    config = small_config(window={"frames": 0.0, "target_past": 1.0}, targets=[], loss={"contrast": []})
    ready = prepare(rec, with_targets(config, [TargetConfig("speed")]))
    assert ready.split.sha256() == prepare(rec, config).split.sha256()
    first = ready.split.blocks["test"][0, 1]
    assert first > 0 and ready.windows("test").tick[0] >= first + 99  # a spike of the last bin before it is the 100th


@pytest.mark.parametrize("gain, evaluations", [(0.001, PATIENCE), (0.02, PATIENCE + 3)])
def test_descent_does_not_go_on_for_next_to_nothing(extended, monkeypatch, gain, evaluations):
    """A loss of 1 that falls by 0.1 % at each evaluation ends it; one that falls by 2 % three times does not before."""
    model, prepared, windows = extended
    scores = iter([-1.0] + [-1.0 + gain * min(i, 3) if gain > 0.01 else -1.0 + gain * i for i in range(1, 100)])
    monkeypatch.setattr(_Run, "_score", lambda self, stretches: np.full(4, next(scores)))
    tune = dataclasses.replace(TUNE, train="head")
    run = _Run(model, prepared, windows[:60], [SPEED], tune, 0, "as is")
    _, curve = run.go(60 * EVALUATE_EVERY, windows[60:80])
    assert max(curve) == evaluations * EVALUATE_EVERY
