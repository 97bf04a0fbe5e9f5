"""Moving over from the original: every key of its YAML is translated, or said to have no counterpart."""

import numpy as np
import pytest
import yaml

from neuroformer.cli import main
from neuroformer.config import ConfigError, load_config
from neuroformer.config.original import _flattened, read_original_config, translate

OLD = """
dropout: {attn: 0.2, embd: 0.2, pos: 0.2, resid: 0.3, temp: 0.2, b: 0.2, id: 0.2, im: 0.2}
block_size: {behavior: 15, frame: 446, id: 100, prev_id: 700}
layers: {state_history: 2, state: 3, stimulus: 4, behavior: 6, self_att: 5, modalities: {n_behavior: 25}}
sparse: {p: null, mask: false, topk: null, topk_frame: null, topk_id: null, topk_prev_id: null}
window: {frame: 0.15, curr: 0.05, prev: 0.15, speed: 0.05}
modalities:
  behavior:
    n_layers: 4
    variables:
      phi: {data: phi, dt: 0.05, objective: null, predict: false}
      speed: {data: speed, dt: 0.05, objective: regression, predict: true}
    window: 0.05
predict: null
frame_encoder: {conv_layer: true, kernel_size: [3, 5, 5], n_embd: 256, n_embd_frames: 64, resnet_backbone: false}
contrastive: {contrastive: true, vars: ['id', 'frames', {'behavior': 'phi'}], clip_embd: 512, clip_temp: 0.5}
resolution: {dt: 0.01, speed: 0.2, frames: 0.05}
mlp_only: false
gru_only: false
gru2_only: false
class_weights: null
freeze_weights: null
n_head: 8
epoch: 0
n_embd: 256
pos_emb: true
pretrain: false
temp_emb: true
vit_encoder: true
ingore_index_pad: true
selection: sel1
something_new: 3
"""
FLAT = """
attn_pdrop: 0.2
resid_pdrop: 0.25
dt: 0.005
window: 0.05
window_prev: 0.25
frame_window: 0.2
block_size: 446
id_block_size: 100
contrastive: false
kernel_size: !!python/tuple
- 4
- 5
- 5
n_embd: 256
n_head: 8
n_state_layers: 8
n_stimulus_layers: 8
n_state_history_layers: 8
self_att_layers: 8
p_sparse: null
conv_layer: true
"""


@pytest.fixture
def folder(tmp_path):
    """The layout of the original's visual-navigation data."""
    rng = np.random.default_rng(0)
    data = tmp_path / "visnav"
    data.mkdir()
    np.save(data / "spikerates_dt_0.01.npy", rng.poisson(0.05, (12, 6000)))
    np.save(data / "behavior_speed_dt_0.05.npy", rng.normal(size=1200))
    np.save(data / "phi_dt_0.05.npy", rng.normal(size=1200))
    np.save(data / "stimulus.npy", rng.integers(0, 255, (1200, 16, 20), dtype=np.uint8))
    (tmp_path / "mconf.yaml").write_text(OLD)
    return tmp_path


def test_every_key_is_accounted_for(folder):
    old = read_original_config(folder / "mconf.yaml")
    done = translate(old)
    said = [t[0] for t in done.translated] + [d[0] for d in done.dropped]
    for key, _ in _flattened(old):
        parents = [key.rsplit(".", n)[0] for n in range(3)]
        ours = any(p in s for p in parents for s in said)
        assert ours or key.startswith("contrastive"), key
    why = dict(done.dropped)
    assert why["something_new"] == "this importer does not know the key"
    assert "nothing is padded" in why["ingore_index_pad"] and "window.speed" in why and "layers.behavior" in why
    assert all(why.values())


