"""The comparison as a whole: it finds what drives units, knows its ceiling, and says nothing of shuffled stimuli."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from helpers import small_config, small_model, small_recording

from neuroformer.cli import main
from neuroformer.comparison.compare import _ends, _Made, _targets, compare
from neuroformer.comparison.features import Layer, file_layers, layers_of
from neuroformer.comparison.responses import moments_of
from neuroformer.config import ConfigError, to_dict
from neuroformer.recording import FrameSeries, Recording
from neuroformer.recording.formats.npz import write_npz
from neuroformer.report.comparison import comparison

MOVIES, REPEATS, TRIAL_S = 6, 8, 3.0


def repeated_recording(seed: int = 0, num_units: int = 12) -> Recording:
    """Units whose rates follow their own mixture of four pixels of movies that repeat; the last two follow nothing."""
    rng = np.random.default_rng(seed)
    trials = MOVIES * REPEATS
    movie = np.tile(np.arange(MOVIES), REPEATS)
    frames = int(TRIAL_S * 20)
    images = rng.integers(0, 255, (MOVIES * frames, 4, 4), dtype=np.uint8)
    weights = rng.normal(size=(num_units, 4)) * 0.35
    weights[-2:] = 0
    pixels = (images[:, 0].astype(float) - 127) / 73
    rate = 40 * np.exp(pixels @ weights.T - (weights**2).sum(1) / 2)
    starts = np.arange(trials) * (TRIAL_S + 0.5)
    times, units = [], []
    for start, m in zip(starts, movie, strict=True):
        counts = rng.poisson(rate[m * frames : (m + 1) * frames] * 0.05)
        frame, unit = np.nonzero(counts)
        number = counts[frame, unit]
        frame, unit = np.repeat(frame, number), np.repeat(unit, number)
        times.append(start + (frame + rng.uniform(0.05, 0.95, len(frame))) * 0.05)
        units.append(unit)
    times, units = np.concatenate(times), np.concatenate(units)
    order = np.argsort(times)
    at = (starts[:, None] + np.arange(frames) * 0.05).ravel()
    return Recording(
        name="repeated",
        spike_times=times[order],
        spike_units=units[order],
        units={"id": np.arange(num_units), "area": np.array(["V1", "LM"])[np.arange(num_units) % 2]},
        domain=np.stack([starts, starts + TRIAL_S], 1),
        trials={"start": starts, "stop": starts + TRIAL_S, "movie": movie, "direction": movie * 60.0},
        frames=FrameSeries(images, at, (movie[:, None] * frames + np.arange(frames)).ravel()),
    )


def repeated_config(**more):
    sections = {
        "inputs": [],
        "targets": [],
        "loss": {},
        "window": {"frames": 0.1},
        "split": {
            "by": "trials",
            "pattern": ["train"] * 3 + ["valid"] + ["test"] * 4,
            "claim": "repeats",
            "hold_out": "",
        },
        "model": {"frame_encoder": {"kind": "conv3d", "kernel": [1, 2, 2], "stride": [1, 1, 1], "layers": 0}},
    }
    return small_config(**sections | more)


@pytest.fixture(scope="module")
def repeated():
    rec = repeated_recording()
    pattern = {"split": {"by": "trials", "pattern": ["train"] * 6 + ["valid"] * 6 + ["test"] * 36, "claim": "repeats"}}
    model, prepared = small_model(rec, repeated_config(**pattern))
    return model.float(), prepared


def test_moments_are_the_bins_of_what_repeats(repeated):
    _, prepared = repeated
    moments = moments_of(prepared, "test", (0.0, 0.1))
    assert moments.repeats == 6 and moments.by_stimulus and moments.num_windows == 1
    assert len(moments) == MOVIES * (60 - 2)  # the last two have no response 0.1 s later
    rec = prepared.rec
    starts, inside = moments.start_RN, moments.counts(rec, 0.1)
    r, n = 3, 300
    when = (rec.spike_times >= starts[r, n] + 0.1) & (rec.spike_times < starts[r, n] + 0.15)
    np.testing.assert_array_equal(inside[r, n], np.bincount(rec.spike_units[when], minlength=12))
    np.testing.assert_allclose(moments.windows.starts(prepared.index).reshape(6, -1), starts)
    for fold in range(5):
        train = moments.training(fold)
        assert not np.isin(moments.stimulus_N[train], moments.stimulus_N[moments.fold_N == fold]).any()


def test_contiguous_folds_keep_a_gap():
    rec = small_recording(seconds=200.0)
    moments = moments_of(small_model(rec, small_config(targets=[], loss={}))[1], "test")
    assert moments.repeats == 1 and not moments.by_stimulus
    for fold in range(5):
        held = moments.place_N[moments.fold_N == fold]
        train = moments.place_N[moments.training(fold)]
        assert np.abs(train[:, None] - held).min() > 1.0


def stills(images: int, repeats: int, seconds: float = 0.5, units: int = 5, **trials) -> Recording:
    """Images in random order, each alone in its trials; units follow pixels of their own."""
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(images) for _ in range(repeats)])
    starts = np.arange(len(order)) * seconds
    bank = rng.integers(0, 255, (images, 4, 4), dtype=np.uint8)
    rate = 6 * np.exp((bank.reshape(images, -1)[:, :units].astype(float) - 127) / 127)
    trial, unit = np.nonzero(counts := rng.poisson(rate[order] * seconds))
    trial, unit = (np.repeat(x, counts[trial, unit]) for x in (trial, unit))
    times = starts[trial] + rng.uniform(0, seconds, len(trial))
    sort = np.argsort(times)
    return Recording(
        name="stills",
        spike_times=times[sort],
        spike_units=unit[sort].astype(np.int32),
        units={"id": np.arange(units)},
        domain=np.array([[0.0, len(order) * seconds + 1]]),
        trials={"start": starts, "stop": starts + seconds} | {k: np.asarray(v)[order] for k, v in trials.items()},
        frames=FrameSeries(bank, starts, order),
    )


def test_a_single_image_is_one_moment():
    split = {"by": "trials", "pattern": ["train"] * 60 + ["valid"] * 60 + ["test"] * 120}
    config = repeated_config(
        split=split,
        window={"dt": 0.01, "current": 0.05, "past": 0.1, "frames": 0.5},
        model={"frame_encoder": {"kind": "conv3d", "kernel": [1, 2, 2], "stride": [1, 1, 1]}},
    )
    moments = moments_of(small_model(stills(60, 4, image=np.arange(60)), config)[1], "test", (0.0,))
    assert (len(moments), moments.repeats, moments.num_windows) == (60, 2, 10)
    assert moments.width == pytest.approx(0.5) and len(np.unique(moments.block_N)) == 60


def test_images_of_a_movie_are_no_repeats_of_it():
    """Trials that name the movie of their image: each image is a stimulus, and a movie's images are held out together."""
    movie = np.arange(120) // 12
    split = {
        "by": "trials",
        "hold_out": "movie",
        "claim": "stimuli",
        "pattern": ["train", "valid", "test", "test", "test"],
    }
    config = repeated_config(
        split=split,
        window={"dt": 0.5, "current": 0.5, "past": 0.0, "frames": 0.5},
        model={"frame_encoder": {"kind": "conv3d", "kernel": [1, 2, 2], "stride": [1, 1, 1]}},
    )
    rec = stills(120, 3, movie=movie)
    moments = moments_of(small_model(rec, config)[1], "test", (0.0,))
    assert (len(moments), moments.repeats) == (72, 3)
    shown = rec.frames.index[np.searchsorted(rec.frames.times, moments.start_RN + 1e-6) - 1]
    assert (shown == shown[0]).all() and len(np.unique(shown[0])) == 72
    for fold in range(5):
        held = np.unique(movie[shown[0][moments.fold_N == fold]])
        assert not np.isin(movie[shown[0][moments.training(fold)]], held).any()


