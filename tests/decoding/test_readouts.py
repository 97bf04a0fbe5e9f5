"""Readouts on the network's states: they see what they should, find what is there, and stand beside the head."""

import dataclasses

import numpy as np
import pytest
import torch
from driven import CHOICE, PLACE, SPEED, driven_recording, pretrained
from helpers import small_config, small_model

from neuroformer.config import TargetConfig
from neuroformer.data.prepared import prepare
from neuroformer.data.windows import Windows
from neuroformer.decoding.closed_form import fit_ridge, linear_features
from neuroformer.decoding.decode import hard_values, raw_targets, soft_values, target_head, true_values
from neuroformer.decoding.finetune import extend, finetune
from neuroformer.decoding.readouts import (
    KERNEL,
    KERNEL_WIDTHS,
    READOUTS,
    USUAL,
    boxes,
    clearly_best,
    fit_readout,
    kernel_ridge,
    states_at,
)
from neuroformer.decoding.run import ENSEMBLE, add_readouts, start_decoded
from neuroformer.metrics import r2, target_score
from neuroformer.model import targets
from neuroformer.recording import BehaviorVariable
from neuroformer.studies.folds import labelled_windows


def tuned(prepared, **tune):
    config = prepared.config
    return dataclasses.replace(
        prepared, config=dataclasses.replace(config, tune=dataclasses.replace(config.tune, **tune))
    )


def test_few_labels_make_exact_kernel_ridge_and_the_usual_penalty():
    """As many centers as labels: the solution of (K + penalty) a = y - bias, with the intercept left free."""
    rng = np.random.default_rng(0)
    spans, state, y = rng.poisson(2.0, (24, 6)), rng.standard_normal((24, 3)), rng.standard_normal((24, 2))
    folds = [(np.setdiff1d(np.arange(24), held), held) for held in np.array_split(np.arange(24), 6)]
    kernel = kernel_ridge([spans.astype(float), state], y, folds, 30)
    raw = np.concatenate([spans, state], 1)
    x = (raw - kernel.offset) / kernel.scale
    square = ((x[:, None] - x[None]) ** 2).sum(2)
    gram = np.mean([np.exp(-square / (2 * w**2)) for w in KERNEL_WIDTHS], 0)
    wanted = np.linalg.solve(
        np.block([[gram + kernel.penalty * np.eye(24), np.ones((24, 1))], [np.ones((1, 24)), np.zeros((1, 1))]]),
        np.concatenate([y, np.zeros((1, 2))]),
    )
    np.testing.assert_allclose(kernel.predict(raw), gram @ wanted[:24] + wanted[24], atol=1e-5)
    assert clearly_best(np.zeros((24, 1)), y, folds)[0] == USUAL  # nothing to tell penalties apart
    signal = np.sign(rng.standard_normal((400, 40)))
    many = [(np.setdiff1d(np.arange(400), held), held) for held in np.array_split(np.arange(400), 10)]
    noisy = signal[:, :1] + 20 * rng.standard_normal((400, 1))
    assert clearly_best(signal / 6, noisy, many)[0] > USUAL


