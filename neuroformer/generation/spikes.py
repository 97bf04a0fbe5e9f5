"""Spikes on the clock, and the sequences that they belong to.

Shape suffixes: Q sequences.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Spikes:
    """Spikes on the clock: sequence, bin within the sequence's segment, unit; equal lengths, int64."""

    sequence: np.ndarray
    tick: np.ndarray
    unit: np.ndarray

    @classmethod
    def join(cls, parts: list[Spikes]) -> Spikes:
        empty = np.zeros(0, np.int64)
        pick = lambda name: np.concatenate([empty, *(getattr(p, name) for p in parts)])
        return cls(pick("sequence"), pick("tick"), pick("unit"))

    def ordered(self) -> Spikes:
        """By (sequence, bin, unit)."""
        order = np.lexsort((self.unit, self.tick, self.sequence))
        return Spikes(self.sequence[order], self.tick[order], self.unit[order])


@dataclass
class Sequences:
    """What is simulated: sequence q runs in ``segment[q]`` from bin ``start[q]`` up to bin ``stop[q]``.

    ``ident`` names the random stream; ``history`` holds the spikes before each start, if any, at bins from
    ``known_from`` on (negative where a past is given to a sequence that opens its segment).
    """

    segment: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    ident: np.ndarray
    known_from: np.ndarray
    history: Spikes = field(default_factory=lambda: Spikes.join([]))

    def __len__(self) -> int:
        return len(self.segment)

    def __getitem__(self, which: slice) -> Sequences:
        lo, hi, _ = which.indices(len(self))
        h = self.history
        inside = (h.sequence >= lo) & (h.sequence < hi)
        history = Spikes(h.sequence[inside] - lo, h.tick[inside], h.unit[inside])
        return Sequences(
            self.segment[which],
            self.start[which],
            self.stop[which],
            self.ident[which],
            self.known_from[which],
            history,
        )

    def num_windows(self, current: int) -> int:
        """Of the longest sequence."""
        return int((self.stop - self.start).max(initial=0)) // current
