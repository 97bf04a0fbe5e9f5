"""The container of one session: spikes, units, frames, behavior, trials, and where data exist.

Times are seconds, float64, on one clock. Every interval is half-open, ``[start, stop)``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neuroformer.recording import describe, names, validation
from neuroformer.recording.clock import NANOSECONDS, closed_up, nanoseconds, num_bins
from neuroformer.recording.series import BehaviorVariable, FrameSeries, ObservedIntervals, Traces, words_as_numbers
from neuroformer.recording.validation import CheckedSpikes, RecordingError, count_spikes, numbers
from neuroformer.shown import Shown, labelled

_HALF = 0.5 / NANOSECONDS  # times that differ by less are one

__all__ = ["BehaviorVariable", "FrameSeries", "ObservedIntervals", "Recording", "RecordingError", "Traces"]


@dataclass(frozen=True, eq=False)
class Recording(Shown):
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
        JSON-able facts (source, species, parameters of a generator); ``meta["notes"]`` lists what the reader left
        out, changed or assumed.
    traces : Traces, optional
        Continuous activity of the units (calcium), kept beside the spikes.
    intervals : dict of name to dict of columns
        Named intervals other than trials (epochs, sleep, training blocks), columns as in ``trials``;
        they may overlap.
    observed : ObservedIntervals, optional
        When each unit was observed, where units differ; None: all of them throughout the domain.
    checked_spikes : CheckedSpikes, optional
        Set by the reader of a layout whose spikes were validated when it was written.
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
    traces: Traces | None = None
    intervals: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    observed: ObservedIntervals | None = None
    checked_spikes: CheckedSpikes | None = field(default=None, repr=False)

    def __post_init__(self):
        set_ = lambda k, v: object.__setattr__(self, k, v)
        set_("spike_times", numbers("spike_times", self.spike_times, np.float64))
        units = np.asarray(self.spike_units)
        if units.dtype.kind not in "iu" and units.size:
            raise RecordingError(
                f"spike_units must be integers (rows of the units table), got {units.dtype}; store "
                "spike_units.astype(int); unit ids go into 'unit_ids', and their rows 0, 1, ... here"
            )
        set_("spike_units", numbers("spike_units", units, np.int32))
        domain = numbers("domain", self.domain, np.float64)
        if domain.size and (domain.ndim not in (1, 2) or domain.shape[-1] != 2):
            raise RecordingError(f"domain has shape {domain.shape}; expected (intervals, 2), start and stop")
        domain = domain.reshape(-1, 2)
        stop = closed_up(domain[:, 0], domain[:, 1])
        set_("domain", domain if np.array_equal(stop, domain[:, 1]) else np.stack([domain[:, 0], stop], 1))
        self._set_names()
        self._close_up_trials()
        self._validate()

    def _set_names(self) -> None:
        """Names as they may reach a terminal, a file or a key: the one place where they are cleaned."""
        set_ = lambda k, v: object.__setattr__(self, k, v)
        set_("name", names.printable(self.name))
        set_("units", {names.printable(k): names.words(v) for k, v in self.units.items()})
        renamed: dict[str, str] = {}
        for what in ("trials", "behavior"):
            new = names.cleaned(getattr(self, what), names.variable_name)
            renamed |= {old: name for old, name in new.items() if old != name}
            set_(what, {new[k]: v for k, v in getattr(self, what).items()})
        set_("trials", {k: names.words(v) for k, v in self.trials.items()})
        table = lambda t: {names.printable(k): names.words(v) for k, v in t.items()}
        set_("intervals", {names.printable(n): table(t) for n, t in self.intervals.items()})
        notes = [f"{ascii(old)} is called '{new}' here" for old, new in renamed.items()]
        try:
            facts = names.tree(self.meta)
        except RecursionError:
            raise RecordingError("meta is nested too deeply; expected facts that a person can read") from None
        set_("meta", facts | {"notes": [*facts.get("notes", ()), *notes]} if notes else facts)

    def _close_up_trials(self) -> None:
        """Trials that tile time do so to the last bit."""
        start, stop = (self.trials.get(k) for k in ("start", "stop"))
        if start is None or stop is None or start.shape != stop.shape or start.ndim != 1:
            return
        if {start.dtype.kind, stop.dtype.kind} <= set("fiu"):
            closed = closed_up(start, stop)
            if closed is not stop:
                table = {**self.trials, "start": start.astype(np.float64), "stop": closed}
                object.__setattr__(self, "trials", table)

    def _validate(self) -> None:
        """Raise the first contradiction found: what was got, what was expected, what to do."""
        validation.validate_units(self.units)
        if self.checked_spikes is None or not self.checked_spikes.covers(self.spike_times, self.spike_units):
            validation.validate_spikes(self.spike_times, self.spike_units, self.num_units)
        validation.validate_intervals("domain", self.domain)
        if len(self.domain) == 0:
            raise RecordingError(
                "the recording is empty: no domain interval, no spikes and no trials to infer one from"
            )
        if self.trials:
            validation.validate_table("trials", self.trials)
            validation.validate_intervals("trials", self.trial_intervals)
        for name, columns in self.intervals.items():
            validation.validate_table(f"intervals '{name}'", columns)
            spans = np.stack([columns["start"], columns["stop"]], 1).astype(np.float64)
            validation.validate_intervals(f"'{name}'", spans, disjoint=False)
        if self.observed is not None:
            validation.validate_observed(self.observed.intervals, self.observed.units, self.num_units)
        for name, var in self.behavior.items():
            validation.validate_series(f"behavior '{name}'", var.times, var.values, "leave the variable out")
        if self.traces is not None:
            validation.validate_traces(self.traces.times, self.traces.values, self.num_units)
        if self.frames is not None:
            f = self.frames
            validation.validate_frames(f.images.shape, f.images.dtype, f.times, f.index)

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
    def starts(self) -> np.ndarray:
        """(N,) seconds at which a trial or an interval of the domain begins: what came before says nothing of it."""
        return np.unique(np.concatenate([self.trial_intervals[:, 0], self.domain[:, 0]]))

    @property
    def duration(self) -> float:
        """Seconds in the domain."""
        return float((self.domain[:, 1] - self.domain[:, 0]).sum())

    @property
    def unit_ids(self) -> list[str]:
        return [str(u) for u in self.units["id"]]

    def unit_spikes(self) -> np.ndarray:
        """(units,) number of spikes of each unit."""
        proof = self.checked_spikes
        known = proof.unit_spikes(self.spike_times, self.spike_units) if proof is not None else None
        return count_spikes(self.spike_units, self.num_units) if known is None else known

    def spikes_inside(self) -> np.ndarray:
        """(units,) number of spikes of each unit in the domain, and at its very end, which is often the last spike."""
        edges = np.searchsorted(self.spike_times, self.domain - _HALF, side="left")
        edges[-1, 1] = np.searchsorted(self.spike_times, self.domain[-1, 1] + _HALF)
        if int((edges[:, 1] - edges[:, 0]).sum()) == self.num_spikes:
            return self.unit_spikes()
        return np.sum([count_spikes(self.spike_units[a:b], self.num_units) for a, b in edges], 0)

    def rates(self) -> np.ndarray:
        """(units,) mean rate in spikes per second of domain in which the unit was observed."""
        return self.spikes_inside() / np.maximum(self.observed_seconds(), 1e-12)

    def observed_seconds(self) -> np.ndarray:
        """(units,) seconds of the domain in which each unit was observed."""
        if self.observed is None:
            return np.full(self.num_units, self.duration)
        return self.observed.seconds(self.num_units, self.domain)

    def variable(self, name: str) -> BehaviorVariable:
        """A behavior variable by name.

        Where there are trials, ``trial_time`` is one (seconds since trial start), and so is each of their columns of
        numbers or words, held from a trial's start to its stop, missing between trials. Words are numbered in
        alphabetical order (see ``classes``); an empty one is missing. ``frames`` are the pixels of what is shown, to be
        decoded (:meth:`FrameSeries.as_variable`).

        Raises
        ------
        RecordingError
            If the recording lacks it; the message lists what it has.
        """
        if name in self.behavior:
            return replace(self.behavior[name], starts=self.starts)
        if name == "trial_time" and self.trials:
            return self._within_trials("s")
        if name == "frames" and self.frames is not None:
            return replace(self.frames.as_variable(), starts=self.starts)
        others = {k: v for k, v in self.trials.items() if k not in ("start", "stop")}
        columns = {k: v for k, v in others.items() if v.ndim == 1 and v.dtype.kind in "biufUS"}
        if name in columns:
            values, classes = words_as_numbers(columns[name])
            return self._within_trials(values=values, classes=classes)
        if name in others:
            raise RecordingError(
                f"column '{name}' of the trials of '{self.name}' is {others[name].dtype}, {others[name].ndim}-dimensional; "
                "expected one number or word per trial"
            )
        known = sorted([*self.behavior, *columns]) + (["trial_time"] if self.trials else [])
        known += ["frames"] if self.frames is not None else []
        raise RecordingError(
            f"recording '{self.name}' has no behavior variable '{name}'; it has: {', '.join(known) or 'none'}"
        )

    def has(self, name: str) -> bool:
        """Whether there is a behavior variable (or a column of the trials) of this name; ``frames``, ``traces``: whether there are
        any."""
        if name in ("frames", "traces"):
            return getattr(self, name) is not None
        try:
            self.variable(name)
        except RecordingError:
            return False
        return True

    @property
    def frame_period(self) -> float:
        """Seconds from one frame to the next, median; 0 without frames."""
        shown = self.frames is not None and len(self.frames.times) > 1
        return float(np.median(np.diff(self.frames.times))) if shown and self.frames is not None else 0.0

    def _within_trials(
        self,
        unit: str = "",
        values: np.ndarray | None = None,
        classes: tuple[str, ...] = (),
        rate_hz: float = 1000.0,
    ) -> BehaviorVariable:
        """One value per trial, or the time in it."""
        starts, stops = self.trial_intervals.T
        counts = -(-nanoseconds(stops - starts) // round(NANOSECONDS / rate_hz))
        # one ramp per trial; a trial's last sample stays clear of the next one's first
        ramps = [np.arange(n) / rate_hz for n in counts]
        times = np.concatenate([s + r for s, r in zip(starts, ramps, strict=True)])
        keep = np.concatenate([[True], np.diff(times) > 0])
        samples = np.concatenate(ramps) if values is None else np.repeat(values.astype(np.float32), counts)
        return BehaviorVariable(times[keep], samples[keep], unit, classes=classes, starts=self.starts)

    def between(self, start: float, stop: float) -> Recording:
        """The same recording, of which only ``[start, stop)`` (seconds) is used: spikes and trials outside are left out.

        Raises
        ------
        RecordingError
            Nothing of the domain lies there.
        """
        domain = np.clip(self.domain, start, stop)
        domain = domain[domain[:, 1] > domain[:, 0]]
        if len(domain) == 0:
            low, high = describe.time(self.domain.min()), describe.time(self.domain.max())
            raise RecordingError(
                f"nothing of '{self.name}' lies between {start:g} and {stop:g} s; it runs from {low} s to {high} s"
            )
        inside = slice(*np.searchsorted(self.spike_times, np.array([start, stop]) - _HALF, side="left"))
        if trials := self.trials:
            whole = ((self.trial_intervals >= start) & (self.trial_intervals <= stop)).all(1)
            trials = {name: column[whole] for name, column in trials.items()} if whole.any() else {}
        times, units = self.spike_times[inside], self.spike_units[inside]
        note = f"only {start:g} to {stop:g} s are used: {self.num_spikes - len(times):,} spikes outside are left out"
        meta = dict(self.meta) | {"notes": [*self.meta.get("notes", ()), note]}
        return replace(self, domain=domain, spike_times=times, spike_units=units, trials=trials, meta=meta)

    def without_spikes_after(self, time: float) -> Recording:
        """The same recording, its spikes and traces at or after ``time`` removed.

        This is what a simulation may look at.
        """
        count = int(np.searchsorted(self.spike_times, time - _HALF, side="left"))
        return replace(
            self,
            spike_times=self.spike_times[:count],
            spike_units=self.spike_units[:count],
            traces=self.traces.before(time) if self.traces is not None else None,
        )

    def without_spikes(self) -> Recording:
        """The same recording without spikes and traces: what a simulation of whole trials may look at."""
        return self.without_spikes_after(-np.inf)

    def sha256(self) -> str:
        """Digest of spikes, units, domain, trials, frames, behavior, traces and observed intervals (not of names or meta)."""
        arrays: list[Any] = [self.spike_times, self.spike_units, self.domain, self.trial_intervals]
        for name in sorted(self.behavior):
            arrays += [self.behavior[name].times, self.behavior[name].values]
        if self.frames is not None:
            arrays += [self.frames.times, self.frames.index, self.frames.images]
        if self.traces is not None:
            arrays += [self.traces.times, self.traces.values]
        if self.observed is not None:
            arrays += [self.observed.intervals, self.observed.units]
        digest = hashlib.sha256()
        for array in arrays:
            shape = tuple(array.shape)
            digest.update(f"{shape}{np.dtype(array.dtype).str}".encode())
            # in pieces: spikes may be memory-mapped and frames lazy
            rows = max(1, (1 << 24) // max(1, int(np.prod(shape[1:])) * np.dtype(array.dtype).itemsize))
            for start in range(0, shape[0], rows):
                part = array[np.arange(start, min(start + rows, shape[0]))]
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        rates = self.rates()
        inside, outside = describe.spikes_outside(self.num_spikes, int(self.spikes_inside().sum()))
        lines = [
            f"Recording '{self.name}': {self.duration:,.1f} s in {len(self.domain)} interval(s), "
            f"{describe.time(self.domain.min())} s to {describe.time(self.domain.max())} s",
            f"  spikes    {inside:,} from {self.num_units} units; rate median {np.median(rates):.2f} Hz, "
            f"range {rates.min():.2f} to {rates.max():.2f} Hz; {int((rates == 0).sum())} silent{outside}{describe.ends(self.spike_times, self.domain)}",
        ]
        if self.observed is not None:
            seconds = self.observed_seconds()
            lines.append(
                f"  observed  not all units at all times: {seconds.min():,.1f} to {seconds.max():,.1f} s each, "
                f"median {np.median(seconds):,.1f} s"
            )
        if self.traces is not None:
            unit = f", {self.traces.unit}" if self.traces.unit else ""
            lines.append(f"  traces    {len(self.traces.times):,} samples at {describe.hz(self.traces.times)}{unit}")
        extra = [k for k in self.units if k != "id"]
        if extra:
            lines.append(f"  units     columns {', '.join(extra)}")
        if self.trials:
            lines.append(f"  trials    {describe.table(self.trials)}")
        lines += [f"  intervals {name}: {describe.table(columns)}" for name, columns in self.intervals.items()]
        if self.frames is not None:
            lines.append(f"  frames    {describe.frames(self.frames)}")
        sources = self.meta.get("sources", {})
        for name, var in self.behavior.items():
            place = f"  [{sources[name]}]" if name in sources else ""
            lines.append(f"  behavior  {name}: {describe.variable(var)}{place}")
        if self.truth:
            lines.append(f"  truth     {', '.join(self.truth)}")
        lines += [f"  note      {note}" for note in self.meta.get("notes", ())]
        return "\n".join(map(names.printable, lines))

    def _html(self) -> str:
        return describe.html(repr(self))

    def to_xarray(self, dt: float = 0.05) -> Any:
        """Spike counts as an ``xarray.DataArray`` (time, unit): bins of ``dt`` seconds, none across an interval of the domain.

        Columns of the units table become coordinates of ``unit``; ``time`` is the start of a bin. Needs the extra ``xarray``.
        """
        nums = num_bins(self.domain, dt).tolist()
        counts = np.concatenate([self._counts(a, n, dt) for a, n in zip(self.domain[:, 0], nums, strict=True)])
        times = np.concatenate([a + dt * np.arange(n) for a, n in zip(self.domain[:, 0], nums, strict=True)])
        coords = {"time": times, "unit": self.unit_ids}
        columns = {k: ("unit", v) for k, v in self.units.items() if k != "id" and np.ndim(v) == 1}
        return labelled(counts, coords, "counts", {"recording": self.name, "dt_s": dt}, columns)

    def _counts(self, start: float, num: int, dt: float) -> np.ndarray:
        """(num, units) spikes in bins of ``dt`` seconds from ``start`` on."""
        lo, hi = np.searchsorted(self.spike_times, [start - dt, start + (num + 1) * dt])
        bins = nanoseconds(self.spike_times[lo:hi] - start) // nanoseconds(dt)
        inside = (bins >= 0) & (bins < num)
        flat = bins[inside] * self.num_units + self.spike_units[lo:hi][inside]
        return np.bincount(flat, minlength=num * self.num_units).reshape(num, self.num_units)
