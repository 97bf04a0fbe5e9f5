"""Decoding while it happens: spikes, frames and behavior come in as they are recorded, values go out.

Shape suffixes: N values per window, C columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from neuroformer.data.batch import BatchBuilder
from neuroformer.data.scales import Normalization
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape
from neuroformer.decoding.decode import target_head
from neuroformer.model.network import Neuroformer
from neuroformer.recording import BehaviorVariable, FrameSeries, Recording

_SAMPLES = 64  # of each input that are kept: the last one counts, the others tell the sampling period


class Values(NamedTuple):
    """What one window says: the moments (N,) in seconds, and by target (N, C) values in its own unit."""

    times: np.ndarray
    values: dict[str, np.ndarray]


class StreamDecoder:
    """Closed-loop decoding, window by window; the same values as decoding the finished recording.

    Only what a window can still read is kept, so that a step costs the same after hours as after seconds.

    Parameters
    ----------
    model : Neuroformer, of a bundle: ``load_model(read_bundle(path), "speed")``
    normalization : Normalization
        The bundle's.
    origin : float
        Seconds; the clock's zero, the start of the recording or trial. Nothing before it is known.

    Examples
    --------
    >>> stream = StreamDecoder(model, bundle.normalization, origin=0.0)
    >>> stream.push_spikes(times, units)          # whatever came since the last call, in ascending time
    >>> for window in stream.advance(now):        # every window whose data are complete by now
    ...     control(window.values["speed"][-1])
    """

    def __init__(self, model: Neuroformer, normalization: Normalization, origin: float = 0.0):
        if not model.targets:
            raise ValueError("the model has no target to decode; see neuroformer finetune")
        self.model, self.normalization, self.origin = model.eval(), normalization, origin
        self.config = model.config
        self.shape = WindowShape.from_config(self.config)
        self.tick = 0
        self._times, self._units = np.zeros(0), np.zeros(0, np.int64)
        self._inputs: dict[str, tuple[list[float], list[np.ndarray]]] = {v.name: ([], []) for v in self.config.inputs}
        self._frames: tuple[list[float], list[np.ndarray]] = ([], [])

    # -- in ------------------------------------------------------------------------------------------------

    def push_spikes(self, times, units) -> None:
        """Spikes in ascending time, none earlier than the last one pushed or than a window already decoded.

        Raises
        ------
        ValueError
            Times that go back, or a unit that the model does not have.
        """
        times, units = np.asarray(times, dtype=np.float64).ravel(), np.asarray(units, dtype=np.int64).ravel()
        if len(times) != len(units):
            raise ValueError(f"{len(times)} spike times but {len(units)} units; expected as many")
        if not len(times):
            return
        earliest = max(self._time(self.tick + self.shape.current + self.shape.ahead) - self._reach_s(), self._last())
        if (np.diff(times) < 0).any() or times[0] < earliest:
            raise ValueError(f"spikes must come in ascending time, none before {earliest:g} s; got {times.min():g} s")
        if units.min() < 0 or units.max() >= self.model.num_units:
            raise ValueError(f"unit {units.max()} is not one of the model's {self.model.num_units} (0 upwards)")
        self._times, self._units = np.concatenate([self._times, times]), np.concatenate([self._units, units])

    def push_input(self, name: str, time: float, value) -> None:
        """One sample of a behavior variable that conditions the model."""
        if name not in self._inputs:
            raise ValueError(f"'{name}' is not an input of the model; it has: {', '.join(self._inputs) or 'none'}")
        times, values = self._inputs[name]
        times.append(float(time))
        values.append(np.atleast_1d(np.asarray(value, dtype=np.float32)))
        del times[:-_SAMPLES], values[:-_SAMPLES]

    def push_frame(self, time: float, image: np.ndarray) -> None:
        """A frame (height, width) that came on at ``time``."""
        times, images = self._frames
        times.append(float(time))
        images.append(np.asarray(image))
        keep = max(_SAMPLES, 2 * (self.normalization.frames.count if self.normalization.frames is not None else 1))
        del times[:-keep], images[:-keep]

    # -- out -----------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def advance(self, now: float) -> list[Values]:
        """Decode every window whose spikes (and lookahead) are complete at ``now``: all before it was pushed.

        Inputs and frames count as they were last pushed; push those of a window before it is decoded.
        """
        out = []
        while self._time(self.tick + self.shape.current + self.shape.ahead) <= now + 1e-9:
            out.append(self._window())
            self.tick += self.shape.current
            keep = self._times >= self._time(self.tick) - self._reach_s()
            self._times, self._units = self._times[keep], self._units[keep]
        return out

    def _window(self) -> Values:
        rec = self._recording()
        index = SpikeIndex.from_recording(rec, rec.domain, self.shape.dt)
        builder = BatchBuilder(rec, index, self.config, self.normalization, labels=False)
        batch = builder(Windows(np.zeros(1, np.int64), np.array([self.tick])))
        values, ends = {}, np.zeros(0)
        for name, raw in self.model.decoded(batch.to(self.model.device)).items():
            head = target_head(self.model, name)
            values[name] = head.decoded(raw.float())[0].cpu().numpy()
            ends = np.array(head.ends) if len(head.ends) > len(ends) else ends
        return Values(self.origin + (self.tick + ends) * self.shape.dt, values)

    def _recording(self) -> Recording:
        stop = self._time(self.tick + self.shape.current + self.shape.ahead)
        before = self._times < stop
        behavior = {n: BehaviorVariable(np.array(t), np.stack(v)) for n, (t, v) in self._inputs.items() if t}
        frames = None
        if self.config.window.frames > 0:
            times, images = self._frames
            if len(times) < 1:
                raise ValueError("the model sees frames; push_frame at least one before the first window is decoded")
            frames = FrameSeries(np.stack(images), np.array(times), np.arange(len(times)))
        units = {"id": np.arange(self.model.num_units)}
        domain = np.array([[self.origin, stop]])
        return Recording(
            "stream", self._times[before], self._units[before], units, domain, frames=frames, behavior=behavior
        )

    def _time(self, tick: int) -> float:
        return self.origin + tick * self.shape.dt

    def _reach_s(self) -> float:
        return (self.shape.reach + self.shape.current) * self.shape.dt

    def _last(self) -> float:
        return float(self._times[-1]) if len(self._times) else self.origin
