"""Stimuli to show next: matched controls, and what a model expects of them."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import small_config, small_model, small_recording

from neuroformer.analysis.mei import true_log_rates
from neuroformer.analysis.next_stimuli import (
    KINDS,
    Suite,
    _scrambled,
    expected_rates,
    make_suite,
    matched,
    natural_clips,
    natural_spectrum,
    verify,
)
from neuroformer.analysis.stimulus_file import close_loop, names_of, session_of, write_suite
from neuroformer.cli import main
from neuroformer.config import ConfigError, to_dict
from neuroformer.recording import open_recording
from neuroformer.recording.formats.npz import write_npz


@pytest.fixture(scope="module")
def small():
    model, prepared = small_model(small_recording(), small_config(targets=[], loss={}))
    return model, prepared, make_suite(model, prepared, [0, 2, 3], steps=15, starts=1)


def test_every_clip_has_its_controls_of_one_contrast(small):
    model, prepared, suite = small
    assert [suite.kind_S[suite.unit_S == u].tolist() for u in (0, 2, 3)] == [list(KINDS)] * 3
    encoder = model.frames.encoder
    x = (suite.clips_SFHX - float(encoder.mean)) / float(encoder.std)
    np.testing.assert_allclose(x.mean((1, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(np.sqrt((x**2).mean((1, 2, 3))), suite.contrast, rtol=1e-3)
    mei, scrambled = x[0], x[2]
    np.testing.assert_allclose(np.abs(np.fft.fftn(mei)), np.abs(np.fft.fftn(scrambled)), atol=0.05)
    assert np.abs(np.corrcoef(mei.ravel(), scrambled.ravel())[0, 1]) < 0.5
    other = np.flatnonzero((suite.unit_S == 0) & (suite.kind_S == "other_unit"))[0]
    owners = [np.flatnonzero((suite.unit_S == u) & (suite.kind_S == "mei"))[0] for u in (2, 3)]
    assert any(np.allclose(suite.clips_SFHX[other], suite.clips_SFHX[k], atol=1e-3) for k in owners)


def test_spectrum_is_bounded(small):
    _, prepared, suite = small
    natural = natural_clips(prepared, 100, suite.contrast, np.random.default_rng(0))
    spectrum = natural_spectrum(natural)
    assert spectrum.shape == suite.clips_SFHX.shape[1:]
    np.testing.assert_allclose((spectrum**2).mean(), suite.contrast**2 * spectrum.size, rtol=1e-6)


def test_scrambling_keeps_amplitudes():
    rng = np.random.default_rng(0)
    clip = rng.normal(size=(3, 8, 8))
    np.testing.assert_allclose(np.abs(np.fft.fftn(_scrambled(clip, rng))), np.abs(np.fft.fftn(clip)), atol=1e-9)
    assert matched(clip, 0.3).std() == pytest.approx(0.3)


def test_expected_rates_are_those_of_the_network(small):
    model, prepared, suite = small
    few = suite.clips_SFHX[:5]
    found = expected_rates(model, prepared, few, at_once=2)
    np.testing.assert_allclose(found, expected_rates(model, prepared, few, at_once=5), rtol=1e-6)
    with torch.no_grad():
        for p in model.frames.readout.what.parameters():
            before = p.clone()
            p.add_(0.5)
    assert not np.allclose(found, expected_rates(model, prepared, few))
    with torch.no_grad():
        p.copy_(before)


def test_most_exciting_clips_beat_natural_ones_in_their_own_model(small):
    model, prepared, suite = small
    own = verify(suite, expected_rates(model, prepared, suite.clips_SFHX))
    assert own.above_natural.min() > 0.9
    assert (own.gain["mei"] > own.gain["scrambled"]).all() and (own.gain["mei"] > own.gain["natural_best"] - 0.02).all()


def test_true_rates_are_those_that_the_recording_was_made_with():
    """Clips of the movies themselves: what the stimulus adds is the generator's own log rate where the eye is at rest."""
    few = {"num_units": 10, "num_trials": 5, "num_movies": 1, "trial_s": 6.0}
    still = {"gaze_sd": 1e-9, "gaze_drift": 0.0, "gaze_gain": 0.0, "speed_gain": (0.0, 0.0), "pupil_gain": (0.0, 0.0)}
    alone = {"num_hubs": 0, "self_history": (0.0, 0.0, 0.0)}
    rec = open_recording("synthetic:demo", **few, **still, **alone)
    frames = rec.frames.images[:120]
    clips = np.stack([frames[k - 2 : k + 1] for k in range(2, 120)])
    found = true_log_rates(clips, rec)
    bins = rec.truth["rate"].shape[0] // 5 // 120  # of a frame
    made = np.log(rec.truth["rate"][: 120 * bins : bins][2:].astype(float))
    below = made.max(0) < np.log(0.999)  # not at the generator's cap
    difference = (made - found - rec.truth["baseline"])[:, below]
    np.testing.assert_allclose(difference, 0, atol=1e-4)
    assert below.any() and np.ptp(found, axis=0).max() > 1


