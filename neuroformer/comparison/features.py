"""Features to be compared with units: frames, filters, networks, files, and the stages of the run's own network.

Shape suffixes: R repeats, N moments, M windows of a moment, W windows, F frames of a clip, I images, D features; h, w, C rows,
columns and channels on a grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuroformer.comparison.responses import ComparedMoments
from neuroformer.config import ConfigError, FrameEncoderConfig
from neuroformer.data.backbone import load_backbone
from neuroformer.data.prepared import Prepared
from neuroformer.model.network import Neuroformer
from neuroformer.ops import Ragged
from neuroformer.ops.energy import EnergyPyramid
from neuroformer.recording import BehaviorVariable, open_recording
from neuroformer.recording.formats.npz import load_arrays

MOST_VALUES = 2**26  # moments times features of a layer; a larger grid of places is averaged down
BUILT_IN = ("pixels", "gabor", "model")
AT_ONCE = 32  # images, or clips, that go through a network together
IMAGE_SIZE = 224  # of networks that do not say


@dataclass(frozen=True, eq=False)
class Layer:
    """Features at every moment, averaged over its windows; where they differ between repeats, over these too.

    Attributes
    ----------
    source, name : as they are called in tables
    sees : what they are made of
    x_ND : (N, D) float32
    """

    source: str
    name: str
    sees: str
    x_ND: np.ndarray


def layers_of(
    source: str, model: Neuroformer, prepared: Prepared, moments: ComparedMoments, simulated: Path
) -> Iterator[Layer]:
    """The layers of one source, one after another.

    Parameters
    ----------
    source : ``pixels``; ``gabor`` (:class:`neuroformer.ops.energy.EnergyPyramid`); ``model`` (see :func:`own_layers`); a
        file ``*.npz`` (see :func:`file_layers`); or ``NAME:FOLDER``, a vision network that ``transformers`` loads
    simulated : the run's own simulation, which may be absent

    Raises
    ------
    ConfigError
        A source that is none of these, or one of frames where the run has none.
    """
    if source == "model":
        yield from own_layers(model, prepared, moments, simulated)
    elif source.endswith(".npz"):
        yield from file_layers(Path(source), prepared, moments)
    elif source in BUILT_IN or ":" in source:
        if prepared.builder.frames is None:
            raise ConfigError(
                f"'{source}' is made of frames, and the run sees none; give a run with window.frames above 0, or features "
                "in a .npz"
            )
        yield from _frame_layers(source, _Clips(prepared, moments))
    else:
        raise ConfigError(
            f"'{source}' is no source of features; expected {', '.join(BUILT_IN)}, a file FEATURES.npz, or NAME:FOLDER of a "
            "vision network"
        )


# -- frames ----------------------------------------------------------------------------------------------------


class _Clips:
    """The distinct clips that the moments' windows show in their first repeat, standardised; what was not shown is gray."""

    def __init__(self, prepared: Prepared, moments: ComparedMoments):
        scale = prepared.normalization.frames
        assert scale is not None and prepared.rec.frames is not None
        self.images, self.mean, self.std = prepared.rec.frames, scale.mean, scale.std
        shown_WF = prepared.builder.shown(moments.first_repeat())
        self.shown_KF, self.clip_W = np.unique(shown_WF, axis=0, return_inverse=True)
        self.bank_I = np.unique(self.shown_KF)
        self.num_moments, self.each = len(moments), moments.num_windows

    def pixels(self, which: np.ndarray) -> Tensor:
        """(..., H, W) standardised images; those of -1 are gray."""
        x = (self.images.pixels(np.maximum(which, 0)).astype(np.float32) - self.mean) / self.std
        x[which < 0] = 0.0
        return torch.from_numpy(x)

    def by_image(self, of_images) -> np.ndarray:
        """(N, D) of a function from (I, H, W) to (I, h, w, C), taken of every frame of a clip."""
        each = [self._pooled(of_images(self.pixels(part)), self.shown_KF.shape[1]) for part in _pieces(self.bank_I)]
        place_KF = np.searchsorted(self.bank_I, self.shown_KF)
        return self._of_moments(np.concatenate(each)[place_KF])

    def by_clip(self, of_clips) -> np.ndarray:
        """(N, D) of a function from (G, F, H, W) to (G, t, h, w, C)."""
        each = []
        for part in _pieces(self.shown_KF):
            y = of_clips(self.pixels(part))
            each.append(self._pooled(y.flatten(0, 1), y.shape[1]).reshape(len(part), -1))
        return self._of_moments(np.concatenate(each))

    def _pooled(self, y_IhwC: Tensor, frames: int) -> np.ndarray:
        return pooled(y_IhwC, MOST_VALUES // (self.num_moments * frames))

    def _of_moments(self, x_K: np.ndarray) -> np.ndarray:
        x_KD = x_K.reshape(len(x_K), -1)
        if self.each == 1:
            return x_KD[self.clip_W.ravel()].astype(np.float32)
        rows = self.clip_W.reshape(self.num_moments, self.each)
        return np.stack([x_KD[r].mean(0, dtype=np.float32) for r in rows])


def _pieces(x: np.ndarray) -> list[np.ndarray]:
    return np.array_split(x, -(-len(x) // AT_ONCE))


def pooled(y_IhwC: Tensor, most: int) -> np.ndarray:
    """(I, D) with no more than ``most`` features: a larger grid is averaged down to a coarser one."""
    _, rows, columns, channels = y_IhwC.shape
    shrink = 1
    while shrink < max(rows, columns) and -(-rows // shrink) * -(-columns // shrink) * channels > most:
        shrink += 1
    if shrink > 1:
        y = F.avg_pool2d(y_IhwC.movedim(-1, 1), shrink, ceil_mode=True, count_include_pad=False)
        y_IhwC = y.movedim(1, -1)
    return y_IhwC.flatten(1).numpy()


@torch.no_grad()
def _frame_layers(source: str, clips: _Clips) -> Iterator[Layer]:
    if source == "pixels":
        yield Layer(source, "frames", "frames", clips.by_image(lambda x: x[..., None]))
    elif source == "gabor":
        frames = clips.shown_KF.shape[1]
        pyramid = EnergyPyramid(frames, *clips.images.images.shape[1:3])
        yield Layer(source, "energy", "frames", clips.by_clip(pyramid))
    else:
        yield from _network_layers(source, clips)


def _network_layers(source: str, clips: _Clips) -> Iterator[Layer]:
    """Every layer of a pretrained network; one layer after another, so that memory holds one."""
    name, folder = source.split(":", 1)
    encoder = FrameEncoderConfig(kind="backbone", backbone=folder)
    network = load_backbone(encoder)
    size = getattr(network.network.config, "image_size", None) or IMAGE_SIZE
    network.resize = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    clips_of = (lambda x: x) if network.video else (lambda x: x[:, None])
    number = len(network.layers(clips_of(clips.pixels((clips.shown_KF if network.video else clips.bank_I)[:1]))))
    for k in range(number):
        of = lambda x, k=k: network.layers(clips_of(x))[k]
        x_ND = clips.by_clip(of) if network.video else clips.by_image(lambda x, of=of: of(x)[:, 0])
        yield Layer(name, f"layer {k}", "frames", x_ND)


# -- files -----------------------------------------------------------------------------------------------------


def file_layers(path: Path, prepared: Prepared, moments: ComparedMoments) -> Iterator[Layer]:
    """Features that a user brings: every array of a ``.npz`` but its keys is a layer.

    ``times`` (T,), ascending seconds of the recording: arrays are (T, ...), and a moment takes the mean of the samples in
    it, or where there are none the line between its neighbours. ``image``, in its place, (I,) whole numbers: arrays are
    (I, ...), features of the images at these places of the recording's bank; a moment takes those of the last frame shown.
    Each column is standardised.

    Raises
    ------
    ConfigError
        A file without either key, arrays of other lengths, or moments without a value.
    """
    if not path.exists():
        raise ConfigError(f"the features {path} do not exist; check the path")
    arrays = load_arrays(path)
    key = next((k for k in ("times", "image") if k in arrays and arrays[k].ndim == 1), None)
    if key is None or arrays[key].dtype.kind not in "fiu":
        raise ConfigError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; expected 'times' (seconds of the recording) or 'image' (places in "
            "its bank of images), and arrays with one row for each"
        )
    at = arrays.pop(key)
    for name, values in arrays.items():
        if values.ndim == 0 or len(values) != len(at) or values.dtype.kind not in "biuf":
            raise ConfigError(
                f"'{name}' in {path} is {values.dtype} of shape {values.shape}; expected numbers, one row for each of the "
                f"{len(at)} {key}"
            )
        rows = values.reshape(len(values), -1).astype(np.float32)
        x_ND = _at_times(at, rows, moments) if key == "times" else _at_images(at, rows, prepared, moments)
        missing = int((~np.isfinite(x_ND)).any(1).sum())
        if missing:
            raise ConfigError(
                f"'{name}' in {path} has no value at {missing} of {len(x_ND)} moments; expected a finite value at each "
                f"({moments.start_RN.min():.1f} s to {moments.start_RN.max() + moments.width:.1f} s)"
            )
        spread = x_ND.std(0)
        x_ND = (x_ND - x_ND.mean(0)) / np.where(spread > 1e-12, spread, 1.0)
        yield Layer(path.stem, name, path.name, x_ND.astype(np.float32))


def _at_times(times: np.ndarray, rows_TD: np.ndarray, moments: ComparedMoments) -> np.ndarray:
    """(N, D) averaged over repeats."""
    times = np.asarray(times, np.float64)
    if np.any(np.diff(times) <= 0):
        raise ConfigError("the features' times do not ascend; sort the rows by time")
    variable = BehaviorVariable(times, rows_TD)
    start = moments.start_RN.ravel()
    low, high = (np.searchsorted(times, t - 1e-9) for t in (start, start + moments.width))
    total = np.concatenate([np.zeros((1, rows_TD.shape[1])), np.cumsum(rows_TD, 0, dtype=np.float64)])
    mean = (total[high] - total[low]) / np.maximum(high - low, 1)[:, None]
    between = variable.interpolate(start + moments.width / 2)
    x = np.where((high > low)[:, None], mean, between)
    return x.reshape(*moments.start_RN.shape, -1).mean(0)


def _at_images(image: np.ndarray, rows_ID: np.ndarray, prepared: Prepared, moments: ComparedMoments) -> np.ndarray:
    if prepared.builder.frames is None:
        raise ConfigError("features of images need a run that sees frames (window.frames above 0)")
    place = {int(i): k for k, i in enumerate(image)}
    last = prepared.builder.shown(moments.first_repeat())[:, -1]
    rows = np.array([place.get(int(i), -1) for i in last])
    x = np.where(rows[:, None] >= 0, rows_ID[rows], np.nan)
    return x.reshape(len(moments), moments.num_windows, -1).mean(1)


# -- the run's own network -------------------------------------------------------------------------------------


@torch.no_grad()
def own_layers(model: Neuroformer, prepared: Prepared, moments: ComparedMoments, simulated: Path) -> Iterator[Layer]:
    """Every stage of the run's own network, without the spikes of the window itself.

    - ``frame encoder``: local features at every place, and ``frame readout``: what they add to each unit's log rate. Both
      see frames only.
    - ``first token``: past spikes, behavior and the age of the last frame, before fusion; ``block K (stream)``: its state
      after each block; ``rates``: the expected counts. They see what the run's streams see, past spikes of the very
      repeat included.
    - ``simulated counts``: of the run's closed loop, where the moments' trials have been simulated: no recorded spike.
    """
    if "frames" in model.streams:
        yield from _encoder_layers(model, prepared, moments)
    sums: dict[str, list[np.ndarray]] = {}
    model.eval()
    for batch in prepared.batches(moments.windows, 256, model.device):
        for name, x_WD in _stages(model, batch).items():
            sums.setdefault(name, []).append(x_WD.float().cpu().numpy())
    sees = ", ".join("past spikes" if name == "past" else name for name in model.streams)
    for name, parts in sums.items():
        x = np.concatenate(parts)
        x = x.reshape(moments.repeats, len(moments), moments.num_windows, -1)
        yield Layer("model", name, sees, x.mean((0, 2)))
    x_ND = _simulated(simulated, prepared, moments)
    if x_ND is not None:
        yield Layer("model", "simulated counts", "frames and behavior", x_ND)


def _encoder_layers(model: Neuroformer, prepared: Prepared, moments: ComparedMoments) -> Iterator[Layer]:
    local, read = [], []
    most = MOST_VALUES // len(moments) // model.frames.encoder.grid[0]
    for batch in prepared.batches(moments.first_repeat(), 256, model.device):
        clips = batch.clips
        assert clips is not None
        y = model.frames.encoder.local(clips.images_GFHW, clips.num_missing_G)
        index = clips.index_W.cpu().numpy()
        x = pooled(y.flatten(0, 1).float().cpu(), most).reshape(len(y), -1)
        local.append(x[index])
        read.append(model.frames.readout(y).float().cpu().numpy()[index])
    for name, parts in (("frame encoder", local), ("frame readout", read)):
        x = np.concatenate(parts)
        yield Layer("model", name, "frames", x.reshape(len(moments), moments.num_windows, -1).mean(1))


def _stages(model: Neuroformer, batch) -> dict[str, Tensor]:
    encoded = model.encode(batch)
    x_WD = model.first_token(batch, encoded)
    found = {"first token": x_WD}
    alone = Ragged.from_lengths(torch.ones(batch.num_windows, dtype=torch.int64, device=model.device))
    for k, block in enumerate(model.blocks):
        stream = encoded.get(str(block.attend))
        x_WD = block(x_WD, alone, stream.context if stream else None)
        found[f"block {k + 1} ({block.attend})"] = x_WD
    return found | {"rates": model.expected(batch).exp().sum(1)}


def _simulated(path: Path, prepared: Prepared, moments: ComparedMoments) -> np.ndarray | None:
    """(N, U) mean counts of the run's simulation at the moments; None where their trials have not been simulated."""
    if not path.exists():
        return None
    made = open_recording(path)
    if not {"source_start"} <= made.trials.keys() or made.unit_ids != prepared.rec.unit_ids:
        return None
    source, begins = np.asarray(made.trials["source_start"], np.float64), made.trial_intervals[:, 0]
    lasts = made.trial_intervals[:, 1] - begins
    total = np.zeros((moments.repeats, len(moments), made.num_units))
    number = np.zeros((moments.repeats, len(moments), 1))
    for start, length in sorted(set(zip(source.tolist(), np.round(lasts, 9).tolist(), strict=True))):
        inside = (moments.start_RN >= start - 1e-9) & (moments.start_RN + moments.width <= start + length + 1e-9)
        for begin in begins[(source == start) & (np.round(lasts, 9) == length)]:
            at = moments.start_RN[inside] - start + begin
            few = _counts_at(made, at, moments.width)
            total[inside] += few
            number[inside] += 1
    return (total / np.maximum(number, 1)).mean(0).astype(np.float32) if (number > 0).all() else None


def _counts_at(rec, start: np.ndarray, width: float) -> np.ndarray:
    """(N, U) spikes in [start, start + width) of ascending, disjoint moments."""
    order = np.argsort(start, kind="stable")
    row = np.searchsorted(start[order] - 1e-9, rec.spike_times, side="right") - 1
    inside = (row >= 0) & (rec.spike_times < start[order][np.maximum(row, 0)] + width - 1e-9)
    cells = order[row[inside]] * rec.num_units + rec.spike_units[inside]
    return np.bincount(cells, minlength=len(start) * rec.num_units).reshape(len(start), -1)