def test_what_it_becomes(folder, tmp_path):
    tree = translate(read_original_config(folder / "mconf.yaml")).tree
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(tree))
    c = load_config(tmp_path / "new.yaml")
    assert (c.window.dt, c.window.current, c.window.past, c.window.frames) == (0.01, 0.05, 0.15, 0.15)
    assert (c.model.width, c.model.heads, c.model.dropout) == (256, 8, 0.3)
    order = [(b.attend, b.layers) for b in c.model.blocks]
    assert order == [("current", 3), ("past", 2), ("frames", 4), ("behavior", 4), ("current", 5)]
    e = c.model.frame_encoder
    assert (e.kind, e.kernel, e.stride, e.layers) == ("conv3d", (3, 5, 5), (3, 5, 5), 4)
    assert [(v.name, v.group) for v in c.inputs] == [("phi", "behavior")]
    assert [(t.name, t.kind) for t in c.targets] == [("speed", "regression")]
    assert [p.pair for p in c.loss.contrast] == [
        ("neural", "frames"),
        ("neural", "behavior"),
        ("frames", "behavior"),
    ]


def test_the_flat_files_of_before(tmp_path):
    (tmp_path / "old.yaml").write_text(FLAT)
    done = translate(read_original_config(tmp_path / "old.yaml"))
    t = done.tree
    assert t["window"] == {"current": 0.05, "past": 0.25, "frames": 0.2, "dt": 0.005}
    assert t["model"]["frame_encoder"]["kernel"] == [4, 5, 5] and t["model"]["dropout"] == 0.25
    assert {d[0] for d in done.dropped} >= {"block_size.frame", "block_size.id", "sparse.p", "dropout.attn"}


def test_the_imported_run_trains(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(["import", "mconf.yaml", "--data", "visnav"]) == 0
    said = capsys.readouterr().out
    assert "window.current = 0.05" in said and "no counterpart" in said and "ingore_index_pad" in said
    assert main(["import", "mconf.yaml"]) == 2  # not over what is there
    assert main(["audit", "imported.yaml", "split.block=8", "decode.lags=[0.25]"]) == 0
    small = [
        "model.width=16",
        "model.heads=2",
        "train.steps=2",
        "train.batch_size=8",
        "train.accelerator=cpu",
        "train.evaluate_every=2",
        "split.block=8",
        "decode.lags=[0.25]",
        "model.blocks=[]",
        "model.frame_encoder.layers=1",
    ]
    assert main(["train", "--config", "imported.yaml", "--quiet", "--no-baselines", *small]) == 0


def test_its_folder_becomes_a_recording(folder, capsys):
    assert main(["import", str(folder / "visnav")]) == 0
    assert "opens as it is" in capsys.readouterr().out
    assert main(["import", str(folder / "visnav"), "--out", str(folder / "new.npz")]) == 0
    assert main(["inspect", str(folder / "new.npz")]) == 0
    assert "12 units" in capsys.readouterr().out


def test_what_is_refused(folder, capsys):
    (folder / "data.pkl").write_bytes(b"\x80\x04.")
    assert main(["import", str(folder / "data.pkl")]) == 2
    said = capsys.readouterr().err
    assert "pickled" in said and "np.save" in said
    np.save(folder / "visnav" / "spikes.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert main(["import", str(folder / "visnav")]) == 2
    assert "np.save" in capsys.readouterr().err
    assert main(["import", str(folder / "absent.yaml")]) == 2
    assert "Traceback" not in capsys.readouterr().err
    (folder / "bad.yaml").write_text("a: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="names Python objects"):
        read_original_config(folder / "bad.yaml")
    with pytest.raises(ConfigError, match=r"window.current is 'long'"):
        translate({"window": {"curr": "long"}})


def test_a_pretrained_network_is_not_denied():
    """The original's is not among those that can be named, which the reason says together with what can."""
    done = translate({"frame_encoder": {"resnet_backbone": True, "conv_layer": True, "kernel_size": [3, 5, 5]}})
    why = dict(done.dropped)["frame_encoder.resnet_backbone"]
    assert "r3d_18" in why and "model.frame_encoder.kind: backbone" in why
    assert done.tree["model"]["frame_encoder"]["kind"] == "conv3d"
    off = translate({"frame_encoder": {"resnet_backbone": False}})
    assert dict(off.dropped)["frame_encoder.resnet_backbone"] == "off"
