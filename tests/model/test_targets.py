"""Target heads: causal at every value, right likelihoods, circular variables, classes, lookahead."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import small_config, small_model, small_recording
from scipy.stats import norm, t, vonmises

from neuroformer.config import ConfigError, TargetConfig
from neuroformer.data.scales import VariableScale
from neuroformer.data.windows import Windows
from neuroformer.decoding.decode import predict_spreads, predict_targets
from neuroformer.model.targets import STUDENT_DOF, TargetHead, value_ends
from neuroformer.recording import BehaviorVariable

SCALE = {"mean": [2.0, 0.0], "std": [3.0, 1.0], "low": [0.0, -1.0], "high": [9.0, 1.0]}


def head(**settings) -> TargetHead:
    torch.manual_seed(0)
    scale = VariableScale(**(SCALE | settings.pop("scale", {})))
    config = small_config()
    return TargetHead(config, TargetConfig(name="x", **settings), scale, 6).double()


def recording_with_heading(**options):
    rec = small_recording(**options)
    times = rec.behavior["speed"].times
    heading = BehaviorVariable(times, (times * 0.7) % (2 * np.pi), "rad")
    choice = BehaviorVariable(times, (np.sin(times) > 0).astype(float) + 3)
    return dataclasses.replace(rec, behavior={**rec.behavior, "heading": heading, "choice": choice})


def many_targets(lookahead=0.0):
    return small_config(
        window={"lookahead": lookahead, "target_past": 0.2},
        targets=[
            {"name": "speed", "samples": 5, "noise": "gaussian"},
            {"name": "gaze", "noise": "student"},
            {"name": "heading", "kind": "circular", "samples": 5},
            {"name": "choice", "kind": "classification"},
        ],
    )


@pytest.mark.parametrize("lookahead", [0.0, 0.03])
def test_a_value_sees_no_spike_from_its_moment_plus_lookahead_on(lookahead):
    """Other units from some bin on: values whose moment plus lookahead lies before it stay bit for bit, one later changes."""
    rec = recording_with_heading(doubles=0.0, rate=60.0)
    config = many_targets(lookahead)
    model, prepared = small_model(rec, config)
    window = Windows(np.array([0]), np.array([400]))
    # as the heads give them: values are clamped to what training held, and untrained ones go beyond
    values = lambda p: {n: x.detach()[0].numpy() for n, x in model(p.builder(window)).targets.items()}
    before = values(prepared)
    ahead = round(lookahead / 0.01)
    for value in range(5):
        end = 400 + value_ends(5, 5)[value]
        limit = (end + ahead) * 0.01
        later = rec.spike_times >= limit - 1e-9
        units = np.where(later, (rec.spike_units + 1) % 6, rec.spike_units)
        other = dataclasses.replace(rec, spike_units=units)
        _, changed = small_model(other, config)
        after = values(changed)
        for name in ("speed", "heading"):
            np.testing.assert_allclose(after[name][: value + 1], before[name][: value + 1], rtol=1e-9)
            if value < 4:
                assert not np.allclose(after[name][-1], before[name][-1])
    # a spike of the lookahead itself is seen
    if lookahead:
        inside = (rec.spike_times >= 4.05) & (rec.spike_times < 4.08)
        assert inside.any()
        other = dataclasses.replace(rec, spike_units=np.where(inside, (rec.spike_units + 1) % 6, rec.spike_units))
        after = values(small_model(other, config)[1])
        assert not np.allclose(after["gaze"], before["gaze"])


def test_spikes_are_scored_alike_with_and_without_lookahead():
    """Lookahead is for values alone: no spike's likelihood knows a later one."""
    rec = recording_with_heading()
    torch.manual_seed(0)
    results = []
    for lookahead in (0.0, 0.03):
        model, prepared = small_model(rec, many_targets(lookahead))
        torch.manual_seed(1)
        with torch.no_grad():
            for name, p in sorted(model.named_parameters()):
                if not name.startswith("targets"):
                    p.normal_(std=0.1)
        batch = prepared.builder(Windows(np.zeros(4, int), np.array([100, 200, 300, 400])))
        out = model(batch)
        results.append(torch.cat([out.observed.dt_nll_T, out.observed.id_nll_S]))
    torch.testing.assert_close(results[0], results[1])


def test_windows_keep_room_for_the_lookahead():
    config = many_targets(0.5)
    _, prepared = small_model(recording_with_heading(), config)
    for part, blocks in prepared.split.blocks.items():
        windows = prepared.windows(part)
        for segment, first, stop in blocks:
            inside = (windows.segment == segment) & (windows.tick >= first) & (windows.tick < stop)
            assert (windows.tick[inside] + 5 + 50 <= stop).all()
    gaps = np.sort(np.concatenate(list(prepared.split.blocks.values())), 0)
    assert (gaps[1:, 1] - gaps[:-1, 2] >= 50).all()


def test_values_lie_at_their_own_times():
    rec = recording_with_heading()
    _, prepared = small_model(rec, many_targets())
    batch = prepared.builder(Windows(np.array([0]), np.array([100])))
    at = 1.0 + np.arange(1, 6) * 0.01
    np.testing.assert_allclose(batch.targets["speed"][0, :, 0], rec.variable("speed").interpolate(at)[:, 0], rtol=1e-5)
    assert batch.targets["gaze"].shape == (1, 1, 2)


