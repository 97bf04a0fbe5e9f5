"""The built-in recording: determined by its seed, true to its truth."""

import dataclasses

import numpy as np
import pytest

from neuroformer.recording import synthetic as syn
from neuroformer.recording.formats.npz import read_npz, write_npz
from neuroformer.recording.recording import RecordingError
from neuroformer.recording.synthetic.receptive_fields import draw_units, shifted_responses

SMALL = {"num_units": 16, "num_trials": 4, "trial_s": 3.0, "targets_per_hub": 3}


@pytest.fixture(scope="module")
def default():
    return syn.demo()


@pytest.fixture(scope="module")
def small():
    return syn.demo(**SMALL)


def counts_of(rec):
    """(trials, bins, units) of a recording whose bins are those of its truth."""
    dt, onset = rec.meta["rate_dt_s"], rec.truth["rate_times"]
    counts = np.zeros(rec.truth["rate"].shape)
    at = np.searchsorted(onset, rec.spike_times, side="right") - 1
    assert (rec.spike_times - onset[at] < dt).all()
    np.add.at(counts, (at, rec.spike_units), 1)
    return counts.reshape(rec.num_trials, -1, rec.num_units)


def test_default_recording_is_the_published_one(default):
    assert default.sha256() == syn.DEMO_SHA256


def test_seed_and_parameters_determine_the_recording(small):
    assert syn.synthetic("synthetic:demo", **SMALL).sha256() == small.sha256()
    assert syn.synthetic("demo", **SMALL).sha256() == small.sha256()
    assert syn.demo(1, **SMALL).sha256() != small.sha256()
    assert syn.demo(**SMALL, rate_hz=4.0).sha256() != small.sha256()


@pytest.mark.parametrize(
    "size",
    [
        {"num_units": 1, "num_trials": 1, "trial_s": 0.5, "num_movies": 1},
        {"num_units": 7, "num_trials": 3, "trial_s": 1.0, "num_movies": 3},
        {"num_units": 20, "num_trials": 11, "trial_s": 0.35, "gap_s": 0.0, "num_movies": 4},
        {"num_units": 5, "num_trials": 2, "trial_s": 1.0, "num_hubs": 0, "frame_size": 24},
    ],
)
def test_any_size(size):
    rec = syn.demo(**size)
    assert rec.num_units == size["num_units"] and rec.num_trials == size["num_trials"]
    assert np.isclose(rec.duration, size["num_trials"] * size["trial_s"])
    assert np.isfinite(rec.truth["rate"]).all()


def test_truth_has_the_shapes_it_documents(default):
    p, t = syn.DemoParameters(), default.truth
    n, s = p.num_units, p.frame_size
    bins = p.num_trials * p.num_frames * p.bins_per_frame
    shapes = {
        "rf_even": (n, s, s),
        "rf_odd": (n, s, s),
        "rf_center": (n, 2),
        "rf_orientation": (n,),
        "rf_frequency": (n,),
        "rf_sigma": (n,),
        "rf_temporal": (n, 3),
        "stimulus_gain": (n,),
        "is_responsive": (n,),
        "is_simple": (n,),
        "is_hub": (n,),
        "coupling": (n, n),
        "coupling_delay_s": (n, n),
        "speed_gain": (n,),
        "pupil_gain": (n,),
        "gaze_gain": (n, 2),
        "baseline": (n,),
        "rate": (bins, n),
        "rate_times": (bins,),
    }
    assert {k: t[k].shape for k in shapes} == shapes
    assert t["rate"].dtype == np.float32 and (t["rate"] > 0).all() and (t["rate"] <= 1).all()
    assert t["is_hub"].sum() == p.num_hubs
    assert ((t["coupling"] > 0).sum(0)[t["is_hub"]] == p.targets_per_hub).all()
    assert ((t["coupling"] > 0).sum(1) <= 1).all() and not t["coupling"][:, ~t["is_hub"]].any()
    assert ((t["coupling_delay_s"] >= p.dt_s) == (t["coupling"] > 0)).all()
    np.testing.assert_allclose(t["rf_temporal"].sum(1), 1)


def test_receptive_fields_lie_where_their_centers_say(default):
    t = default.truth
    energy = (t["rf_even"] ** 2 + t["rf_odd"] ** 2)[t["is_responsive"]]
    pixel = np.arange(energy.shape[-1])
    mass = energy.sum((1, 2))
    xy = np.stack([(energy.sum(1) * pixel).sum(1), (energy.sum(2) * pixel).sum(1)], 1) / mass[:, None]
    np.testing.assert_allclose(xy, t["rf_center"][t["is_responsive"]], atol=0.3)
    assert not t["rf_even"][~t["is_responsive"]].any()


def test_counts_follow_the_conditional_rate(default):
    rate = default.truth["rate"].astype(float)
    counts = counts_of(default).reshape(rate.shape)
    z = (counts.sum(0) - rate.sum(0)) / np.sqrt(rate.sum(0))
    assert np.abs(z).max() < 4.5 and 0.7 < z.std() < 1.3
    # calibrated, too, where the rate is high and where it is low
    for low, high in [(0, 0.01), (0.01, 0.05), (0.05, 0.2), (0.2, 1.01)]:
        in_band = (rate >= low) & (rate < high)
        expected = rate[in_band].sum()
        assert abs(counts[in_band].sum() - expected) < 4 * np.sqrt(expected)


