"""What is to be explained: responses of units on a grid of moments, repeated where stimuli repeat.

Shape suffixes: R repeats, N moments, M windows of a moment, U units.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from neuroformer.config import ConfigError
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import NANOSECONDS, Windows, nanoseconds, tile, to_ticks
from neuroformer.recording import Recording
from neuroformer.recording.clock import joined
from neuroformer.simulation_scores.psth import stimulus_of_trials

NUM_FOLDS = 5
LEAST_STIMULI = 3  # from so many on, folds hold out whole stimuli
GAP_S = 1.0  # between training moments and held-out ones, where folds are contiguous
BLOCK_S, BLOCK_S_ONCE = (
    2.0,
    10.0,
)  # stretches that are left out or shuffled together: of a repeated stimulus, of a session
MOST_MOMENTS = 10_000
LEAST_MOMENTS = 30


@dataclass(frozen=True, eq=False)
class ComparedMoments:
    """Stretches of equal length at which responses and features are compared.

    Attributes
    ----------
    start_RN : (R, N) float64 seconds; one repeat where nothing repeats
    windows : the R * N * M windows of the run, in this order, that tile the moments
    width : seconds of a moment
    stimulus_N : which stimulus, counted from 0
    place_N : seconds since the stimulus began (where nothing repeats: of the recording)
    block_N : stretches that are left out together, or shuffled, counted from 0
    fold_N : the fold that holds out each moment
    by_stimulus : folds hold out whole stimuli, and together those that have one value in the column that the split holds out
        by, where there are three or more values; else they are contiguous, with gaps of ``GAP_S``
    """

    start_RN: np.ndarray
    windows: Windows
    width: float
    stimulus_N: np.ndarray
    place_N: np.ndarray
    block_N: np.ndarray
    fold_N: np.ndarray
    by_stimulus: bool

    def __len__(self) -> int:
        return self.start_RN.shape[1]

    @property
    def repeats(self) -> int:
        return len(self.start_RN)

    @property
    def num_windows(self) -> int:
        """Windows of a moment."""
        return len(self.windows) // self.start_RN.size

    def first_repeat(self) -> Windows:
        """The N * M windows of the first repeat."""
        return self.windows[np.arange(len(self) * self.num_windows)]

    def rows(self, which: np.ndarray) -> ComparedMoments:
        """Some of the moments; folds and blocks keep their numbers."""
        place = np.arange(len(self.windows)).reshape(self.repeats, len(self), self.num_windows)
        return replace(
            self,
            start_RN=self.start_RN[:, which],
            windows=self.windows[place[:, which].ravel()],
            stimulus_N=self.stimulus_N[which],
            place_N=self.place_N[which],
            block_N=self.block_N[which],
            fold_N=self.fold_N[which],
        )

    def training(self, *held: int) -> np.ndarray:
        """Rows to train on where these folds are held out; moments within the gap of a held-out one are left out."""
        keep = ~np.isin(self.fold_N, held)
        if not self.by_stimulus:
            for stimulus in np.unique(self.stimulus_N):
                here = self.stimulus_N == stimulus
                for fold in held:
                    out = self.place_N[here & (self.fold_N == fold)]
                    if len(out):
                        near = (self.place_N > out.min() - GAP_S - self.width) & (
                            self.place_N < out.max() + GAP_S + self.width
                        )
                        keep &= ~(here & near)
        return np.flatnonzero(keep)

    def counts(self, rec: Recording, latency: float) -> np.ndarray:
        """(R, N, U) uint16 spikes ``latency`` seconds after each moment."""
        flat = self.start_RN.ravel()
        order = np.argsort(flat, kind="stable")
        start = nanoseconds(flat[order] + latency)
        at = nanoseconds(rec.spike_times)
        row = np.searchsorted(start, at, side="right") - 1
        inside = (row >= 0) & (at < start[np.maximum(row, 0)] + nanoseconds(self.width))
        cells = order[row[inside]] * rec.num_units + rec.spike_units[inside]
        out = np.bincount(cells, minlength=flat.size * rec.num_units)
        return out.reshape(*self.start_RN.shape, rec.num_units).astype(np.uint16)

    def inside(self, rec: Recording, latency: float) -> np.ndarray:
        """(N,) whether every repeat's response lies where data exist."""
        spans = nanoseconds(joined(rec.domain))
        start = nanoseconds(self.start_RN + latency)
        row = np.searchsorted(spans[:, 0], start, side="right") - 1
        return ((row >= 0) & (start + nanoseconds(self.width) <= spans[np.maximum(row, 0), 1])).all(0)

    def shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """(N,) rows in which blocks have changed places."""
        rows = [np.flatnonzero(self.block_N == b) for b in np.unique(self.block_N)]
        return np.concatenate([rows[k] for k in rng.permutation(len(rows))])


