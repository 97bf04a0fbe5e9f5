"""Spikes to tokens and back. Training and simulation both build the past with these functions.

Shape suffixes: W windows, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroformer.data.windows import SpikeIndex, Windows, WindowShape


@dataclass(frozen=True, eq=False)
class Tokens:
    """Spikes of each of W windows, packed: window w holds ``offsets[w]:offsets[w + 1]``.

    Attributes
    ----------
    offsets : (W + 1,) int64
    tick : (T,) int64
        Bin relative to the window's first bin: 0 and up for current spikes, negative for past ones.
    unit : (T,) int64
    """

    offsets: np.ndarray
    tick: np.ndarray
    unit: np.ndarray


def no_spikes(num_windows: int) -> Tokens:
    """Windows without a spike."""
    return Tokens(np.zeros(num_windows + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))


def _slice(index: SpikeIndex, first: np.ndarray, stop: np.ndarray, start: np.ndarray) -> Tokens:
    """Spikes whose key lies in ``[first, stop)`` of each window, with bins relative to ``start``."""
    lo, hi = index.find(np.concatenate([first, stop])).reshape(2, -1)
    lengths = hi - lo
    offsets = np.zeros(len(lo) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    flat = np.arange(offsets[-1]) + np.repeat(lo - offsets[:-1], lengths)
    return Tokens(offsets, index.keys[flat] - np.repeat(start, lengths), index.unit[flat].astype(np.int64))


def encode_current(index: SpikeIndex, windows: Windows, shape: WindowShape) -> Tokens:
    """The spikes of ``[t, t + current)`` of each window, ordered by (bin, unit)."""
    start = windows.bins(index)
    return _slice(index, start, start + shape.current, start)


def encode_past(index: SpikeIndex, windows: Windows, shape: WindowShape) -> Tokens:
    """The spikes of ``[t - past, t)``, never from before the segment's origin: that time is missing, not silent."""
    base = index.base[windows.segment]
    start = base + windows.tick
    return _slice(index, np.maximum(start - shape.past, base), start, start)


def encode_around(index: SpikeIndex, windows: Windows, shape: WindowShape) -> Tokens:
    """The spikes that decoded values may see: from ``target_past`` before a window's first value to ``ahead`` after its last.

    Never from outside the segment.
    """
    base = index.base[windows.segment]
    start = base + windows.tick
    stop = np.minimum(start + shape.current + shape.ahead, base + index.num_ticks[windows.segment])
    return _slice(index, np.maximum(start + 1 - shape.target_past, base), stop, start)


def available_past(windows: Windows, shape: WindowShape) -> np.ndarray:
    """(W,) bins of past that exist."""
    return np.minimum(windows.tick, shape.past)


def decode(tokens: Tokens, windows: Windows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segment, bin within the segment and unit of every token: the inverse of encoding, up to the bin."""
    lengths = np.diff(tokens.offsets)
    return np.repeat(windows.segment, lengths), np.repeat(windows.tick, lengths) + tokens.tick, tokens.unit