def test_hubs_drive_their_targets_at_the_true_delay(default):
    p, t = syn.DemoParameters(), default.truth
    counts = counts_of(default)
    counts = counts - counts.mean((0, 1))
    margin = 12
    hit = []
    for target, hub in np.argwhere(t["coupling"] > 0):
        after = counts[:, margin:, target]
        before = [counts[:, margin - lag : counts.shape[1] - lag, hub] for lag in range(1, margin + 1)]
        smooth = np.convolve([(after * b).mean() for b in before], np.ones(p.hub_width_bins), "valid")
        hit.append((smooth.argmax() + 1) * p.dt_s - t["coupling_delay_s"][target, hub])
    assert np.mean(np.abs(hit) < 1e-9) > 0.9 and np.abs(hit).max() < 1.5 * p.dt_s


def test_silent_hubs_cost_their_targets_spikes(small):
    without = syn.demo(**SMALL, hub_rate_hz=1e-6)
    target = small.truth["coupling"].any(1)
    np.testing.assert_array_equal(target, without.truth["coupling"].any(1))
    assert without.rates()[without.truth["is_hub"]].max() == 0


def test_repeated_trials_share_images_and_every_split_sees_every_movie(default):
    frames, trials = default.frames, default.trials
    p = syn.DemoParameters()
    shown = frames.index.reshape(p.num_trials, p.num_frames)
    assert len(frames.images) == p.num_movies * p.num_frames
    for movie in range(p.num_movies):
        assert (shown[trials["movie"] == movie] == movie * p.num_frames + np.arange(p.num_frames)).all()
    place = np.arange(p.num_trials) % syn.SPLIT_PERIOD
    for at in (3, 4):
        assert (np.bincount(trials["movie"][place == at]) == [3, 3, 3]).all()
    np.testing.assert_allclose(frames.times.reshape(p.num_trials, -1)[:, 0], trials["start"])


def test_behavior_is_in_range_and_starts_afresh_each_trial(default):
    p = syn.DemoParameters()
    values = {k: v.values.reshape(p.num_trials, p.num_frames, -1) for k, v in default.behavior.items()}
    assert values["speed"].min() >= 0 and 5 < values["speed"].std() < 10
    assert np.abs(values["gaze"]).max() <= p.gaze_max
    end, start = values["speed"][:-1, -1, 0], values["speed"][1:, 0, 0]
    assert abs(np.corrcoef(end, start)[0, 1]) < 0.45
    assert abs(np.corrcoef(values["speed"].ravel(), values["pupil"].ravel())[0, 1]) < 0.15


def test_history_starts_empty_and_sizes_do_not_leak_into_units(small):
    more = syn.demo(**{**SMALL, "num_trials": 8})
    for key in ("rf_center", "coupling", "speed_gain"):
        np.testing.assert_array_equal(small.truth[key], more.truth[key])
    np.testing.assert_array_equal(small.frames.images, more.frames.images)


def test_round_trip_through_npz(small, tmp_path):
    back = read_npz(write_npz(small, tmp_path / "demo.npz"))
    assert back.sha256() == small.sha256()
    assert set(back.truth) == set(small.truth)
    np.testing.assert_array_equal(back.truth["rate"], small.truth["rate"])
    assert back.meta["parameters"]["num_units"] == 16 and back.name == "synthetic:demo"


def test_energy_is_phase_free():
    """A complex cell's quadrature energy ignores the phase of its preferred grating (Adelson & Bergen 1985)."""
    p = syn.DemoParameters(num_units=8, trial_s=1.0, untuned_fraction=0.0, num_hubs=0)
    u = draw_units(np.random.default_rng(0), p)
    x = np.arange(p.frame_size)
    angle = u["rf_orientation"][0]
    along = x * np.cos(angle) + x[:, None] * np.sin(angle)
    phases = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    gratings = 128 + 45 * np.cos(2 * np.pi * p.frequency * along + phases[:, None, None])
    energy = np.abs(shifted_responses(gratings[None], u, p)[0, :, p.gaze_max, p.gaze_max, 0]) ** 2
    assert energy.std() < 0.02 * energy.mean()


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: syn.synthetic("synthetic:dmo"), "known: synthetic:cohort, synthetic:demo"),
        (lambda: syn.demo(num_unit=3), "did you mean 'num_units'"),
        (lambda: syn.demo(num_units=0), "expected 1 or more"),
        (lambda: syn.demo(num_movies=9), "at most 4"),
        (lambda: syn.demo(rate_hz="fast"), "rate_hz is 'fast'"),
        (lambda: syn.demo(num_units=2.5), "num_units is 2.5"),
        (lambda: syn.demo(trial_s=-1.0), "expected above 0"),
        (lambda: syn.demo(dt_s=0.03), "whole number of bins"),
    ],
)
def test_impossible_requests_are_refused_by_name(call, says):
    with pytest.raises(RecordingError, match=says):
        call()


def test_parameters_are_in_the_recording(small):
    fields = {f.name for f in dataclasses.fields(syn.DemoParameters)}
    assert set(small.meta["parameters"]) == fields and small.meta["seed"] == 0
