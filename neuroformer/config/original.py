"""The original Neuroformer's YAML (``mconf.yaml``, older flat files, ``tconf.yaml``) as one of our configurations.

Every key of the old file ends in one of two lists: translated (to what), or without a counterpart (why). The
keys are those of github.com/a-antoniades/Neuroformer, its spellings included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuroformer.config.errors import ConfigError
from neuroformer.config.loader import from_dict
from neuroformer.config.yaml_file import Loader, read_yaml

# keys of the flat files of before, by today's name
_FLAT = {
    "attn_pdrop": "dropout.attn",
    "embd_pdrop": "dropout.embd",
    "pos_pdrop": "dropout.pos",
    "resid_pdrop": "dropout.resid",
    "temp_pdrop": "dropout.temp",
    "b_drop": "dropout.b",
    "id_drop": "dropout.id",
    "im_drop": "dropout.im",
    "window_prev": "window.prev",
    "frame_window": "window.frame",
    "dt": "resolution.dt",
    "n_state_layers": "layers.state",
    "n_state_history_layers": "layers.state_history",
    "n_stimulus_layers": "layers.stimulus",
    "n_behavior_layers": "layers.behavior",
    "self_att_layers": "layers.self_att",
    "kernel_size": "frame_encoder.kernel_size",
    "stride_size": "frame_encoder.stride_size",
    "conv_layer": "frame_encoder.conv_layer",
    "n_embd_frames": "frame_encoder.n_embd_frames",
    "resnet_backbone": "frame_encoder.resnet_backbone",
    "clip_emb": "contrastive.clip_embd",
    "clip_temp": "contrastive.clip_temp",
    "contrastive": "contrastive.contrastive",
    "window": "window.curr",
    "block_size": "block_size.frame",
    "id_block_size": "block_size.id",
    "prev_id_block_size": "block_size.prev_id",
    "behavior_block_size": "block_size.behavior",
    "p_sparse": "sparse.p",
    "sparse_mask": "sparse.mask",
    "sparse_topk": "sparse.topk",
    "sparse_topk_frame": "sparse.topk_frame",
    "sparse_topk_id": "sparse.topk_id",
    "sparse_topk_prev_id": "sparse.topk_prev_id",
}
# old name: ours
_SAME = {
    "window.curr": "window.current",
    "window.prev": "window.past",
    "window.frame": "window.frames",
    "resolution.dt": "window.dt",
    "n_embd": "model.width",
    "n_head": "model.heads",
    "dropout.resid": "model.dropout",
    "batch_size": "train.batch_size",
    "learning_rate": "train.lr",
    "weight_decay": "train.weight_decay",
    "num_workers": "train.workers",
}
# the beginning of an old name: why it has no counterpart
_GONE = {
    "betas": "AdamW has (0.9, 0.98)",
    "dropout.": "one rate (model.dropout) for embeddings and residuals; none on attention weights",
    "block_size.": "sequences have their true length: nothing is padded to a block, nothing dropped",
    "layers.behavior": "the layers of a group are modalities.<group>.n_layers",
    "layers.modalities": "a head has as many outputs as the variable has columns or classes",
    "sparse.": "attention is exact; there is no top-k or random mask",
    "window.": "inputs are read within the current window (inputs.N.samples values of it)",
    "resolution.": "frames and behavior keep the sample times of the recording",
    "predict": "targets: lists what is predicted",
    "frame_encoder.n_embd_frames": "frame tokens have model.width; frame_encoder.channels is the layer before",
    "frame_encoder.n_embd": "frame tokens have model.width",
    "frame_encoder.resnet_backbone": "the first layers of torchvision's r3d_18, frozen, which transformers lacks; with "
    "model.frame_encoder.kind: backbone, name a network in model.frame_encoder.backbone (frozen, too)",
    "frame_encoder.": "not a setting of the encoders here, see model.frame_encoder",
    "mlp_only": "a baseline of the original; here networks are baselines of decoding (decode --baselines mlp)",
    "gru": "a baseline of the original; here networks are baselines of decoding (decode --baselines gru)",
    "ingore_index_pad": "nothing is padded, so there is nothing to ignore",
    "ignore_index_pad": "nothing is padded, so there is nothing to ignore",
    "pos_emb": "always on: tokens have time, frames have space and time",
    "temp_emb": "always on: tokens have time, frames have space and time",
    "vit_encoder": "frame tokens attend to each other by model.frame_encoder.layers",
    "class_weights": "classes are not weighed; scores are balanced accuracies",
    "freeze_weights": "nothing is frozen by name",
    "epoch": "a checkpoint's state, not a setting",
    "pretrain": "a checkpoint's state, not a setting",
    "start_prune": "nothing is pruned",
    "selection": "which neurons is the recording's matter: hand over those that you want",
    "max_epochs": "training is counted in steps (train.steps)",
    "clip_norm": "the norm of the gradient is clipped at 1",
    "grad_norm_clip": "the norm of the gradient is clipped at 1",
    "patience": "counted in epochs there, in evaluations here (train.patience)",
}


@dataclass
class Translation:
    """A configuration of ours and where each key of the old one went.

    Attributes
    ----------
    tree : nested mapping, ready for YAML
    translated : (old key, our key, our value)
    dropped : (old key, why)
    """

    tree: dict[str, Any] = field(default_factory=dict)
    translated: list[tuple[str, str, Any]] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)

    def put(self, old: str, key: str, value: Any) -> None:
        """Set ``key.sub`` of the tree."""
        *parents, last = key.split(".")
        node = self.tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
        self.translated.append((old, key, value))


def read_original_config(path: str | Path) -> dict[str, Any]:
    """The old YAML as a mapping; Python tuples in it are lists, other Python objects are refused.

    Raises
    ------
    ConfigError
        No file, no YAML, or a file that names Python objects or gives a key twice.
    """
    tree = read_yaml(path, _Loader)
    if not tree:
        raise ConfigError(f"{path} is empty; expected the original's YAML (mconf.yaml)")
    return tree


class _Loader(Loader):
    """The strict loader, and tuples as lists."""


_Loader.add_constructor(
    "tag:yaml.org,2002:python/tuple",
    lambda loader, node: loader.construct_sequence(node),  # pyright: ignore[reportArgumentType]
)


def translate(old: Mapping[str, Any]) -> Translation:
    """Every key of the original's configuration, translated or accounted for.

    Raises
    ------
    ConfigError
        The result is no configuration: a value of the old file has a type that its key never had.
    """
    out = Translation()
    modalities = old.get("modalities") or {}
    keys = dict(_flattened({k: v for k, v in old.items() if k != "modalities"}))
    keys = {_FLAT.get(k, k) if k not in old or not isinstance(old[k], Mapping) else k: v for k, v in keys.items()}
    _variables(modalities, out)
    _frames(keys, out)
    _contrast(keys, out)
    for key, value in keys.items():
        if key in _SAME:
            out.put(key, _SAME[key], value)
        elif not key.startswith(("layers.st", "layers.self_att", "contrastive.", "frame_encoder.")):
            out.dropped.append((key, _why(key)))
    _blocks(keys, modalities, out)
    from_dict(out.tree)
    return out


def _flattened(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _why(key: str) -> str:
    start = max((s for s in _GONE if key == s or key.startswith(s)), key=len, default=None)
    return "this importer does not know the key" if start is None else _GONE[start]


def _variables(modalities: Mapping[str, Any], out: Translation) -> None:
    """``predict: true`` makes a target, false an input."""
    inputs, targets = [], []
    for group, about in modalities.items():
        for name, v in (about.get("variables") or {}).items():
            where = f"modalities.{group}.variables.{name}"
            source = v.get("data") if isinstance(v.get("data"), str) else name
            if v.get("predict"):
                kind = v.get("objective") or "regression"
                targets.append({"name": source, "kind": kind})
                out.put(where, f"targets.{len(targets) - 1}", targets[-1])
            else:
                inputs.append({"name": source, "group": group})
                out.put(where, f"inputs.{len(inputs) - 1}", inputs[-1])
                if v.get("objective"):
                    out.dropped.append((f"{where}.objective", "an input has no objective"))
            for key in v:
                if key == "dt":
                    out.dropped.append((f"{where}.dt", _GONE["resolution."]))
                elif key not in ("data", "predict", "objective"):
                    out.dropped.append((f"{where}.{key}", _GONE["layers.modalities"]))
        if "window" in about:
            out.dropped.append((f"modalities.{group}.window", _GONE["window."]))
    out.tree |= {"inputs": inputs, "targets": targets}


def _frames(keys: dict[str, Any], out: Translation) -> None:
    conv = keys.get("frame_encoder.conv_layer")
    if conv is not None:
        out.put("frame_encoder.conv_layer", "model.frame_encoder.kind", "conv3d" if conv else "patches")
    kernel = keys.get("frame_encoder.kernel_size")
    if kernel is not None:
        out.put("frame_encoder.kernel_size", "model.frame_encoder.kernel", list(kernel))
        if conv is None:
            out.put("frame_encoder.kernel_size", "model.frame_encoder.kind", "conv3d")
        stride = keys.get("frame_encoder.stride_size", kernel)  # without one, the original strides by the kernel
        out.put("frame_encoder.stride_size", "model.frame_encoder.stride", list(stride))
    for key, value in keys.items():
        known = ("frame_encoder.conv_layer", "frame_encoder.kernel_size", "frame_encoder.stride_size")
        if key.startswith("frame_encoder.") and key not in known and value:
            out.dropped.append((key, _why(key)))
        elif key.startswith("frame_encoder.") and key not in known:
            out.dropped.append((key, "off"))


def _contrast(keys: dict[str, Any], out: Translation) -> None:
    """Every pair of the aligned features; a variable stands for its group."""
    on = bool(keys.get("contrastive.contrastive"))
    have = {"neural", "frames", *(v["group"] for v in out.tree["inputs"])}
    sides = []
    for var in keys.get("contrastive.vars") or ["id", "frames"]:
        name = next(iter(var)) if isinstance(var, Mapping) else var
        side = {"id": "neural"}.get(name, name)
        group = next((v["group"] for v in out.tree["inputs"] if v["name"] == side), side)
        if group in have:
            sides.append(group)
        elif on:
            out.dropped.append((f"contrastive.vars: {name}", "it is no input, and only inputs are aligned"))
    if not on:
        out.dropped += [(k, "contrastive.contrastive is off") for k in keys if k.startswith("contrastive.")]
        return
    alike = "the shared space is 32 wide, and its temperature is learnt from 0.1"
    out.dropped += [(k, alike) for k in keys if k in ("contrastive.clip_embd", "contrastive.clip_temp")]
    pairs = [{"pair": [a, b]} for i, a in enumerate(sides) for b in sides[i + 1 :] if a != b]
    out.put("contrastive", "loss.contrast", pairs)


def _blocks(keys: dict[str, Any], modalities: Mapping[str, Any], out: Translation) -> None:
    """The original's order: current, past, frames, the groups of inputs, current."""
    w = out.tree.get("window", {})
    groups = {v["group"] for v in out.tree["inputs"]}
    blocks = []

    def add(old: str, attend: str, count: Any, there: bool = True) -> None:
        if count and there:
            blocks.append({"attend": attend, "layers": count})
            out.translated.append((old, f"model.blocks.{len(blocks) - 1}", blocks[-1]))
        elif count is not None:
            out.dropped.append((old, "off" if not count else f"there is no '{attend}' to attend to"))

    add("layers.state", "current", keys.get("layers.state"))
    add("layers.state_history", "past", keys.get("layers.state_history"), bool(w.get("past", 1)))
    stimulus = keys.get("layers.stimulus")
    add("layers.stimulus", "frames", stimulus, bool(w.get("frames", 1)))
    if stimulus and keys.get("vit_encoder"):
        out.put("layers.stimulus, vit_encoder", "model.frame_encoder.layers", stimulus)
    for group, about in modalities.items():
        add(f"modalities.{group}.n_layers", group, about.get("n_layers", 1), group in groups)
    add("layers.self_att", "current", keys.get("layers.self_att"))
    if blocks:
        out.tree.setdefault("model", {})["blocks"] = blocks
