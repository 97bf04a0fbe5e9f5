"""Frames from spikes: a target like any other, scored as images."""

import dataclasses

import numpy as np
import pytest
from helpers import small_config, small_model, small_recording

from neuroformer.cli import main
from neuroformer.config import ConfigError, to_dict
from neuroformer.decoding.decode import Decoded
from neuroformer.decoding.images import image_scores
from neuroformer.recording import FrameSeries, Recording
from neuroformer.recording.formats.npz import write_npz

FROM_SPIKES = {
    "window": {"frames": 0.0, "lookahead": 0.05},
    "inputs": [],
    "targets": [{"name": "frames"}],
    "loss": {"contrast": []},
    "decode": {"lags": [0.1]},
}


def seen_recording(seconds: float = 40.0) -> Recording:
    """Nine units, each of which fires where its own ninth of the frame is bright."""
    rng = np.random.default_rng(0)
    times = np.arange(0, seconds, 0.05)
    patches = rng.uniform(0, 1, (len(times), 3, 3))
    for k in range(1, len(times)):
        patches[k] = 0.8 * patches[k - 1] + 0.2 * patches[k]
    spread = (patches - patches.mean(0)) / patches.std(0)
    images = np.clip(128 + 50 * spread.repeat(12, 1).repeat(12, 2), 0, 255).astype(np.uint8)
    counts = rng.poisson(np.exp(0.5 + 0.8 * spread.reshape(-1, 9)))
    frame, unit = np.nonzero(counts)
    frame, unit = (np.repeat(x, counts[frame, unit]) for x in (frame, unit))
    at = times[frame] + rng.uniform(0, 0.05, len(frame))
    order = np.argsort(at)
    base = small_recording(num_units=9, seconds=seconds)
    return dataclasses.replace(
        base, spike_times=at[order], spike_units=unit[order], frames=FrameSeries(images, times, np.arange(len(times)))
    )


def test_frames_are_a_variable_of_means_over_squares_of_pixels():
    rec = seen_recording()
    variable = rec.variable("frames")
    assert rec.frames.decoded_shape == (12, 12) and variable.num_columns == 144
    image = rec.frames.images[7].astype(float)
    np.testing.assert_allclose(variable.values[7].reshape(12, 12), image.reshape(12, 3, 12, 3).mean((1, 3)), rtol=1e-6)
    odd = FrameSeries(np.arange(2 * 17 * 5).reshape(2, 17, 5).astype(float), np.array([0.0, 1.0]), np.array([1, 0]))
    assert odd.decoded_shape == (9, 3)
    np.testing.assert_allclose(odd.as_variable().values[1].reshape(9, 3)[-1, -1], odd.images[0, 16, 4])


def test_a_network_that_sees_frames_cannot_decode_them():
    with pytest.raises(ConfigError, match="nothing to decode"):
        small_config(targets=[{"name": "frames"}], loss={"contrast": []})
    with pytest.raises(ConfigError, match=r"inputs\[0\].name"):
        small_config(inputs=[{"name": "frames"}])


def test_scores_of_images_are_what_they_say():
    """Against scikit-image, and for what is known: the frame itself, its negative, the mean frame."""
    skimage = pytest.importorskip("skimage.metrics")
    _, prepared = small_model(seen_recording(), small_config(**FROM_SPIKES))
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 255, (40, 144))
    near = true + 20 * rng.normal(size=true.shape)
    predicted = {"model": near, "itself": true, "negative": 255 - true}
    found = image_scores(Decoded("frames", np.arange(40.0), np.zeros(40), true, predicted), prepared)
    assert found["decode_frames_ssim_itself"] == pytest.approx(1) and found[
        "decode_frames_r_negative"
    ] == pytest.approx(-1)
    assert found["decode_frames_mse"] == pytest.approx(((near - true) ** 2).mean())
    scale = prepared.normalization.targets["frames"]
    span = max(scale.high) - min(scale.low)
    assert found["decode_frames_psnr"] == pytest.approx(10 * np.log10(span**2 / found["decode_frames_mse"]))
    options = {"data_range": span, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    maps = [
        skimage.structural_similarity(*(x.reshape(12, 12) for x in pair), **options)[1]
        for pair in zip(near, true, strict=True)
    ]
    # the libraries differ in how they average at the borders
    assert found["decode_frames_ssim"] == pytest.approx(np.mean(maps), abs=0.02)
    assert found["decode_frames_r_mean_frame"] < 0.2 and "decode_frames_ssim_mean_frame_low" in found


def test_frames_are_decoded_from_spikes(tmp_path, capsys):
    import yaml

    write_npz(seen_recording(), tmp_path / "r.npz")
    config = to_dict(small_config(**FROM_SPIKES | {"train": {"steps": 4}, "tune": {"steps": 2}}))
    config["recording"]["path"] = str(tmp_path / "r.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    run = str(tmp_path / "run")
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--run", run, "--no-baselines", "--quiet"]) == 0
    assert main(["decode", "--run", run, "--baselines", "ridge", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "frames as images" in out and "mean_frame" in out
    import json

    scores = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert scores["decode_frames_ssim_ridge"] > scores["decode_frames_ssim_mean_frame"] + 0.1
    assert scores["decode_frames_r_ridge"] > 0.5 > scores["decode_frames_r_mean_frame"]
    assert (tmp_path / "run" / "decode_frames.png").exists()
