"""Spikes around windows, from the sorted index alone: no array of the recording's length.

Shape suffixes: S spikes, W windows, L bins around a window, U units.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from neuroformer.data.windows import SpikeIndex, Windows


def spikes_around(
    index: SpikeIndex, windows: Windows, before: int, after: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(S,) window, bin counted from ``before`` bins ahead of the window's start, and unit of every spike in
    ``[start - before, start + after)``. Nothing outside the window's segment is read."""
    base = index.base[windows.segment]
    first = base + windows.tick - before
    low = index.find(np.maximum(first, base))
    high = index.find(np.minimum(base + windows.tick + after, base + index.num_ticks[windows.segment]))
    number = np.maximum(high - low, 0)
    row = np.repeat(np.arange(len(windows)), number)
    at = np.arange(len(row)) + np.repeat(low - np.cumsum(number) + number, number)
    return row, index.keys[at] - first[row], index.unit[at]


def counts_around(index: SpikeIndex, windows: Windows, before: int, after: int) -> Tensor:
    """(W, L, U) float32 counts of ``[start - before, start + after)``; 0 outside the segment."""
    row, place, unit = spikes_around(index, windows, before, after)
    size = (len(windows), before + after, index.num_units)
    cells = torch.from_numpy((row * size[1] + place) * size[2] + unit)
    out = torch.zeros(size[0] * size[1] * size[2])
    return out.index_add_(0, cells, torch.ones(len(cells))).view(size)


def patterns_around(index: SpikeIndex, windows: Windows, before: int, after: int, pattern_UQ: Tensor) -> Tensor:
    """(W, L, Q) the same counts projected onto patterns over the first units (as many as rows), at the cost of their
    spikes alone."""
    row, place, unit = spikes_around(index, windows, before, after)
    mine = unit < len(pattern_UQ)
    row, place, unit = row[mine], place[mine], unit[mine]
    out = torch.zeros(len(windows) * (before + after), pattern_UQ.shape[1])
    out.index_add_(0, torch.from_numpy(row * (before + after) + place), pattern_UQ[torch.from_numpy(unit).long()])
    return out.view(len(windows), before + after, -1)


def of_units(index: SpikeIndex, start: int, stop: int) -> SpikeIndex:
    """The spikes of units ``start`` to ``stop``, which are counted from 0 again."""
    mine = (index.unit >= start) & (index.unit < stop)
    return dataclasses.replace(
        index,
        keys=index.keys[mine],
        unit=index.unit[mine] - np.int32(start),
        num_units=stop - start,
        offsets=None,
        observed=None if index.observed is None else index.observed.of_units(start, stop),
    )
