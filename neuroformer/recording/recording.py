"""The container of one session: spikes, units, frames, behavior, trials, and where data exist.

Times are seconds, float64, on one clock. Every interval is half-open, ``[start, stop)``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


class RecordingError(ValueError):
    """A recording that contradicts itself: says what was got, what was expected and what to do."""


@dataclass(frozen=True, eq=False)
class BehaviorVariable:
    """One behavior variable with its own sample times.

    Parameters
    ----------
    times : (samples,) float64 seconds, strictly ascending
    values : (samples, columns) float32; NaN where it is missing (masked in the loss, counted in reports)
    unit : str
        Unit of measure of the values, free text ("cm/s").
    columns : tuple of str
        One name a column; empty when there is one column only.
    """

    times: np.ndarray
    values: np.ndarray
    unit: str = ""
    columns: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "times", np.asarray(self.times, dtype=np.float64))
        values = np.asarray(self.values)
        values = values[:, None] if values.ndim == 1 else values
        object.__setattr__(self, "values", np.asarray(values, dtype=np.float32))

    @property
    def num_columns(self) -> int:
        return self.values.shape[1]

    @property
    def num_missing(self) -> int:
        """Samples with NaN or infinity in any column."""
        return int((~np.isfinite(self.values).all(1)).sum())

    def _max_gap(self) -> float:
        steps = np.diff(self.times)
        return 5 * float(np.median(steps)) if len(steps) else np.inf

    def hold(self, at: np.ndarray) -> np.ndarray:
        """(N, columns) last sample at or before each time of ``at`` (N,): what a causal reader knows.

        NaN before the first sample, and where the last sample is older than five sampling periods.
        """
        at = np.asarray(at, dtype=np.float64)
        k = np.searchsorted(self.times, at, side="right") - 1
        out = self.values[np.clip(k, 0, len(self.times) - 1)].astype(np.float32)
        out[(k < 0) | (at - self.times[np.clip(k, 0, None)] > self._max_gap())] = np.nan
        return out

    def interpolate(self, at: np.ndarray) -> np.ndarray:
        """(N, columns) linear interpolation at each time of ``at`` (N,): labels, never inputs.

        NaN outside the samples and in gaps longer than five sampling periods.
        """
        at = np.asarray(at, dtype=np.float64)
        hi = np.clip(np.searchsorted(self.times, at, side="left"), 1, len(self.times) - 1)
        lo = hi - 1
        if len(self.times) < 2:
            return self.hold(at)
        span = self.times[hi] - self.times[lo]
        w = ((at - self.times[lo]) / span)[:, None]
        # the end points exactly, so that a NaN neighbour does not spoil a sample that is there
        out = np.where(
            w <= 0,
            self.values[lo],
            np.where(w >= 1, self.values[hi], (1 - w) * self.values[lo] + w * self.values[hi]),
        )
        outside = (at < self.times[0]) | (at > self.times[-1]) | (span > self._max_gap())
        out[outside] = np.nan
        return out.astype(np.float32)


@dataclass(frozen=True, eq=False)
class FrameSeries:
    """Frames as they were shown: a bank of images and which one came on when.

    A movie shown 30 times is stored once; ``index`` then repeats.

    Parameters
    ----------
    images : (images, height, width), uint8 or float
        An array or anything lazy with ``shape``, ``dtype`` and ``__getitem__`` by an integer array.
    times : (shown,) float64 seconds, strictly ascending
        Onset of each shown frame.
    index : (shown,) int64
        Which image each onset shows.
    """

    images: Any
    times: np.ndarray
    index: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "times", np.asarray(self.times, dtype=np.float64))
        object.__setattr__(self, "index", np.asarray(self.index, dtype=np.int64))

    @classmethod
    def from_presentations(
        cls,
        clips: np.ndarray,
        rate_hz: float,
        presentation_clip: Sequence[int],
        presentation_times: Sequence[float],
    ) -> FrameSeries:
        """From a clip bank (clips, frames, height, width) and the onset time of each presented clip."""
        num_clips, num_frames = clips.shape[:2]
        which = np.asarray(presentation_clip, dtype=np.int64)
        onset = np.asarray(presentation_times, dtype=np.float64)
        if len(which) and (which.min() < 0 or which.max() >= num_clips):
            raise RecordingError(
                f"a presentation shows clip {int(which.max())}, but the bank holds {num_clips} clips (0 to {num_clips - 1})"
            )
        k = np.arange(num_frames)
        times = (onset[:, None] + k / rate_hz).ravel()
        index = (which[:, None] * num_frames + k).ravel()
        order = np.argsort(times, kind="stable")
        return cls(clips.reshape(-1, *clips.shape[2:]), times[order], index[order])


@dataclass(frozen=True, eq=False)
class Recording:
    """One session of one animal.

    Parameters
    ----------
    name : str
        Recording id; units of a model belong to (recording, unit) pairs.
    spike_times : (spikes,) float64 seconds, ascending
    spike_units : (spikes,) int32, row of ``units``
    units : dict of columns, each (units,)
        ``id`` always; ``area``, ``depth``, ``cell_type`` and others when known.
    domain : (intervals, 2) float64
        Where data exist, ascending and disjoint.
    trials : dict of columns, each (trials,)
        ``start`` and ``stop`` always; others as the experiment has them. Empty dict: no trials.
    frames : FrameSeries, optional
    behavior : dict of name to BehaviorVariable
    truth : dict of name to array
        What is known of a synthetic recording (couplings, receptive fields, ...); empty for real ones.
    meta : dict
        JSON-able facts (source, species, parameters of a generator).
    """

    name: str
    spike_times: np.ndarray
    spike_units: np.ndarray
    units: Mapping[str, np.ndarray]
    domain: np.ndarray
    trials: Mapping[str, np.ndarray] = field(default_factory=dict)
    frames: FrameSeries | None = None
    behavior: Mapping[str, BehaviorVariable] = field(default_factory=dict)
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        set_ = lambda k, v: object.__setattr__(self, k, v)
        set_("spike_times", np.asarray(self.spike_times, dtype=np.float64))
        units = np.asarray(self.spike_units)
        if units.dtype.kind not in "iu" and units.size:
            raise RecordingError(
                f"spike_units must be integers (rows of the units table), got {units.dtype}; "
                "if these are unit ids, map them to rows 0, 1, ... and put the ids into units['id']"
            )
        set_("spike_units", units.astype(np.int32))
        set_("units", {k: np.asarray(v) for k, v in self.units.items()})
        set_("domain", np.asarray(self.domain, dtype=np.float64).reshape(-1, 2))
        set_("trials", {k: np.asarray(v) for k, v in self.trials.items()})
        set_("behavior", dict(self.behavior))
        validate(self)

    # -- facts ------------------------------------------------------------------------------------

    @property
    def num_units(self) -> int:
        return len(self.units["id"])

    @property
    def num_spikes(self) -> int:
        return len(self.spike_times)

    @property
    def num_trials(self) -> int:
        return len(self.trials["start"]) if self.trials else 0

    @property
    def trial_intervals(self) -> np.ndarray:
        """(trials, 2) start and stop."""
        if not self.trials:
            return np.zeros((0, 2))
        return np.stack([self.trials["start"], self.trials["stop"]], 1).astype(np.float64)

    @property
    def duration(self) -> float:
        """Seconds in the domain."""
        return float((self.domain[:, 1] - self.domain[:, 0]).sum())

    @property
    def unit_ids(self) -> list[str]:
        return [str(u) for u in self.units["id"]]

    def rates(self) -> np.ndarray:
        """(units,) mean rate in spikes per second of domain."""
        return np.bincount(self.spike_units, minlength=self.num_units) / max(self.duration, 1e-12)

    def variable(self, name: str) -> BehaviorVariable:
        """A behavior variable by name; ``trial_time`` (seconds since trial start) exists wherever trials do.

        Raises
        ------
        RecordingError
            If the recording lacks it; the message lists what it has.
        """
        if name in self.behavior:
            return self.behavior[name]
        if name == "trial_time" and self.trials:
            return self._trial_time()
        known = sorted(self.behavior) + (["trial_time"] if self.trials else [])
        raise RecordingError(
            f"recording '{self.name}' has no behavior variable '{name}'; it has: {', '.join(known) or 'none'}"
        )

    def _trial_time(self, rate_hz: float = 1000.0) -> BehaviorVariable:
        starts, stops = self.trial_intervals.T
        counts = np.ceil((stops - starts) * rate_hz).astype(int)
        # one ramp a trial; a trial's last sample stays clear of the next one's first
        ramps = [np.arange(n) / rate_hz for n in counts]
        times = np.concatenate([s + r for s, r in zip(starts, ramps, strict=True)])
        keep = np.concatenate([[True], np.diff(times) > 0])
        return BehaviorVariable(times[keep], np.concatenate(ramps)[keep], "s")

    def without_spikes_after(self, time: float) -> Recording:
        """The same recording, its spikes at or after ``time`` removed: what a simulation may look at."""
        keep = self.spike_times < time
        return replace(self, spike_times=self.spike_times[keep], spike_units=self.spike_units[keep])

    def without_spikes(self) -> Recording:
        """The same recording without a spike: what a simulation of whole trials may look at."""
        return self.without_spikes_after(-np.inf)

    def sha256(self) -> str:
        """Digest of spikes, units, domain, trials, frames and behavior (not of names or meta)."""
        digest = hashlib.sha256()
        arrays = [self.spike_times, self.spike_units, self.domain, self.trial_intervals]
        for name in sorted(self.behavior):
            arrays += [self.behavior[name].times, self.behavior[name].values]
        if self.frames is not None:
            arrays += [self.frames.times, self.frames.index, np.asarray(self.frames.images)]
        for array in arrays:
            digest.update(f"{array.shape}{array.dtype.str}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        rates = self.rates()
        lines = [
            f"Recording '{self.name}': {self.duration:,.1f} s in {len(self.domain)} interval(s), "
            f"{self.domain.min() if len(self.domain) else 0:g} s to {self.domain.max() if len(self.domain) else 0:g} s",
            f"  spikes    {self.num_spikes:,} from {self.num_units} units; rate median {np.median(rates):.2f} Hz, "
            f"range {rates.min():.2f} to {rates.max():.2f} Hz; {int((rates == 0).sum())} silent",
        ]
        extra = [k for k in self.units if k != "id"]
        if extra:
            lines.append(f"  units     columns {', '.join(extra)}")
        if self.trials:
            spans = np.diff(self.trial_intervals, axis=1)
            columns = [k for k in self.trials if k not in ("start", "stop")]
            lines.append(
                f"  trials    {self.num_trials}, {spans.min():g} to {spans.max():g} s"
                + (f"; columns {', '.join(columns)}" if columns else "")
            )
        if self.frames is not None:
            shown, bank = len(self.frames.index), self.frames.images.shape
            period = float(np.median(np.diff(self.frames.times))) if shown > 1 else float("nan")
            lines.append(
                f"  frames    {shown:,} shown at {1 / period:.3g} Hz from a bank of {bank[0]:,} "
                f"({' x '.join(str(n) for n in bank[1:])}, {self.frames.images.dtype})"
            )
        for name, var in self.behavior.items():
            step = float(np.median(np.diff(var.times))) if len(var.times) > 1 else float("nan")
            missing = f"; {var.num_missing:,} samples missing" if var.num_missing else ""
            unit = f" {var.unit}" if var.unit else ""
            lo, hi = np.nanmin(var.values, 0), np.nanmax(var.values, 0)
            if var.num_columns > 4:
                lo, hi = lo.min(keepdims=True), hi.max(keepdims=True)
            span = ", ".join(f"{a:.3g} to {b:.3g}{unit}" for a, b in zip(lo, hi, strict=True))
            lines.append(
                f"  behavior  {name}: {len(var.times):,} samples at {1 / step:.3g} Hz, "
                f"{var.num_columns} column(s), {span}{missing}"
            )
        if self.truth:
            lines.append(f"  truth     {', '.join(self.truth)}")
        lines += [f"  note      {note}" for note in self.meta.get("notes", ())]
        return "\n".join(lines)


def validate(rec: Recording) -> None:
    """Check that a recording agrees with itself.

    Raises
    ------
    RecordingError
        The first contradiction found: what was got, what was expected, what to do.
    """
    if "id" not in rec.units:
        raise RecordingError(f"the units table needs a column 'id'; it has: {', '.join(rec.units) or 'none'}")
    if rec.num_units == 0:
        raise RecordingError("the recording has no units; at least one is needed")
    for column, values in rec.units.items():
        if len(values) != rec.num_units:
            raise RecordingError(
                f"units column '{column}' has {len(values)} rows, but there are {rec.num_units} units"
            )
    if len(set(rec.unit_ids)) != rec.num_units:
        raise RecordingError("unit ids are not unique; give each unit its own id")
    _validate_spikes(rec)
    _validate_intervals("domain", rec.domain)
    if len(rec.domain) == 0:
        raise RecordingError(
            "the recording is empty: no domain interval, no spikes and no trials to infer one from"
        )
    if rec.trials:
        for column in ("start", "stop"):
            if column not in rec.trials:
                raise RecordingError(
                    f"trials need columns 'start' and 'stop'; they have: {', '.join(rec.trials)}"
                )
        for column, values in rec.trials.items():
            if len(values) != rec.num_trials:
                raise RecordingError(
                    f"trials column '{column}' has {len(values)} rows for {rec.num_trials} trials"
                )
        _validate_intervals("trials", rec.trial_intervals)
    for name, var in rec.behavior.items():
        if var.values.ndim != 2:
            raise RecordingError(
                f"behavior '{name}' has shape {var.values.shape}; expected (samples, columns)"
            )
        if len(var.times) != len(var.values):
            raise RecordingError(
                f"behavior '{name}' has {len(var.values)} values but {len(var.times)} times; give one time a value"
            )
        if len(var.times) == 0:
            raise RecordingError(f"behavior '{name}' has no samples; leave the variable out")
        _validate_ascending(f"behavior '{name}' times", var.times)
    if rec.frames is not None:
        _validate_frames(rec.frames)


def _validate_spikes(rec: Recording) -> None:
    times, units = rec.spike_times, rec.spike_units
    if times.ndim != 1 or times.shape != units.shape:
        raise RecordingError(
            f"spike_times has shape {times.shape} and spike_units {units.shape}; expected one unit a spike, (spikes,)"
        )
    bad = ~np.isfinite(times)
    if bad.any():
        raise RecordingError(
            f"{int(bad.sum())} of {len(times)} spike times are not finite (first at position {int(bad.argmax())}); "
            "remove those spikes"
        )
    back = np.diff(times) < 0
    if back.any():
        raise RecordingError(
            f"spike times are not sorted: {int(back.sum())} steps go back in time (first after position "
            f"{int(back.argmax())}); sort spike_times and spike_units together by time"
        )
    if len(units) and (units.min() < 0 or units.max() >= rec.num_units):
        raise RecordingError(
            f"spike_units run from {units.min()} to {units.max()}, but there are {rec.num_units} units "
            f"(expected 0 to {rec.num_units - 1}); units are rows of the units table, counted from 0"
        )


def _validate_intervals(what: str, intervals: np.ndarray) -> None:
    if not np.isfinite(intervals).all():
        raise RecordingError(f"{what} intervals hold times that are not finite")
    empty = intervals[:, 1] <= intervals[:, 0]
    if empty.any():
        i = int(empty.argmax())
        raise RecordingError(
            f"{what} interval {i} is empty or runs backwards: [{intervals[i, 0]:g}, {intervals[i, 1]:g}); "
            "expected start < stop in seconds"
        )
    overlap = intervals[1:, 0] < intervals[:-1, 1]
    if overlap.any():
        i = int(overlap.argmax())
        raise RecordingError(
            f"{what} intervals {i} and {i + 1} overlap or are unsorted: [{intervals[i, 0]:g}, {intervals[i, 1]:g}) and "
            f"[{intervals[i + 1, 0]:g}, {intervals[i + 1, 1]:g}); expected ascending and disjoint"
        )


def _validate_ascending(what: str, times: np.ndarray) -> None:
    if not np.isfinite(times).all():
        raise RecordingError(f"{what}: {int((~np.isfinite(times)).sum())} are not finite")
    back = np.diff(times) <= 0
    if back.any():
        raise RecordingError(
            f"{what}: {int(back.sum())} do not ascend (first after position {int(back.argmax())}); sort, and drop repeats"
        )


def _validate_frames(frames: FrameSeries) -> None:
    if len(frames.images.shape) != 3:
        raise RecordingError(
            f"frames have shape {tuple(frames.images.shape)}; expected (images, height, width), grayscale"
        )
    if len(frames.times) != len(frames.index):
        raise RecordingError(
            f"frames: {len(frames.times)} onset times but {len(frames.index)} shown frames; give one time a shown frame"
        )
    _validate_ascending("frame times", frames.times)
    if len(frames.index) and (frames.index.min() < 0 or frames.index.max() >= frames.images.shape[0]):
        raise RecordingError(
            f"frames_index runs to {int(frames.index.max())}, but the bank holds {frames.images.shape[0]} images"
        )
