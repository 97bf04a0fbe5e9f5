"""Fine-tuning, few-shot curves and folds: nothing held out has a say, and what should stay the same stays."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml
from helpers import small_config, small_model, small_recording

from neuroformer.cli import main
from neuroformer.cli.options import parse_targets
from neuroformer.config import ConfigError, TargetConfig, TuneConfig, to_dict
from neuroformer.data.splits import make_split
from neuroformer.data.windows import Windows
from neuroformer.decoding.anchor import (
    USUAL,
    _kernel_ridge,
    clearly_best,
    fit_anchor,
    linear_features,
    set_anchor,
)
from neuroformer.decoding.decode import Decoded, predict_spreads, predict_targets, true_values
from neuroformer.decoding.fewshot import FewShot, amounts_in_seconds, draw_labels, fewshot, pooled
from neuroformer.decoding.finetune import extend, finetune, fit_heads, know_only, with_targets
from neuroformer.decoding.folds import _mean_of, every_window, fold_config, labelled_windows
from neuroformer.metrics import r2
from neuroformer.model.bundle import read_bundle
from neuroformer.model.later import later_states, moved_on
from neuroformer.model.moments import KERNEL_WIDTHS
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.recording import BehaviorVariable
from neuroformer.recording.npz import write_npz
from neuroformer.training.data import prepare

TUNE = TuneConfig(steps=10, evaluate_every=5, batch_size=64)
SPEED, PLACE, CHOICE = TargetConfig("speed"), TargetConfig("place"), TargetConfig("choice", "classification")


def driven_recording(seconds=60.0):
    """Units whose rates follow speed, one up and one down; a choice that is speed's sign."""
    rng = np.random.default_rng(0)
    t = np.arange(0, seconds, 0.05)
    speed = np.sin(t * 1.3) + np.sin(t * 0.47)
    rates = np.exp(np.stack([2.5 + 0.8 * speed, 2.5 - 0.8 * speed, 2.0 + 0 * speed], 1))
    counts = rng.poisson(rates * 0.05)
    row, unit = np.nonzero(counts)
    rec = small_recording(num_units=3, seconds=seconds, frames=False)
    behavior = {
        "speed": BehaviorVariable(t, speed), "choice": BehaviorVariable(t, (speed > 0).astype(float)),
        "place": BehaviorVariable(t, np.stack([speed, 5 - 3 * speed], 1)), "pupil": rec.behavior["pupil"],
    }  # fmt: skip
    times = t[row] + rng.uniform(0, 0.05, len(row))
    order = np.argsort(times)
    return dataclasses.replace(rec, spike_times=times[order], spike_units=unit[order], behavior=behavior)


def pretrained(targets=(), **model):
    config = small_config(
        model={"width": 16, "heads": 2, "dropout": 0.0, "time_features": 4, "history_filters": 2} | model,
        window={"frames": 0.0},
        targets=list(targets),
        loss={"contrast": []},
        decode={"lags": [0.2], "bootstraps": 20},
    )
    rec = driven_recording()
    prepared = prepare(rec, config)
    torch.manual_seed(0)
    return Neuroformer(config, rec.num_units, prepared.normalization).eval(), prepared


@pytest.fixture(scope="module")
def extended():
    model, prepared = extend(*pretrained(), [SPEED, PLACE, CHOICE])
    windows, _ = labelled_windows(prepared)
    return model, prepared, windows


def test_new_targets_leave_split_and_trunk_alone(extended):
    model, prepared, _ = extended
    old, before = pretrained()
    assert prepared.split.sha256() == before.split.sha256()
    for name, value in old.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    assert set(model.targets) == {"speed", "place", "choice"}


def test_the_anchor_is_the_ridge_that_it_claims(extended):
    model, prepared, windows = extended
    features = linear_features(model, prepared, windows, "place")
    anchor = fit_anchor(features, prepared, windows, 1)
    linear = features.counts @ anchor.counts + features.state @ anchor.state + anchor.bias
    head = model.targets["place"]
    set_anchor(head, anchor)
    ours = predict_targets(model, prepared, windows)["place"]
    np.testing.assert_allclose(ours, linear * head.std.numpy() + head.mean.numpy(), atol=1e-4)
    assert r2(true_values(prepared, windows)["place"], ours).min() > 0.3


