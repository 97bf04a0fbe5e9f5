"""A recording with behavior, trials or frames of another file, moved to the clock of its spikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.clock import closed_up
from neuroformer.recording.names import variable_name
from neuroformer.recording.recording import Recording
from neuroformer.recording.series import BehaviorVariable, FrameSeries, words_as_numbers
from neuroformer.recording.sources.clocks import Clock, fit_clock
from neuroformer.recording.sources.files import VALUES, Arrays, array_at, read_arrays, split_reference
from neuroformer.recording.sources.pulses import pulse_times, pulses_of
from neuroformer.recording.validation import RecordingError
from neuroformer.recording.video import TIFF, VIDEO, read_video

_TIMES = ("times", "time", "t", "timestamps", "timestamp")
_SPAN = ("start", "stop", "duration")


@dataclass
class _Source:
    """One file that is being added, and what was found in it."""

    path: Path
    times: str
    rate_hz: float
    columns: dict[str, Any]
    notes: list[str]
    content: Arrays = Arrays({})

    @property
    def values(self) -> dict[str, np.ndarray]:
        return self.content.values

    def array(self, name: str) -> np.ndarray:
        """An array of the file by its name.

        Raises
        ------
        RecordingError
            There is none.
        """
        if name not in self.values:
            raise RecordingError(f"{self.path} has no '{name}'; it has: {', '.join(self.values) or 'none'}")
        return self.values[name]

    def clock_column(self) -> str:
        """The name of the file's own times; empty where they are elsewhere."""
        if split_reference(self.times)[0] or self.rate_hz:
            return ""
        return self.times or next((t for t in _TIMES if t in self.values), "")

    def sample_times(self, count: int) -> np.ndarray:
        """(count,) seconds on the file's clock.

        Raises
        ------
        RecordingError
            Nothing says when samples were taken.
        """
        if self.rate_hz:
            return np.arange(count) / self.rate_hz
        found, name = array_at(self.times, self.notes), self.clock_column()
        if found is None and name:
            found = self.array(name)
        if found is None:
            raise RecordingError(
                f"{self.path}: nothing says when samples were taken; give times (a column, an array, or a file of seconds) or "
                f"rate_hz; it has: {', '.join(self.values) or 'none'}"
            )
        clean.coarse(f"{self.path.name}: times", found, self.notes)
        return found.reshape(-1) if found.ndim == 0 or (found.ndim == 2 and 1 in found.shape) else found


def add_source(
    rec: Recording,
    path: str | Path,
    times: str = "",
    rate_hz: float = 0.0,
    columns: Mapping[str, Any] | None = None,
    name: str = "trials",
    offset: float = 0.0,
    scale: float = 1.0,
    sync: Mapping[str, str] | None = None,
) -> Recording:
    """The recording with what a file holds: frames of a video, a table of intervals with a start, else behavior.

    Parameters
    ----------
    path : a table (.csv, .tsv, .txt, .parquet; DeepLabCut's too), arrays (.npy, .npz, .mat, .h5; SLEAP's too) or a video
    times : the column or array with the times of the samples, or a file of them (``FILE`` or ``FILE:NAME``); where nothing
        is given, the one called times, time, t, timestamps or timestamp
    rate_hz : samples per second from 0 on, where there are no times
    columns : our name of each variable, and the file's name of it, or names of several columns. ``start`` with ``stop`` or
        ``duration`` makes a table of intervals. Without any, everything is taken that fits the times
    name : of a table of intervals; ``trials`` are the trials
    offset, scale : ``offset + scale * t`` is a time of the file on the spikes' clock
    sync : ``{ours, theirs}``, pulses that both clocks recorded, in place of an offset: a variable, a table or a column of the
        recording, or a file of times on the spikes' clock; and a column or array of this file, or another file. What
        ascends is times of pulses, what does not is a signal whose rising edges are pulses

    Raises
    ------
    RecordingError
        What is named is not there, is there already, or lies outside the recording's time; pulses do not fit.
    """
    source = _Source(Path(path).expanduser(), times, rate_hz, dict(columns or {}), [])
    if scale <= 0 or not np.isfinite([offset, scale]).all():
        raise RecordingError(f"{path}: scale is {scale:g}, offset {offset:g}; expected a scale above 0, finite numbers")
    shown = source.path.suffix.lower() in VIDEO + TIFF
    if not shown:
        source.content = read_arrays(source.path, source.notes)
        shown = not source.columns and source.path.suffix.lower() == ".npy" and source.values[VALUES].ndim == 3
    clock, facts = _clock(rec, source, offset, scale, sync or {})
    if shown:
        changed = _frames(rec, source, clock)
    elif "start" in source.columns or (not source.columns and {"start", "stop"} <= source.values.keys()):
        changed = _intervals(rec, source, clock, name)
    else:
        changed = _behavior(rec, source, clock)
    meta = {**rec.meta, "notes": [*rec.meta.get("notes", ()), *dict.fromkeys(source.notes)]}
    if "behavior" in changed:
        new = [k for k in changed["behavior"] if k not in rec.behavior]
        meta["sources"] = {**rec.meta.get("sources", {}), **dict.fromkeys(new, source.path.name)}
    if facts:
        meta["clocks"] = {**rec.meta.get("clocks", {}), source.path.name: facts}
    return replace(rec, **changed, meta=meta)


