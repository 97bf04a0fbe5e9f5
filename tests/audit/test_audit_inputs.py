"""Leaks through inputs, copied units and sessions that are one: each planted one is named, clean recordings raise none."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from neuroformer.audit import audit, audit_together
from neuroformer.config import from_dict
from neuroformer.data.splits import make_split
from neuroformer.recording import BehaviorVariable, FrameSeries, Recording
from neuroformer.recording.derive import with_speed

SECONDS, DT = 240.0, 0.01
GRID = np.arange(0, SECONDS, DT)
NAMES = {"input_from_spikes", "input_is_target", "input_sees_ahead", "duplicated_units", "same_session"}


def recording(rates_NU, seed=0, **fields):
    """Poisson spikes of rates (Hz) in bins of ten milliseconds."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.broadcast_to(rates_NU, (len(GRID), np.shape(rates_NU)[-1])) * DT)
    row, unit = (np.repeat(x, counts[counts > 0]) for x in np.nonzero(counts))
    times = (row + rng.uniform(0, 1, len(row))) * DT
    order = np.argsort(times)
    ids = {"id": np.arange(counts.shape[1]).astype(str)}
    domain = np.array([[0.0, SECONDS]])
    return Recording(f"r{seed}", times[order], unit[order].astype(np.int32), ids, domain, **fields)


def independent(seed=0, num=12):
    return recording(np.random.default_rng([seed, 1]).uniform(2, 10, num), seed)


def counts_of(rec):
    flat = (rec.spike_times / DT).astype(int) * rec.num_units + rec.spike_units
    return np.bincount(flat, minlength=len(GRID) * rec.num_units).reshape(len(GRID), -1).astype(float)


def found(rec, inputs=(), targets=(), frames=0.0):
    tree = {"window": {"frames": frames}, "split": {"block": 24.0, "gap": 2.0}}
    tree |= {"inputs": [{"name": n} for n in inputs], "targets": list(targets)}
    config = from_dict(tree)
    return audit(rec, config, make_split(rec, config))


def named(a):
    return {f.name for f in a.findings} & NAMES


@pytest.mark.parametrize("seconds", [0.03, 0.1, 0.4])
@pytest.mark.parametrize("what", ["all units", "one unit", "noisy"])
def test_an_input_smoothed_from_the_spikes_both_ways_is_named(seconds, what):
    rec = independent()
    x = gaussian_filter1d(counts_of(rec), seconds / DT, axis=0)
    x = x[:, 3] if what == "one unit" else x.sum(1)
    if what == "noisy":
        x = x + 0.2 * x.std() * np.random.default_rng(0).standard_normal(len(x))
    rec = replace(rec, behavior={"x": BehaviorVariable(GRID, x)})
    a = found(rec, ["x"])
    assert named(a) == {"input_from_spikes"} and a.leaks
    assert a.named("input_from_spikes").values["inputs"] == ["input 'x'"]


def test_an_input_of_past_spikes_alone_is_none():
    """A cursor that earlier spikes move is known when the window begins."""
    rec = independent()
    kernel = np.exp(-np.arange(40) / 10.0)
    x = np.convolve(counts_of(rec).sum(1), kernel)[: len(GRID)]
    known = lambda delay: replace(
        rec, behavior={"x": BehaviorVariable(GRID, np.r_[np.zeros(delay), x[: len(x) - delay]])}
    )
    assert named(found(known(6), ["x"])) == set()  # a bin more than the window
    assert named(found(known(0), ["x"])) == {"input_from_spikes"}


def test_frames_that_hold_the_counts_of_the_window_are_named():
    rec = independent()
    rng = np.random.default_rng(0)
    counts = counts_of(rec).reshape(-1, 5, 12).sum(1)
    images = rng.integers(0, 255, (len(counts), 12, 12)).astype(np.uint8)
    onset = np.arange(len(counts)) * 5 * DT
    noise = FrameSeries(images.copy(), onset, np.arange(len(counts)))
    images[:, 2, :] = np.minimum(counts * 50, 255)
    assert named(found(replace(rec, frames=noise), frames=0.1)) == set()
    made = FrameSeries(images, onset, np.arange(len(counts)))
    assert named(found(replace(rec, frames=made), frames=0.1)) == {"input_from_spikes"}