def test_circular_labels_interpolate_around_the_circle():
    rec = small_recording()
    turning = BehaviorVariable(np.arange(0, 40, 0.05), (np.arange(800) * 50.0) % 360)
    rec = dataclasses.replace(rec, behavior={**rec.behavior, "heading": turning})
    config = small_config(targets=[{"name": "heading", "kind": "circular", "period": 360.0, "samples": 5}])
    model, prepared = small_model(rec, config)
    ticks = np.arange(10, 300, 5)
    windows = Windows(np.zeros(len(ticks), int), ticks)
    labels = prepared.builder(windows).targets["heading"].flatten().numpy()
    at = (ticks[:, None] + np.arange(1, 6)).ravel() * 0.01
    error = (labels - at / 0.05 * 50 + 180) % 360 - 180
    assert np.abs(error).max() < 1.0  # along the chord of a step of 50 degrees
    decoded = predict_targets(model, prepared, windows)["heading"]
    assert (decoded >= 0).all() and (decoded < 360).all() and len(decoded) == len(labels)


def test_degrees_are_not_taken_for_radians():
    rec = small_recording()
    turning = BehaviorVariable(np.arange(0, 40, 0.05), (np.arange(800) * 50.0) % 360)
    rec = dataclasses.replace(rec, behavior={**rec.behavior, "heading": turning})
    config = small_config(targets=[{"name": "heading", "kind": "circular"}])
    with pytest.raises(ConfigError, match="'heading' is circular and its values run from 0 to 350.*period: 360"):
        small_model(rec, config)


def test_losses_are_the_likelihoods_that_they_claim():
    rng = np.random.default_rng(0)
    values, raw = rng.normal(size=(6, 1, 2)) * 3, rng.normal(size=(6, 1, 4))
    mean = raw[..., :2] * SCALE["std"] + SCALE["mean"]
    scale = np.exp(raw[..., 2:]) * SCALE["std"]
    constant = np.log(SCALE["std"]).mean()
    loss = lambda h, r, v: float(h.loss(torch.from_numpy(r), torch.from_numpy(v)))
    wanted = -norm.logpdf(values, mean, scale).mean() - constant - 0.5 * np.log(2 * np.pi)
    assert loss(head(noise="gaussian"), raw, values) == pytest.approx(wanted, rel=1e-5)
    wanted = -t.logpdf(values, STUDENT_DOF, mean, scale).mean() - constant + t.logpdf(0, STUDENT_DOF)
    assert loss(head(noise="student"), raw, values) == pytest.approx(wanted, rel=1e-5)
    circular = head(kind="circular", scale={"period": 10.0})
    angle = values * 2 * np.pi / 10
    cos, sin = raw[..., :2], raw[..., 2:]
    wanted = -vonmises.logpdf(angle, np.hypot(cos, sin), np.arctan2(sin, cos)).mean() - np.log(2 * np.pi)
    assert loss(circular, raw, values) == pytest.approx(wanted, rel=1e-5)
    squared = ((raw[..., :2] - (values - SCALE["mean"]) / SCALE["std"]) ** 2).mean()
    assert loss(head(), raw[..., :2], values) == pytest.approx(squared, rel=1e-5)


def test_decoded_values_stay_near_what_training_held():
    values = head().values(torch.tensor([[-100.0, 0.5], [100.0, -0.5]], dtype=torch.float64))
    torch.testing.assert_close(values, torch.tensor([[-0.9, 0.5], [9.9, -0.5]], dtype=torch.float64), atol=1e-6, rtol=0)


def test_missing_values_change_nothing():
    h = head(noise="gaussian")
    raw, values = torch.randn(5, 2, 4, requires_grad=True), torch.randn(5, 2, 2)
    values[1, 0, 1] = torch.nan
    h.loss(raw, values).backward()
    assert raw.grad is not None and raw.grad[1, 0].abs().sum() == 0 and raw.grad[1, 1].abs().sum() > 0
    assert h.loss(raw, values * torch.nan).item() == 0


def test_the_model_says_how_sure_it_is():
    model, prepared = small_model(recording_with_heading(), many_targets())
    windows = Windows(np.zeros(3, int), np.array([100, 200, 300]))
    spreads = predict_spreads(model, prepared, windows)
    assert set(spreads) == {"speed", "gaze"} and spreads["speed"].shape == (15, 1) and (spreads["gaze"] > 0).all()
    choice = predict_targets(model, prepared, windows)["choice"]
    assert set(np.unique(choice)) <= {3.0, 4.0} and choice.shape == (3, 1)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"samples": 3}, "targets\\[0\\].samples is 3; expected a divisor of the window's 5 bins"),
        ({"kind": "circular", "noise": "student"}, "targets\\[0\\].noise is 'student'; expected squared"),
        ({"period": -1.0}, "targets\\[0\\].period is -1.0"),
    ],
)
def test_mistakes_are_named(target, message):
    with pytest.raises(ConfigError, match=message):
        small_config(targets=[{"name": "speed", **target}])
