"""Pretrained networks for frames: small ones with random weights, made and saved here."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from helpers import small_config, small_recording
from safetensors.torch import load_file

from neuroformer.bundle.bundle import load_model, read_bundle
from neuroformer.cli import main
from neuroformer.config import ConfigError, to_dict
from neuroformer.data import backbone as module
from neuroformer.data.backbone import Backbone, FrameFeatures, load_backbone
from neuroformer.data.prepared import prepare
from neuroformer.data.scales import FrameScale
from neuroformer.recording.formats.npz import write_npz
from neuroformer.training.train import train

transformers = pytest.importorskip("transformers")
SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
NETWORKS = {
    "resnet": transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", downsample_in_first_stage=False
    ),
    "dinov2": transformers.Dinov2Config(**SHAPE | {"image_size": 8, "patch_size": 4, "mlp_ratio": 1}),
    "vit": transformers.ViTConfig(**SHAPE, image_size=16, patch_size=4),
    "videomae": transformers.VideoMAEConfig(**SHAPE, image_size=8, patch_size=4, num_frames=4, tubelet_size=2),
}
GRIDS = {"resnet": [3, 2, 2], "dinov2": [3, 2, 2], "vit": [3, 2, 2], "videomae": [2, 2, 2]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "neuroformer" / "frames"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of the networks."""
    out = {}
    for name, config in NETWORKS.items():
        torch.manual_seed(0)
        out[name] = str(tmp_path_factory.mktemp(name))
        transformers.AutoModel.from_config(config).save_pretrained(out[name])
    return out


def config(folder, **encoder):
    tree = to_dict(small_config())["model"]
    tree["frame_encoder"] |= {"kind": "backbone", "backbone": folder, "layers": 1} | encoder
    if "resnet" in folder:  # which needs more pixels than our small frames have
        tree["frame_encoder"]["resize"] = [16, 16]
    return small_config(model=tree)


@pytest.fixture
def counted(monkeypatch):
    """How many frames (or clips) the network was given."""
    seen, forward = [], Backbone.forward

    def count(self, x):
        seen.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(Backbone, "forward", count)
    return seen


@pytest.mark.parametrize("name", NETWORKS)
def test_features_stand_where_images_stood(saved, name, counted, cache):
    prepared = prepare(small_recording(), config(saved[name]))
    counted.clear()
    batch = prepared.builder(prepared.windows("train")[:50])
    num_clips = len(batch.clips.num_missing_G)
    found, scale = batch.clips.images_GFHW, prepared.normalization.frames
    assert list(found.shape[:4]) == [num_clips, *GRIDS[name]] and scale.backbone.grid == GRIDS[name]
    # each distinct frame went through the network once; video networks: each clip
    distinct = num_clips if name == "videomae" else 24
    assert sum(counted) == len(list(cache.glob("*/*.npy"))) == distinct
    # and what came out is what the network says of the clip as it was shown
    backbone, c = load_backbone(prepared.config.model.frame_encoder), batch.clips
    series = prepared.rec.frames
    for w in (0, 20, 49):
        g, last = int(c.index_W[w]), int(np.searchsorted(series.times, batch_stop(prepared, batch, w))) - 1
        place = last + np.arange(-2, 1)
        images = torch.from_numpy(series.images[series.index[np.maximum(place, 0)]]).float()
        images = (images - scale.mean) / scale.std
        missing = int(c.num_missing_G[g])
        images[:missing] = 0.0
        with torch.no_grad():
            expected = backbone(images[None])[0]
        rows = slice(None) if name == "videomae" else slice(missing, None)
        assert torch.allclose(found[g].float()[rows], expected[rows], atol=5e-3)


def batch_stop(prepared, batch, w):
    start = prepared.index.origins[batch.segment_W[w]] + batch.tick_W[w].item() * prepared.config.window.dt
    return start + prepared.config.window.current - 1e-9


def test_features_are_computed_once_for_all_processes_and_runs(saved, counted):
    for expected in (24, 0):
        prepared = prepare(small_recording(), config(saved["resnet"]))
        counted.clear()
        for _ in range(2):
            prepared.builder(prepared.windows("train")[:50])
        assert sum(counted) == expected