def test_a_kernel_readout_finds_what_is_not_linear_and_is_what_the_head_gives():
    """A label that is the square of what drives the units: no line through square-root counts reads it."""
    model, prepared = pretrained(target_kernel=256)
    rec = prepared.rec
    speed = rec.behavior["speed"]
    bent = BehaviorVariable(speed.times, np.cos(2 * speed.values))
    rec = dataclasses.replace(rec, behavior={**rec.behavior, "bent": bent})
    model, prepared = extend(model, dataclasses.replace(prepared, rec=rec), [TargetConfig("bent")])
    windows, _ = labelled_windows(prepared)
    features, head = linear_features(model, prepared, windows, "bent"), model.targets["bent"]
    linear = fit_anchor(features, prepared, windows, 1)
    anchor = fit_anchor(features, prepared, windows, 1, head.num_centers)
    assert anchor.kernel is not None and anchor.score > linear.score + 0.1
    set_anchor(head, anchor)
    ours = predict_targets(model, prepared, windows)["bent"]
    unclipped = anchor.predict(features) * head.std.numpy() + head.mean.numpy()
    np.testing.assert_allclose(ours, np.clip(unclipped, head.least, head.most), atol=1e-3)
    set_anchor(head, linear)
    assert not head.kernel.weight.any()


@pytest.mark.parametrize("target_kernel", [0, 256])
def test_a_readout_that_learns_its_scale_claims_the_error_of_labels_that_it_has_not_seen(target_kernel):
    """A tenth of the labels fit almost without error; on the others the claim holds within a third."""
    speed = dataclasses.replace(SPEED, noise="gaussian")
    model, prepared = extend(*pretrained(target_kernel=target_kernel), [speed])
    windows, _ = labelled_windows(prepared)
    few, held = windows[200:320], prepared.windows("test", reach=20)
    tuned, _ = finetune(model, prepared, few, [speed], dataclasses.replace(TUNE, steps=0))
    claimed = predict_spreads(tuned, prepared, held)["speed"].mean()
    error = predict_targets(tuned, prepared, held)["speed"] - true_values(prepared, held)["speed"]
    assert claimed == pytest.approx(np.sqrt((error**2).mean()), rel=0.34)


def test_few_labels_make_exact_kernel_ridge_and_the_usual_penalty():
    """As many centers as labels: the solution of (K + penalty) a = y - bias, with the intercept left free."""
    rng = np.random.default_rng(0)
    spans, state, y = rng.poisson(2.0, (24, 6)), rng.standard_normal((24, 3)), rng.standard_normal((24, 2))
    folds = [(np.setdiff1d(np.arange(24), held), held) for held in np.array_split(np.arange(24), 6)]
    kernel, bias, _, penalty, _ = _kernel_ridge([spans.astype(float), state], y, folds, 30)
    x = (np.concatenate([spans, state], 1) - kernel.offset) / kernel.scale
    square = ((x[:, None] - x[None]) ** 2).sum(2)
    gram = np.mean([np.exp(-square / (2 * w**2)) for w in KERNEL_WIDTHS], 0)
    wanted = np.linalg.solve(
        np.block([[gram + penalty * np.eye(24), np.ones((24, 1))], [np.ones((1, 24)), np.zeros((1, 1))]]),
        np.concatenate([y, np.zeros((1, 2))]),
    )
    ours = gram @ kernel.weights + bias
    np.testing.assert_allclose(ours, gram @ wanted[:24] + wanted[24], atol=1e-5)
    assert clearly_best(np.zeros((24, 1)), y, folds)[0] == USUAL  # nothing to tell penalties apart
    signal = np.sign(rng.standard_normal((400, 40)))
    many = [(np.setdiff1d(np.arange(400), held), held) for held in np.array_split(np.arange(400), 10)]
    noisy = signal[:, :1] + 20 * rng.standard_normal((400, 1))
    assert clearly_best(signal / 6, noisy, many)[0] > USUAL


