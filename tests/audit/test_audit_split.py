"""The audit of splits: every leak that is planted is found by name."""

from dataclasses import replace

import numpy as np
import pytest
from audited import DEMO, demo, demo_config, names, of_config
from helpers import small_config, small_recording

import neuroformer.audit.stimuli as stimuli
from neuroformer.audit import audit
from neuroformer.audit.split import autocorrelation_time, distances, merged
from neuroformer.config import ConfigError, from_dict
from neuroformer.recording import BehaviorVariable, FrameSeries


def random_windows(rec, width=0.05, seed=0):
    """(N, 2) of train and test windows side by side, as the field splits them by accident."""
    start, stop = rec.domain[0]
    edges = start + width * np.arange(int((stop - start) / width))
    test = np.random.default_rng(seed).random(len(edges)) < 0.2
    windows = np.stack([edges, edges + width], 1)
    return {"train": windows[~test], "test": windows[test]}


def test_random_windows():
    rec = demo()
    found = audit(rec, demo_config(), parts=random_windows(rec))
    assert {"random_windows", "gap_too_short"} <= names(found, "leak")
    # what makes it one: neighbors in training say the answer, with no neural data at all
    speed = found.named("predictable_without_spikes")
    assert speed.values["target"] == "speed" and speed.values["score"] > 0.9


def test_random_windows_without_a_past_are_still_random():
    rec = demo()
    config = from_dict(DEMO | {"window": {"past": 0.0, "frames": 0.05}})
    assert "random_windows" in names(audit(rec, config, parts=random_windows(rec)), "leak")


def test_trials_that_are_windows():
    """A split by trials, where somebody declared every window a trial."""
    rec = demo()
    edges = np.arange(0, 12, 0.1)
    short = replace(rec, trials={"start": edges[:-1], "stop": edges[1:]})
    assert "random_windows" in names(of_config(short, demo_config()), "leak")


def test_held_out_images_among_others_are_no_leak_of_stimuli():
    """Images in random order, whole images held out: what is claimed holds, unless behavior is decoded or time is claimed."""
    rec, edges = small_recording(seconds=40.0), np.arange(0, 40, 0.25)
    movie = np.arange(len(edges)) * 7 % 10
    rec = replace(rec, trials={"start": edges, "stop": edges + 0.25, "movie": movie})
    window = {"dt": 0.25, "current": 0.25, "past": 0.0, "target_past": 0.25, "frames": 0.25}
    split = {"by": "trials", "hold_out": "movie", "claim": "stimuli"}
    images = {"window": window, "split": split, "inputs": [], "loss": {"contrast": []}}
    encoder = {"model": {"frame_encoder": {"kind": "energy"}}}
    found = lambda **more: of_config(rec, small_config(**images | encoder | more))
    assert "random_windows" in names(found(targets=[]), "warning")
    assert "random_windows" in names(found(targets=[{"name": "speed"}]), "leak")
    assert "random_windows" in names(found(targets=[], split=split | {"hold_out": "", "claim": "time"}), "leak")


def test_a_gap_shorter_than_the_window():
    rec = small_recording(seconds=60.0)
    config = small_config(window={"past": 0.4})
    parts = lambda gap: {"train": [[0.0, 30.0]], "test": [[30.0 + gap, 60.0]]}
    found = audit(rec, config, parts=parts(0.2))
    gap = found.named("gap_too_short")
    assert gap.severity == "leak" and gap.values["reach_s"] == 0.4
    # 29.8 s hold 596 windows of 50 ms; those that start less than 0.2 s into the part reach into training
    assert gap.values["shares"]["test reads train"] == pytest.approx(4 / 596, rel=0.01)
    assert "gap_too_short" not in names(audit(rec, config, parts=parts(0.4)))
    assert "gap_too_short" not in names(of_config(rec, config))  # our own windows stay in their block


def test_parts_that_overlap_and_parts_that_are_none():
    rec = small_recording()
    found = audit(rec, small_config(), parts={"train": [[0, 20]], "test": [[18, 30], [35, 38]]})
    assert found.named("overlapping_parts").values == {"test": pytest.approx(2.0)}
    with pytest.raises(ConfigError, match="expected 'train' and 'test'"):
        audit(rec, parts={"train": [[0, 1]]})
    with pytest.raises(ConfigError, match="start < stop"):
        audit(rec, parts={"train": [[0, 1]], "test": [[3, 2]]})


def test_the_split_that_a_file_brings_along():
    rec = small_recording(frames=False)
    parts = random_windows(rec)
    table = lambda t: {"start": t[:, 0], "stop": t[:, 1]}
    with_own = replace(rec, intervals={f"{k}_domain": table(t) for k, t in parts.items()})
    assert "random_windows" in names(audit(with_own), "leak")
    assert "split" not in audit(rec).facts


def test_a_shared_stimulus():
    found = of_config(demo(), demo_config(claim="stimuli"))
    shared = found.named("shared_stimulus")
    assert shared.severity == "leak" and shared.values["frames"] == 1.0
    assert of_config(demo(), demo_config(claim="time")).named("shared_stimulus").severity == "note"


def by_movie(rec, movies_test=(2,)):
    """Parts that hold out whole movies."""
    test = np.isin(rec.trials["movie"], movies_test)
    return {"train": rec.trial_intervals[~test], "test": rec.trial_intervals[test]}


