"""NWB (Neurodata Without Borders 2) in HDF5 and Zarr, read through pynwb, in the layouts that occur in archives.

What is looked for, and what it becomes:

- ``units`` with ``spike_times``: spikes and the units table; ``area`` from a column of that meaning, or from
  the electrodes; ``obs_intervals`` become the domain.
- ``trials`` become the trials (``trials="NAME"`` takes another table); every other TimeIntervals and
  IntervalSeries becomes a named one of ``intervals``; ``invalid_times`` leave the domain.
- Every TimeSeries and SpatialSeries that is not raw electrophysiology, imaging or text becomes a behavior
  variable, wherever it lies. Names: see :func:`neuroformer.recording.clean.short_names`;
  ``meta["sources"]`` maps each to its place in the file.
- ImageSeries, OpticalSeries and IndexSeries under ``stimulus`` become the frames, lazily
  (:mod:`neuroformer.recording.formats.nwb.frames`).
- RoiResponseSeries become the traces (:mod:`neuroformer.recording.formats.nwb.ophys`); without a units table the
  regions of interest are the units.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats.hdf5 import reason
from neuroformer.recording.formats.nwb.behavior import read_behavior
from neuroformer.recording.formats.nwb.files import opened
from neuroformer.recording.formats.nwb.frames import read_frames
from neuroformer.recording.formats.nwb.ophys import Ophys, read_ophys
from neuroformer.recording.formats.nwb.parts import (
    OpenFile,
    is_unreadable,
    place,
    simple_columns,
)
from neuroformer.recording.formats.nwb.units import SortedUnits, observed_intervals, read_units
from neuroformer.recording.glance import glance
from neuroformer.recording.names import natural
from neuroformer.recording.recording import Recording
from neuroformer.recording.remote import is_remote
from neuroformer.recording.series import ObservedIntervals, Traces
from neuroformer.recording.validation import RecordingError
from neuroformer.recording.wanted import FRAMES, TRACES, Wanted


def read_nwb(
    path: str | Path,
    trials: str = "trials",
    frames: str = "auto",
    traces: str = "auto",
    units: str = "auto",
    events: str = "auto",
    analog: str | Sequence[str] = (),
    check: bool = True,
    wanted: Wanted | None = None,
    frames_size: Sequence[int] | None = None,
    look: bool = False,
) -> Recording:
    """Read an NWB file, at a path or an address.

    Parameters
    ----------
    trials : which table of intervals holds the trials
    frames : name of a stimulus (or of any ImageSeries in the file), ``auto``, or ``none``
    traces : name of a RoiResponseSeries, ``auto`` (DfOverF before Fluorescence), or ``none``
    units : ``auto``, ``spikes`` (the units table) or ``rois`` (the regions of interest)
    events : how spikes come from traces where the regions are the units, see
        :func:`neuroformer.recording.calcium.spikes_from_traces`
    analog : names of long series above 2 kHz to read as behavior as well; without, they are only named in a note
    check : check an HDF5 file in a separate process first, so that a damaged one cannot crash this one
    wanted : what is not wanted is not read
    frames_size : (height, width) at which stimuli of different size are joined
    look : of a file at an address, count spikes and look at the beginning of long series, to show what there is

    Raises
    ------
    RecordingError
        Not a readable NWB file, no units in it, or a name that it does not contain.
    """
    path = path if is_remote(path) else Path(path)
    if units not in ("auto", "spikes", "rois"):
        raise RecordingError(f"units is '{units}'; expected 'auto', 'spikes' or 'rois'")
    notes: list[str] = []
    analog = [analog] if isinstance(analog, str) else analog
    try:
        with opened(path, check, notes) as file:
            reader = _Reader(file, path, wanted or Wanted(), frames_size)
            reader.glance = look and is_remote(path)
            reader.notes += notes
            return reader.recording(trials, frames, traces, units, events, analog)
    except RecordingError:
        raise
    except Exception as e:  # pynwb and hdmf raise many kinds on damaged files
        if not is_unreadable(e):
            raise
        damaged = "; it may be damaged or cut short" if isinstance(e, (OSError, RuntimeError, EOFError)) else ""
        raise RecordingError(f"{path} cannot be read as NWB: {reason(e)}{damaged}") from e


class _Reader(OpenFile):
    """One open file on its way to a Recording."""

    def __init__(self, nwbfile: Any, path: str | Path, wanted: Wanted, frames_size: Sequence[int] | None):
        super().__init__(nwbfile, path)
        self.wanted, self.frames_size = wanted, frames_size

    def recording(
        self, trials: str, frames: str, traces: str, units: str, events: str, analog: Sequence[str]
    ) -> Recording:
        tables = self.tables(kept=(trials, "domain", "invalid_times"))
        own_domain = tables.pop("domain", None) if self.own else None
        behavior, sources = read_behavior(self, self.wanted, analog)
        units_table, kept = self._units(traces, units, events)
        trial_table = self.trials(tables, trials)
        images = None
        if frames != "none" and self.asks(FRAMES, "ImageSeries", "IndexSeries"):
            every = {**tables, trials: trial_table} if trial_table else tables
            images = read_frames(self, None if frames == "auto" else frames, every, self.frames_size)
        domain, observed = self.domain(units_table, kept, trial_table, tables)
        if own_domain is not None:
            domain = np.stack([own_domain["start"], own_domain["stop"]], 1)
        self.name_the_rest()
        rec = Recording(
            name=self.own.get("name", self.stem),
            spike_times=units_table.times,
            spike_units=units_table.units,
            units=units_table.columns,
            domain=domain,
            trials=trial_table,
            frames=images,
            behavior=behavior,
            truth=self.truth(),
            meta=self.meta(sources),
            traces=kept,
            intervals=tables,
            observed=observed,
            checked_spikes=units_table.proof,
        )
        return rec if units_table.counted is None else glance(rec, units_table.counted)

    def _units(self, traces: str, units: str, events: str) -> tuple[SortedUnits, Traces | None]:
        """The units with their spikes, sorted or of regions of interest, and the traces that go with them."""
        units_table = read_units(self) if units != "rois" else None
        ophys: Ophys | None = None
        needed = units_table is None  # the regions are the units
        if (
            traces != "none"
            and not (self.glance and not needed)
            and (units != "spikes" or traces != "auto")
            and (needed or self.asks(TRACES, "RoiResponseSeries"))
        ):
            ophys = self.ophys(traces, needed)
        if units_table is None and ophys is None:
            raise RecordingError(
                f"{self.path} has neither units with spike_times nor a RoiResponseSeries; it has: "
                + (", ".join(sorted({type(o).__name__ for o in self.objects})) or "nothing")
            )
        kept: Traces | None = None
        if units_table is None:
            assert ophys is not None
            times, owners = ophys.spikes(events, self.notes)
            ends = times[[0, -1]] if len(times) else times
            units_table, kept = SortedUnits(times, owners, ophys.units, ends=ends), ophys.traces
        elif ophys is not None and ophys.traces.values.shape[1] == len(units_table.columns["id"]):
            kept = ophys.traces
        elif ophys is not None:
            self.notes.append(
                f"traces {ophys.name} have {ophys.traces.values.shape[1]} regions for {len(units_table.columns['id'])} "
                "spike-sorted units and were left out; open with units='rois' to take them instead"
            )
        return units_table, kept

    def asks(self, name: str, *types: str) -> bool:
        """Whether what objects of these types become is wanted; if not, they have no note of their own."""
        there = self.of_type(*types)
        if not there or self.wanted(name):
            return True
        self.seen |= {id(o) for o in there}
        return False

    def ophys(self, traces: str, needed: bool) -> Ophys | None:
        if needed or traces != "auto":
            return read_ophys(self, None if traces == "auto" else traces)
        with self.leaving_out("calcium traces"):
            return read_ophys(self, None)

    # -- tables -----------------------------------------------------------------------------------

    def tables(self, kept: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """Every table of intervals by name that is wanted or of ``kept``: trials, epochs, stimuli, IntervalSeries."""
        # presentations may be what is needed of a table
        everything = bool(self.file.stimulus_template) and self.wanted(FRAMES)
        found = [t for t in self.of_type("TimeIntervals") if len(t.id)]
        series = self.of_type("IntervalSeries")
        names = clean.short_names([place(t).split("/") for t in found + series])
        out: dict[str, dict[str, np.ndarray]] = {}
        for name, source in zip(names, found + series, strict=True):
            name = self.own.get("intervals", {}).get(name, name)
            self.seen.add(id(source))
            if name not in kept and not self.wanted(name) and not everything:
                continue
            with self.leaving_out(f"intervals {name}"):
                columns = interval_series(source) if source in series else self.columns_of(source)
                cleaned = clean.table(name, columns, self.notes, disjoint=False)
                if cleaned is not None:
                    out[name] = cleaned
        return out

    def columns_of(self, table: Any) -> dict[str, np.ndarray]:
        found, left = simple_columns(table, skip=("tags", "timeseries"))
        if left:
            self.notes.append(f"{table.name} columns left out (not one value per row): {', '.join(sorted(left))}")
        if "tags" in table.colnames and table["tags"] is not None:  # of epochs: several texts a row
            found["tags"] = np.array([",".join(map(str, tags)) for tags in table["tags"][:]], dtype=np.str_)
        if not {"start_time", "stop_time"} <= found.keys():
            raise RecordingError("without start_time and stop_time it is no table of intervals")
        columns = {"start": found.pop("start_time"), "stop": found.pop("stop_time")}
        names = self.own.get("columns", {}).get(table.name, {})
        taken = {"start", "stop"}
        return columns | {names.get(k, f"{k}_column" if k in taken else k): v for k, v in found.items()}

    def trials(self, tables: dict[str, dict[str, np.ndarray]], name: str) -> dict[str, np.ndarray]:
        if name not in tables:
            if name == "trials":
                return {}
            raise RecordingError(
                f"{self.path} has no intervals '{name}' to take as trials; it has: "
                f"{', '.join(sorted(tables)) or 'none'}"
            )
        return clean.table(name, tables.pop(name), self.notes, disjoint=True) or {}

    def domain(self, units: SortedUnits, traces, trials, tables) -> tuple[np.ndarray, ObservedIntervals | None]:
        """Where the units were observed: as the file says, else from their first to their last sample or spike."""
        span = clean.span(units.ends, *((trials["start"], trials["stop"]) if trials else ()))
        domain, observed = None, None
        if units.observed is not None and self.own:
            observed = ObservedIntervals.from_units(units.observed)
        elif units.observed is not None:
            domain, observed = observed_intervals(units.observed, span, self.notes)
        if domain is None:
            domain = clean.span(traces.times) if traces is not None else span
        if "invalid_times" in tables:
            holes = tables["invalid_times"]
            domain = clean.without(domain, np.stack([holes["start"], holes["stop"]], 1))
        return domain, observed

    # -- the rest ---------------------------------------------------------------------------------

    def name_the_rest(self) -> None:
        """Note the data that no part of a recording was made of."""
        parents = {id(o.parent) for o in self.objects}
        left: dict[str, list[str]] = {}
        for o in self.objects:
            kinds = {c.__name__ for c in type(o).__mro__}
            is_data = "TimeSeries" in kinds or ("NWBDataInterface" in kinds and id(o) not in parents)
            is_table = "DynamicTable" in kinds and not kinds & {"PlaneSegmentation", "ElectrodesTable", "TimeIntervals"}
            if (is_data or is_table) and id(o) not in self.seen and o.name != "electrodes":
                left.setdefault(type(o).__name__, []).append(o.name)
        if left:
            kinds = (f"{kind} {clean.some(sorted(names, key=natural))}" for kind, names in sorted(left.items()))
            self.notes.append(f"not read, since no part of a recording holds it: {'; '.join(kinds)}")

    def truth(self) -> dict[str, np.ndarray]:
        names = self.own.get("truth", {})
        return {name: np.asarray(self.file.scratch[key].data[()]) for key, name in names.items()}

    def meta(self, sources: dict[str, str]) -> dict[str, Any]:
        if self.own:
            meta = dict(self.own.get("meta", {}))
            return meta | ({"notes": [*meta.get("notes", ()), *self.notes]} if self.notes else {})
        f, subject = self.file, self.file.subject
        meta: dict[str, Any] = {"format": "nwb", "identifier": str(f.identifier), "sources": sources}
        meta |= {
            k: str(getattr(f, k)) for k in ("session_id", "session_description", "institution", "lab") if getattr(f, k)
        }
        if subject is not None:
            meta["subject"] = {
                k: str(v) for k in ("subject_id", "species", "sex", "age") if (v := getattr(subject, k, None))
            }
        return meta | ({"notes": self.notes} if self.notes else {})


def interval_series(series: Any) -> dict[str, np.ndarray]:
    """``start`` and ``stop`` of an IntervalSeries: positive data open an interval, negative ones close it."""
    data, times = np.asarray(series.data[:]), np.asarray(series.timestamps[:])
    start, stop = times[data > 0], times[data < 0]
    count = min(len(start), len(stop))
    return {"start": start[:count], "stop": stop[:count]}
