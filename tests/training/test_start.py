"""What a network knows before its first step."""

import dataclasses

import numpy as np
import torch
from helpers import small_config, small_recording

from neuroformer.data.prepared import prepare
from neuroformer.model import streams, targets
from neuroformer.training.start import start_from_patterns, start_heads
from neuroformer.training.train import initial_cohort

WINDOW = {"dt": 0.01, "current": 0.05, "past": 0.2, "frames": 0.0}


def shared_gain(seed=0, num_units=80, seconds=120.0, dt=0.01):
    """Units whose rates follow one slow sine, half of them up and half down; and its value at a time."""
    rng = np.random.default_rng(seed)
    slow = lambda t: np.sin(2 * np.pi * np.asarray(t) / 7.0)
    sign = np.repeat([1.0, -1.0], num_units // 2)
    bins = (np.arange(round(seconds / dt)) + 0.5) * dt
    counts = rng.poisson(12 * dt * np.exp(0.3 * np.outer(slow(bins), sign)))
    row, unit = (np.repeat(x, counts[counts > 0]) for x in np.nonzero(counts))
    units = {"id": np.array([f"u{i}" for i in range(num_units)])}
    rec = small_recording(num_units=num_units, seconds=seconds, frames=False)
    return dataclasses.replace(rec, spike_times=row * dt + dt / 2, spike_units=unit, units=units), slow


def test_a_busy_past_starts_as_the_activity_of_the_populations_patterns(monkeypatch):
    monkeypatch.setattr(streams, "MOST_KEYS", 1)
    rec, slow = shared_gain()
    config = small_config(window=WINDOW, loss={"contrast": []}, targets=[], inputs=[])
    prepared = prepare(rec, config)
    cohort = initial_cohort([prepared], config)
    model, before = cohort[0], cohort[0].embedding.unit.weight.detach().clone()
    windows = prepared.windows("train")
    windows = windows[np.flatnonzero(windows.tick > 20)[::7]]
    batch = prepared.builder(windows)

    def best_r() -> float:
        """Of any dimension of the summed past with the shared gain, which units do not have one by one."""
        with torch.no_grad():
            keys = model.streams["past"](batch, model.embedding).context
        mean_WD = torch.stack([keys.x_SD[a + 1 : b].mean(0) for a, b in keys.layout.offsets.unfold(0, 2, 1).tolist()])
        at = slow(windows.tick * 0.01 - 0.1)  # one segment, from 0 s on
        return max(abs(np.corrcoef(mean_WD[:, d], at)[0, 1]) for d in range(mean_WD.shape[1]))

    blind = best_r()
    start_from_patterns([prepared], cohort)
    weight = model.embedding.unit.weight.detach()
    half = weight.shape[1] // 2
    assert torch.equal(weight[:, half:], before[:, half:])
    found = best_r()
    assert found > 0.85 and found > blind + 0.2, (found, blind)


def test_spikes_that_are_keys_of_their_own_start_as_they_did():
    rec, _ = shared_gain(seconds=40.0)
    config = small_config(window=WINDOW, loss={"contrast": []}, targets=[], inputs=[])
    prepared = prepare(rec, config)
    cohort = initial_cohort([prepared], config)
    before = cohort[0].embedding.unit.weight.detach().clone()
    start_from_patterns([prepared], cohort)
    assert torch.equal(cohort[0].embedding.unit.weight, before)


def test_heads_of_a_large_population_see_its_leading_patterns(monkeypatch):
    monkeypatch.setattr(targets, "SEEN_ALONE", 10)
    monkeypatch.setattr(targets, "PATTERNS", 4)
    rec, slow = shared_gain()
    config = small_config(window=WINDOW, loss={"contrast": []}, targets=[{"name": "speed"}], inputs=[])
    prepared = prepare(rec, config)
    model = initial_cohort([prepared], config)[0]
    head = model.targets["speed"]
    windows = prepared.windows("train")
    windows = windows[np.flatnonzero(windows.tick > 20)[::7]]
    batch = prepared.builder(windows)
    at = slow(windows.tick * 0.01 + 0.05)

    def seen():
        with torch.no_grad():
            return head.counted(batch)

    def best_r() -> float:
        longest = seen()[:, :, -1].numpy()
        return max(abs(np.corrcoef(x, at)[0, 1]) for x in longest.T if x.std())

    assert seen().shape[1] == 4 and head.linear.weight.shape[0] == 4
    blind = best_r()
    start_heads(model, prepared, ["speed"])
    assert best_r() > 0.6 and best_r() > blind + 0.3, (best_r(), blind)
    assert 0.8 < float(seen().std(0).square().mean().sqrt()) < 1.25
    size = head.counts.pattern.norm(dim=0).sort().values
    assert size[-2] < 0.4 * size[-1], size  # nothing but the gain is shared
    kept = model.state_dict()["targets.speed.counts.pattern"]  # so that a bundle has it
    torch.testing.assert_close(kept, head.counts.pattern)
