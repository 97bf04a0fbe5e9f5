"""Trials of spikes on a clock of bins, recorded or simulated alike: what the scores of a simulation read.

Shape suffixes: S spikes, T trials, B bins, U units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from neuroformer.data.windows import SpikeIndex
from neuroformer.recording import Recording


@dataclass(frozen=True, eq=False)
class Trials:
    """Spikes of T trials, sorted by (trial, bin, unit).

    Attributes
    ----------
    trial, tick, unit : (S,) int64
        Trial, bin since its start, unit.
    num_ticks : (T,) int64, whole bins of each trial
    source : (T,) int64
        Which trial (or block) of the recording each one is, or imitates.
    stimulus : (T,) int64, which stimulus each showed; -1 where none is known to repeat
    dt : seconds a bin
    num_units : int
    """

    trial: np.ndarray
    tick: np.ndarray
    unit: np.ndarray
    num_ticks: np.ndarray
    source: np.ndarray
    stimulus: np.ndarray
    dt: float
    num_units: int

    @classmethod
    def from_recording(cls, rec: Recording, intervals: np.ndarray, dt: float, source, stimulus) -> Trials:
        """The spikes of ascending, disjoint ``intervals`` (T, 2 seconds)."""
        index = SpikeIndex.from_recording(rec, np.asarray(intervals, np.float64).reshape(-1, 2), dt)
        trial = np.searchsorted(index.base, index.keys, side="right") - 1
        # trials of no bins share their base with the next one; the last of them holds the spikes
        return cls(
            trial,
            index.keys - index.base[trial],
            index.unit.astype(np.int64),
            index.num_ticks,
            np.asarray(source, np.int64),
            np.asarray(stimulus, np.int64),
            dt,
            rec.num_units,
        )

    @classmethod
    def from_counts(cls, counts: list[np.ndarray], source, stimulus, dt: float) -> Trials:
        """From one (bins, units) matrix of whole counts a trial."""
        parts = []
        for t, x in enumerate(counts):
            tick, unit = np.nonzero(x)
            repeat = x[tick, unit].astype(np.int64)
            parts.append(np.repeat(np.stack([np.full(len(tick), t), tick, unit]), repeat, axis=1))
        trial, tick, unit = np.concatenate([np.zeros((3, 0), np.int64), *parts], axis=1)
        num_units = counts[0].shape[1]
        num_ticks = np.array([len(x) for x in counts], np.int64)
        return cls(
            trial, tick, unit, num_ticks, np.asarray(source, np.int64), np.asarray(stimulus, np.int64), dt, num_units
        )

    def __len__(self) -> int:
        return len(self.num_ticks)

    @property
    def seconds_T(self) -> np.ndarray:
        return self.num_ticks * self.dt

    def rows(self, which: np.ndarray) -> Trials:
        """Some of the trials, in the order asked for; one may be asked for twice."""
        which = np.asarray(which, np.int64)
        edges = np.searchsorted(self.trial, np.arange(len(self) + 1))
        take = [np.arange(lo, hi) for lo, hi in zip(edges[which].tolist(), edges[which + 1].tolist(), strict=True)]
        flat = np.concatenate([np.zeros(0, np.int64), *take])
        new = np.repeat(np.arange(len(which)), [len(x) for x in take])
        return Trials(
            new,
            self.tick[flat],
            self.unit[flat],
            self.num_ticks[which],
            self.source[which],
            self.stimulus[which],
            self.dt,
            self.num_units,
        )

    def counts(self, join: int = 1) -> list[np.ndarray]:
        """(bins, units) float32 counts of each trial, in bins of ``join`` ticks; an incomplete last bin is left
        out.
        """
        edges = np.searchsorted(self.trial, np.arange(len(self) + 1))
        out = []
        for t, n in enumerate(self.num_ticks // join):
            here = slice(int(edges[t]), int(edges[t + 1]))
            bins, unit = self.tick[here] // join, self.unit[here]
            inside = bins < n
            flat = np.bincount(bins[inside] * self.num_units + unit[inside], minlength=int(n) * self.num_units)
            out.append(flat.reshape(int(n), self.num_units).astype(np.float32))
        return out

    def dense(self, join: int) -> np.ndarray:
        """(T, B, U) float64 of :meth:`counts`, NaN after the end of short trials."""
        each = self.counts(join)
        out = np.full((len(self), max((len(x) for x in each), default=0), self.num_units), np.nan)
        for t, x in enumerate(each):
            out[t, : len(x)] = x
        return out

    def first(self, num_ticks: int | np.ndarray) -> Trials:
        """At most the first so many bins of every trial, or (T,) of each."""
        inside = self.tick < np.broadcast_to(num_ticks, self.num_ticks.shape)[self.trial]
        return replace(
            self,
            trial=self.trial[inside],
            tick=self.tick[inside],
            unit=self.unit[inside],
            num_ticks=np.minimum(self.num_ticks, num_ticks),
        )

    def between(self, start: int, stop: int) -> Trials:
        """The bins ``[start, stop)`` of every trial that has them all."""
        keep = np.flatnonzero(self.num_ticks >= stop)
        part = self.rows(keep)
        inside = (part.tick >= start) & (part.tick < stop)
        return Trials(
            part.trial[inside],
            part.tick[inside] - start,
            part.unit[inside],
            np.full(len(keep), stop - start),
            part.source,
            part.stimulus,
            part.dt,
            part.num_units,
        )