@pytest.mark.parametrize("kind", ["regression", "circular", "classification"])
def test_an_input_that_is_a_function_of_a_target_is_named(kind):
    rng = np.random.default_rng(0)
    slow = gaussian_filter1d(rng.standard_normal((len(GRID), 2)), 50, axis=0).T
    y, other = slow / slow.std(1, keepdims=True)
    label = {"regression": y, "circular": y % 6.28, "classification": (y > 0).astype(float)}[kind]
    copy = np.tanh(y) + 0.05 * rng.standard_normal(len(y))
    behavior = {k: BehaviorVariable(GRID, v) for k, v in {"y": label, "copy": copy, "other": other + 0.5 * y}.items()}
    rec = replace(independent(), behavior=behavior)
    targets = [{"name": "y", "kind": kind}]
    assert named(found(rec, ["copy"], targets)) == {"input_is_target"}
    assert named(found(rec, ["other"], targets)) == set()


def test_a_speed_that_is_smoothed_both_ways_is_no_input():
    x = np.cumsum(np.random.default_rng(0).standard_normal(len(GRID)))
    rec = with_speed(replace(independent(), behavior={"x": BehaviorVariable(GRID, x)}), "speed", "x", 0.2)
    assert named(found(rec, ["speed"])) == {"input_sees_ahead"}
    assert named(found(rec, ["x"], [{"name": "speed"}])) == set()


@pytest.mark.parametrize(("jitter", "lag"), [(0.0, 0.0), (0.002, 0.0), (0.002, 0.013), (0.0, 0.03)])
def test_units_copied_with_jitter_or_lag_are_named(jitter, lag):
    rec = independent()
    rng = np.random.default_rng(1)
    mine = rec.spike_units < 3
    moved = rec.spike_times[mine] + lag + jitter * rng.standard_normal(mine.sum())
    times = np.clip(np.r_[rec.spike_times, moved], 0, SECONDS - 1e-6)
    units = np.r_[rec.spike_units, rec.spike_units[mine] + 12]
    order = np.argsort(times)
    twice = replace(rec, spike_times=times[order], spike_units=units[order], units={"id": np.arange(15).astype(str)})
    pairs = found(twice).named("duplicated_units").values["pairs"]
    assert sorted(pairs) == [["0", "12"], ["1", "13"], ["2", "14"]]


def test_units_that_a_fast_stimulus_drives_together_are_no_copies():
    rng = np.random.default_rng(0)
    flash = 4 + 60 * (gaussian_filter1d(rng.standard_normal(len(GRID)), 2) > 0.6)
    assert named(found(recording(np.repeat(flash[:, None], 6, 1)))) == set()


def test_the_same_session_twice_is_named_and_the_same_stimulus_is_not():
    rng = np.random.default_rng(0)
    drive = np.exp(1.5 * gaussian_filter1d(rng.standard_normal((len(GRID), 12)), 3, axis=0) / 0.3)
    one, other = (recording(np.minimum(5 * drive, 80), seed) for seed in (1, 2))
    inside = (one.spike_times > 60) & (one.spike_times < 200)
    part = replace(
        one,
        name="cropped",
        spike_times=one.spike_times[inside] - 47.3,
        spike_units=(11 - one.spike_units[inside]).astype(np.int32),
        domain=np.array([[12.7, 152.7]]),
    )
    recs = [one, other, part]
    after = audit_together([found(r) for r in recs], recs)
    assert [named(a) for a in after] == [set(), set(), {"same_session"}]
    values = after[2].named("same_session").values
    assert values["recording"] == "r1" and abs(values["shift_s"] - 47.3) < 1e-3 and values["units"] == 12


@pytest.mark.parametrize("seed", range(3))
def test_clean_recordings_raise_none_of_these(seed):
    """Units that an input and frames drive, strongly and at once."""
    rng = np.random.default_rng(seed)
    x = gaussian_filter1d(rng.standard_normal(len(GRID)), 3 * 4**seed)
    x /= x.std()
    images = rng.integers(0, 255, (len(GRID) // 5, 6, 6)).astype(np.uint8)
    drive = np.repeat(images.reshape(len(images), -1) @ rng.standard_normal((36, 16)) / 500, 5, 0)
    rates = np.minimum(6 * np.exp(x[:, None] * rng.uniform(-1, 1, 16) + drive), 150)
    frames = FrameSeries(images, np.arange(len(images)) * 5 * DT, np.arange(len(images)))
    own = gaussian_filter1d(rng.standard_normal(len(x)), 30)
    y = gaussian_filter1d(x, 30) / x.std() + own / own.std()
    behavior = {"x": BehaviorVariable(GRID, x), "y": BehaviorVariable(GRID, y)}
    rec = recording(rates, seed, behavior=behavior, frames=frames)
    assert named(found(rec, ["x"], [{"name": "y"}], frames=0.1)) == set()
