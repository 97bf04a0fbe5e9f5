"""Windows and their clock: integer bins, segments with their origins, and windows that tile time.

Shape suffixes: S spikes, W windows, N segments.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import numpy as np

from neuroformer.config import Config
from neuroformer.data.observed import ObservedBins
from neuroformer.recording import Recording
from neuroformer.recording.clock import NANOSECONDS, nanoseconds, num_bins

CHUNK = 1 << 20  # spikes indexed at a time
LARGE = 30_000_000  # spikes; below, an index takes 360 MB at most and stays in memory


def to_ticks(times, origin, dt: float) -> np.ndarray:
    """Bin of each time on the clock that starts at ``origin``: no float comparison decides it.

    ``round(1e9 * (t - origin)) // round(1e9 * dt)``, int64. A time exactly on a border opens the later bin.
    """
    return nanoseconds(np.asarray(times, dtype=np.float64) - origin) // nanoseconds(dt)


@dataclass(frozen=True)
class WindowShape:
    """A window in bins of ``dt`` seconds.

    Attributes
    ----------
    current : bins to predict
    past : bins before them
    ahead : bins after them that a decoded value may see (``window.lookahead``)
    target_past : bins before a decoded value that it may see
    """

    dt: float
    current: int
    past: int
    ahead: int = 0
    target_past: int = 0

    @classmethod
    def from_config(cls, config: Config) -> WindowShape:
        w = config.window
        bins = lambda seconds: round(seconds / w.dt)
        before = w.target_past or w.past if config.targets else w.past
        return cls(w.dt, bins(w.current), bins(w.past), bins(w.lookahead), bins(before))

    @property
    def reach(self) -> int:
        """How many bins before a window's start are read."""
        return max(self.past, self.target_past - 1)


@dataclass(frozen=True, eq=False)
class SpikeIndex:
    """Every spike on the integer clock, sorted by (segment, bin, unit).

    Segments are what windows never cross: trials, or intervals of the domain. Segment n's bins are numbered
    ``base[n]`` to ``base[n] + num_ticks[n]`` on one line, so that one sorted search finds any window.

    Attributes
    ----------
    origins : (N,) float64 seconds
    num_ticks : (N,) int64, whole bins
    base : (N,) int64
    keys : (S,) int64, ascending; unit : (S,) int32
    num_units : int
    dt : float
    offsets : (total bins + 1,) int64 or None
        Spikes before each bin: with it, finding a window is one lookup instead of a search that misses the cache at
        every step.
    observed : ObservedBins or None
        Which units were observed in which bins; None: all in all. Spikes of others are not in the index.
    """

    origins: np.ndarray
    num_ticks: np.ndarray
    base: np.ndarray
    keys: np.ndarray
    unit: np.ndarray
    num_units: int
    dt: float
    offsets: np.ndarray | None = None
    observed: ObservedBins | None = None

    @classmethod
    def from_recording(cls, rec: Recording, segments: np.ndarray, dt: float) -> SpikeIndex:
        """Index the spikes that fall into whole bins of ``segments`` (N, 2 seconds, ascending, disjoint).

        Spikes are sorted by time, so pieces of them are sorted by bin and unit one after another; beyond
        ``LARGE`` of them, the index lies in temporary files that the system may drop from memory.
        """
        origins = segments[:, 0]
        num_ticks = num_bins(segments, dt)
        base = np.concatenate([[0], np.cumsum(num_ticks)[:-1]]).astype(np.int64)
        observed = ObservedBins.of(rec, origins, num_ticks, base, dt)
        keys, unit = _room(rec.num_spikes, np.int64), _room(rec.num_spikes, np.int32)
        offsets = _room(int(num_ticks.sum()) + 1, np.int64)
        done = filled = 0
        held = np.zeros(0, np.int64), np.zeros(0, np.int32)  # of a bin that the next piece may go on with
        for lo in range(0, rec.num_spikes, CHUNK):
            times, units = (a[lo : lo + CHUNK] for a in (rec.spike_times, rec.spike_units))
            # a spike rounds to the nanosecond before it finds its segment, as it does before it finds its bin
            segment = np.searchsorted(origins - 0.5 / NANOSECONDS, times, side="right") - 1
            inside = segment >= 0
            segment = np.maximum(segment, 0)
            tick = to_ticks(times, origins[segment], dt)
            inside &= tick < num_ticks[segment]
            if observed is not None:
                inside[inside] = observed.cells((base[segment] + tick)[inside], units[inside])
            key = np.concatenate([held[0], base[segment[inside]] + tick[inside]])
            units = np.concatenate([held[1], units[inside]])
            order = np.argsort(key * rec.num_units + units, kind="stable")
            key, units = key[order], units[order]
            last = lo + CHUNK >= rec.num_spikes
            stop = len(key) if last else int(np.searchsorted(key, key[-1:])[0]) if len(key) else 0
            keys[done : done + stop], unit[done : done + stop] = key[:stop], units[:stop]
            if stop:  # every bin up to that of the last spike is complete
                bins = np.arange(filled, key[stop - 1] + 1)
                offsets[filled : key[stop - 1] + 1] = done + np.searchsorted(key[:stop], bins)
                filled = int(key[stop - 1]) + 1
            held, done = (key[stop:], units[stop:]), done + stop
        offsets[filled:] = done
        return cls(
            np.asarray(origins, np.float64),
            np.asarray(num_ticks, np.int64),
            base,
            keys[:done],
            unit[:done],
            rec.num_units,
            dt,
            offsets,
            observed,
        )

    @classmethod
    def from_ticks(cls, segment, tick, unit, origins, num_ticks, num_units: int, dt: float) -> SpikeIndex:
        """Index spikes given as (segment, bin, unit) triples in any order."""
        base = np.concatenate([[0], np.cumsum(num_ticks)[:-1]]).astype(np.int64)
        keys = base[segment] + tick
        order = np.argsort(keys * num_units + unit, kind="stable")
        return cls(
            np.asarray(origins, np.float64),
            np.asarray(num_ticks, np.int64),
            base,
            keys[order],
            np.asarray(unit, np.int32)[order],
            num_units,
            dt,
        )

    def observed_in(self, windows: Windows, before: int, after: int) -> np.ndarray | None:
        """(W, L, U) bool, which units were observed in ``[start - before, start + after)`` of each window; None where all
        were.
        """
        return None if self.observed is None else self.observed.around(windows.bins(self), before, after)

    def find(self, bins: np.ndarray) -> np.ndarray:
        """How many spikes lie before each bin of the one line."""
        return np.searchsorted(self.keys, bins) if self.offsets is None else self.offsets[bins]

    @property
    def total_ticks(self) -> int:
        return int(self.num_ticks.sum())

    def counts(self) -> np.ndarray:
        """(total bins, units) float32 spike counts of all segments, one after another."""
        flat = np.bincount(self.keys * self.num_units + self.unit, minlength=self.total_ticks * self.num_units)
        return flat.reshape(self.total_ticks, self.num_units).astype(np.float32)