def test_a_kernel_finds_what_is_not_linear():
    """A label that is the square of what drives the units: no line through square-root counts reads it."""
    model, prepared = pretrained()
    speed = prepared.rec.behavior["speed"]
    bent = BehaviorVariable(speed.times, np.cos(2 * speed.values))
    rec = dataclasses.replace(prepared.rec, behavior={**prepared.rec.behavior, "bent": bent})
    target = TargetConfig("bent")
    model, prepared = extend(model, dataclasses.replace(prepared, rec=rec), [target])
    windows, _ = labelled_windows(prepared)
    train, test = windows[: len(windows) // 2], windows[len(windows) // 2 :]
    ridge = fit_ridge(linear_features(model, prepared, train, "bent"), prepared, train, 1)
    linear = ridge.predict(linear_features(model, prepared, test, "bent"))
    true, head = true_values(prepared, test)["bent"], target_head(model, "bent")
    ours = hard_values(head, soft_values(head, fit_readout(KERNEL, model, prepared, target, train).raw(test)))
    assert r2(true, ours)[0] > r2(true, linear * head.std.numpy() + head.mean.numpy())[0] + 0.1


def test_states_at_a_moment_know_the_spikes_up_to_it_and_none_after():
    config = small_config(
        window={"frames": 0.0}, inputs=[], targets=[{"name": "speed", "samples": 5}], loss={"contrast": []}
    )
    model, prepared = small_model(driven_recording(), config)
    ends, windows = target_head(model, "speed").ends, prepared.windows("train")[:20]
    first, states = (x.view(20, 5, -1) for x in states_at(model, prepared.builder(windows), ends))
    assert ends == [1, 2, 3, 4, 5]
    for n, end in enumerate(ends):  # the first state of a window that starts at the moment
        moved = prepared.builder(Windows(windows.segment, windows.tick + end))
        torch.testing.assert_close(states[:, n], model.first_state(moved)[1])
        torch.testing.assert_close(first[:, n], model.first_state(prepared.builder(windows))[1])
    assert not torch.allclose(states[:, 0], states[:, 4])


@pytest.mark.parametrize(("before", "after"), [(10, 0), (10, 5), (7, 4)])
def test_bins_do_not_hold_spikes_of_both_sides_of_a_moment(before, after):
    basis = boxes(before, after, 5)
    assert (basis.sum(1) == 1).all()
    past, future = basis[after:].any(0), basis[:after].any(0)
    assert not (past & future).any()
    place = basis.argmax(1)
    assert (place.diff() <= 0).all() and place[-1] == 0  # the earliest lags are in the first bin


@pytest.mark.parametrize("target", [PLACE, CHOICE, TargetConfig("speed", "circular", period=20.0)])
def test_readouts_and_their_mean_stand_beside_the_head(target):
    model, prepared = extend(*pretrained(), [target])
    prepared = tuned(prepared, steps=60, lr=1e-2)
    windows = labelled_windows(prepared)[0]
    train, test = windows[: len(windows) // 2], windows[len(windows) // 2 :]
    true = true_values(prepared, test)[target.name]
    decoded = start_decoded(prepared, target, test, true)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    head, raw = target_head(model, target.name), raw_targets(model, prepared, test)[target.name]
    own = soft_values(head, raw)
    np.testing.assert_allclose(hard_values(head, own), head.decoded(raw).numpy(), atol=1e-5)
    add_readouts(decoded, model, prepared, target, train, test, own)
    assert list(decoded.predicted) == [*READOUTS, ENSEMBLE] and set(decoded.chosen) == set(decoded.predicted)
    score = lambda values: target_score(target.kind, true, values, target.period)
    for name in READOUTS:
        assert score(decoded.predicted[name]) > (0.6 if target is CHOICE else 0.3), name
    if target is PLACE:
        every = [hard_values(head, own), *(decoded.predicted[name] for name in READOUTS)]
        np.testing.assert_allclose(decoded.predicted[ENSEMBLE], np.mean(every, 0), atol=1e-4)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_labels_outside_the_windows_change_nothing():
    model, prepared = extend(*pretrained(), [SPEED])
    prepared = tuned(prepared, steps=10)
    train, test = prepared.windows("train", reach=20), prepared.windows("test", reach=20)
    speed = prepared.rec.behavior["speed"]
    start, stop = prepared.split.intervals("test")[0]
    values = np.where((speed.times > start - 0.1) & (speed.times < stop + 0.1), 1e3, speed.values.ravel())
    behavior = prepared.rec.behavior | {"speed": BehaviorVariable(speed.times, values)}
    rec = dataclasses.replace(prepared.rec, behavior=behavior)
    other = prepare(rec, prepared.config, prepared.normalization)
    assert true_values(other, test)["speed"].min() > 900
    for name in READOUTS:
        one, two = (fit_readout(name, model, p, SPEED, train).raw(test) for p in (prepared, other))
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_of_a_large_population_readouts_see_the_patterns_that_heads_see(monkeypatch):
    """Two patterns of three units hold what speed drives."""
    found = {}
    for most in (3, 2):
        monkeypatch.setattr(targets, "SEEN_ALONE", most)
        monkeypatch.setattr(targets, "PATTERNS", 2)
        model, prepared = pretrained()
        model, prepared = extend(model, tuned(prepared, steps=200, lr=0.01), [SPEED])
        train, test = (prepared.windows(part) for part in ("train", "test"))
        true, head = true_values(prepared, test)["speed"], target_head(model, "speed")
        for name in READOUTS:
            fitted = fit_readout(name, model, prepared, SPEED, train)
            found[name, most] = r2(true, hard_values(head, soft_values(head, fitted.raw(test))))[0]
        assert ("patterns" in fitted.choice) == (most == 2)
        _, info = finetune(model, prepared, train, [SPEED], prepared.config.tune)
        found["head", most] = info["ridges"]["speed"]["cv_r2"]
    for name in (*READOUTS, "head"):
        assert found[name, 3] > 0.1 and found[name, 2] > found[name, 3] - 0.1, found
