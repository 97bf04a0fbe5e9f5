"""Continuous activity (calcium traces) on the clock of the bins.

Shape suffixes: W windows, L past bins, B bins of a window, U units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuroformer.config import Config, ConfigError
from neuroformer.data.scales import TraceScale
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape, nanoseconds, to_ticks
from neuroformer.recording import Recording


@dataclass
class TraceWindows:
    """The samples before each window and in it, NaN where there is none."""

    past_WLU: Tensor
    current_WBU: Tensor


class TraceIndex:
    """The sample of every unit in every bin.

    Parameters
    ----------
    rec : Recording with traces
    index : SpikeIndex, for its clock

    Attributes
    ----------
    values : (bins of all segments, U) float32, NaN in a bin without a sample

    Raises
    ------
    ConfigError
        No traces, or two samples in one bin: the likelihood is of samples, so none may be lost.
    """

    def __init__(self, rec: Recording, index: SpikeIndex):
        if rec.traces is None:
            raise ConfigError(f"traces.likelihood is set, but recording '{rec.name}' has no traces")
        times = rec.traces.times
        segment = np.searchsorted(nanoseconds(index.origins), nanoseconds(times), side="right") - 1
        place = np.maximum(segment, 0)
        tick = to_ticks(times, index.origins[place], index.dt)
        inside = (segment >= 0) & (tick < index.num_ticks[place])
        keys = (index.base[place] + tick)[inside]
        if len(keys) and (np.diff(keys) == 0).any():
            raise ConfigError(
                f"window.dt is {index.dt:g} s, but the traces of '{rec.name}' come every "
                f"{1 / rec.traces.rate_hz:.6g} s: two samples fall into one bin; use that as window.dt, or less"
            )
        self.index = index
        self.values = np.full((index.total_ticks, rec.num_units), np.nan, np.float32)
        self.values[keys] = rec.traces.values[inside]

    def windows(self, windows: Windows, shape: WindowShape, past: np.ndarray | None = None) -> TraceWindows:
        """Past and current samples. In a simulation, ``past`` (W, L, U) is given, and none of the recording's samples
        is read.
        """
        if past is not None:
            current = np.full((len(windows), shape.current, self.values.shape[1]), np.nan, np.float32)
            return TraceWindows(torch.from_numpy(past), torch.from_numpy(current))
        start = windows.bins(self.index)
        current = self.values[start[:, None] + np.arange(shape.current)]
        return TraceWindows(torch.from_numpy(self.past(windows, shape)), torch.from_numpy(current))

    def past(self, windows: Windows, shape: WindowShape) -> np.ndarray:
        """(W, L, U) samples of the bins before each window, NaN before the segment's origin."""
        back = np.arange(-shape.past, 0)
        rows = windows.bins(self.index)[:, None] + back
        out = self.values[np.maximum(rows, 0)]
        out[windows.tick[:, None] + back < 0] = np.nan
        return out


def fit_trace_scale(rec: Recording, blocks: np.ndarray, index: SpikeIndex, config: Config) -> TraceScale:
    """Each unit's marginal distribution on training blocks. The gamma's shape is that of Minka, "Estimating a Gamma
    distribution", 2002, in closed form.

    Raises
    ------
    ConfigError
        Values below zero under ``traces.likelihood: gamma``, or a unit without a finite training sample.
    """
    traces = TraceIndex(rec, index)
    rows = np.concatenate([np.arange(index.base[s] + a, index.base[s] + b) for s, a, b in blocks])
    x = traces.values[rows].astype(np.float64)
    known = np.isfinite(x)
    if not known.any(0).all():
        unit = rec.unit_ids[int((~known.any(0)).argmax())]
        raise ConfigError(f"the trace of unit '{unit}' has no finite sample in the training blocks")
    if config.traces.likelihood == "gamma" and np.nanmin(x) < 0:
        raise ConfigError(
            f"traces.likelihood is 'gamma', but the traces of '{rec.name}' go down to {np.nanmin(x):.3g}; the "
            "zero-inflated gamma is for deconvolved activity of zero or more, use 'gaussian' for fluorescence"
        )
    std = np.nanstd(x, 0)
    above = known & (x > 0)
    num = above.sum(0)
    level = np.where(num > 0, np.where(above, x, 0).sum(0) / np.maximum(num, 1), 1.0)
    logs = np.where(above, np.log(np.where(above, x, 1.0)), 0).sum(0) / np.maximum(num, 1)
    s = np.maximum(np.log(level) - logs, 1e-3)
    shape = np.where(num > 2, (3 - s + np.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s), 1.0)
    return TraceScale(
        mean=np.nanmean(x, 0).tolist(),
        std=np.where(std > 0, std, 1.0).tolist(),
        share=((num + 0.5) / (known.sum(0) + 1)).tolist(),
        level=level.tolist(),
        shape=shape.tolist(),
    )
