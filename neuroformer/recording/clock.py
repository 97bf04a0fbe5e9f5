"""One integer clock: seconds as whole nanoseconds, so that no last bit of a float decides which time comes first."""

from __future__ import annotations

from typing import Any

import numpy as np

NANOSECONDS = 1_000_000_000
LATEST_S = 9.2e9  # seconds that int64 nanoseconds can say


def nanoseconds(seconds: Any) -> np.ndarray:
    """Seconds to whole nanoseconds, int64."""
    return np.rint(np.asarray(seconds, dtype=np.float64) * NANOSECONDS).astype(np.int64)


def step_s(times: np.ndarray) -> float:
    """Seconds between neighboring numbers of the times' own type at the latest of them that is finite; 0 for whole numbers."""
    known = times[np.isfinite(times)] if times.dtype.kind == "f" else times[:0]
    return float(np.spacing(np.abs(known).max())) if known.size else 0.0


def num_bins(intervals: np.ndarray, dt: float) -> np.ndarray:
    """(N,) int64 whole bins of ``dt`` seconds in each of (N, 2) intervals.

    On a clock that counts from 1970, neighboring floats are 240 ns apart: a duration that lacks no more than two such
    steps of a whole bin has it.
    """
    slack = int(2 * step_s(intervals) * NANOSECONDS)
    return (nanoseconds(intervals[:, 1] - intervals[:, 0]) + slack) // nanoseconds(dt)


def interval_of(times: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """(N,) row of the interval ``[start, stop)`` in which each time lies, -1 where there is none.

    ``intervals`` (M, 2) are ascending and disjoint.
    """
    if len(intervals) == 0:
        return np.full(len(times), -1)
    at, edges = nanoseconds(times), nanoseconds(intervals)
    row = np.searchsorted(edges[:, 0], at, side="right") - 1
    return np.where((row >= 0) & (at < edges[np.maximum(row, 0), 1]), row, -1)


def closed_up(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """``stop``, equal to the next ``start`` wherever the two differ by rounding only.

    The larger of half a nanosecond and two steps of the times' own type is rounding: the end of a trial is often its
    start and its duration, added up.
    """
    rounding = max(0.5 / NANOSECONDS, 2 * max(step_s(start), step_s(stop)))
    start, end = start.astype(np.float64), stop.astype(np.float64)
    near = np.flatnonzero((np.abs(end[:-1] - start[1:]) <= rounding) & (end[:-1] != start[1:]))
    if len(near) == 0:
        return stop
    end[near] = start[near + 1]
    return end


def joined(intervals: np.ndarray) -> np.ndarray:
    """(M, 2) the same times as ascending disjoint ``intervals`` (N, 2); those that touch are one."""
    if len(intervals) == 0:
        return intervals
    edges = nanoseconds(intervals)
    first = np.r_[True, edges[1:, 0] > edges[:-1, 1]]
    last = np.r_[first[1:], True]
    return np.stack([intervals[first, 0], intervals[last, 1]], 1)
