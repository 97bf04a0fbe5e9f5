"""Which units were observed in which bins, where that differs: outside, the absence of spikes says nothing.

Shape suffixes: N intervals, E stretches of bins in which the same units are observed, U units, W windows, L bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroformer.recording import Recording
from neuroformer.recording.clock import NANOSECONDS, nanoseconds, step_s

_CELLS = 1 << 24  # (stretch, unit) that are looked at together


@dataclass(frozen=True, eq=False)
class ObservedBins:
    """The observed units of every bin on the one line of all segments' bins.

    A bin counts as observed for a unit if all of it lies in the unit's intervals.

    Attributes
    ----------
    first_E : int64, ascending from 0
        The bin at which each stretch begins; it reaches to the next one.
    packed_EU : uint8
        Eight units a byte, as :func:`numpy.packbits` makes them.
    all_E : bool, whether every unit is observed
    total : bins of the line
    num_units : int
    """

    first_E: np.ndarray
    packed_EU: np.ndarray
    all_E: np.ndarray
    total: int
    num_units: int

    @classmethod
    def of(
        cls, rec: Recording, origins: np.ndarray, num_ticks: np.ndarray, base: np.ndarray, dt: float
    ) -> ObservedBins | None:
        """Of a recording on the clock of some segments; None where every unit is observed in all of them."""
        if rec.observed is None:
            return None
        runs = _runs(rec, nanoseconds(origins), num_ticks, base, int(nanoseconds(dt)))
        total = int(num_ticks.sum())
        first_E = np.unique(np.concatenate([[0], runs[0], runs[1]]))
        first_E = first_E[first_E < max(total, 1)]
        columns = max(8, _CELLS // len(first_E) // 8 * 8)
        parts = [_packed(first_E, runs, u, min(u + columns, rec.num_units)) for u in range(0, rec.num_units, columns)]
        all_E = np.logical_and.reduce([whole for _, whole in parts])
        if all_E.all():
            return None
        return cls(first_E, np.concatenate([packed for packed, _ in parts], 1), all_E, total, rec.num_units)

    def at(self, bins: np.ndarray) -> np.ndarray:
        """(..., U) bool of bins (...,) on the line."""
        return self._unpacked(self._stretch(bins))

    def cells(self, bins: np.ndarray, units: np.ndarray) -> np.ndarray:
        """(N,) bool of single cells."""
        byte = self.packed_EU[self._stretch(bins), units >> 3]
        return (byte >> (7 - (units & 7)).astype(np.uint8)) & 1 == 1

    def around(self, bins: np.ndarray, before: int, after: int) -> np.ndarray | None:
        """(W, L, U) bool of ``[bin - before, bin + after)`` around each of (W,) bins; None where all is observed."""
        stretch = self._stretch(np.clip(bins[:, None] + np.arange(-before, after), 0, self.total - 1))
        return None if self.all_E[stretch].all() else self._unpacked(stretch)

    def throughout(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """(N, U) bool, which units were observed in all bins of each of (N,) ranges ``[start, stop)``; in an empty one, all."""
        some = stop > start
        first = self._stretch(np.clip(start, 0, self.total - 1))
        last = np.where(some, self._stretch(np.clip(stop - 1, 0, self.total - 1)), first)
        out = self._unpacked(first) | ~some[:, None]
        for n in range(1, int((last - first).max(initial=0)) + 1):
            more = np.flatnonzero(last - first >= n)
            out[more] &= self._unpacked(first[more] + n)
        return out

    def number(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """(N, U) observed bins of each unit within each of (N,) ranges ``[start, stop)`` of bins."""
        out = np.zeros((len(start), self.num_units), np.int64)
        last_E = np.append(self.first_E[1:], self.total)
        for n, (a, b) in enumerate(zip(start, stop, strict=True)):
            if b <= a:
                continue
            lo, hi = self._stretch(np.array([a, b - 1]))
            rows = np.arange(lo, hi + 1)
            length_E = np.minimum(last_E[rows], b) - np.maximum(self.first_E[rows], a)
            for part in np.array_split(np.arange(len(rows)), -(-len(rows) * self.num_units // _CELLS)):
                out[n] += length_E[part] @ self._unpacked(rows[part])
        return out

    def of_units(self, start: int, stop: int) -> ObservedBins:
        """Of the units ``start`` to ``stop``, which are counted from 0 again."""
        rows = max(1, _CELLS // self.num_units)
        parts, whole = [], []
        for e in range(0, len(self.first_E), rows):
            mine = self._unpacked(np.arange(e, min(e + rows, len(self.first_E))))[:, start:stop]
            parts.append(np.packbits(mine, axis=1))
            whole.append(mine.all(1))
        return ObservedBins(self.first_E, np.concatenate(parts), np.concatenate(whole), self.total, stop - start)

    def _stretch(self, bins: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.first_E, bins, side="right") - 1

    def _unpacked(self, stretch: np.ndarray) -> np.ndarray:
        bits = np.unpackbits(self.packed_EU[stretch.ravel()], axis=1, count=self.num_units)
        return bits.view(bool).reshape(*stretch.shape, self.num_units)


def _runs(
    rec: Recording, origins_ns: np.ndarray, num_ticks: np.ndarray, base: np.ndarray, dt_ns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First bin, one past the last, and unit of every stretch of whole bins that a unit was observed."""
    assert rec.observed is not None
    edges, units = nanoseconds(rec.observed.intervals), rec.observed.units.astype(np.int64)
    if len(edges):  # intervals of a unit that touch are one: a bin may lie across their border
        new = np.r_[True, (np.diff(units) != 0) | (edges[1:, 0] > edges[:-1, 1])]
        edges = np.stack([edges[new, 0], edges[np.r_[new[1:], True], 1]], 1)
        units = units[new]
    slack = max(1, int(2 * step_s(rec.observed.intervals) * NANOSECONDS))  # rounding, as where bins are counted
    edges = edges + np.array([-slack, slack])
    stops_ns = origins_ns + num_ticks * dt_ns
    low = np.searchsorted(stops_ns, edges[:, 0], side="right")
    high = np.searchsorted(origins_ns, edges[:, 1], side="left")
    number = np.maximum(high - low, 0)
    which = np.repeat(np.arange(len(edges)), number)
    segment = np.arange(len(which)) + np.repeat(low - np.cumsum(number) + number, number)
    start = -((origins_ns[segment] - edges[which, 0]) // dt_ns)  # rounded up
    stop = (edges[which, 1] - origins_ns[segment]) // dt_ns
    start, stop = np.maximum(start, 0), np.minimum(stop, num_ticks[segment])
    some = stop > start
    return (base[segment] + start)[some], (base[segment] + stop)[some], units[which][some]


def _packed(
    first_E: np.ndarray, runs: tuple[np.ndarray, np.ndarray, np.ndarray], low: int, high: int
) -> tuple[np.ndarray, np.ndarray]:
    """Packed columns of units ``low`` to ``high``, and which stretches have all of them."""
    start, stop, unit = runs
    mine = (unit >= low) & (unit < high)
    change = np.zeros((len(first_E) + 1, high - low), np.int32)
    np.add.at(change, (np.searchsorted(first_E, start[mine]), unit[mine] - low), 1)
    np.add.at(change, (np.searchsorted(first_E, stop[mine]), unit[mine] - low), -1)
    seen = change[:-1].cumsum(0) > 0
    return np.packbits(seen, axis=1), np.asarray(seen.all(1))