def test_five_lines_compare_images_that_were_held_out(tmp_path, capsys):
    rec = stills(90, 6, movie=np.arange(90) // 6)
    write_npz(rec, tmp_path / "images.npz")
    (tmp_path / "c.yaml").write_text(
        "recording: {path: images.npz}\n"
        "window: {dt: 0.5, current: 0.5, past: 0, frames: 0.5}\n"
        "split: {by: trials, hold_out: movie, pattern: [train, train, valid, test, test], claim: stimuli}\n"
        "train: {steps: 2}\n"
    )
    run = str(tmp_path / "run")
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--run", run, "--no-baselines", "--quiet"]) == 0
    capsys.readouterr()
    few = ["--with", "pixels,model", "--metric", "ridge,cka", "--latencies", "0"]
    assert main(["compare", "--run", run, *few]) == 0
    out = capsys.readouterr().out
    assert "6 repeats of 36 stimuli" in out and "folds: stimuli" in out and "the run's claim is" not in out
    tree = json.loads((tmp_path / "run" / "compare.json").read_text())
    pixels = next(s for s in tree["scores"] if s["source"] == "pixels" and s["metric"] == "ridge")
    assert pixels["score"] > 0.3 > pixels["null"] and pixels["ceiling"] > pixels["score"]


def test_what_drives_units_is_found_and_what_does_not_is_not(repeated, tmp_path):
    """Pixels explain the units up to their ceiling; noise explains none; shuffled stimuli explain none."""
    model, prepared = repeated
    moments = moments_of(prepared, "test", (0.0, 0.05))
    targets = _targets(prepared, moments, (0.0, 0.05), "area")
    assert [(t.name, len(t.rows)) for t in targets] == [("all", 12), ("LM", 6), ("V1", 6)]
    made = _Made(moments, targets[:1], 12, (0.0, 0.05), seed=0)
    noise = np.random.default_rng(1).normal(size=(len(moments), 30)).astype(np.float32)
    (pixels,) = layers_of("pixels", model, prepared, moments, tmp_path / "none")
    assert pixels.x_ND.shape == (len(moments), 2 * 16)
    made.add(Layer("noise", "noise", "nothing", noise), ["ridge", "pls", "rsa", "cka"])
    made.add(pixels, ["ridge", "pls", "rsa", "cka"])
    found = {(s.source, s.metric): s for s in made.scores}
    assert len(found) == 12
    for (source, metric), s in found.items():
        if source == "noise":
            assert s.score < s.null + 0.05 and not s.normalized > 0.1, metric
        else:
            assert s.score > s.null and s.low > 0 and s.p <= 1 / 20 and s.beyond_low > 0, metric
    assert 0.75 < found["pixels", "ridge"].normalized < 1.1
    assert found["pixels", "ridge"].latency_s == 0.0
    assert found["pixels", "ridge"].low < found["pixels", "ridge"].score < found["pixels", "ridge"].high
    each = made.per_unit["pixels", "frames", "ridge", "all"]
    assert each[:10].min() > 0.3 > np.abs(each[10:]).max()


def test_stages_of_the_network(repeated, tmp_path):
    model, prepared = repeated
    moments = moments_of(prepared, "test")
    layers = {x.name: x for x in layers_of("model", model, prepared, moments, tmp_path / "none")}
    assert layers["frame encoder"].sees == layers["frame readout"].sees == "frames"
    assert "past spikes" in layers["rates"].sees and layers["rates"].x_ND.shape == (len(moments), 12)
    assert all(len(x.x_ND) == len(moments) for x in layers.values())
    batch = prepared.builder(moments.windows)
    with torch.no_grad():
        rates = model.expected(batch).exp().sum(1).numpy().reshape(moments.repeats, len(moments), 12).mean(0)
    np.testing.assert_allclose(layers["rates"].x_ND, rates, rtol=1e-4, atol=1e-5)


def test_simulated_counts_are_a_stage(repeated, tmp_path):
    """Means over samples and repeats, at the moments that the loop was simulated for; nothing where some were not."""
    model, prepared = repeated
    moments, rec = moments_of(prepared, "test"), prepared.rec
    held = np.unique(moments.start_RN[:, moments.place_N == 0])
    source = np.tile(held, 2)  # two samples of every trial, on a clock of their own
    begins = np.arange(len(source)) * 10.0
    rng = np.random.default_rng(0)
    per_trial = rng.poisson(30, len(source))
    times = np.concatenate([b + np.sort(rng.uniform(0, TRIAL_S, n)) for b, n in zip(begins, per_trial, strict=True)])
    made = Recording(
        name="simulated",
        spike_times=times,
        spike_units=rng.integers(0, 12, len(times)).astype(np.int32),
        units={"id": rec.units["id"]},
        domain=np.stack([begins, begins + TRIAL_S], 1),
        trials={"start": begins, "stop": begins + TRIAL_S, "source_start": source},
    )
    path = write_npz(made, tmp_path / "simulated.npz")
    layers = {x.name: x for x in layers_of("model", model, prepared, moments, path)}
    found = layers["simulated counts"]
    assert found.sees == "frames and behavior" and list(layers)[-1] == "simulated counts"
    n = 70
    expected = np.zeros(12)
    for r in range(moments.repeats):
        for begin in begins[np.abs(source - (moments.start_RN[r, n] - moments.place_N[n])) < 1e-6]:
            at = begin + moments.place_N[n]
            inside = (times >= at) & (times < at + moments.width)
            expected += np.bincount(made.spike_units[inside], minlength=12) / (2 * moments.repeats)
    np.testing.assert_allclose(found.x_ND[n], expected, atol=1e-6)
    assert found.x_ND.sum() * 2 * moments.repeats == pytest.approx(len(times), abs=0.1)
    some = dataclasses.replace(made, trials={**made.trials, "source_start": np.full(len(source), held[0])})
    path = write_npz(some, tmp_path / "some.npz")
    assert "simulated counts" not in {x.name for x in layers_of("model", model, prepared, moments, path)}


def test_own_features(repeated, tmp_path):
    _, prepared = repeated
    moments = moments_of(prepared, "test")
    times = np.arange(0, prepared.rec.domain.max() + 1, 0.05)
    np.savez(tmp_path / "mine.npz", times=times, ramp=times, two=np.stack([times, -times], 1))
    layers = list(file_layers(tmp_path / "mine.npz", prepared, moments))
    assert [(x.source, x.name, x.x_ND.shape[1]) for x in layers] == [("mine", "ramp", 1), ("mine", "two", 2)]
    expected = moments.start_RN.mean(0)
    np.testing.assert_allclose(np.corrcoef(layers[0].x_ND[:, 0], expected)[0, 1], 1)
    bank = np.arange(len(prepared.rec.frames.images))
    np.savez(tmp_path / "of_images.npz", image=bank, same=bank * 2.0)
    (layer,) = file_layers(tmp_path / "of_images.npz", prepared, moments)
    shown = prepared.builder.shown(moments.first_repeat())[:, -1]
    np.testing.assert_allclose(np.corrcoef(layer.x_ND[:, 0], shown)[0, 1], 1)
    np.savez(tmp_path / "short.npz", times=times[:50], ramp=times[:50])
    with pytest.raises(ConfigError, match="no value at"):
        list(file_layers(tmp_path / "short.npz", prepared, moments))
    np.savez(tmp_path / "keyless.npz", ramp=times)
    with pytest.raises(ConfigError, match="expected 'times'"):
        list(file_layers(tmp_path / "keyless.npz", prepared, moments))


def test_layers_of_a_vision_network(repeated, tmp_path):
    transformers = pytest.importorskip("transformers")
    model, prepared = repeated
    moments = moments_of(prepared, "test")
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    network = transformers.AutoModel.from_config(transformers.ViTConfig(**shape, image_size=8, patch_size=4))
    network.save_pretrained(tmp_path / "vit")
    layers = list(layers_of(f"vit:{tmp_path / 'vit'}", model, prepared, moments, tmp_path / "none"))
    assert [x.name for x in layers] == ["layer 0", "layer 1", "layer 2"]
    assert layers[2].x_ND.shape == (len(moments), 2 * 4 * 8)
    assert not np.allclose(layers[1].x_ND, layers[2].x_ND)
    shape = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic", "num_channels": 3}
    network = transformers.AutoModel.from_config(transformers.ResNetConfig(**shape))
    network.save_pretrained(tmp_path / "resnet")
    layers = list(layers_of(f"resnet:{tmp_path / 'resnet'}", model, prepared, moments, tmp_path / "none"))
    sizes = [x.x_ND.shape[1] for x in layers]  # a convolutional network's layers differ in places and channels
    assert len(sizes) == 3 and len(set(sizes)) > 1


def test_few_units_have_no_interval():
    assert np.isnan(_ends(0.5, np.random.default_rng(0).normal(size=100), 3)).all()


def test_the_command(tmp_path, capsys):
    import yaml

    write_npz(repeated_recording(), tmp_path / "r.npz")
    config = to_dict(repeated_config(train={"steps": 2}))
    config["recording"]["path"] = str(tmp_path / "r.npz")
    pattern = ["train"] * 6 + ["valid"] * 6 + ["test"] * 12
    config["split"] |= {"pattern": pattern}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    run = str(tmp_path / "run")
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--run", run, "--no-baselines", "--quiet"]) == 0
    capsys.readouterr()
    assert (
        main(
            [
                "compare",
                "--run",
                run,
                "--with",
                "pixels,gabor",
                "--metric",
                "ridge",
                "--latencies",
                "0",
                "--tuning",
                "direction:360",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "tuning to direction:360" in out and (tmp_path / "run" / "compare_tuning.png").exists()
    assert "beyond pixels: frames" in out and "split.claim: stimuli holds them out" in out
    tree = json.loads((tmp_path / "run" / "compare.json").read_text())
    assert {s["source"] for s in tree["scores"]} == {"pixels", "gabor"} and (tmp_path / "run" / "compare.png").exists()
    with np.load(tmp_path / "run" / "compare_units.npz") as file:
        assert file["scores"].shape == (len(file["rows"]), 12)
    panel = comparison(tmp_path / "run")  # of the page
    assert [t["name"] for t in panel["tables"]] == ["ridge: r, median over units"] and len(panel["figures"]) == 1
    assert {r["source"] for r in panel["tables"][0]["rows"]} == {"pixels", "gabor"}
    assert main(["report", "--run", run]) == 0
    assert "has not been compared" not in (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()
    for wrong, message in (
        (["--with", "pixel"], "no source of features"),
        (["--metric", "lasso"], "no metric"),
        (["--tuning", "direction:x"], "NAME:PERIOD"),
        (["--tuning", "direction", "--with", "nothing"], "no source"),
        (["--with", "model", "--split", "train"], "was fitted to the training part"),
    ):
        assert main(["compare", "--run", run, *wrong]) == 2
        assert message in capsys.readouterr().err


def test_a_run_without_frames_has_no_pixels(tmp_path):
    rec = dataclasses.replace(small_recording(seconds=200.0), frames=None)
    model, prepared = small_model(rec, small_config(targets=[], loss={"contrast": []}, window={"frames": 0.0}))
    moments = moments_of(prepared, "test")
    with pytest.raises(ConfigError, match="made of frames"):
        list(layers_of("pixels", model.float(), prepared, moments, tmp_path / "none"))
    assert "rates" in [x.name for x in layers_of("model", model.float(), prepared, moments, tmp_path / "none")]


def test_the_library_call_is_the_command(monkeypatch):
    import neuroformer

    assert neuroformer.compare is compare