def test_a_kernel_readout_sees_the_spikes_up_to_the_moment_and_none_after():
    config = small_config(
        window={"frames": 0.0}, inputs=[], targets=[{"name": "speed", "samples": 5}],
        model={"target_kernel": 32}, loss={"contrast": []},
    )  # fmt: skip
    model, prepared = small_model(driven_recording(), config)
    head, windows = model.targets["speed"], prepared.windows("train")[:20]
    states = later_states(model, prepared.builder(windows), head.ends).view(len(windows), 5, -1)
    for n, end in enumerate(head.ends):  # the first state of a window that starts at the moment
        moved = prepared.builder(Windows(windows.segment, windows.tick + end))
        _, h_TD, layout = model.fused(moved)
        torch.testing.assert_close(states[:, n], h_TD[layout.first()])
    assert head.ends == [1, 2, 3, 4, 5] and not torch.allclose(states[:, 0], states[:, 4])


def test_at_a_moment_spikes_lie_in_the_frames_in_which_they_came():
    """What spikes say beyond the frames is the same from a batch that was moved on and at the moments of the window."""
    config = small_config(window={"past": 0.3}, targets=[{"name": "speed", "samples": 5}])
    model, prepared = small_model(config=config)
    windows = prepared.windows("train")
    batch = prepared.builder(windows[windows.tick > 40][:20])
    expected = model.encode(batch).expected
    wanted = model.surprise.at_moments(batch, expected, [2, 5]).unflatten(0, (-1, 2))
    for n, end in enumerate((2, 5)):
        later = moved_on(batch, end, model.past_bins)
        spikes = later.past.row_T, later.past_tick_P, later.past_unit_P
        ours = model.surprise.features(later.earlier, expected, *spikes, None, until=0)
        torch.testing.assert_close(ours, wanted[:, n])


def test_labels_that_were_not_drawn_have_no_say():
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
    assert known.normalization["targets"]["speed"]["high"] == [high]
    assert ready.normalization["targets"]["speed"]["high"] > [high]


def test_descent_counts_only_where_it_is_clearly_better(extended):
    model, prepared, windows = extended
    idle = dataclasses.replace(TUNE, lr=0.0)
    tuned, info = finetune(model, prepared, windows, [SPEED], idle)
    assert (info["start"], info["steps"], info["gain"]) == ("closed form", 0, 0.0)
    features = linear_features(model, prepared, windows, "speed")
    anchor, head = fit_anchor(features, prepared, windows, 1), tuned.targets["speed"]
    ours = predict_targets(tuned, prepared, windows)["speed"]
    unclipped = anchor.predict(features) * head.std.numpy() + head.mean.numpy()
    np.testing.assert_allclose(ours, np.clip(unclipped, head.least, head.most), atol=1e-4)


@pytest.mark.parametrize("how", ["head", "top", "all", "adapters"])
def test_what_trains_is_what_was_asked(extended, how):
    model, prepared, windows = extended
    tune = dataclasses.replace(TUNE, train=how, blocks=1, patience=10)
    tuned, info = finetune(model, prepared, windows[:400], [SPEED], tune)
    assert info["steps"] in (0, 5, 10) and set(info["anchors"]) == {"speed"}
    before, after = model.state_dict(), tuned.state_dict()
    assert set(before) == set(after)
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert any(n.startswith("targets.speed") for n in moved)
    assert not any(n.startswith("targets.choice") for n in moved)
    trunk = {n for n in moved if not n.startswith("targets.")}
    last = f"fusion.blocks.{len(model.fusion.blocks) - 1}."
    if how == "head" or info["steps"] == 0:
        assert not trunk
    elif how == "top":
        assert trunk and all(n.startswith((last, "fusion.norm")) for n in trunk)
    elif how == "adapters":
        assert trunk and all(n.startswith("fusion.") and n.endswith("weight") for n in trunk)
    else:
        assert "spikes.unit.weight" in trunk


