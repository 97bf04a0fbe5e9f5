"""Which window: the integer clock, segments with their origins, and windows that tile time.

Shape suffixes: S spikes, W windows, N segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroformer.config import WindowConfig
from neuroformer.recording import Recording

NANOSECONDS = 1_000_000_000


def nanoseconds(seconds) -> np.ndarray:
    """Seconds to whole nanoseconds, int64."""
    return np.rint(np.asarray(seconds, dtype=np.float64) * NANOSECONDS).astype(np.int64)


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
    def from_config(cls, config: WindowConfig) -> WindowShape:
        bins = lambda seconds: round(seconds / config.dt)
        return cls(
            config.dt, bins(config.current), bins(config.past), bins(config.lookahead), bins(config.target_past or config.past)
        )  # fmt: skip

    @property
    def reach(self) -> int:
        """Bins back from a window's start that anything reads."""
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
    """

    origins: np.ndarray
    num_ticks: np.ndarray
    base: np.ndarray
    keys: np.ndarray
    unit: np.ndarray
    num_units: int
    dt: float

    @classmethod
    def from_recording(cls, rec: Recording, segments: np.ndarray, dt: float) -> SpikeIndex:
        """Index the spikes that fall into whole bins of ``segments`` (N, 2 seconds, ascending, disjoint)."""
        origins = segments[:, 0]
        num_ticks = nanoseconds(segments[:, 1] - origins) // nanoseconds(dt)
        # a spike rounds to the nanosecond before it finds its segment, as it does before it finds its bin
        segment = np.searchsorted(origins - 0.5 / NANOSECONDS, rec.spike_times, side="right") - 1
        inside = segment >= 0
        tick = to_ticks(rec.spike_times, origins[np.maximum(segment, 0)], dt)
        inside &= tick < num_ticks[np.maximum(segment, 0)]
        return cls.from_ticks(
            segment[inside], tick[inside], rec.spike_units[inside], origins, num_ticks, rec.num_units, dt
        )

    @classmethod
    def from_ticks(cls, segment, tick, unit, origins, num_ticks, num_units: int, dt: float) -> SpikeIndex:
        """Index spikes given as (segment, bin, unit) triples in any order."""
        base = np.concatenate([[0], np.cumsum(num_ticks)[:-1]]).astype(np.int64)
        keys = base[segment] + tick
        order = np.argsort(keys * num_units + unit, kind="stable")
        return cls(
            np.asarray(origins, np.float64), np.asarray(num_ticks, np.int64), base,
            keys[order], np.asarray(unit, np.int32)[order], num_units, dt,
        )  # fmt: skip

    @property
    def total_ticks(self) -> int:
        return int(self.num_ticks.sum())

    def counts(self) -> np.ndarray:
        """(total bins, units) float32 spike counts of all segments, one after another."""
        flat = np.bincount(
            self.keys * self.num_units + self.unit, minlength=self.total_ticks * self.num_units
        )
        return flat.reshape(self.total_ticks, self.num_units).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Windows:
    """A list of windows: the segment of each and its first bin, counted from the segment's origin.

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

    def starts(self, index: SpikeIndex) -> np.ndarray:
        """(W,) float64 seconds."""
        return index.origins[self.segment] + self.tick * index.dt


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
