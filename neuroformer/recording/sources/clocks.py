"""From one clock to another by pulses that both recorded, some of which either may have missed.

Where both have as many pulses, they are matched in order. Else a stretch of one train votes for the offset at which most
of its pulses meet pulses of the other; the match then grows from there, a straight line fitted to the nearest pulses of
each, so that a drift of up to 1 % is found on the way. A match is taken only if no other offset does nearly as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroformer.recording.validation import RecordingError

MOST_DRIFT = 0.01  # an Arduino's resonator; crystals stay below 0.0002
_STRETCH = 40  # pulses that vote together
_SEEDS = 6  # stretches, evenly over the train
_PAIRS = 4_000_000  # differences between pulses that are looked at for rivals
_SPREAD = 1.4826  # of a normal distribution: standard deviation over the median absolute deviation


@dataclass(frozen=True)
class Clock:
    """A straight line from their seconds to ours: ``ours + scale * (t - theirs)``."""

    ours: float = 0.0
    theirs: float = 0.0
    scale: float = 1.0

    def __call__(self, times: Any) -> np.ndarray:
        return self.ours + self.scale * (np.asarray(times, dtype=np.float64) - self.theirs)

    @property
    def offset(self) -> float:
        """Our time at their zero."""
        return self.ours - self.scale * self.theirs


@dataclass(frozen=True)
class Match:
    """A clock, and how well the pulses agree on it: ``residuals`` (pairs,) seconds, ours less theirs moved."""

    clock: Clock
    residuals: np.ndarray
    in_order: bool


def fit_clock(ours: np.ndarray, theirs: np.ndarray) -> Match:
    """The clock that takes the pulses ``theirs`` (M,) to those of ``ours`` (N,), both in seconds.

    Raises
    ------
    RecordingError
        No pulses; trains that do not fit each other; or a train so regular that the missing pulses cannot be placed.
    """
    ours, theirs = (np.unique(p[np.isfinite(p)]) for p in (np.asarray(ours, float), np.asarray(theirs, float)))
    if len(ours) == 0 or len(theirs) == 0:
        raise RecordingError(f"{len(ours)} pulses of ours and {len(theirs)} of theirs; expected one at least in each")
    if len(ours) == len(theirs) == 1:
        return Match(Clock(float(ours[0]), float(theirs[0])), np.zeros(1), True)
    ordered, error = None, np.inf
    if len(ours) == len(theirs):
        ordered = _kept(theirs, ours, True)
        error = float(np.quantile(np.abs(ours - ordered.clock(theirs)), 0.95)) / float(np.median(np.diff(ours)))
        ordered = ordered if abs(ordered.clock.scale - 1) <= MOST_DRIFT else None
    if ordered is not None and error <= 0.02:
        return ordered
    try:
        return _voted(ours, theirs)
    except RecordingError:
        # pulses whose times are noisy, and none is missing
        if ordered is not None and error <= 0.2:
            return ordered
        raise


def _line(theirs: np.ndarray, ours: np.ndarray) -> Clock:
    """Least squares; one pair gives the offset alone."""
    x, y = theirs.mean(), ours.mean()
    spread = float(((theirs - x) ** 2).sum())
    scale = float(((theirs - x) * (ours - y)).sum()) / spread if spread > 0 else 1.0
    return Clock(float(y), float(x), scale)


def _kept(theirs: np.ndarray, ours: np.ndarray, in_order: bool) -> Match:
    """A line through pairs; again without those far from it, which stay among the residuals."""
    clock = _line(theirs, ours)
    for _ in range(5):
        away = np.abs(ours - clock(theirs))
        near = away <= max(6 * _SPREAD * float(np.median(away)), 1e-9)
        if near.sum() < 2:
            break
        clock = _line(theirs[near], ours[near])
    return Match(clock, ours - clock(theirs), in_order)


def _voted(ours: np.ndarray, theirs: np.ndarray) -> Match:
    if min(len(ours), len(theirs)) < 3:
        raise RecordingError(
            f"{len(ours)} pulses of ours and {len(theirs)} of theirs cannot be matched: where counts differ, three at least are "
            "needed in each; give offset and scale in place of sync"
        )
    num, pairs, width = 0, None, 0.0
    for seed in _seeds(ours, theirs):
        grown = _grown(ours, theirs, *seed)
        if grown[0] > num:
            num, pairs, width = grown
        if num > 0.9 * min(len(ours), len(theirs)):
            break
    least = max(3, min(len(ours), len(theirs)) / 2)
    if pairs is None or num < least:
        raise RecordingError(
            f"the pulses do not fit each other: of {len(ours)} of ours and {len(theirs)} of theirs, {num} agree at most; check "
            "that both are the same signal in seconds (scale: 0.001 makes seconds of milliseconds)"
        )
    match = _kept(theirs[pairs[1]], ours[pairs[0]], False)
    rival, best = _rival(ours, match.clock(theirs), width)
    if rival > best - max(2, 0.05 * best):
        raise RecordingError(
            f"{len(ours)} pulses of ours and {len(theirs)} of theirs come so regularly that the missing ones cannot be placed: "
            f"{best} agree at one offset, {rival} at another; give offset and scale in place of sync, or a train of "
            "irregular pulses"
        )
    return match


def _seeds(ours: np.ndarray, theirs: np.ndarray) -> Iterator[tuple[int, int, Clock, float]]:
    """Stretches of their train with the clock that each votes for: (first pulse, one past the last, clock, width)."""
    size = min(_STRETCH, len(theirs))
    drifts = np.arange(-MOST_DRIFT, MOST_DRIFT + 1e-9, 1e-3)
    for first in np.unique(np.linspace(0, len(theirs) - size, _SEEDS).astype(int)):
        part = theirs[first : first + size]
        middle = float(part[size // 2])
        width = max(0.02 * float(np.median(np.diff(part))), 5e-4 * float(part[-1] - part[0]))
        best = (0, Clock())
        for scale in 1 + drifts[np.argsort(np.abs(drifts))]:
            offsets = np.sort((ours[:, None] - scale * (part - middle)).ravel())
            votes = np.searchsorted(offsets, offsets + width, side="right") - np.arange(len(offsets))
            at = int(votes.argmax())
            if votes[at] > best[0]:
                best = (int(votes[at]), Clock(float(np.median(offsets[at : at + votes[at]])), middle, float(scale)))
            if best[0] > 0.9 * size:
                break
        yield int(first), int(first + size), best[1], width


def _grown(ours: np.ndarray, theirs: np.ndarray, first: int, stop: int, clock: Clock, width: float):
    """How many pulses match when a stretch's match is extended to the whole train, the pairs, and within how much."""
    tolerance = width
    while True:
        for _ in range(3):
            mine, other = _nearest(ours, clock(theirs[first:stop]), tolerance)
            if len(mine) < 3:
                return 0, None, tolerance
            match = _kept(theirs[first:stop][other], ours[mine], False)
            clock = match.clock
            if abs(clock.scale - 1) > 2 * MOST_DRIFT:
                return 0, None, tolerance
            spread = _SPREAD * float(np.median(np.abs(match.residuals)))
            tolerance = float(np.clip(6 * spread, 0.02 * width, width))
        if first == 0 and stop == len(theirs):
            mine, other = _nearest(ours, clock(theirs), tolerance)
            return len(mine), (mine, other), tolerance
        size = stop - first
        first, stop = max(0, first - size // 2), min(len(theirs), stop + size // 2)


def _nearest(ours: np.ndarray, moved: np.ndarray, within: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ours and of theirs that are each other's nearest, and no further apart than ``within``."""
    mine = _closest(ours, moved)
    other = np.arange(len(moved))
    mutual = (_closest(moved, ours)[mine] == other) & (np.abs(ours[mine] - moved) <= within)
    return mine[mutual], other[mutual]


def _closest(among: np.ndarray, to: np.ndarray) -> np.ndarray:
    right = np.searchsorted(among, to).clip(0, len(among) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(among[left] - to) <= np.abs(among[right] - to), left, right)


def _rival(ours: np.ndarray, moved: np.ndarray, width: float) -> tuple[int, int]:
    """How many of their pulses (of a sample of them) meet one of ours at the next best offset, and at this one."""
    sample = moved[:: -(-len(moved) * len(ours) // _PAIRS)]
    apart = np.sort((ours[:, None] - sample).ravel())
    near = np.searchsorted(apart, [-width, width])
    ends = np.searchsorted(apart, apart + 2 * width, side="right")
    votes = ends - np.arange(len(apart))
    elsewhere = (apart > width) | (apart + 2 * width < -width)
    return int(votes[elsewhere].max(initial=0)), int(near[1] - near[0])