def test_held_out_labels_and_spikes_have_no_say(extended):
    model, prepared, windows = extended
    tuned, info = finetune(model, prepared, windows, [SPEED], TUNE)
    rec, (start, stop) = prepared.rec, prepared.split.intervals("test")[0]
    values = rec.behavior["speed"].values.copy()
    times = rec.behavior["speed"].times
    values[(times >= start) & (times < stop)] = 1e3
    inside = (rec.spike_times >= start) & (rec.spike_times < stop)
    spoiled = dataclasses.replace(
        rec, spike_units=np.where(inside, 0, rec.spike_units),
        behavior=rec.behavior | {"speed": BehaviorVariable(times, values)},
    )  # fmt: skip
    other = prepare(spoiled, prepared.config, prepared.normalization)
    again, same = finetune(model, other, windows, [SPEED], TUNE)
    assert info == same
    for a, b in zip(tuned.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_draws_nest_and_are_chunks(extended):
    _, prepared, windows = extended
    labels = true_values(prepared, windows)["speed"]
    labels[: len(labels) // 3] = np.nan
    few, more = (draw_labels(prepared, windows, labels, 1, s, 3) for s in (2.0, 6.0))
    assert len(few) == 40 and len(more) == 120 and set(few.tick) <= set(more.tick)
    assert few.tick.min() >= windows.tick[len(labels) // 3]
    assert len(np.unique(more.tick // 100)) <= 9  # six chunks of 1 s, and what borders cut
    other = draw_labels(prepared, windows, labels, 1, 6.0, 4)
    assert set(other.tick) != set(more.tick)


def test_amounts_are_understood():
    assert amounts_in_seconds(["10s", "5%", "all", "1000s"], 100.0) == [5.0, 10.0, 100.0]
    with pytest.raises(ConfigError, match="amount of labels 'ten' is not understood"):
        amounts_in_seconds(["ten"], 100.0)
    with pytest.raises(ConfigError, match="none of 200s lies within the 100 s"):
        amounts_in_seconds(["200s"], 100.0)


def test_a_fewshot_curve_has_every_method_on_the_same_values():
    model, prepared = pretrained()
    prepared = dataclasses.replace(prepared, config=dataclasses.replace(prepared.config, tune=TUNE))
    curve = fewshot(model, prepared, SPEED, ["3s", "all"], 2, ["ridge"])
    rows = curve.rows(20)
    assert [r["method"] for r in rows] == ["pretrained", "scratch", "ridge"] * 2
    for r in rows:
        assert r["low"] <= r["score"] + 0.2 and r["high"] >= r["score"] - 0.2
        assert (r["method"] != "pretrained") or r["pretrained_minus"] == 0
    assert rows[5]["score"] > 0.3 and rows[3]["score"] > 0.3
    with pytest.raises(ConfigError, match="was trained with labels of 'speed'"):
        fewshot(*pretrained([{"name": "speed"}]), SPEED, ["all"], 1, [])


@pytest.mark.parametrize(("value", "what"), [(np.nan, "no value"), (1.0, "one value")])
def test_a_fewshot_curve_needs_held_out_labels_that_vary(value, what):
    model, prepared = pretrained()
    speed, values = prepared.rec.behavior["speed"], prepared.rec.behavior["speed"].values.copy()
    values[speed.times > prepared.split.intervals("test")[0, 0] - 0.1] = value
    behavior = prepared.rec.behavior | {"speed": dataclasses.replace(speed, values=values)}
    rec = dataclasses.replace(prepared.rec, behavior=behavior)
    with pytest.raises(ConfigError, match=f"'speed' has {what} in the 'test' part, so nothing can be scored"):
        fewshot(model, prepare(rec, prepared.config), SPEED, ["3s"], 1, [])


def curve_of_run(first_s, error):
    """30 s of held-out values of one run, one draw, off by ``error`` times the values' spread."""
    times = first_s + np.arange(120) * 0.25
    true = np.sin(times)[:, None] + first_s
    rng = np.random.default_rng(int(first_s))
    predicted = {
        m: true + e * rng.standard_normal(true.shape)
        for m, e in (("pretrained", error), ("scratch", 2 * error))
    }
    decoded = Decoded("speed", times, np.zeros(120, int), true, predicted)
    return FewShot(SPEED, small_config(), [5.0 + first_s], [0.05], {(0, 0): decoded})


def test_pooled_runs_are_scored_on_the_values_of_all_and_not_twice():
    one, two = curve_of_run(40.0, 0.3), curve_of_run(0.0, 0.1)
    both = pooled([one, two])
    assert both.seconds == [25.0] and both.share == [0.05]
    decoded = both.decoded[0, 0]
    true = np.concatenate([c.decoded[0, 0].true_VC for c in (two, one)])
    np.testing.assert_array_equal(decoded.true_VC, true)
    predicted = np.concatenate([c.decoded[0, 0].predicted["scratch"] for c in (two, one)])
    rows = {r["method"]: r for r in both.rows(50)}
    assert rows["scratch"]["score"] == pytest.approx(r2(true, predicted)[0])
    alone = next(r for r in one.rows(50) if r["method"] == "scratch")
    wide, narrow = (r["pretrained_minus_high"] - r["pretrained_minus_low"] for r in (alone, rows["scratch"]))
    assert narrow < wide
    for other in (one, curve_of_run(60.1, 0.1)):
        with pytest.raises(ConfigError, match="held-out parts overlap"):
            pooled([one, other])
    with pytest.raises(ConfigError, match="other amounts of labels"):
        pooled([one, dataclasses.replace(two, decoded={})])


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


def test_heads_may_look_farther_back_than_the_gaps_of_a_run_without_heads():
    rec = driven_recording()
    config = small_config(window={"frames": 0.0, "target_past": 1.0}, targets=[], loss={"contrast": []})
    ready = prepare(rec, with_targets(config, [TargetConfig("speed")]))
    assert ready.split.sha256() == prepare(rec, config).split.sha256()
    first = ready.split.blocks["test"][0, 1]
    assert (
        first > 0 and ready.windows("test").tick[0] >= first + 99
    )  # a spike of the last bin before it is the 100th


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


def test_a_share_of_each_value_over_folds_is_the_readout_in_closed_form():
    model, prepared = pretrained([{"name": "place"}], target_filters=3)
    windows, test = labelled_windows(prepared)[0], prepared.windows("test")
    head = model.targets["place"]
    alone = predict_targets(model, prepared, test)["place"]
    values = {
        share: _mean_of([copy.deepcopy(model)], prepared, TargetConfig("place", closed=share), windows, test)
        for share in (0.0, 0.25, 1.0)
    }
    features = linear_features(model, prepared, windows, "place")
    set_anchor(head, fit_anchor(features, prepared, windows, 1, head.num_centers))
    closed = predict_targets(model, prepared, test)["place"]
    np.testing.assert_allclose(values[0.0], alone, atol=1e-6)
    np.testing.assert_allclose(values[1.0], closed, atol=1e-6)
    np.testing.assert_allclose(values[0.25], 0.75 * alone + 0.25 * closed, atol=1e-5)
    assert np.abs(closed - alone).mean() > 0.1


def test_the_commands(tmp_path, capsys):
    write_npz(driven_recording(), tmp_path / "r.npz")
    config = to_dict(small_config(
        window={"frames": 0.0}, targets=[], loss={"contrast": []}, split={"gap": 0.2},
        tune={"steps": 5, "evaluate_every": 5}, decode={"lags": [0.2], "bootstraps": 10},
    ))  # fmt: skip
    config["recording"]["path"] = str(tmp_path / "r.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    run = str(tmp_path / "run")
    say = lambda *argv: main([*argv, "--quiet"])
    assert say("train", "--config", str(tmp_path / "c.yaml"), "--run", run, "--no-baselines") == 0
    assert say("finetune", "--run", run, "--target", "speed", "--labels", "20s", "--out", run + "_s") == 0
    assert (
        say("finetune", "--run", run + "_s", "--target", "choice:classification", "--out", run + "_sc") == 0
    )
    summary = json.loads((tmp_path / "run_s" / "summary.json").read_text())
    assert summary["finetune_label_seconds"] == 20 and np.isfinite(summary["finetune_speed_score"])
    # what is loaded again is what was scored: its range is that of the drawn labels
    few = Neuroformer.load(run + "_s", "speed")
    ready = prepare(driven_recording(), few.config, read_bundle(tmp_path / "run_s").normalization)
    held = ready.windows("test", reach=20)
    score = r2(true_values(ready, held)["speed"], predict_targets(few, ready, held)["speed"])[0]
    assert score == pytest.approx(summary["finetune_speed_score"], abs=1e-5)
    # one after the other: the first task is read as before
    models = [Neuroformer.load(f, "speed") for f in (run + "_s", run + "_sc")]
    prepared = prepare(driven_recording(), models[0].config)
    windows = prepared.windows("test")
    first = predict_targets(models[0], prepared, windows)["speed"]
    second = predict_targets(models[1], prepare(driven_recording(), models[1].config), windows)["speed"]
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert say("decode", "--run", run + "_sc", "--baselines", "ridge") == 0
    out = capsys.readouterr().out
    assert "choice:" in out and "balanced accuracy" in out and "control:" in out
    assert (
        say(
            "fewshot",
            "--run",
            run,
            "--target",
            "speed",
            "--labels",
            "all",
            "--draws",
            "1",
            "--baselines",
            "ridge",
        )
        == 0
    )
    assert json.loads((tmp_path / "run" / "fewshot_speed.json").read_text())["rows"][2]["method"] == "ridge"
    assert (tmp_path / "run" / "fewshot_speed.png").stat().st_size > 5000
    few = (
        "fewshot",
        "--run",
        run,
        "--target",
        "speed",
        "--labels",
        "5s",
        "--draws",
        "1",
        "--baselines",
        "none",
    )
    assert say(*few, "--pool", run) == 2
    assert "held-out parts overlap" in capsys.readouterr().err
    folds = [
        "folds",
        "--config",
        str(tmp_path / "c.yaml"),
        "--run",
        run + "_f",
        "--folds",
        "2",
        "--baselines",
        "ridge",
    ]
    rest = ("--members", "2", "targets=[{name: speed}]", "model.target_networks=1")
    assert say(*folds, "--only", "1", *rest) == 0 and not (tmp_path / "run_f" / "summary.json").exists()
    assert "only folds 1 of 2" in capsys.readouterr().out
    written = (tmp_path / "run_f" / "fold_1" / "heads.safetensors").stat().st_mtime_ns
    assert say(*folds, *rest) == 0  # a finished fold is not done again
    assert (tmp_path / "run_f" / "fold_1" / "heads.safetensors").stat().st_mtime_ns == written
    assert say(*folds, "--only", "x", *rest) == 2
    summary = json.loads((tmp_path / "run_f" / "summary.json").read_text())
    low, high = summary["decode_speed_difference_low"], summary["decode_speed_difference_high"]
    assert (
        low <= summary["decode_speed_difference"] + 0.1 and high >= summary["decode_speed_difference"] - 0.1
    )
    assert say("finetune", "--run", run, "--target", "speed:wrong") == 2
    assert "expected NAME[:KIND[:SAMPLES[:PERIOD]]]" in capsys.readouterr().err


def test_a_target_is_what_its_words_say_or_what_the_run_declares():
    heading = TargetConfig("heading", "circular", period=360.0, samples=5)
    words = ["speed:student:5", "heading:circular:1:400", "choice:classification", "place"]
    wanted = [
        TargetConfig("speed", noise="student", samples=5), TargetConfig("heading", "circular", period=400.0), CHOICE, PLACE,
    ]  # fmt: skip
    assert parse_targets(words, [heading]) == wanted
    assert parse_targets(["heading"], [heading]) == [heading]
    for wrong in ("speed:regression:1:3", "speed:circular:x", "a:circular:1:2:3"):
        with pytest.raises(ConfigError, match=f"--target is '{wrong}'"):
            parse_targets([wrong])
    with pytest.raises(ConfigError, match="names a variable twice"):
        parse_targets(["speed", "speed:student"])
