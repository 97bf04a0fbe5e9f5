"""From windows to tensors: whole batches by vectorised NumPy on sorted arrays.

Shape suffixes: W windows, S current spikes, P past spikes, G distinct clips, F frames a clip, C columns.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroformer.config import Config, ConfigError, TargetConfig
from neuroformer.data import tokens
from neuroformer.data.backbone import FrameFeatures
from neuroformer.data.scales import Normalization
from neuroformer.data.traces import TraceIndex, TraceWindows
from neuroformer.data.windows import NANOSECONDS, SpikeIndex, Windows, WindowShape, nanoseconds
from neuroformer.ops import Ragged
from neuroformer.recording import BehaviorVariable, Recording


@dataclass
class Clips:
    """The distinct clips of a batch; windows that show the same frames share one.

    Attributes
    ----------
    images_GFHW : the recording's dtype; features (G, t, h, w, C) in their place where a frozen backbone gives them
    num_missing_G : int64
        Frames at a clip's start that were not shown (before the trial, before the window's reach).
    index_W : int64, which clip each window sees
    key_W : int64, equal for equal clips in all batches
    age_W : float32 seconds from the last frame's onset to the window's end
    host_missing_G : ``num_missing_G`` where the host sees it without waiting for a device (None: it has to wait)
    """

    images_GFHW: Tensor
    num_missing_G: Tensor
    index_W: Tensor
    key_W: Tensor
    age_W: Tensor
    host_missing_G: np.ndarray | None = None


@dataclass
class Around:
    """Spikes around a window, packed; read by target heads only. Bins count from the window's first."""

    layout: Ragged
    tick_S: Tensor
    unit_S: Tensor