def test_the_folder_keeps_to_its_limit_and_a_cut_file_is_made_again(saved, cache, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (200, 8, 8), dtype=np.uint8)
    c = config(saved["dinov2"]).model.frame_encoder
    backbone = module.fit_backbone(c, images[None, :3], 100.0, 50.0)
    scale = FrameScale(100.0, 50.0, count=3, period=0.05, shape=[8, 8], backbone=backbone)
    limit = 20_000
    features = FrameFeatures(images, c, scale, limit / 1e9)
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    first = features(np.array([[0, 1, 2]]))
    for i in range(3, 200, 4):
        features(np.arange(i, min(i + 4, 200))[None])
        features(np.array([[0]]))  # what is used stays
        assert sum(f.stat().st_size for f in cache.glob("*/*.npy")) <= limit
    names = {f.stem for f in cache.glob("*/*.npy")}
    assert features.names[(0,)] in names and features.names[(1,)] not in names and 20 < len(names) < 150
    file = next(cache.glob(f"*/{features.names[(0,)]}.npy"))
    file.write_bytes(file.read_bytes()[:-5])
    assert np.array_equal(FrameFeatures(images, c, scale, 1.0)(np.array([[0, 1, 2]])), first)


@pytest.mark.parametrize("name", ["resnet", pytest.param("videomae", marks=pytest.mark.slow)])
def test_train_generate_decode_attend(saved, name, tmp_path, capsys):
    write_npz(small_recording(seconds=60.0), tmp_path / "small.npz")
    c = dataclasses.replace(config(saved[name]), name="small")
    tree = to_dict(c)
    tree["recording"]["path"] = str(tmp_path / "small.npz")
    (tmp_path / "small.yaml").write_text(json.dumps(tree))
    run = ["--run", str(tmp_path / "run"), "--quiet"]
    assert main(["train", "--config", str(tmp_path / "small.yaml"), "--no-baselines", *run]) == 0
    blank = "generate.interventions=[{do: blank_frames, start: 0.1, stop: 0.3}]"
    for command in (
        ["generate"],
        ["generate", "--out", str(tmp_path / "blank.npz"), blank],
        ["decode", "--baselines", "ridge"],
        ["attend", "--windows", "20", "--knocked-out", "4"],
    ):
        assert main([*command, *run]) == 0, command
    out = capsys.readouterr()
    assert main(["fields", *run]) == 2
    assert "features of a frozen backbone" in capsys.readouterr().err, out
    bundle = read_bundle(tmp_path / "run")
    recorded = bundle.normalization.frames.backbone
    assert recorded.id == saved[name] and len(recorded.sha256) == 64
    assert f"backbone  {saved[name]} ({NETWORKS[name].model_type}, sha256" in repr(bundle)
    weights = load_file(tmp_path / "run" / "weights" / "likelihood.safetensors")
    assert not any("backbone" in key for key in weights)


def test_a_finetuned_backbone_is_part_of_the_bundle(saved, tmp_path):
    rec = small_recording()
    prepared, _ = train(rec, config(saved["dinov2"], finetune=True), tmp_path, progress=False)
    weights = load_file(tmp_path / "weights" / "likelihood.safetensors")
    before = load_backbone(prepared.config.model.frame_encoder).network.state_dict()
    ours = {
        k.removeprefix("streams.frames.encoder.backbone.network."): v for k, v in weights.items() if "backbone" in k
    }
    assert ours.keys() == before.keys()
    moved = max(float((ours[k] - before[k]).abs().max()) for k in before)
    assert 0 < moved < 0.01
    model = load_model(read_bundle(tmp_path))
    batch = prepared.builder(prepared.windows("test")[:8])
    assert batch.clips.images_GFHW.ndim == 4
    with torch.no_grad():
        assert torch.isfinite(model(batch).observed.log_rate_WBU).all()


def test_what_cannot_be_is_refused(saved, tmp_path):
    with pytest.raises(ConfigError, match="expected a folder or a hub id with safetensors"):
        prepare(small_recording(), config(str(tmp_path)))
    with pytest.raises(ConfigError, match="set model.frame_encoder.resize to a multiple"):
        prepare(small_recording(), config(saved["dinov2"], resize=[2, 2]))
    with pytest.raises(ConfigError, match="model.frame_encoder.backbone is ''"):
        config("")
    prepared = prepare(small_recording(), config(saved["vit"]))
    other = prepare(small_recording(), config(saved["dinov2"])).normalization
    features = prepared.builder.features
    features.of = dataclasses.replace(features.of, sha256=other.frames.backbone.sha256)
    with pytest.raises(ConfigError, match="is not the one that the run was trained with"):
        prepared.builder(prepared.windows("train")[:4])


def test_a_pickle_is_not_read(saved, tmp_path):
    from pathlib import Path

    (tmp_path / "config.json").write_text((Path(saved["vit"]) / "config.json").read_text())
    torch.save(load_file(f"{saved['vit']}/model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        prepare(small_recording(), config(str(tmp_path)))
