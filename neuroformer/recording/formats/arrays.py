"""Plain arrays by name, as a ``.npz`` file holds them: to a recording, and back.

Names (times in seconds)::

    spike_times (spikes,)           spike_units (spikes,)        units counted from 0
    spikes (units, bins)            spikes_dt                    counts instead of times
    events (units, bins)            events_rate                  deconvolved calcium, made spikes
    spike_trials (spikes,)          n_trials, trial_duration     times counted from each trial's start
    n_units                         unit_ids, unit_area, unit_depth, unit_cell_type, ...
    NAME (samples[, columns])       NAME_times or NAME_rate      a behavior variable
    frames (images, h, w)           frames_times or frames_rate  frames_index: which image each onset shows
    trials_start, trials_stop       trials_COLUMN                one row per trial
    intervals_NAME_start, ..._stop  intervals_NAME_COLUMN        named intervals other than trials
    traces (samples, units)         traces_times or traces_rate  continuous activity (calcium); traces_unit
    domain (intervals, 2)           truth_NAME                   what a generator knows
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.calcium import keep_events
from neuroformer.recording.clock import closed_up
from neuroformer.recording.formats.array_names import (
    FIXED,
    INTERVALS,
    NOT_BEHAVIOR,
    PREFIXES,
    behavior_names,
    check_dimensions,
    interval_names,
    note_unread,
)
from neuroformer.recording.names import printable
from neuroformer.recording.recording import Recording
from neuroformer.recording.series import BehaviorVariable, FrameSeries, ObservedIntervals, Traces
from neuroformer.recording.validation import RecordingError, numbers

MOST_IN_BIN = 100_000  # spikes of a unit
TRIAL_GAP_S = 1.0  # between trials whose times are given from each trial's start


def from_counts(counts: np.ndarray, dt: float, start: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Spike times and units of a (units, bins) matrix of counts; a bin's spikes are spread evenly over it.

    Returns
    -------
    spike_times (spikes,), spike_units (spikes,)

    Raises
    ------
    RecordingError
        Negative, fractional or non-finite counts.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.dtype.kind not in "biuf":
        raise RecordingError(f"spikes holds {counts.dtype} of shape {counts.shape}; expected counts, (units, bins)")
    whole = counts.dtype.kind != "f" or bool((np.isfinite(counts) & (np.rint(counts) == counts)).all())
    if not whole or (counts < 0).any():
        raise RecordingError(
            "spikes (units x bins) must be whole counts of zero or more; for calcium events or rates, "
            "give them as a behavior variable or threshold them first"
        )
    if counts.max(initial=0) > MOST_IN_BIN:
        raise RecordingError(f"spikes has {counts.max():g} in one bin; expected counts, {MOST_IN_BIN:,} at most")
    counts = counts.astype(np.int64)
    bins, units = np.nonzero(counts.T)
    reps = counts[units, bins]
    first = np.cumsum(reps) - reps
    rank = np.arange(reps.sum()) - np.repeat(first, reps)
    times = start + (np.repeat(bins, reps) + (rank + 0.5) / np.repeat(reps, reps)) * dt
    order = np.argsort(times, kind="stable")
    return times[order], np.repeat(units, reps)[order].astype(np.int32)


def from_arrays(arrays: Mapping[str, Any], name: str = "recording") -> Recording:
    """A recording from a mapping of arrays under the names listed at the top of this module.

    Raises
    ------
    RecordingError
        Missing or contradictory arrays.
    """
    a = {k: np.asarray(v) if k != "frames" else v for k, v in arrays.items()}
    for key, value in a.items():
        if getattr(value, "dtype", None) == np.dtype(object):
            raise RecordingError(f"'{key}' is an object array, which would need pickle; store plain numbers or strings")
    notes: list[str] = []
    check_dimensions(a)
    a |= _upright(a, notes)
    times, spike_units = _spikes(a, notes)
    trials = _trials(a)
    if "spike_trials" in a:
        times, spike_units, trials = _from_trial_times(a, times, spike_units)
    behavior = _behavior(a, notes)
    note_unread(a, behavior, notes)
    frames = _frames(a)
    domain = a["domain"] if "domain" in a else _infer_domain(a, times, trials, behavior, frames)
    meta = _meta(a)
    if "spikes" in a or ("events" in a and "spike_times" not in a):
        meta["spike_grid_s"] = _bin_width(a)
    if notes:
        meta["notes"] = [*meta.get("notes", ()), *notes]
    return Recording(
        name=str(a["name"].reshape(-1)[0]) if "name" in a and a["name"].size else name,
        spike_times=times,
        spike_units=spike_units,
        units=_units(a, spike_units),
        domain=domain,
        trials=trials,
        frames=frames,
        behavior=behavior,
        meta=meta,
        traces=_traces(a),
        truth={k[6:]: v for k, v in a.items() if k.startswith("truth_")},
        intervals=_intervals(a),
        observed=_observed(a),
    )


def to_arrays(rec: Recording) -> dict[str, Any]:
    """The arrays of a recording, under the names that :func:`from_arrays` reads.

    Raises
    ------
    RecordingError
        A name that clashes with another array's, or values that only pickle could store.
    """
    a: dict[str, Any] = {
        "name": np.array(rec.name),
        "meta": np.array(json.dumps(dict(rec.meta))),
        "spike_times": rec.spike_times,
        "spike_units": rec.spike_units,
        "domain": rec.domain,
        "unit_ids": rec.units["id"],
    }
    a |= {f"unit_{k}": v for k, v in rec.units.items() if k != "id"}
    a |= {f"trials_{k}": v for k, v in rec.trials.items()}
    a |= {f"truth_{k}": v for k, v in rec.truth.items()}
    for name, columns in rec.intervals.items():
        a |= {f"intervals_{name}_{k}": v for k, v in columns.items()}
    if rec.observed is not None:
        a |= {"observed_intervals": rec.observed.intervals, "observed_units": rec.observed.units}
    if rec.frames is not None:
        a |= {"frames": rec.frames.images, "frames_times": rec.frames.times}
        a["frames_index"] = rec.frames.index
    if rec.traces is not None:
        a |= {"traces": rec.traces.values, "traces_times": rec.traces.times}
        a["traces_unit"] = np.array(rec.traces.unit)
    for name, var in rec.behavior.items():
        new: dict[str, Any] = {name: var.values, f"{name}_times": var.times}
        new[f"{name}_unit"] = np.array(var.unit)
        if var.columns:
            new[f"{name}_columns"] = np.array(var.columns)
        if name in NOT_BEHAVIOR or name.startswith(PREFIXES) or a.keys() & new.keys() or FIXED & new.keys():
            raise RecordingError(
                f"behavior '{name}' cannot be stored: {', '.join(new)} are names of something else here; "
                "rename the variable"
            )
        a |= new
    for key, value in a.items():
        if key != "frames" and value.dtype.hasobject:
            raise RecordingError(f"'{key}' holds Python objects; store plain numbers or strings")
    return a


# -- parts of from_arrays ---------------------------------------------------------------------------


_SAMPLES_LAST = ("spikes", "events")  # (units, bins)


def _upright(a: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Matrices that are stored the other way round, as the lengths beside them prove; turned, with a note."""
    out: dict[str, Any] = {}
    num_units = len(a["unit_ids"]) if "unit_ids" in a else None
    if num_units is None and "n_units" in a:
        num_units = _count(a, "n_units", "how many units there are")
    for key in a:
        value, axes = a[key], len(np.shape(a[key]))
        samples = len(a[f"{key}_times"]) if f"{key}_times" in a else None
        if key == "frames" and axes == 3 and "frames_index" not in a and samples == value.shape[2] != value.shape[0]:
            out[key] = np.moveaxis(np.asarray(value), 2, 0)
        elif (
            key in _SAMPLES_LAST
            and axes == 2
            and num_units == value.shape[1] != value.shape[0]
            or key != "frames"
            and samples is not None
            and axes == 2
            and samples == value.shape[1] != value.shape[0]
        ):
            out[key] = value.T
        if key in out:
            notes.append(f"'{key}' has shape {tuple(np.shape(value))}, the other way round, and was transposed")
    return out