def test_verification_counts_what_it_says():
    kinds = np.array([*KINDS, "natural", "natural", "natural", "natural"])
    suite = Suite(np.zeros((8, 1, 2, 2)), kinds, np.array([1, 1, 1, 1, -1, -1, -1, -1]), 0.25, 0.05)
    rate = np.zeros((8, 2))
    rate[:, 1] = [3, 2, 1, 0, 1, 2, 4, 1]
    found = verify(suite, rate)
    assert found.units.tolist() == [1] and found.above_natural.tolist() == [0.75] and found.gain["mei"][0] == 1
    assert found.share_above(0.75) == 1 and found.share_above() == 0


def test_a_blind_run_is_refused():
    rec = dataclasses.replace(small_recording(), frames=None)
    model, prepared = small_model(rec, small_config(targets=[], loss={"contrast": []}, window={"frames": 0.0}))
    with pytest.raises(ConfigError, match="sees no frames"):
        make_suite(model, prepared)


def test_the_session_and_the_closed_loop(tmp_path, small):
    model, prepared, suite = small
    ids = prepared.rec.unit_ids
    rate = expected_rates(model, prepared, suite.clips_SFHX)
    session = session_of(suite, ids, 127.0, np.dtype(np.uint8), repeats=3)
    trials = session.trials
    assert session.num_trials == 3 * (12 + 20) and set(trials["kind"]) == {*KINDS, "natural"}
    k = 40
    inside = (session.frames.times >= trials["start"][k] - 1e-9) & (session.frames.times < trials["stop"][k] - 1e-9)
    shown = session.frames.images[session.frames.index[inside]]
    names = names_of(suite, ids)
    clip = suite.clips_SFHX[names.index(trials["stimulus"][k])]
    np.testing.assert_allclose(shown, np.clip(np.rint(clip), 0, 255))
    before = session.frames.index[(session.frames.times < trials["start"][0] - 1e-9)]
    assert (session.frames.images[before] == 127).all() and len(before) == 10
    files = {f.name for f in write_suite(tmp_path, suite, session, ids, rate)}
    assert {"stimuli.npz", "design.csv", "expected.npz"} <= files
    assert open_recording(tmp_path / "stimuli.npz").num_trials == session.num_trials
    lines = (tmp_path / "design.csv").read_text().splitlines()
    assert len(lines) == 1 + session.num_trials and lines[0].endswith("first_frame")
    # units that answer as expected, more strongly, so that few repeats tell
    rng = np.random.default_rng(0)
    row = np.array([names.index(s) for s in trials["stimulus"]])
    counts = rng.poisson(20 * np.exp(0.8 * ((rate - rate.mean(0)) / rate.std(0))[row]))
    trial, unit = np.nonzero(counts)
    trial, unit = (np.repeat(x, counts[trial, unit]) for x in (trial, unit))
    at = trials["start"][trial] + rng.uniform(0, 1, len(trial)) * (trials["stop"] - trials["start"])[trial]
    order = np.argsort(at)
    measured = dataclasses.replace(session, spike_times=at[order], spike_units=unit[order].astype(np.int32))
    with np.load(tmp_path / "expected.npz") as file:
        loop = close_loop(measured, file["stimulus"], file["unit_ids"].tolist(), file["log_rate"])
    assert loop.delay_s == 0 and np.nanmedian(loop.r) > 0.5 and loop.wins["scrambled"] > 0.6
    with pytest.raises(ConfigError, match="lack stimulus"):
        close_loop(prepared.rec, np.array(["a"]), ids, rate)


def test_the_command(tmp_path, capsys):
    import yaml

    write_npz(small_recording(), tmp_path / "r.npz")
    config = to_dict(small_config(targets=[], loss={"contrast": []}, train={"steps": 2}))
    config["recording"]["path"] = str(tmp_path / "r.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    run = str(tmp_path / "run")
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--run", run, "--no-baselines", "--quiet"]) == 0
    few = ["--units", "u0,u2,u4", "--steps", "3", "--repeats", "2"]
    assert main(["stimuli", "--run", run, "--verify", run, *few]) == 0
    out = capsys.readouterr().out
    assert "second run" in out and "64 presentations" in out
    folder = tmp_path / "run" / "stimuli"
    assert main(["stimuli", "--run", run, "--measured", str(folder / "stimuli.npz")]) == 2
    assert "holds no spike" in capsys.readouterr().err
    assert main(["stimuli", "--run", run, "--units", "x"]) == 2
    assert "no unit 'x'" in capsys.readouterr().err