# -- the clock --------------------------------------------------------------------------------------


def _clock(
    rec: Recording, source: _Source, offset: float, scale: float, sync: Mapping[str, str]
) -> tuple[Clock, dict[str, Any]]:
    """The line to the spikes' clock, and what is known of a fitted one."""
    if not sync:
        return Clock(offset, 0.0, scale), {}
    if set(sync) != {"ours", "theirs"} or not all(isinstance(v, str) and v for v in sync.values()) or offset:
        raise RecordingError(
            f"{source.path}: sync is {dict(sync)} with offset {offset:g}; expected {{ours: NAME or FILE, theirs: NAME or FILE}} "
            "and no offset, which is found"
        )
    ours = array_at(sync["ours"], source.notes)
    ours = pulses_of(rec, sync["ours"]) if ours is None else pulse_times(sync["ours"], ours, None)
    theirs, beside = array_at(sync["theirs"], source.notes), None
    if theirs is None:
        theirs = source.array(sync["theirs"])
        column = source.clock_column()
        beside = source.sample_times(len(theirs)) if column or source.rate_hz else None
    theirs = pulse_times(sync["theirs"], theirs, beside)
    try:
        match = fit_clock(ours, theirs * scale)
    except RecordingError as e:
        raise RecordingError(f"{source.path}: {e}") from None
    clock = Clock(match.clock.ours, match.clock.theirs / scale, match.clock.scale * scale)
    away = np.abs(match.residuals)
    facts = {
        "scale": clock.scale,
        "offset_s": clock.offset,
        "pulses": len(away),
        "residual_s_median": float(np.median(away)),
        "residual_s_max": float(away.max()),
    }
    single = f"without a partner: {len(ours) - len(away)} of ours, {len(theirs) - len(away)} of theirs"
    source.notes.append(
        f"{source.path.name}: t is {clock.offset:.9g} s + {clock.scale:.9g} t on the spikes' clock, fitted to {len(away)} "
        f"shared pulses ({'matched in order' if match.in_order else single}); they differ by "
        f"{1e3 * facts['residual_s_median']:.3g} ms in the median, {1e3 * facts['residual_s_max']:.3g} ms at most"
    )
    return clock, facts


def _check_span(rec: Recording, source: _Source, times: np.ndarray) -> None:
    """Refuse what lies wholly outside the recording's time; note what covers less than half of it."""
    low, high = float(times.min()), float(times.max())
    start, stop = float(rec.domain.min()), float(rec.domain.max())
    if high < start or low >= stop:
        raise RecordingError(
            f"{source.path} runs from {low:.6g} to {high:.6g} s on the spikes' clock, and the recording from {start:.6g} to "
            f"{stop:.6g} s: they share no time; give offset, scale or sync"
        )
    shared = min(high, stop) - max(low, start)
    if shared < (stop - start) / 2:
        source.notes.append(f"{source.path.name} covers {shared:.4g} s of the {stop - start:.4g} s of the recording")


# -- what is added ----------------------------------------------------------------------------------


def _frames(rec: Recording, source: _Source, clock: Clock) -> dict[str, Any]:
    if rec.frames is not None:
        raise RecordingError(f"{source.path}: the recording has frames already; leave one of the two out")
    if source.columns:
        raise RecordingError(f"{source.path} is a video and has no columns; got {', '.join(source.columns)}")
    times = array_at(source.times, source.notes)
    if source.times and times is None:
        raise RecordingError(f"{source.path}: times is {source.times!r}; expected a file of seconds, FILE or FILE:NAME")
    frames = read_video(source.path, times, source.rate_hz or None)
    if len(frames.times) < frames.images.shape[0]:
        source.notes.append(
            f"{source.path.name}: there are {len(frames.times)} times for {frames.images.shape[0]} frames; the last frames "
            "have none and are left out"
        )
    moved = clock(frames.times)
    if len(moved):
        _check_span(rec, source, moved)
    return {"frames": FrameSeries(frames.images, moved, frames.index)}