def test_whole_stimuli_held_out_are_no_leak_and_no_repeats():
    rec, config = demo(), demo_config(claim="stimuli")
    found = audit(rec, config, parts=by_movie(rec))
    assert "shared_stimulus" not in names(found) and found.facts["stimuli"]["also_in_train"] == 0
    assert found.facts["stimuli"]["distance_of_the_others"] > 0.2
    assert "no_repeats" in names(audit(rec, demo_config(claim="repeats"), parts=by_movie(rec)))


def test_the_same_movie_under_another_number_is_found_by_hash(monkeypatch):
    rec = demo()
    of_trial = np.searchsorted(rec.trials["start"], rec.frames.times, side="right") - 1
    num = len(rec.frames.images)
    third = rec.trials["movie"][of_trial] == 2
    # the bank twice: movie 2 of the test trials is stored again; train shows it under its own number
    frames = FrameSeries(np.concatenate([rec.frames.images] * 2), rec.frames.times, rec.frames.index + num * third)
    first = replace(rec, frames=replace(frames, index=np.where(third, rec.frames.index % num, frames.index)))
    config = demo_config(claim="stimuli")
    half = rec.trials["movie"] == 2
    half &= np.cumsum(half) % 2 == 0
    parts = {"train": rec.trial_intervals[~half], "test": rec.trial_intervals[half]}
    index = np.where(half[of_trial], rec.frames.index + num, rec.frames.index)
    renamed = replace(first, frames=replace(frames, index=index), trials={k: rec.trials[k] for k in ("start", "stop")})
    found = audit(renamed, config, parts=parts)
    assert found.named("shared_stimulus").values["frames"] == 1.0
    monkeypatch.setattr(stimuli, "_MOST_BYTES", 200 * 32 * 32)  # of a bank too large, a sample is compared
    few = audit(renamed, config, parts=parts)
    assert few.facts["stimuli"]["images_compared"] <= 200


def test_blank_screens_are_no_shared_stimulus():
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    images[[3, 30]] = 128
    frames = FrameSeries(images, np.arange(40) / 20, np.arange(40))
    same, _ = stimuli.shared_images(frames, np.arange(20), np.arange(20, 40))
    assert same.sum() == 0
    images[31] = images[4]
    same, _ = stimuli.shared_images(frames, np.arange(20), np.arange(20, 40))
    assert np.flatnonzero(same).tolist() == [11]


def test_neighboring_frames_of_one_movie_are_no_new_stimuli():
    t = np.arange(2000) / 50
    x = np.linspace(0, 3, 16)
    drifting = (127 + 120 * np.sin(x[None, None] + x[None, :, None] + t[:, None, None] * 3)).astype(np.uint8)
    rec = replace(small_recording(), frames=FrameSeries(drifting, t, np.arange(2000)))
    found = audit(rec, small_config(split={"claim": "stimuli"}), parts={"train": [[0, 20]], "test": [[21, 39]]})
    assert "near_stimuli" in names(found)


def test_time_in_the_trial_is_the_stimulus_where_there_is_no_other():
    rec = small_recording(num_trials=10, frames=False)
    tree = {
        "window": {"frames": 0.0},
        "inputs": [{"name": "trial_time"}],
        "split": {"by": "trials", "claim": "stimuli"},
    }
    assert of_config(rec, from_dict(tree)).leaks


# -- arithmetic ---------------------------------------------------------------------------------------------


def test_golden_intervals():
    a = np.array([[0.0, 1], [1.05, 2], [5, 6], [5.5, 5.6]])
    np.testing.assert_allclose(merged(a, 0.1), [[0, 2], [5, 6]])
    np.testing.assert_allclose(distances(np.array([[2.5, 3], [7, 8], [0.5, 0.6]]), a), [0.5, 1.0, 0.0])


def test_golden_autocorrelation_time():
    """An autoregression that keeps 0.9 each 0.05 s falls to 1/e after 0.05 / -ln 0.9 = 0.475 s."""
    rng = np.random.default_rng(0)
    x = np.zeros(200_000)
    for k in range(1, len(x)):
        x[k] = 0.9 * x[k - 1] + rng.normal()
    t = np.arange(len(x)) * 0.05
    rec = replace(small_recording(frames=False), behavior={"x": BehaviorVariable(t, x)}, domain=np.array([[0, t[-1]]]))
    assert autocorrelation_time(rec, "x", 0.05) == pytest.approx(0.475, abs=0.06)


def test_the_configuration_s_split_is_looked_at():
    rec, config = demo(), demo_config(claim="stimuli")
    assert {f.name for f in audit(rec, config).findings} == {f.name for f in of_config(rec, config).findings}
    assert "shared_stimulus" in names(audit(rec, config), "leak")
    assert "split" not in audit(rec, config, parts={}).facts and "split" not in audit(rec).facts


def test_a_part_of_one_stretch_or_with_a_condition_of_its_own_is_noted():
    rec = small_recording(num_trials=20, frames=False)
    half = replace(rec, trials={**rec.trials, "rule": np.repeat(["go", "nogo"], [16, 4]), "mixed": np.arange(20) % 2})
    config = small_config(window={"frames": 0.0}, loss={"contrast": []}, split={"block": 8.0})
    found = audit(half, config)
    assert found.named("single_stretch").values["seconds"].keys() == {"valid", "test"}
    assert found.named("condition_in_one_part").values == {"column": "rule", "part_of_value": {"nogo": "test"}}
    short = small_config(window={"frames": 0.0}, loss={"contrast": []}, split={"block": 1.0})
    assert audit(rec, short).named("single_stretch") is None
