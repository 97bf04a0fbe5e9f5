"""Receptive fields, occlusion and most exciting inputs: each against its definition."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import small_config, small_model, small_recording

from neuroformer.analysis.fields import centers, frame_gradients, frame_sensitivity, occlusion
from neuroformer.analysis.influence import log_odds
from neuroformer.analysis.maps import Map
from neuroformer.analysis.mei import most_exciting, projection
from neuroformer.report.fields import animation, figure_of, receptive_fields, stimuli

UNITS = [f"u{i}" for i in range(6)]


@pytest.fixture(scope="module")
def small():
    model, prepared = small_model(small_recording(), small_config(targets=[], loss={}))
    return model, prepared, prepared.windows("test")[:40]


def log_odds_with(model, batch, images):
    clips = dataclasses.replace(batch.clips, images_GFHW=images)
    return log_odds(model.expected(dataclasses.replace(batch, clips=clips)))


def test_gradients_to_frames_are_slopes_of_log_odds(small):
    model, prepared, windows = small
    one = windows[20:21]
    batch = prepared.builder(one)
    images = batch.clips.images_GFHW.double()
    plain = frame_sensitivity(model, prepared, one)
    times_frame = frame_gradients(model, prepared, one)
    step = torch.zeros_like(images)
    step[0, -2, 3, 4] = 1e-3
    change = log_odds_with(model, batch, images + step) - log_odds_with(model, batch, images - step)
    slope = (change.mean(1)[0] / 2e-3).detach().numpy()
    place = (slice(None), 3 * 8 + 4, 1)  # one frame back
    np.testing.assert_allclose(plain.values[place], abs(slope), rtol=1e-4)
    away = float(images[0, -2, 3, 4] - model.frames.encoder.mean)
    np.testing.assert_allclose(times_frame.values[place], abs(slope * away), rtol=1e-4)
    integrated = frame_gradients(model, prepared, one, steps=3)
    assert integrated.grid == (8, 8) and integrated.name == "integrated gradients to frames"


def test_occlusion_is_the_change_without_a_place(small):
    model, prepared, windows = small
    found = occlusion(model, prepared, windows[:5], patch=2, copies=7)
    assert found.grid == (4, 4) and found.values.shape == (6, 16)
    batch = prepared.builder(windows[:5])
    images = batch.clips.images_GFHW.double()
    gray = images.clone()
    gray[:, :, 2:4, 4:6] = float(model.frames.encoder.mean)
    change = (log_odds_with(model, batch, images) - log_odds_with(model, batch, gray))[:, 0].mean(0)
    np.testing.assert_allclose(found.values[:, 1 * 4 + 2], change.detach().numpy(), atol=1e-5)


def test_the_center_of_a_field_is_where_it_lies():
    y, x = np.mgrid[:20, :24]
    rng = np.random.default_rng(0)
    true = np.array([[15.3, 6.8], [5.5, 12.0]])
    values = [np.exp(-((x - a) ** 2 + (y - b) ** 2) / 8) + 0.05 * rng.random((20, 24)) for a, b in true]
    field = Map(
        "x",
        np.stack(values).reshape(2, -1),
        "",
        ["a", "b"],
        [str(i) for i in range(480)],
        np.ones((1, 1)),
        grid=(20, 24),
    )
    np.testing.assert_allclose(centers(field), true, atol=0.5)
    with pytest.raises(ValueError, match="not over the places of a frame"):
        centers(dataclasses.replace(field, grid=None))


def test_the_most_exciting_input_excites_within_its_norm(small):
    model, prepared, windows = small
    start = most_exciting(model, prepared, windows, steps=0, starts=1)
    found = most_exciting(model, prepared, windows, steps=15, starts=2, contrast=0.5)
    assert found.images.shape == (6, 3, 8, 8)
    assert (found.log_rate > start.log_rate).all() and (found.log_rate > found.gray).all()
    rms = np.sqrt((found.contrast**2).mean((1, 2, 3)))
    assert (rms <= 0.5 + 1e-6).all() and (rms > 0.45).all()
    assert found.images.min() >= -1e-6 and found.images.max() <= 255 + 1e-6


def test_projection_is_the_share_in_the_plane():
    rng = np.random.default_rng(0)
    even, odd = np.zeros((2, 3, 4, 4))
    even[:, 0, :2], odd[:, 0, 1:3] = 1, 2
    inside = 3 * even - odd
    outside = np.zeros((3, 4, 4))
    outside[:, 3] = rng.standard_normal((3, 4))
    clips = np.stack([inside, 0.5 * inside], 1)
    np.testing.assert_allclose(projection(clips, even, odd), 1)
    np.testing.assert_allclose(projection(outside[:, None], even, odd), 0, atol=1e-12)
    both = np.stack(
        [inside, outside / np.linalg.norm(outside, axis=(1, 2), keepdims=True) * np.linalg.norm(inside[0])], 1
    )
    np.testing.assert_allclose(projection(both, even, odd), np.sqrt(0.5))


def test_fields_are_drawn_and_move(small, tmp_path):
    from PIL import Image

    model, prepared, windows = small
    field = frame_sensitivity(model, prepared, windows[:8])
    axes = receptive_fields(field, centers(field))
    assert len(axes) == 6 and axes[1].get_title() == "u1"
    assert len(stimuli(np.ones((6, 3, 8, 8)), UNITS)) == 6
    figure_of(axes).savefig(tmp_path / "fields.png")
    rate = np.tile(np.linspace(0, 1, 5)[:, None], (1, 6))
    animation(tmp_path / "fields.gif", np.full((5, 8, 8), 100, np.uint8), field, rate, 0.05)
    with Image.open(tmp_path / "fields.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 5 and gif.size == (64, 64)
        first = np.asarray(gif.convert("RGB")).astype(float)
        gif.seek(4)
        assert np.abs(np.asarray(gif.convert("RGB")) - first).max() > 30  # outlines light up with the rate