def moments_of(prepared: Prepared, part: str, latencies: Iterable[float] = (0.0,)) -> ComparedMoments:
    """The moments of a part of the split: bins of repeated stimuli, or, where nothing repeats, all of its windows.

    A moment is one window of the run. Where a trial shows one still image, it is the whole trial. Of stimuli that were
    shown unequally often, the repeats that all have count.

    Parameters
    ----------
    part : "train", "valid" or "test"
    latencies : seconds after which responses will be asked for: moments that lack one are left out

    Raises
    ------
    ConfigError
        Too few moments.
    """
    made = _repeated(prepared, part) or _once(prepared, part)
    keep = np.logical_and.reduce([made.inside(prepared.rec, latency) for latency in latencies])
    made = made.rows(np.flatnonzero(keep))
    if len(made) < LEAST_MOMENTS:
        raise ConfigError(
            f"'{part}' of '{prepared.rec.name}' has {len(made)} moments to compare at, expected {LEAST_MOMENTS} or more; "
            "hold out more of the recording (split.pattern)"
        )
    if len(made) > MOST_MOMENTS:  # whole blocks, evenly spread
        blocks = np.unique(made.block_N)
        few = blocks[:: -(-len(made) // MOST_MOMENTS)]
        made = made.rows(np.flatnonzero(np.isin(made.block_N, few)))
    return made


def _repeated(prepared: Prepared, part: str) -> ComparedMoments | None:
    """Stimuli that the part shows twice or more often; None where there are none."""
    rec, shape = prepared.rec, prepared.builder.shape
    trials = _trials_within(prepared, part)
    if not len(trials):
        return None
    stimulus = stimulus_of_trials(rec)[trials]
    _, stimulus, number = np.unique(stimulus, return_inverse=True, return_counts=True)
    several = np.flatnonzero(number >= 2)
    if not len(several):
        return None
    repeats = int(number[several].min())
    start, stop = np.round(rec.trial_intervals[trials].T, 9)
    repeated = [np.flatnonzero(stimulus == s)[:repeats] for s in several]
    ticks = [int((nanoseconds(stop[m] - start[m]) // nanoseconds(shape.dt)).min()) for m in repeated]
    each = shape.current
    if _stills(rec, start, stop):
        each *= max(1, min(ticks) // shape.current)
    width = each * shape.dt
    numbers = [n // each for n in ticks]
    if not sum(numbers):
        return None
    place = [np.arange(n) * width for n in numbers]
    start_RN = np.concatenate([start[m][:, None] + p for m, p in zip(repeated, place, strict=True)], 1)
    stimulus_N = np.repeat(np.arange(len(numbers)), numbers)
    place_N = np.concatenate(place)
    group = _held_together(prepared, [int(trials[m[0]]) for m in repeated])
    return _with_folds(prepared, start_RN, each // shape.current, stimulus_N, place_N, BLOCK_S, group)


def _held_together(prepared: Prepared, trials: list[int]) -> np.ndarray:
    """(stimuli,) the value of each stimulus in the column ``split.hold_out``, counted from 0; by itself where these are too few."""
    column = prepared.rec.trials.get(prepared.config.split.hold_out)
    if column is not None:
        group = np.unique(column[trials], return_inverse=True)[1]
        if group.max() + 1 >= LEAST_STIMULI:
            return group
    return np.arange(len(trials))


def _once(prepared: Prepared, part: str) -> ComparedMoments:
    windows = tile(prepared.split.blocks[part], prepared.builder.shape)
    start = windows.starts(prepared.index)
    return _with_folds(prepared, start[None], 1, np.zeros(len(start), np.int64), start, BLOCK_S_ONCE)


def _with_folds(
    prepared: Prepared, start_RN, each: int, stimulus_N, place_N, block_s: float, group: np.ndarray | None = None
) -> ComparedMoments:
    dt, current = prepared.split.dt, prepared.builder.shape.current
    starts = (start_RN[..., None] + np.arange(each) * current * dt).ravel()
    origins = prepared.index.origins
    segment = np.searchsorted(origins - 0.5 / NANOSECONDS, starts, side="right") - 1
    windows = Windows(segment.astype(np.int64), to_ticks(starts, origins[segment], dt))
    number = int(stimulus_N.max(initial=-1)) + 1
    by_stimulus = number >= LEAST_STIMULI
    if by_stimulus and group is not None:
        fold_N = group[stimulus_N] % NUM_FOLDS
    else:  # contiguous pieces of every stimulus
        fold_N = np.zeros(len(place_N), np.int64)
        for s in range(number):
            rows = np.flatnonzero(stimulus_N == s)
            fold_N[rows] = np.arange(len(rows)) * NUM_FOLDS // max(len(rows), 1)
    stretch = np.floor(place_N / block_s + 1e-9).astype(np.int64)
    block_N = np.unique(np.stack([stimulus_N, stretch]), axis=1, return_inverse=True)[1].ravel()
    width = each * current * dt
    return ComparedMoments(start_RN, windows, width, stimulus_N, place_N, block_N, fold_N, by_stimulus)


def _trials_within(prepared: Prepared, part: str) -> np.ndarray:
    """Trials that lie in one block of the part with all that their first window reads."""
    rec, split = prepared.rec, prepared.split
    if rec.num_trials == 0:
        return np.zeros(0, np.int64)
    reach = prepared.builder.shape.reach * split.dt
    spans = split.intervals(part)
    opens = split.blocks[part][:, 1] == 0
    start, stop = rec.trial_intervals.T
    row = np.searchsorted(spans[:, 0] - 1e-9, start, side="right") - 1
    at = np.maximum(row, 0)
    if not len(spans):
        return np.zeros(0, np.int64)
    first = np.where(opens[at], spans[at, 0], spans[at, 0] + reach)
    # the split's blocks are whole bins: a trial's rest of less than a bin may stick out
    return np.flatnonzero((row >= 0) & (start >= first - 1e-9) & (stop < spans[at, 1] + split.dt - 1e-9))


def _stills(rec: Recording, start: np.ndarray, stop: np.ndarray) -> bool:
    """Whether each trial shows one image."""
    if rec.frames is None:
        return False
    shown = nanoseconds(rec.frames.times)
    lo, hi = np.searchsorted(shown, nanoseconds(start)), np.searchsorted(shown, nanoseconds(stop))
    return all(len(np.unique(rec.frames.index[a:b])) == 1 for a, b in zip(lo, hi, strict=True))
