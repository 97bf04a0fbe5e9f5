"""pynapple objects to and from a Recording.

Pynapple keeps times to the nanosecond, has no place for units of measure, meta and truth, cannot hold
intervals that overlap, and shortens an interval that touches the next by a microsecond; only the last is undone when
objects are read back.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.frames import LazyFrames
from neuroformer.recording.recording import (
    BehaviorVariable,
    FrameSeries,
    ObservedIntervals,
    Recording,
    RecordingError,
    Traces,
)
from neuroformer.recording.validation import optional, validate_frames

UNIT_ID = "unit_id"
_OBSERVED = "observed_intervals"  # JSON: a TsGroup has one support for all of its units


class _ShownFrames(LazyFrames):
    """Frames in the order in which they were shown; a repeated image is still read from the bank."""

    def __init__(self, frames: FrameSeries):
        self.images, self.index = frames.images, frames.index
        self.shape = (len(frames.index), *(int(n) for n in frames.images.shape[1:]))  # pyright: ignore
        self.dtype = np.dtype(frames.images.dtype)

    def read(self, index: np.ndarray) -> np.ndarray:
        return np.asarray(self.images[self.index[index]])


def to_pynapple(rec: Recording, frames: bool = True) -> dict[str, Any]:
    """``units`` (TsGroup), ``domain``, ``trials`` and intervals (IntervalSet), behavior (Tsd, TsdFrame),
    ``traces`` (TsdFrame) and ``frames`` (TsdTensor, one image an onset).

    Raises
    ------
    RecordingError
        pynapple is not installed, or intervals overlap.
    """
    nap = optional("pynapple", "pynapple", "pynapple objects")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # touching intervals: see the top of this module
        every = clean.span(rec.spike_times, rec.domain.ravel())
        support = nap.IntervalSet(every[0, 0] - 1.0, every[0, 1] + 1.0)
        order = np.argsort(rec.spike_units, kind="stable")
        parts = np.split(rec.spike_times[order], np.cumsum(np.bincount(rec.spike_units, minlength=rec.num_units))[:-1])
        columns: dict[str, Any] = {k: v for k, v in rec.units.items() if k != "id"} | {UNIT_ID: rec.units["id"]}
        if rec.observed is not None:
            columns[_OBSERVED] = [json.dumps(rec.observed.of(u).tolist()) for u in range(rec.num_units)]
        out: dict[str, Any] = {
            "units": nap.TsGroup({i: nap.Ts(t) for i, t in enumerate(parts)}, time_support=support, metadata=columns)
        }
        tables = {"domain": {"start": rec.domain[:, 0], "stop": rec.domain[:, 1]}, **rec.intervals}
        tables |= {"trials": rec.trials} if rec.trials else {}
        for name, table in tables.items():
            if (table["start"][1:] < table["stop"][:-1]).any():
                raise RecordingError(f"intervals '{name}' overlap, which pynapple cannot hold; leave them out")
            extra = {k: v for k, v in table.items() if k not in ("start", "stop")}
            out[name] = nap.IntervalSet(table["start"], table["stop"], metadata=extra or None)
        for name, var in rec.behavior.items():
            if var.num_columns == 1 and not var.columns:
                out[name] = nap.Tsd(var.times, var.values[:, 0])
            else:
                out[name] = nap.TsdFrame(var.times, var.values, columns=list(var.columns) or None)
        if rec.traces is not None:
            out["traces"] = nap.TsdFrame(rec.traces.times, rec.traces.values)
        if frames and rec.frames is not None:
            shown = _ShownFrames(rec.frames)
            out["frames"] = nap.TsdTensor(rec.frames.times, np.asarray(shown))
    return out


def from_pynapple(data: Any, name: str = "recording", units: str | None = None) -> Recording:
    """A recording from pynapple objects.

    Parameters
    ----------
    data : a TsGroup, or a mapping of names (a dict, or what ``pynapple.load_file`` gives) to a TsGroup
        and any of IntervalSet (``trials`` and ``domain`` by these names), Tsd, TsdFrame, TsdTensor
        (frames; one, or the one called ``frames``)
    units : name of the TsGroup, where there are several

    Raises
    ------
    RecordingError
        No TsGroup, several without ``units``, or objects that pynapple does not have.
    """
    nap = optional("pynapple", "pynapple", "pynapple objects")
    objects = {"units": data} if isinstance(data, nap.TsGroup) else _mapping(data)
    groups = {k: v for k, v in objects.items() if isinstance(v, nap.TsGroup)}
    chosen = units or next((k for k in ("units", "spikes") if k in groups), next(iter(groups), None))
    if chosen not in groups or (len(groups) > 1 and units is None and chosen not in ("units", "spikes")):
        raise RecordingError(
            "expected one TsGroup of spikes (units='NAME' picks one); got: "
            + (", ".join(f"{k} ({type(v).__name__})" for k, v in objects.items()) or "nothing")
        )
    group, found = groups[chosen], Objects()
    for key, obj in objects.items():
        if isinstance(obj, nap.IntervalSet):
            found.add_intervals(key, _interval_columns(obj))
        elif isinstance(obj, (nap.Tsd, nap.TsdFrame)):
            found.add_series(key, obj.index.values, np.asarray(obj.values), getattr(obj, "columns", ()))
        elif isinstance(obj, nap.TsdTensor) and obj.ndim == 3:
            found.add_images(key, obj.index.values, obj.values)
        elif obj is not group:
            found.notes.append(f"{key} ({type(obj).__name__}) was left out")
    return found.recording(name, *_units(group, found.notes), _interval_columns(group.time_support))


class Objects:
    """What lies beside the units, by name and as a recording has it."""

    def __init__(self):
        self.tables: dict[str, dict[str, np.ndarray]] = {}
        self.series: dict[str, BehaviorVariable] = {}
        self.frames: FrameSeries | None = None
        self.notes: list[str] = []

    def add_intervals(self, key: str, columns: Mapping[str, np.ndarray]) -> None:
        if (found := clean.table(key, columns, self.notes, disjoint=False)) is not None:
            self.tables[key] = found

    def add_series(self, key: str, times: np.ndarray, values: np.ndarray, columns: Iterable[Any]) -> None:
        labels = [str(c) for c in columns]
        labels = [] if labels == [str(i) for i in range(len(labels))] else labels
        if (var := clean.variable(key, times, values, self.notes, columns=labels)) is not None:
            self.series[key] = var

    def add_images(self, key: str, times: np.ndarray, values: Any) -> None:
        if self.frames is not None and key != "frames":
            self.notes.append(f"{key} was left out: there are other frames already")
            return
        try:
            frames = FrameSeries(values, times, np.arange(len(times)))
            validate_frames(frames.images.shape, frames.images.dtype, frames.times, frames.index)
            self.frames = frames
        except RecordingError as e:
            self.notes.append(f"{key} was left out: {e}")

    def recording(
        self,
        name: str,
        times: np.ndarray,
        index: np.ndarray,
        columns: dict[str, np.ndarray],
        support: Mapping[str, np.ndarray],
    ) -> Recording:
        """The recording of these objects and of spikes (times, rows of the units, their columns) with a time support."""
        seen, traces = columns.pop(_OBSERVED, None), self.series.get("traces")
        if traces is not None and traces.num_columns == len(columns["id"]):
            del self.series["traces"]
        else:
            traces = None
        trials, domain = self.tables.pop("trials", {}), self.tables.pop("domain", None) or support
        return Recording(
            name=name,
            spike_times=times,
            spike_units=index,
            units=columns,
            domain=np.stack([domain["start"], domain["stop"]], 1),
            trials=trials,
            frames=self.frames,
            behavior=self.series,
            traces=None if traces is None else Traces(traces.times, traces.values),
            intervals=self.tables,
            observed=None if seen is None else ObservedIntervals.from_units([np.array(json.loads(s)) for s in seen]),
            meta={"notes": self.notes} if self.notes else {},
        )


def _mapping(data: Any) -> dict[str, Any]:
    if isinstance(data, Mapping) or hasattr(data, "keys"):
        return {str(k): data[k] for k in data.keys()}  # noqa: SIM118 (an NWB file of pynapple is no Mapping)
    raise RecordingError(f"got a {type(data).__name__}; expected a TsGroup or a mapping of pynapple objects")


def _units(group: Any, notes: list[str]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    keys = list(group.keys())
    parts = [np.asarray(group[k].index.values) for k in keys]
    rows = np.repeat(np.arange(len(keys)), [len(p) for p in parts])
    times, index = clean.spikes(np.concatenate(parts) if parts else np.zeros(0), rows, notes)
    columns = {str(c): clean.plain(group.get_info(c)) for c in group.metadata_columns if c != "rate"}
    ids = columns.pop(UNIT_ID, np.asarray(keys))
    return times, index, {"id": clean.distinct_ids(ids, notes), **columns}


def _interval_columns(intervals: Any) -> dict[str, np.ndarray]:
    start, stop = np.array(intervals.start), np.array(intervals.end)
    extra = {str(c): clean.plain(intervals.get_info(c)) for c in intervals.metadata_columns}
    return {"start": start, "stop": touching(start, stop), **extra}


def touching(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """``stop`` where pynapple shortened an interval by a microsecond since the next one begins there."""
    stop = stop.copy()
    close = np.abs(start[1:] - stop[:-1] - 1e-6) < 1e-9
    stop[:-1][close] = start[1:][close]
    return stop
