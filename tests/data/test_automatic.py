"""Settings that a configuration leaves open follow the recordings, and only then."""

import dataclasses

import numpy as np
import pytest
from helpers import small_recording

from neuroformer.config import ConfigError, from_dict
from neuroformer.data.automatic import settled
from neuroformer.data.prepared import prepare
from neuroformer.data.splits import make_split
from neuroformer.recording import Recording
from neuroformer.training.checkpoint import refuse_other_config


def poisson(num_units: int, hz: float, seconds: float) -> Recording:
    rng = np.random.default_rng(0)
    num = round(num_units * hz * seconds)
    return Recording(
        name="r",
        spike_times=np.sort(rng.uniform(0, seconds, num)),
        spike_units=rng.integers(0, num_units, num).astype(np.int32),
        units={"id": np.array([f"u{i}" for i in range(num_units)])},
        domain=np.array([[0.0, seconds]]),
    )


@pytest.mark.parametrize(
    ("num_units", "hz", "batch_size", "steps"),
    [(30, 2, 256, 2000), (300, 5, 106, 1509), (3000, 4, 32, 625), (9000, 4, 32, 500)],
)
def test_a_step_and_all_steps_hold_a_bounded_number_of_spikes(num_units, hz, batch_size, steps):
    train = settled(from_dict({}), [poisson(num_units, hz, 20.0)]).train
    assert (train.batch_size, train.steps) == (batch_size, steps)


def test_what_is_given_is_kept_and_settling_twice_changes_nothing():
    given = from_dict({"train": {"steps": 7, "batch_size": 3}, "window": {"frames": 0.0}})
    assert settled(given, [poisson(300, 5, 20.0)]) == given
    once = settled(from_dict({}), [poisson(30, 2, 20.0)])
    assert settled(once, [poisson(3000, 9, 20.0)]) == once


def test_frames_are_seen_where_there_are_frames():
    with_frames = small_recording()
    without = dataclasses.replace(with_frames, frames=None)
    assert settled(from_dict({}), [without]).window.frames == 0
    assert settled(from_dict({}), [without, with_frames]).window.frames == pytest.approx(0.2)
    assert prepare(without, from_dict({})).config.window.frames == 0


@pytest.mark.parametrize("seconds", [60, 240, 3600, 86400])
def test_the_default_split_fits_four_minutes_and_a_day(seconds):
    split = make_split(poisson(2, 0.5, float(seconds)), from_dict({}))
    turns = len(split.blocks["test"])
    assert turns >= (1 if seconds == 60 else 2)
    for part, share in (("train", 0.6), ("valid", 0.2), ("test", 0.2)):
        assert split.seconds(part) == pytest.approx(share * seconds, rel=0.25)


def test_only_what_is_left_open_may_differ_on_resuming(tmp_path):
    rec = poisson(30, 2, 20.0)
    asked = from_dict({"targets": [{"name": "speed"}, {"name": "gaze"}]})
    refuse_other_config(settled(asked, [rec]), asked, tmp_path)
    for changed in ({"targets": [{"name": "speed"}]}, {"train": {"steps": 7}}):
        with pytest.raises(ConfigError, match="belongs to a run with another configuration"):
            refuse_other_config(
                settled(asked, [rec]), from_dict({"targets": [{"name": "speed"}, {"name": "gaze"}]} | changed), tmp_path
            )