def _bin_width(a: Mapping[str, Any]) -> float:
    if "spikes" in a:
        return positive(a, "spikes_dt", "the bin width in seconds")
    return 1 / positive(a, "events_rate", "samples per second")


def _spikes(a: Mapping[str, Any], notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    if "spikes" in a:
        if "spikes_dt" not in a:
            raise RecordingError("'spikes' (units x bins) needs 'spikes_dt', the bin width in seconds")
        return from_counts(a["spikes"], _bin_width(a))
    if "events" in a and "spike_times" not in a:
        if "events_rate" not in a:
            raise RecordingError("'events' (units x bins) needs 'events_rate' in Hz")
        if a["events"].dtype.kind not in "fiu" or a["events"].size == 0:
            raise RecordingError(
                f"events hold {a['events'].dtype} of shape {a['events'].shape}; expected numbers, (units, samples)"
            )
        if not np.isfinite(a["events"]).all() or (a["events"] < 0).any():
            raise RecordingError("events hold NaN, infinity or values below zero; expected deconvolved activity")
        how = "as the file has them, thresholded by their shape"
        kept = keep_events(a["events"].T, None, 1 / _bin_width(a), notes, how)
        return from_counts(kept.T.astype(np.int64), _bin_width(a))
    if "spike_times" not in a or "spike_units" not in a:
        raise RecordingError(
            "no spikes: expected 'spike_times' with 'spike_units', or 'spikes' (units x bins) with "
            f"'spikes_dt'; got {', '.join(sorted(a)) or 'nothing'}"
        )
    for key in a:
        if key.endswith("_times"):
            clean.coarse(f"'{key}'", a[key], notes)
    return numbers("spike_times", a["spike_times"], np.float64), a["spike_units"]


def _trials(a: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {k[7:]: v for k, v in a.items() if k.startswith("trials_")}


def _from_trial_times(a: Mapping[str, Any], times: np.ndarray, units: np.ndarray):
    """Trials laid one after another, with a gap, where times count from each trial's start."""
    for key in ("n_trials", "trial_duration"):
        if key not in a:
            raise RecordingError(f"'spike_trials' needs '{key}'")
    trial, count = (
        numbers("spike_trials", a["spike_trials"], np.int64),
        _count(a, "n_trials", "how many trials there are"),
    )
    duration = positive(a, "trial_duration", "seconds")
    if not trial.shape == times.shape == np.shape(units):
        shapes = f"{trial.shape}, spike_times {times.shape}, spike_units {np.shape(units)}"
        raise RecordingError(f"spike_trials has shape {shapes}; expected alike")
    if len(trial) and (trial.min() < 0 or trial.max() >= count):
        raise RecordingError(f"spike_trials runs to {trial.max()}, but n_trials is {count}")
    outside = (times < 0) | (times > duration)
    if outside.any():
        raise RecordingError(
            f"{int(outside.sum())} spike times lie outside [0, {duration:g}] s; with spike_trials, "
            "times count from each trial's start"
        )
    # a spike stamped exactly at the stop belongs to the last instant of its trial, not to no trial
    inside = np.minimum(times, np.nextafter(duration, 0.0))
    starts = np.arange(count) * (duration + TRIAL_GAP_S)
    order = np.lexsort((inside, trial))
    absolute = np.minimum(starts[trial] + inside, np.nextafter(starts[trial] + duration, 0.0))
    return absolute[order], np.asarray(units)[order], {"start": starts, "stop": starts + duration}


def _sample_times(a: Mapping[str, Any], name: str, count: int) -> np.ndarray:
    if f"{name}_times" in a:
        return numbers(f"{name}_times", a[f"{name}_times"], np.float64)
    return np.arange(count) / positive(a, f"{name}_rate", "samples per second")


def _count(a: Mapping[str, Any], key: str, meaning: str) -> int:
    value = positive(a, key, meaning)
    if value != int(value) or value > clean.MAX_UNITS:
        raise RecordingError(f"'{key}' is {value:g}; expected a whole number up to {clean.MAX_UNITS}")
    return int(value)


def positive(a: Mapping[str, Any], key: str, meaning: str) -> float:
    """The one number above 0 that an array holds.

    Raises
    ------
    RecordingError
    """
    value = a[key]
    if value.size != 1 or value.dtype.kind not in "fiu" or not 0 < float(value.reshape(())) < np.inf:
        raise RecordingError(f"'{key}' is {value!r}; expected one number above 0, {meaning}")
    return float(value.reshape(()))


def _meta(a: Mapping[str, Any]) -> dict[str, Any]:
    try:
        meta = json.loads(str(a["meta"])) if "meta" in a else {}
    except (json.JSONDecodeError, RecursionError) as e:
        raise RecordingError(f"'meta' is no JSON that can be read: {e}") from None
    if not isinstance(meta, dict):
        raise RecordingError(f"'meta' is a JSON {type(meta).__name__}; expected an object")
    return meta


def _units(a: Mapping[str, Any], spike_units: np.ndarray) -> dict[str, np.ndarray]:
    """The units table; its length comes from the file, else from a matrix, else from the largest index."""
    if "unit_ids" in a:
        ids = a["unit_ids"]
    elif "n_units" in a:
        ids = np.arange(_count(a, "n_units", "how many units there are"))
    else:
        matrix = a.get("spikes", a.get("events")) if "spike_times" not in a else a.get("traces")
        if matrix is not None:
            ids = np.arange(matrix.shape[1] if "spike_times" in a and matrix.ndim == 2 else len(matrix))
        else:
            ids = np.arange(clean.count_units(np.asarray(spike_units)))
    columns = {k[5:]: v for k, v in a.items() if k.startswith("unit_") and k != "unit_ids"}
    return {"id": ids, **columns}


def _intervals(a: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    out: dict[str, dict[str, np.ndarray]] = {}
    for key, name in interval_names(a).items():
        if name is None:
            raise RecordingError(f"'{key}' has no '{INTERVALS}NAME_start' that it belongs to")
        out.setdefault(name, {})[key[len(INTERVALS) + len(name) + 1 :]] = a[key]
    return out


def _traces(a: Mapping[str, Any]) -> Traces | None:
    if "traces" not in a and "events" in a and "spike_times" not in a:
        rate = positive(a, "events_rate", "samples per second")
        count = a["events"].shape[1]
        return Traces((np.arange(count) + 0.5) / rate, a["events"].T, "a.u. (deconvolved)")
    if "traces" not in a:
        return None
    if "traces_times" not in a and "traces_rate" not in a:
        raise RecordingError("'traces' needs 'traces_times' (seconds) or 'traces_rate' (Hz)")
    return Traces(_sample_times(a, "traces", len(a["traces"])), a["traces"], str(a.get("traces_unit", "")))


def _behavior(a: Mapping[str, Any], notes: list[str]) -> dict[str, BehaviorVariable]:
    out: dict[str, BehaviorVariable] = {}
    names = behavior_names(a)
    for key in a:
        base = key.removesuffix("_times") if key.endswith("_times") else key.removesuffix("_rate")
        known = base in a or base in NOT_BEHAVIOR or key in names or key.startswith(PREFIXES)
        if key != base and not known:
            raise RecordingError(f"'{key}' is there but '{base}' is not; they belong together")
    for name in names:
        values = a[name]
        if values.ndim not in (1, 2) or values.dtype.kind not in "fiub":
            raise RecordingError(
                f"behavior '{name}' is {values.dtype} of shape {values.shape}; "
                "expected numbers, (samples,) or (samples, columns)"
            )
        if values.ndim == 2 and f"{name}_rate" in a and values.shape[0] < values.shape[1]:
            notes.append(f"'{name}' has shape {values.shape}, fewer rows than columns, and was transposed")
            values = values.T  # (columns, samples), as spectrograms are stored
        columns = tuple(map(printable, a.get(f"{name}_columns", ())))
        times = _sample_times(a, name, len(values))
        repeat = np.diff(times, prepend=-np.inf) == 0
        if repeat.any() and len(times) == len(values):
            notes.append(f"{name}: {int(repeat.sum())} samples with the time of the one before were dropped")
            times, values = times[~repeat], values[~repeat]
        out[name] = BehaviorVariable(times, values, str(a.get(f"{name}_unit", "")), columns)
    return out


def _frames(a: Mapping[str, Any]) -> FrameSeries | None:
    if "frames" not in a:
        return None
    if "frames_times" not in a and "frames_rate" not in a:
        raise RecordingError("'frames' needs 'frames_times' (seconds) or 'frames_rate' (Hz)")
    index = a["frames_index"] if "frames_index" in a else np.arange(a["frames"].shape[0])
    return FrameSeries(a["frames"], _sample_times(a, "frames", len(index)), index)


def _observed(a: Mapping[str, Any]) -> ObservedIntervals | None:
    if ("observed_intervals" in a) != ("observed_units" in a):
        raise RecordingError("'observed_intervals' (intervals, 2) and 'observed_units' (intervals,) go together")
    return ObservedIntervals(a["observed_intervals"], a["observed_units"]) if "observed_units" in a else None


def _infer_domain(a, times, trials, behavior, frames) -> np.ndarray:
    """The domain if the file does not give one: the trials, the bins of the counts, else first to last spike."""
    start, stop = (trials.get(k, np.array("none")) for k in ("start", "stop"))
    if start.shape == stop.shape != () and start.dtype.kind in "fiu" and stop.dtype.kind in "fiu":
        spans = np.stack([start.astype(np.float64), closed_up(start, stop)], -1)
        apart = spans.ndim == 2 and (spans[1:, 0] >= spans[:-1, 1]).all()
        return spans if apart else clean.union(spans.reshape(-1, 2))  # validation names trials that overlap
    if "spikes" in a or ("events" in a and "spike_times" not in a):
        return np.array([[0.0, a["spikes" if "spikes" in a else "events"].shape[1] * _bin_width(a)]])
    if len(times) == 0:
        raise RecordingError("the recording is empty: no spikes, no trials and no 'domain'")
    if not np.isfinite(times).all():
        return np.array([[0.0, 1.0]])  # validation names the spikes that are not finite
    return np.array([[times.min(), np.nextafter(times.max(), np.inf)]])