def _intervals(rec: Recording, source: _Source, clock: Clock, name: str) -> dict[str, Any]:
    given = source.columns or {k: k for k in source.values}
    if all(k in _SPAN for k in given):  # only where they lie: the other columns keep their names
        others = {k: k for k in source.values if k not in given.values() and k not in _SPAN}
        given = {**given, **others}
    if "stop" not in given and "duration" not in given:
        raise RecordingError(
            f"{source.path}: intervals have a start and need a stop or a duration; got {', '.join(given)}"
        )
    table = {ours: source.array(str(theirs)) for ours, theirs in given.items()}
    for key in (k for k in _SPAN if k in table):
        if table[key].dtype.kind not in "fiu":
            raise RecordingError(f"{source.path}: '{given[key]}' ({key}) holds {table[key].dtype}; expected seconds")
        clean.coarse(f"{source.path.name}: {key}", table[key], source.notes)
    shapes = {np.shape(table[key]) for key in _SPAN if key in table}
    if len(shapes) > 1:
        raise RecordingError(f"{source.path}: start, stop and duration are {sorted(shapes)}; expected one each a row")
    start = np.asarray(table["start"], np.float64)
    stop = np.asarray(table["stop"] if "stop" in table else start + table["duration"], np.float64)
    if start.ndim == 1:  # while it is known to how many digits the file has them
        stop = closed_up(table["start"], stop)
    table |= {"start": clock(start), "stop": clock(stop)}
    found = clean.table(f"{source.path.name}: {name}", table, source.notes, disjoint=name == "trials")
    if found is None:
        raise RecordingError(f"{source.path} has no interval with a start and a stop after it")
    _check_span(rec, source, np.concatenate([found["start"], found["stop"]]))
    if name == "trials":
        if rec.trials:
            raise RecordingError(
                f"{source.path}: the recording has trials already; give the table another name (name: ...)"
            )
        return {"trials": found}
    if name in rec.intervals:
        raise RecordingError(f"{source.path}: the recording has intervals '{name}' already; give another name")
    return {"intervals": {**rec.intervals, name: found}}


def _behavior(rec: Recording, source: _Source, clock: Clock) -> dict[str, Any]:
    own = source.clock_column()
    asked = source.columns or {variable_name(k): k for k in source.values if k != own}
    added: dict[str, BehaviorVariable] = {}
    for name, theirs in asked.items():
        labels, values, classes = _samples(source, name, theirs)
        times = source.sample_times(len(values) if values.ndim else 1)
        if not source.columns and len(times) not in values.shape:
            source.notes.append(f"{source.path.name}: '{name}' was left out: {values.shape} for {len(times)} times")
            continue
        if name in rec.behavior:
            raise RecordingError(
                f"{source.path}: the recording has a variable '{name}' already; give another name in columns"
            )
        if times.dtype.kind not in "fiu":
            raise RecordingError(f"{source.path}: the times are {times.dtype}; expected seconds")
        variable = clean.variable(name, clock(times), values, source.notes, columns=labels)
        if variable is None:
            if source.columns:
                raise RecordingError(f"{source.path}: {source.notes[-1]}")
            continue
        added[name] = replace(variable, classes=classes)
        _check_span(rec, source, variable.times)
    if not added:
        raise RecordingError(f"{source.path} holds nothing that fits its times; it has: {', '.join(source.values)}")
    return {"behavior": {**rec.behavior, **added}}


def _samples(source: _Source, name: str, theirs: Any) -> tuple[tuple[str, ...], np.ndarray, tuple[str, ...]]:
    """Names of the columns of a variable, its values, and what they stand for where they are words."""
    if isinstance(theirs, Sequence) and not isinstance(theirs, str) and all(isinstance(t, str) for t in theirs):
        parts = [source.array(t) for t in theirs]
        if any(p.ndim != 1 or len(p) != len(parts[0]) or p.dtype.kind not in "fiub" for p in parts) or not parts:
            raise RecordingError(f"{source.path}: '{name}' is to have columns {theirs}; expected numbers of one length")
        return tuple(theirs), np.stack([p.astype(np.float64) for p in parts], 1), ()
    if not isinstance(theirs, str):
        raise RecordingError(
            f"{source.path}: columns.{name} is {theirs!r}; expected a name in the file, or a list of names"
        )
    values = source.array(theirs)
    if values.dtype.kind == "U" and values.ndim == 1:
        numbered, classes = words_as_numbers(values)
        return (), numbered, classes
    return source.content.columns.get(theirs, ()), values, ()
