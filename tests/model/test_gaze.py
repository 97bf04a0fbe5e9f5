"""Frames that move with the eye: by the right amount and direction, and not at all where nothing is known."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import small_config, small_model, small_recording

from neuroformer.analysis.attend import attend
from neuroformer.analysis.fields import frame_sensitivity
from neuroformer.config import ConfigError, member_config, to_dict
from neuroformer.generation.simulate import simulate
from neuroformer.model.frames import shifted

ENCODER = {"kind": "conv3d", "kernel": [2, 4, 4], "stride": [1, 2, 2]}


def config(inputs=("pupil", "gaze"), **encoder):
    return small_config(
        inputs=[{"name": name} for name in inputs],
        targets=[{"name": "speed"}],
        model={"width": 16, "heads": 2, "dropout": 0.0, "frame_encoder": ENCODER | encoder},
    )


def test_a_clip_moves_right_and_down_by_whole_pixels_and_gray_follows():
    clips = torch.arange(2 * 3 * 6 * 8, dtype=torch.float64).reshape(2, 3, 6, 8)
    moved = shifted(clips, torch.tensor([[2 / 8, 1 / 6], [-3 / 8, 0.0]], dtype=torch.float64), gray=7.0)
    torch.testing.assert_close(moved[0, :, 1:, 2:], clips[0, :, :-1, :-2])
    torch.testing.assert_close(moved[1, :, :, :-3], clips[1, :, :, 3:])
    assert torch.allclose(moved[0, :, 0], torch.tensor(7.0).double())
    assert torch.allclose(moved[0, :, :, :2], torch.tensor(7.0).double())


def test_frames_are_those_that_were_shown_until_a_matrix_is_learnt_and_where_gaze_is_missing():
    plain, prepared = small_model(config=config())
    followed, _ = small_model(config=config(follow="gaze"))
    state = {name: x for name, x in followed.state_dict().items() if "frames.gaze." in name}
    followed.load_state_dict(plain.state_dict() | state)
    gaze = followed.frames.gaze
    batch = prepared.builder(prepared.windows("test")[:12])
    with torch.no_grad():
        gaze.matrix.zero_()
        still = followed.expected(batch)
        torch.testing.assert_close(still, plain.expected(batch))
        gaze.matrix.copy_(torch.eye(2))
        assert (followed.expected(batch) - still).abs().max() > 1e-3
        blind = dataclasses.replace(
            batch, inputs=batch.inputs | {"gaze": torch.full_like(batch.inputs["gaze"], np.nan)}
        )
        torch.testing.assert_close(gaze(blind).images_GFHW, batch.clips.images_GFHW[batch.clips.index_W].double())


def test_looking_right_moves_the_clip_by_the_matrix():
    net, prepared = small_model(config=config(follow="gaze"))
    gaze = net.frames.gaze
    batch = prepared.builder(prepared.windows("test")[:5])
    with torch.no_grad():
        gaze.matrix.copy_(
            torch.tensor([[-1.0, 0.0], [0.0, 0.0]])
        )  # against the first column: an eighth of eight pixels
    look = gaze.center + gaze.spread * torch.tensor([1.0, 3.0])
    at = look.expand_as(batch.inputs["gaze"]).clone()
    seen = gaze(dataclasses.replace(batch, inputs=batch.inputs | {"gaze": at.float()}))
    shown = batch.clips.images_GFHW[batch.clips.index_W].double()
    torch.testing.assert_close(seen.images_GFHW[..., :-1], shown[..., 1:], atol=0.2, rtol=0)


def test_training_clips_move_at_random_and_others_do_not():
    net, prepared = small_model(config=config(shift_noise=0.5))
    batch = prepared.builder(prepared.windows("train")[:6])
    gaze = net.frames.gaze
    assert gaze(batch).images_GFHW is batch.clips.images_GFHW
    torch.manual_seed(0)
    moved = gaze.train()(batch).images_GFHW
    assert (moved - batch.clips.images_GFHW).abs().mean() > 1 and moved.shape == batch.clips.images_GFHW.shape


def test_simulated_animals_look_around_too():
    net, prepared = small_model(small_recording(num_trials=10), config(follow="gaze"))
    spikes = []
    for size in (0.0, 0.0, 4.0):
        with torch.no_grad():
            net.frames.gaze.matrix.copy_(size * torch.eye(2))
        spikes.append(simulate(net, prepared, progress=False).recording.spike_times)
    np.testing.assert_array_equal(spikes[0], spikes[1])
    assert len(spikes[0]) and not np.array_equal(spikes[0], spikes[2])


@pytest.mark.parametrize(
    "change, says",
    [
        ({"follow": "eye"}, "model.frame_encoder.follow is 'eye'; expected one of pupil, gaze"),
        ({"kind": "backbone", "backbone": "somewhere", "shift_noise": 1.0}, "shift_noise is 1.0; expected nothing"),
    ],
)
def test_what_cannot_be_is_refused(change, says):
    with pytest.raises(ConfigError, match=says):
        config(**change)


def test_a_recording_without_gaze_sees_its_frames_as_they_were_shown():
    alone = member_config(config(follow="gaze"), 0, lacks={"gaze"})
    assert alone.model.frame_encoder.follow == "" and [v.name for v in alone.inputs] == ["pupil"]


def test_an_input_of_one_column_is_no_gaze():
    with pytest.raises(ConfigError, match="pupil, which has 1 column"):
        small_model(config=config(follow="pupil"))
    assert to_dict(config())["model"]["frame_encoder"]["follow"] == ""


def test_what_moves_with_the_eye_can_be_looked_into():
    """Maps of attention and receptive fields, where every window has a clip of its own; the first windows lack frames."""
    net, prepared = small_model(config=config(follow="gaze"))
    with torch.no_grad():
        net.frames.gaze.matrix.copy_(torch.eye(2))
    first = prepared.windows("train")[:30]
    found = attend(net, prepared, first, num_windows=30, num_knock_out=6)
    frames = found.named("attention to frames")
    assert np.isfinite(frames.values).any() and found.frames["attention"].sum() > 0
    field = frame_sensitivity(net, prepared, first)
    assert np.isfinite(field.values).all() and field.values.any()
