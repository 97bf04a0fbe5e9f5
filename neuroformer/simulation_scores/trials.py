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
    dt : seconds per bin
    num_units : int
    seen_TU : (T, U) bool, or None (all in all)
        Which units were observed throughout each trial. Spikes of others are left out: such a unit says nothing in it.
    """

    trial: np.ndarray
    tick: np.ndarray
    unit: np.ndarray
    num_ticks: np.ndarray
    source: np.ndarray
    stimulus: np.ndarray
    dt: float
    num_units: int
    seen_TU: np.ndarray | None = None

    @classmethod
    def from_recording(cls, rec: Recording, intervals: np.ndarray, dt: float, source, stimulus) -> Trials:
        """The spikes of ascending, disjoint ``intervals`` (T, 2 seconds)."""
        index = SpikeIndex.from_recording(rec, np.asarray(intervals, np.float64).reshape(-1, 2), dt)
        trial = np.searchsorted(index.base, index.keys, side="right") - 1
        # trials of no bins share their base with the next one; the last of them holds the spikes
        made = cls(
            trial,
            index.keys - index.base[trial],
            index.unit.astype(np.int64),
            index.num_ticks,
            np.asarray(source, np.int64),
            np.asarray(stimulus, np.int64),
            dt,
            rec.num_units,
        )
        if index.observed is None:
            return made
        return made.seen_as(index.observed.throughout(index.base, index.base + index.num_ticks))

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

    def seen_as(self, seen_TU: np.ndarray | None) -> Trials:
        """The same trials as if of the units only those (T, U) had been observed."""
        if seen_TU is None:
            return self
        if self.seen_TU is not None:
            seen_TU = seen_TU & self.seen_TU
        keep = seen_TU[self.trial, self.unit]
        return replace(self, trial=self.trial[keep], tick=self.tick[keep], unit=self.unit[keep], seen_TU=seen_TU)

    @property
    def weight_TU(self) -> np.ndarray:
        """(T, U) 1 where a unit was observed throughout a trial, else 0."""
        every = np.ones((len(self), self.num_units))
        return every if self.seen_TU is None else every * self.seen_TU

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
            None if self.seen_TU is None else self.seen_TU[which],
        )

    def counts(self, join: int = 1) -> list[np.ndarray]:
        """(bins, units) float32 counts of each trial, in bins of ``join`` ticks; an incomplete last bin is left
        out. 0 where a unit was not observed; :meth:`known_counts` has NaN there.
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

    def known_counts(self, join: int = 1) -> list[np.ndarray]:
        """The same with NaN for the units that were not observed throughout a trial."""
        each = self.counts(join)
        if self.seen_TU is not None:
            for x, seen_U in zip(each, self.seen_TU, strict=True):
                x[:, ~seen_U] = np.nan
        return each

    def dense(self, join: int) -> np.ndarray:
        """(T, B, U) float64 of :meth:`known_counts`, NaN after the end of short trials."""
        each = self.known_counts(join)
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
            part.seen_TU,
        )