def _room(count: int, dtype) -> np.ndarray:
    """An empty array; a large one is a temporary file, which disappears when nothing refers to it any more."""
    if count <= LARGE:
        return np.empty(count, dtype)
    with tempfile.TemporaryFile(prefix="neuroformer-index-") as f:
        return np.asarray(np.memmap(f, dtype=dtype, mode="w+", shape=(count,)))


@dataclass(frozen=True, eq=False)
class Windows:
    """A list of windows: the segment and the first bin of each, counted from the segment's origin.

    Attributes
    ----------
    segment, tick : (W,) int64
    """

    segment: np.ndarray
    tick: np.ndarray

    def __len__(self) -> int:
        return len(self.tick)

    def __getitem__(self, which) -> Windows:
        return Windows(self.segment[which], self.tick[which])

    def pieces(self, size: int) -> list[Windows]:
        """Consecutive pieces of ``size`` windows; the last may be shorter."""
        return [self[first : first + size] for first in range(0, len(self), size)]

    def starts(self, index: SpikeIndex) -> np.ndarray:
        """(W,) float64 seconds."""
        return index.origins[self.segment] + self.tick * index.dt

    def bins(self, index: SpikeIndex) -> np.ndarray:
        """(W,) int64, each window's first bin on the one line of all segments' bins."""
        return index.base[self.segment] + self.tick


def tile(blocks: np.ndarray, shape: WindowShape, *, reach: int | None = None, phase: int = 0) -> Windows:
    """Windows that tile blocks without overlap, on the grid ``origin + phase + k * current``.

    A window is listed only if all it reads lies in its block: ``reach`` bins back (default: the shape's), the
    current bins and those of the lookahead. A block that opens its segment has no data before it: there the past is missing.

    Parameters
    ----------
    blocks : (blocks, 3) int64
        Segment, first bin, one past the last bin.
    """
    reach = shape.reach if reach is None else reach
    segments, ticks = [], []
    for segment, start, stop in blocks:
        first = start if start == 0 else start + reach
        k = -((phase - first) // shape.current)  # first grid place at or after `first`
        grid = np.arange(phase + k * shape.current, stop - shape.current - shape.ahead + 1, shape.current)
        ticks.append(grid)
        segments.append(np.full(len(grid), segment))
    if not ticks:
        return Windows(np.zeros(0, np.int64), np.zeros(0, np.int64))
    return Windows(np.concatenate(segments).astype(np.int64), np.concatenate(ticks).astype(np.int64))


def spread(num: int, most: int) -> np.ndarray:
    """Places of at most so many of ``num`` things, spread evenly over them; the same ones every time."""
    return np.arange(num) if num <= most else np.linspace(0, num - 1, most).round().astype(int)