@dataclass
class Batch:
    """Tensors of W windows. Spikes are packed; nothing is padded.

    Attributes
    ----------
    current, past : Ragged layouts of spikes; lengths may be zero
    tick_S, unit_S : int64, bin within the window and unit of each current spike
    past_tick_P, past_unit_P : int64; bins are negative, counted from the window's first
    available_W : int64, number of past bins that exist
    clips : Clips, if the recording has frames and the configuration uses them
    inputs : by variable, (W, samples, C) float32, NaN where missing
    targets : by variable, (W, values, C) float32, NaN where missing, evenly spaced up to the window's end
    around : spikes that the targets' values may see, where there are targets
    segment_W, tick_W : int64, where the windows lie
    traces : continuous activity before and in each window, if traces are modelled
    observed_WBU : bool, which units were observed in which bins of each window; None: all in all. No current spike lies
        elsewhere, and the likelihood is of these cells alone
    past_weight_P : optional, weight of each past spike (None: 1), with respect to which gradients are taken
    """

    current: Ragged
    tick_S: Tensor
    unit_S: Tensor
    past: Ragged
    past_tick_P: Tensor
    past_unit_P: Tensor
    available_W: Tensor
    segment_W: Tensor
    tick_W: Tensor
    clips: Clips | None = None
    inputs: dict[str, Tensor] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)
    around: Around | None = None
    traces: TraceWindows | None = None
    observed_WBU: Tensor | None = None
    past_weight_P: Tensor | None = None

    @property
    def num_windows(self) -> int:
        return len(self.current)

    @property
    def num_spikes(self) -> int:
        return self.current.total

    def every_spike(self) -> tuple[Tensor, Tensor, Tensor]:
        """Window, bin and unit of all spikes; past spikes come first."""
        return (
            torch.cat([self.past.row_T, self.current.row_T]),
            torch.cat([self.past_tick_P, self.tick_S]),
            torch.cat([self.past_unit_P, self.unit_S]),
        )

    def to(self, device, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return _move(self, device, non_blocking)


def _move(x: Any, device, non_blocking: bool) -> Any:
    if isinstance(x, (Tensor, Ragged)):
        return x.to(device, non_blocking=non_blocking)
    if dataclasses.is_dataclass(x):
        moved = {f.name: _move(getattr(x, f.name), device, non_blocking) for f in dataclasses.fields(x)}
        return type(x)(**moved)  # pyright: ignore[reportCallIssue]
    if isinstance(x, dict):
        return {k: _move(v, device, non_blocking) for k, v in x.items()}
    return x


class BatchBuilder:
    """Builds batches of one recording.

    Parameters
    ----------
    rec : Recording
    index : SpikeIndex
        Its spikes on the clock of the split's segments.
    config : Config
    normalization : Normalization
        From :func:`neuroformer.data.normalization.fit_normalization`; only frame counts are used here.
    labels : bool
        False if the targets' values are not known yet (streaming): batches then hold none.
    """

    def __init__(
        self,
        rec: Recording,
        index: SpikeIndex,
        config: Config,
        normalization: Normalization,
        *,
        labels: bool = True,
    ):
        self.index, self.config, self.normalization = index, config, normalization
        self.shape = WindowShape.from_config(config)
        self.inputs = [(v, rec.variable(v.name)) for v in config.inputs]
        self.targets = [(t, rec.variable(t.name)) for t in config.targets if labels]
        _refuse_other_words(rec, self.targets, normalization)
        moving = config.decode.moving.variable
        self.moving = rec.variable(moving) if self.targets and moving else None
        self.frames = rec.frames if config.window.frames > 0 else None
        self.traces = TraceIndex(rec, index) if config.traces.likelihood != "none" else None
        self._origin_ns = nanoseconds(index.origins)
        self._dt_ns = int(nanoseconds(config.window.dt))
        if self.frames is not None:
            scale = normalization.frames
            assert scale is not None
            self._num_frames = scale.count
            self._frame_ns = nanoseconds(self.frames.times)
        encoder = config.model.frame_encoder
        self.features = None
        if self.frames is not None and encoder.kind == "backbone" and not encoder.finetune:
            self.features = FrameFeatures(self.frames.images, encoder, scale)

    def __call__(
        self, windows: Windows, past: tokens.Tokens | None = None, past_traces: np.ndarray | None = None
    ) -> Batch:
        """The batch of these windows.

        In a simulation, ``past`` replaces the recording's past, and there are no current spikes: none of the
        recording's own spikes is read. ``past_traces`` (W, past bins, units) likewise.
        """
        recorded = past is None
        if self.traces is not None:
            current = past = tokens.no_spikes(len(windows))
        elif past is None:
            current = tokens.encode_current(self.index, windows, self.shape)
            past = tokens.encode_past(self.index, windows, self.shape)
        else:
            current = tokens.no_spikes(len(windows))
        start_ns = self._origin_ns[windows.segment] + windows.tick * self._dt_ns
        stop_ns = start_ns + self.shape.current * self._dt_ns
        return Batch(
            current=_ragged(current.offsets),
            tick_S=_tensor(current.tick),
            unit_S=_tensor(current.unit),
            past=_ragged(past.offsets),
            past_tick_P=_tensor(past.tick),
            past_unit_P=_tensor(past.unit),
            available_W=_tensor(tokens.available_past(windows, self.shape)),
            segment_W=_tensor(windows.segment),
            tick_W=_tensor(windows.tick),
            clips=self._clips(windows, start_ns, stop_ns),
            inputs=self._inputs(start_ns),
            targets=self._targets(start_ns),
            around=self._around(windows) if recorded else None,
            traces=self.traces.windows(windows, self.shape, past_traces) if self.traces else None,
            observed_WBU=self._observed(windows) if recorded and self.traces is None else None,
        )

    def _inputs(self, start_ns: np.ndarray) -> dict[str, Tensor]:
        out = {}
        for config, variable in self.inputs:
            step = self.shape.current * self._dt_ns / config.samples
            at = (start_ns[:, None] + (np.arange(config.samples) + 0.5) * step) / NANOSECONDS
            values = variable.hold(at.ravel()).reshape(*at.shape, -1)
            out[config.name] = torch.from_numpy(values)
        return out

    def labels(self, windows: Windows) -> dict[str, Tensor]:
        """(W, values, C) labels of every target, as in a batch, without building one."""
        return self._targets(self._origin_ns[windows.segment] + windows.tick * self._dt_ns)

    def _targets(self, start_ns: np.ndarray) -> dict[str, Tensor]:
        out = {}
        for config, variable in self.targets:
            bins = (np.arange(config.samples) + 1) * (self.shape.current // config.samples)
            at = (start_ns[:, None] + bins * self._dt_ns) / NANOSECONDS
            values = label_values(variable, config, at.ravel())
            values[~self._counts(at.ravel())] = np.nan
            out[config.name] = torch.from_numpy(values).unflatten(0, at.shape)
        return out

    def _counts(self, at: np.ndarray) -> np.ndarray:
        """(N,) whether a label counts at each time: always, or while the animal moves (``decode.moving``)."""
        if self.moving is None:
            return np.ones(len(at), bool)
        return self.moving.interpolate(at)[:, 0] > self.config.decode.moving.above

    def _observed(self, windows: Windows) -> Tensor | None:
        seen_WBU = self.index.observed_in(windows, 0, self.shape.current)
        return None if seen_WBU is None else torch.from_numpy(seen_WBU)

    def _around(self, windows: Windows) -> Around | None:
        if not self.config.targets:
            return None
        spikes = tokens.encode_around(self.index, windows, self.shape)
        return Around(_ragged(spikes.offsets), _tensor(spikes.tick), _tensor(spikes.unit))

    def _clips(self, windows: Windows, start_ns: np.ndarray, stop_ns: np.ndarray) -> Clips | None:
        if self.frames is None:
            return None
        last, end_ns = self._last_frame(start_ns, stop_ns)
        images, num_missing, index_W, key, shown = self._stretches(*self._reach(windows, last, end_ns))
        age = (stop_ns - self._frame_ns[np.maximum(last, 0)]) / NANOSECONDS
        age = np.where(shown[:, -1], age, 0.0)
        age_W = torch.from_numpy(age.astype(np.float32))
        # not ``.numpy()`` of the tensor: that view would dangle once a worker moves the tensor into shared memory
        return Clips(images, torch.from_numpy(num_missing), index_W, key, age_W, num_missing)

    def _last_frame(self, start_ns: np.ndarray, stop_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The latest frame that each window may see, and the time until which it may see frames."""
        end_ns = stop_ns if self.config.window.frames_until == "stop" else start_ns
        return np.searchsorted(self._frame_ns, end_ns, side="left") - 1, end_ns

    def last_images(self, windows: Windows) -> np.ndarray:
        """(W, height, width) the last frame that each window sees, even if batches hold features; before any frame,
        the first one.
        """
        assert self.frames is not None
        start_ns = self._origin_ns[windows.segment] + windows.tick * self._dt_ns
        last, _ = self._last_frame(start_ns, start_ns + self.shape.current * self._dt_ns)
        return self.frames.pixels(self.frames.index[np.maximum(last, 0)])

    def shown(self, windows: Windows) -> np.ndarray:
        """(W, F) which image of the recording's bank each frame of a window's clip is, the latest last; -1 where none was
        shown.
        """
        assert self.frames is not None
        start_ns = self._origin_ns[windows.segment] + windows.tick * self._dt_ns
        last, end_ns = self._last_frame(start_ns, start_ns + self.shape.current * self._dt_ns)
        return self._images(*self._reach(windows, last, end_ns))

    def _stretches(self, place_WF: np.ndarray, first_ns: np.ndarray):
        """Images of the distinct rows of frames, how many each lacks, which row a window has, its key, and what was
        shown, not before ``first_ns``."""
        assert self.frames is not None
        image_WF = self._images(place_WF, first_ns)
        # one 64-bit key a row: sorting keys is far cheaper than sorting rows
        key = (image_WF + 2) @ _MIX[: place_WF.shape[1]]
        _, first, index_W = np.unique(key, return_index=True, return_inverse=True)
        image_GF = image_WF[first]
        if self.features is not None:
            images = self.features(image_GF)
        else:
            bank, inverse = np.unique(np.maximum(image_GF, 0), return_inverse=True)
            images = self.frames.pixels(bank)[inverse.reshape(image_GF.shape)]
        missing_G = (image_GF < 0).sum(1, dtype=np.int64)
        return torch.from_numpy(images), missing_G, _tensor(index_W), _tensor(key), image_WF >= 0

    def _reach(self, windows: Windows, last: np.ndarray, end_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(W, F) places of the frames that a window's clip may hold, and the (W,) time before which none is shown."""
        first_ns = np.maximum(end_ns - nanoseconds(self.config.window.frames), self._origin_ns[windows.segment])
        return last[:, None] + np.arange(1 - self._num_frames, 1), first_ns

    def _images(self, place_WF: np.ndarray, first_ns: np.ndarray) -> np.ndarray:
        """(W, F) image of each frame, -1 where none was shown."""
        assert self.frames is not None
        place = np.maximum(place_WF, 0)
        shown = (place_WF >= 0) & (self._frame_ns[place] >= first_ns[:, None])
        return np.where(shown, self.frames.index[place], -1)


def label_values(variable: BehaviorVariable, config: TargetConfig, at: np.ndarray) -> np.ndarray:
    """(N, C) float32 labels at times (N,): classes hold the last value, others are interpolated, circular ones around
    the circle.
    """
    if config.kind == "classification":
        return variable.hold_label(at)
    if config.kind == "regression":
        return variable.interpolate(at)
    turn = (config.period or 2 * np.pi) / (2 * np.pi)
    angle = variable.values / turn
    parts = [dataclasses.replace(variable, values=f(angle)).interpolate(at) for f in (np.sin, np.cos)]
    return (np.arctan2(*parts) * turn).astype(np.float32)


def _refuse_other_words(rec: Recording, targets, normalization: Normalization) -> None:
    """Classes are kept as places in the list of words, which must therefore be the one of training."""
    for config, variable in targets:
        trained = normalization.targets[config.name].words
        if list(variable.classes) != trained:
            named = lambda words: ", ".join(words) or "numbers"
            raise ConfigError(
                f"target '{config.name}' of '{rec.name}' holds {named(variable.classes)}, and the model was trained on "
                f"{named(trained)}; fine-tune a run on this recording"
            )


_MIX = np.random.default_rng(0).integers(1, 2**62, 4096, dtype=np.int64) | 1


def _tensor(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.int64))


def _ragged(offsets: np.ndarray) -> Ragged:
    longest = int(np.diff(offsets).max(initial=0))
    return Ragged(torch.from_numpy(offsets), longest, int(offsets[-1]))
