"""What a batch holds: frames up to the window's end, behavior, clips stored once."""

import dataclasses

import numpy as np
import torch
from helpers import small_config, small_recording

from neuroformer.data.prepared import prepare
from neuroformer.data.windows import Windows
from neuroformer.recording import BehaviorVariable


def at(ticks, segment=0):
    return Windows(np.full(len(ticks), segment), np.asarray(ticks))


def test_the_last_frame_of_a_window_started_before_its_end():
    rec, config = small_recording(), small_config()
    builder = prepare(rec, config).builder
    # frames come at 0, 0.05, ...; the window [0.5, 0.55) sees those of 0.4, 0.45 and 0.5, none at 0.55
    clips = builder(at([50])).clips
    expected = rec.frames.images[[8, 9, 10]]
    assert np.array_equal(clips.images_GFHW[0].numpy(), expected) and clips.age_W.item() == np.float32(0.05)
    until_start = dataclasses.replace(config.window, frames_until="start")
    builder = prepare(rec, dataclasses.replace(config, window=until_start)).builder
    clips = builder(at([50])).clips
    assert np.array_equal(clips.images_GFHW[0].numpy(), rec.frames.images[[7, 8, 9]])


def test_later_frames_are_never_seen():
    rec = small_recording()
    builder = prepare(rec, small_config()).builder
    changed = dataclasses.replace(rec.frames, index=np.where(rec.frames.times >= 0.55, 0, rec.frames.index))
    other = prepare(dataclasses.replace(rec, frames=changed), small_config()).builder
    a, b = builder(at([50])).clips, other(at([50])).clips
    assert torch.equal(a.images_GFHW, b.images_GFHW)


def test_windows_that_show_the_same_frames_share_one_clip():
    rec = small_recording()  # 24 images in turn: the frames repeat after 1.2 s
    builder = prepare(rec, small_config()).builder
    clips = builder(at([50, 170, 55])).clips
    assert len(clips.images_GFHW) == 2 and clips.index_W[0] == clips.index_W[1] != clips.index_W[2]


def test_frames_before_the_origin_are_missing():
    builder = prepare(small_recording(), small_config()).builder
    clips = builder(at([0, 5, 10])).clips
    assert clips.num_missing_G[clips.index_W].tolist() == [2, 1, 0]


def test_behavior_is_what_is_known_and_labels_are_at_the_end():
    rec, config = small_recording(), small_config()
    batch = prepare(rec, config).builder(at([50]))
    # two samples per window, at 0.5125 and 0.5375 s: the last known pupil is that of 0.5 s
    assert torch.allclose(batch.inputs["pupil"][0, :, 0], torch.full((2,), float(np.cos(0.5))))
    assert batch.targets["speed"][0, 0, 0].item() == np.float32(rec.behavior["speed"].values[11, 0])


def test_nan_in_behavior_stays_nan():
    rec = small_recording()
    speed = rec.behavior["speed"].values.copy()
    speed[11] = np.nan
    rec = dataclasses.replace(
        rec, behavior=rec.behavior | {"speed": BehaviorVariable(rec.behavior["speed"].times, speed)}
    )
    batch = prepare(rec, small_config()).builder(at([50, 60]))
    assert torch.isnan(batch.targets["speed"][:, 0, 0]).tolist() == [True, False]


def test_batches_do_not_depend_on_what_is_beside_a_window():
    builder = prepare(small_recording(), small_config()).builder
    whole = builder(at([20, 50, 90]))
    alone = builder(at([50]))
    lo, hi = whole.current.offsets[1:3]
    assert torch.equal(whole.unit_S[lo:hi], alone.unit_S) and torch.equal(whole.tick_S[lo:hi], alone.tick_S)


def test_what_the_host_knows_outlives_tensors_that_a_worker_moves():
    """A worker moves tensors into shared memory one after another; a view of the old memory would then show anything."""
    clips = prepare(small_recording(), small_config()).builder(at([0, 3, 50])).clips
    known = clips.host_missing_G.copy()
    assert known.any() and clips.host_missing_G.flags.owndata
    clips.num_missing_G.share_memory_()
    torch.full((len(known),), -1)
    np.testing.assert_array_equal(clips.host_missing_G, known)
    np.testing.assert_array_equal(clips.num_missing_G.numpy(), known)
