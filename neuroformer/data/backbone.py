"""Features of frames from a pretrained network: any that ``transformers.AutoModel`` loads from a folder or the hub.

A frozen network is not part of our model: its features are computed once per distinct frame (video networks: per
distinct clip), kept on disk, and used in place of the images.

Shape suffixes: N frames or clips, G distinct clips, F frames of a clip, H rows, W columns of an image; t, h, w the
network's own grid; C channels of its features.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import warnings
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.config import ConfigError, FrameEncoderConfig
from neuroformer.data.scales import BackboneScale, FrameScale
from neuroformer.files import replacing

# what networks on photographs were trained with: standardised frames are given this mean and spread
PHOTO_MEAN, PHOTO_STD = 0.45, 0.225
AT_ONCE = 32
LIMIT_GB = 10.0  # of the features on disk
IN_MEMORY = 256 << 20  # bytes of features that a process keeps


class Backbone(nn.Module):
    """A pretrained network as a function from standardised frames to features on a grid.

    Parameters
    ----------
    network : from ``transformers``
    resize : rows and columns that frames are resized to first; empty: not resized (video networks: their own size)
    """

    def __init__(self, network: nn.Module, resize: tuple[int, ...] = ()):
        super().__init__()
        self.network = network
        c: Any = network.config
        self.video = hasattr(c, "tubelet_size") and hasattr(c, "num_frames")
        self.resize = tuple(resize) or ((c.image_size, c.image_size) if self.video else ())
        self.patch: Any = getattr(c, "patch_size", None)
        self.num_channels = getattr(c, "num_channels", 3)
        self.num_frames, self.tubelet = getattr(c, "num_frames", 1), getattr(c, "tubelet_size", 1)
        takes = inspect.signature(network.forward).parameters
        self.extra = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}

    def train(self, mode: bool = True) -> Backbone:
        """Batch statistics and dropout stay fixed, even if the weights are trained."""
        return super().train(False)

    def forward(self, x_GFHW: Tensor) -> Tensor:
        """(G, F, h, w, C) features of every frame; for video networks (G, t, h, w, C) of every clip."""
        x = self._input(x_GFHW)
        return self._on_grid(self.network(pixel_values=x, **self.extra).last_hidden_state, x, len(x_GFHW))

    def layers(self, x_GFHW: Tensor) -> list[Tensor]:
        """The same of every layer, the embedding of the pixels first."""
        x = self._input(x_GFHW)
        found = self.network(pixel_values=x, output_hidden_states=True, **self.extra).hidden_states
        return [self._on_grid(y, x, len(x_GFHW)) for y in found]

    def _input(self, x_GFHW: Tensor) -> Tensor:
        """Images as the network wants them; for video networks clips."""
        num_clips, num_frames = x_GFHW.shape[:2]
        x = x_GFHW.flatten(0, 1)[:, None] * PHOTO_STD + PHOTO_MEAN
        x = (x - _column(self.photo_mean, x)) / _column(self.photo_std, x)
        if self.resize:
            x = F.interpolate(x, self.resize, mode="bilinear", antialias=True)
        if self.video:
            nearest = (torch.arange(self.num_frames, device=x.device) + 0.5) * num_frames / self.num_frames
            x = x.unflatten(0, (num_clips, num_frames)).index_select(1, nearest.long())
        if 0 in self._patches(x.shape[-2:]):
            raise ConfigError(self._misfit(x, 0))
        return x

    def _on_grid(self, y: Tensor, x: Tensor, num_clips: int) -> Tensor:
        """Hidden states, on the network's own grid of places."""
        if y.ndim == 4:
            return y.movedim(1, -1).unflatten(0, (num_clips, -1))
        rows, columns = self._patches(x.shape[-2:])
        steps = self.num_frames // self.tubelet if self.video else 1
        ahead = y.shape[1] - steps * rows * columns  # tokens that stand for no place
        if not 0 <= ahead < 16:
            raise ConfigError(self._misfit(x, y.shape[1]))
        return y[:, ahead:].reshape(num_clips, -1, rows, columns, y.shape[-1])

    def _misfit(self, x: Tensor, num_tokens: int) -> str:
        return (
            f"model.frame_encoder.backbone gives {num_tokens} tokens for images of {x.shape[-2]} x {x.shape[-1]} in "
            f"patches of {self.patch}; set model.frame_encoder.resize to a multiple of its patch"
        )

    def _patches(self, size: torch.Size) -> tuple[int, int]:
        rows, columns = self.patch if isinstance(self.patch, (tuple, list)) else (self.patch or 1,) * 2
        return size[0] // rows, size[1] // columns

    @property
    def photo_mean(self) -> list[float]:
        return [0.485, 0.456, 0.406] if self.num_channels == 3 else [PHOTO_MEAN] * self.num_channels

    @property
    def photo_std(self) -> list[float]:
        return [0.229, 0.224, 0.225] if self.num_channels == 3 else [PHOTO_STD] * self.num_channels

    def digest(self) -> str:
        """SHA-256 of the weights, by name."""
        out = hashlib.sha256(str(self.resize).encode())
        for name, x in sorted(self.network.state_dict().items()):
            out.update(name.encode() + x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return out.hexdigest()


def _column(values: list[float], like: Tensor) -> Tensor:
    return like.new_tensor(values)[:, None, None]


def load_backbone(c: FrameEncoderConfig) -> Backbone:
    """The pretrained network that the configuration names.

    Only safetensors are read and no code that comes with a model is run.

    Raises
    ------
    ConfigError
        ``transformers`` is not installed, or the model does not exist.
    """
    transformers = _transformers()
    try:
        network = transformers.AutoModel.from_pretrained(
            c.backbone, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    except (OSError, ValueError) as e:
        raise ConfigError(
            f"model.frame_encoder.backbone is {c.backbone!r}; expected a folder or a hub id with safetensors that "
            f"transformers.AutoModel loads ({str(e).splitlines()[0]})"
        ) from None
    return Backbone(network, c.resize).eval()


def empty_backbone(scale: BackboneScale, resize: tuple[int, ...]) -> Backbone:
    """The network that a normalisation describes, with untrained weights, to be replaced by those of a bundle."""
    transformers = _transformers()
    kind, values = scale.model_type, json.loads(scale.config)
    values.pop("model_type", None)
    return Backbone(transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **values)), resize)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as e:
        raise ConfigError(
            f"a pretrained frame backbone needs the package 'transformers' ({e}); pip install 'neuroformer[backbones]'"
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


@torch.no_grad()
def fit_backbone(c: FrameEncoderConfig, clips_GFHW: np.ndarray, mean: float, std: float) -> BackboneScale:
    """What a bundle must know of a backbone: where it came from, its digest, the grid and scale of its features.

    Parameters
    ----------
    clips_GFHW : some clips of the training data
    mean, std : of the frames
    """
    backbone = load_backbone(c)
    values = (torch.from_numpy(np.asarray(clips_GFHW, np.float32)) - mean) / std
    features = torch.cat([backbone(part) for part in values.split(AT_ONCE // 4)])
    network: Any = backbone.network
    return BackboneScale(
        id=c.backbone,
        sha256=backbone.digest(),
        video=backbone.video,
        grid=list(features.shape[1:4]),
        mean=features.mean((0, 1, 2, 3)).tolist(),
        std=features.std((0, 1, 2, 3)).clamp_min(1e-6).tolist(),
        model_type=network.config.model_type,
        config=json.dumps(network.config.to_diff_dict()),
    )


class FrameFeatures:
    """Features of a bank of images by a frozen backbone, each computed once and kept in a folder of limited size.

    Files are named by what they are made of (backbone, scale, pixels), so several recordings, runs and processes
    share them. The least recently used go first.

    Parameters
    ----------
    images : (images, H, W)
    c : FrameEncoderConfig
    scale : FrameScale
        With a backbone.
    """

    def __init__(self, images: Any, c: FrameEncoderConfig, scale: FrameScale, limit_gb: float = LIMIT_GB):
        self.images, self.c, self.scale, self.limit = images, c, scale, int(limit_gb * 1e9)
        assert scale.backbone is not None
        self.of = scale.backbone
        base = os.environ.get("NEUROFORMER_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        self.folder = Path(base).expanduser() / "neuroformer" / "frames"
        self.names: dict[tuple[int, ...], str] = {}
        self.memory: OrderedDict[str, np.ndarray] = OrderedDict()

    @cached_property
    def backbone(self) -> Backbone:
        found = load_backbone(self.c)
        if found.digest() != self.of.sha256:
            raise ConfigError(
                f"the backbone at {self.c.backbone!r} is not the one that the run was trained with (its SHA-256 "
                f"differs from {self.of.sha256[:12]}); bring that one back, or train again"
            )
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "backbone"}

    def __call__(self, image_GF: np.ndarray) -> np.ndarray:
        """(G, t, h, w, C) float16 of clips, given as the images they show; -1 is gray."""
        if self.of.video:
            return np.stack(self._items([tuple(row) for row in image_GF.tolist()]))
        bank, inverse = np.unique(np.maximum(image_GF, 0), return_inverse=True)
        items = np.concatenate(self._items([(i,) for i in bank.tolist()]))
        return items[inverse.reshape(image_GF.shape)]

    def _items(self, keys: list[tuple[int, ...]]) -> list[np.ndarray]:
        found = {key: self._stored(self.names[key]) for key in keys if key in self.names}
        new = [key for key in keys if found.get(key) is None]
        for i in range(0, len(new), AT_ONCE):
            part = new[i : i + AT_ONCE]
            pixels = [self._pixels(key) for key in part]
            for key, x in zip(part, pixels, strict=True):
                self.names[key] = self._name(x)
                found[key] = self._stored(self.names[key])
            lacking = [k for k, key in enumerate(part) if found[key] is None]
            if lacking:
                computed = self._compute(np.stack([pixels[k] for k in lacking]))
                for k, x in zip(lacking, computed, strict=True):
                    found[part[k]] = self._keep(self.names[part[k]], x)
        return [x for key in keys if (x := found[key]) is not None]

    def _pixels(self, key: tuple[int, ...]) -> np.ndarray:
        """(F, H, W) standardised pixels; a frame that was not shown is gray."""
        x = (np.asarray(self.images[np.maximum(key, 0)], np.float32) - self.scale.mean) / self.scale.std
        x[np.asarray(key) < 0] = 0.0
        return x

    def _name(self, x_FHW: np.ndarray) -> str:
        return hashlib.sha256(f"{self.of.sha256} {x_FHW.shape}".encode() + x_FHW.tobytes()).hexdigest()

    @torch.no_grad()
    def _compute(self, x_NFHW: np.ndarray) -> np.ndarray:
        on_gpu = torch.cuda.is_available() and torch.utils.data.get_worker_info() is None
        device = "cuda" if on_gpu else "cpu"
        return self.backbone.to(device)(torch.from_numpy(x_NFHW).to(device)).half().cpu().numpy()

    def _stored(self, name: str) -> np.ndarray | None:
        if name in self.memory:
            self.memory.move_to_end(name)
            return self.memory[name]
        path = self.folder / name[:2] / f"{name}.npy"
        try:
            x = np.load(path, allow_pickle=False)
            os.utime(path)
        except (OSError, ValueError, EOFError):  # never made, made room for another, or cut off
            return None
        return self._remember(name, x)

    def _remember(self, name: str, x: np.ndarray) -> np.ndarray:
        self.memory[name] = x
        while len(self.memory) > 1 and len(self.memory) * x.nbytes > IN_MEMORY:
            self.memory.popitem(last=False)
        return x

    def _keep(self, name: str, x: np.ndarray) -> np.ndarray:
        path = self.folder / name[:2] / f"{name}.npy"
        self._make_room(x.nbytes)
        try:
            with replacing(path) as part, open(part, "wb") as f:
                np.save(f, x, allow_pickle=False)
        except OSError as e:
            warnings.warn(f"frame features are not kept: {e}", stacklevel=2)
        return self._remember(name, x)

    def _make_room(self, size: int) -> None:
        """Before a file is written: check the folder now and then, and delete the oldest files."""
        self._written = getattr(self, "_written", self.limit // 20) + size
        if self._written <= self.limit // 20:
            return
        self._written = size
        files = [(f.stat(), f) for f in self.folder.glob("*/*.npy") if f.exists()]
        total = sum(s.st_size for s, _ in files) + size
        if total <= self.limit * 0.95:
            return
        for stat, file in sorted(files, key=lambda x: x[0].st_mtime):
            file.unlink(missing_ok=True)
            total -= stat.st_size
            if total <= self.limit * 0.9:
                return
