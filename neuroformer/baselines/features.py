"""What every baseline sees: square-root spike counts in equal bins around each decoded moment.

Shape suffixes: V decoded values, B count bins, U units, C columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroformer.config import Config
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape

NUM_BINS = (1, 2, 5, 10)  # count bins that a lag may be cut into


@dataclass(frozen=True)
class Binning:
    """``num_bins`` bins of ``width`` ticks before a moment; those after it, with lookahead, are about as wide."""

    width: int
    num_bins: int


class SpikeCounts:
    """Square-root spike counts in equal bins around the moment at which a window ends.

    Parameters
    ----------
    index : SpikeIndex
    shape : WindowShape
        The label belongs to a window's end; no spike at or after it plus ``shape.ahead`` bins is counted.
    """

    def __init__(self, index: SpikeIndex, shape: WindowShape):
        self.index, self.shape = index, shape
        # a 0 ahead of the running sum: the count of [a, b) is total[b] - total[a]
        self._total = np.zeros((index.total_ticks + 1, index.num_units), np.int32)
        np.cumsum(index.counts(), axis=0, out=self._total[1:], dtype=np.int32)

    def __call__(self, windows: Windows, binning: Binning) -> np.ndarray:
        """(V, B, U) float32, the latest bin last; 0 outside the segment."""
        base = self.index.base[windows.segment]
        end = base + windows.tick + self.shape.current
        ahead = self.shape.ahead
        after = np.linspace(0, ahead, max(1, round(ahead / binning.width)) + 1)[1:] if ahead else np.zeros(0)
        offsets = np.concatenate([-binning.width * np.arange(binning.num_bins, -1, -1), np.rint(after)])
        edges = end[:, None] + offsets.astype(np.int64)
        edges = np.clip(edges, base[:, None], (base + self.index.num_ticks[windows.segment])[:, None])
        return np.sqrt(np.diff(self._total[edges], axis=1), dtype=np.float32)


def binnings(config: Config, dt: float, num_bins: tuple[int, ...] = NUM_BINS) -> list[Binning]:
    """Distinct binnings, each close to one of ``decode.lags``."""
    out = [Binning(max(1, round(lag / dt / count)), count) for lag in config.decode.lags for count in num_bins]
    return list(dict.fromkeys(out))


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled (or, without ``y``, unlabelled) moments in time order.

    Attributes
    ----------
    x_VBU : square-root counts
    windows : where they lie
    y_VC : float64 labels, or one column of whole-number classes
    """

    x_VBU: np.ndarray
    windows: Windows
    y_VC: np.ndarray

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, which) -> Samples:
        return Samples(self.x_VBU[which], self.windows[which], self.y_VC[which])

    @property
    def flat(self) -> np.ndarray:
        """(V, B * U)."""
        return self.x_VBU.reshape(len(self), -1)


def contiguous_folds(
    windows: Windows, index: SpikeIndex, gap: int, num_folds: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training rows, held-out rows) of contiguous stretches of moments in time order.

    Training rows nearer than ``gap`` bins to the held-out stretch are left out, so that no spike is read on both
    sides; where that would leave less than half of the others (a few labelled seconds), the gap is waived.
    """
    at = index.base[windows.segment] + windows.tick
    rows = np.arange(len(windows))
    out = []
    for held in np.array_split(rows, max(2, min(num_folds, len(windows)))):
        if not len(held):
            continue
        others = np.setdiff1d(rows, held)
        clear = others[(at[others] < at[held].min() - gap) | (at[others] > at[held].max() + gap)]
        out.append((clear if 2 * len(clear) >= len(others) else others, held))
    return out
