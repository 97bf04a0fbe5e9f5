"""NWB files (Neurodata Without Borders 2), read through pynwb, in the layouts that occur in archives.

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

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats import spike_index
from neuroformer.recording.formats.hdf5 import look_first
from neuroformer.recording.formats.npz import UNREADABLE
from neuroformer.recording.formats.nwb.frames import read_frames
from neuroformer.recording.formats.nwb.ophys import Ophys, read_ophys
from neuroformer.recording.formats.nwb.parts import OpenFile, place, sample_times, scaled, simple_columns
from neuroformer.recording.recording import BehaviorVariable, Recording, RecordingError, Traces
from neuroformer.recording.validation import CheckedSpikes

_AREA = ("area", "brain_area", "location", "brain_region", "region", "acronym", "ecephys_structure_acronym")
_NOT_BEHAVIOR = (
    "ElectricalSeries",
    "ImageSeries",
    "IndexSeries",
    "RoiResponseSeries",
    "IntervalSeries",
    "AnnotationSeries",
    "DecompositionSeries",
    "PatchClampSeries",
    "AbstractFeatureSeries",
    "OptogeneticSeries",
)

_NO_UNITS = np.zeros(0), np.zeros(0, np.int32), None, None


def read_nwb(
    path: str | Path,
    trials: str = "trials",
    frames: str = "auto",
    traces: str = "auto",
    units: str = "auto",
    events: str = "auto",
    check: bool = True,
) -> Recording:
    """Read an NWB file.

    Parameters
    ----------
    trials : which table of intervals holds the trials
    frames : name of a stimulus (or of any ImageSeries in the file), ``auto``, or ``none``
    traces : name of a RoiResponseSeries, ``auto`` (DfOverF before Fluorescence), or ``none``
    units : ``auto``, ``spikes`` (the units table) or ``rois`` (the regions of interest)
    events : how spikes come from traces where the regions are the units, see
        :func:`neuroformer.recording.calcium.spikes_from_traces`
    check : check the file in a separate process first, so that a damaged file cannot crash this one

    Raises
    ------
    RecordingError
        Not a readable NWB file, no units in it, or a name that it does not contain.
    """
    pynwb = clean.optional("pynwb", "nwb", "reading NWB files")
    path = Path(path)
    if units not in ("auto", "spikes", "rois"):
        raise RecordingError(f"units is '{units}'; expected 'auto', 'spikes' or 'rois'")
    if check:
        look_first(path)
    try:
        # files that carry older copies of a schema warn on every load; what matters ends in notes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pynwb.NWBHDF5IO(str(path), "r", load_namespaces=True) as io:
                return _Reader(io.read(), path).recording(trials, frames, traces, units, events)
    except RecordingError:
        raise
    except Exception as e:  # pynwb and hdmf raise many kinds on damaged files
        if not isinstance(e, UNREADABLE) and not type(e).__module__.startswith(("hdmf", "pynwb", "h5py")):
            raise
        raise RecordingError(
            f"{path} cannot be read as NWB ({type(e).__name__}: {e}); it may be damaged or cut short"
        ) from e


class _Reader(OpenFile):
    """One open file on its way to a Recording."""

    proof: CheckedSpikes | None = None  # of spikes that were sorted and validated in their index

    def recording(self, trials: str, frames: str, traces: str, units: str, events: str) -> Recording:
        tables = self.tables()
        own_domain = tables.pop("domain", None) if self.own else None
        behavior, sources = self.behavior()
        times, spike_units, columns, observed = self.units() if units != "rois" else _NO_UNITS
        ophys: Ophys | None = None
        if traces != "none" and (units != "spikes" or traces != "auto"):
            ophys = read_ophys(self, None if traces == "auto" else traces)
        kept: Traces | None = None
        if columns is None:
            if ophys is None:
                raise RecordingError(
                    f"{self.path} has neither units with spike_times nor a RoiResponseSeries; it has: "
                    + (", ".join(sorted({type(o).__name__ for o in self.objects})) or "nothing")
                )
            times, spike_units = ophys.spikes(events, self.notes)
            columns, kept = ophys.units, ophys.traces
        elif ophys is not None and ophys.traces.values.shape[1] == len(columns["id"]):
            kept = ophys.traces
        elif ophys is not None:
            self.notes.append(
                f"traces {ophys.name} have {ophys.traces.values.shape[1]} regions for {len(columns['id'])} "
                "spike-sorted units and were left out; open with units='rois' to take them instead"
            )
        trial_table = self.trials(tables, trials)
        images = None if frames == "none" else read_frames(self, None if frames == "auto" else frames)
        if own_domain is not None:
            domain = np.stack([own_domain["start"], own_domain["stop"]], 1)
        else:
            domain = self.domain(times, kept, observed, trial_table, tables)
        return Recording(
            name=self.own.get("name", self.path.stem),
            spike_times=times,
            spike_units=spike_units,
            units=columns,
            domain=domain,
            trials=trial_table,
            frames=images,
            behavior=behavior,
            truth=self.truth(),
            meta=self.meta(sources),
            traces=kept,
            intervals=tables,
            checked_spikes=self.proof,
        )

    # -- units ------------------------------------------------------------------------------------

    def units(self):
        """Sorted spikes, the units table and (n, 2) observed intervals; table and intervals may be None."""
        found = [t for t in self.of_type("Units") if "spike_times" in t.colnames]
        found.sort(key=lambda t: t is not self.file.units)
        if not found:
            return _NO_UNITS
        if len(found) > 1:
            self.notes.append(f"units come from {place(found[0])}; {len(found) - 1} other units table(s) left out")
        table = found[0]
        index = table["spike_times"]
        ends = np.asarray(index.data[:], dtype=np.int64)
        counts = np.diff(ends, prepend=0)
        flat = index.target.data
        if (counts < 0).any() or (len(ends) and ends[-1] > len(flat)) or len(ends) != len(table.id):
            raise RecordingError(f"{self.path}: the index of units/spike_times does not fit its spikes")
        if counts.sum() > spike_index.LARGE:
            times, spike_units, self.proof = spike_index.indexed_spikes(
                self.path, spike_index.by_unit(flat, ends), len(ends), self.notes
            )
        else:
            rows = np.repeat(np.arange(len(ends)), counts)
            times, spike_units = clean.spikes(flat[: len(rows)], rows, self.notes)
        observed = None
        if "obs_intervals" in table.colnames:
            observed = np.asarray(table["obs_intervals"].target.data[:], dtype=np.float64).reshape(-1, 2)
        return times, spike_units, self.unit_columns(table), observed

    def unit_columns(self, table: Any) -> dict[str, np.ndarray]:
        columns = {"id": np.asarray(table.id[:])}
        found, left = simple_columns(table, skip=("spike_times", "obs_intervals", "electrodes"))
        names = self.own.get("unit_columns")
        if names is not None:
            columns |= {names[k]: np.asarray(v) for k, v in found.items() if k in names}
            return columns
        columns |= {k: v for k, v in found.items() if v.ndim == 1 and k != "id"}
        left += [k for k, v in found.items() if v.ndim > 1]
        if left:
            self.notes.append(f"units columns left out (not one value a unit): {', '.join(sorted(left))}")
        if "area" not in columns:
            area = next((columns[k] for k in _AREA if k in columns and columns[k].dtype.kind == "U"), None)
            area = self.electrode_area(table) if area is None else area
            if area is not None:
                columns["area"] = area
        return columns

    def electrode_area(self, table: Any) -> np.ndarray | None:
        """(units,) location of the electrodes of each unit: the most frequent one, the first of equals."""
        if "electrodes" in table.colnames:
            index = table["electrodes"]
            region = getattr(index, "target", index)
            if "location" not in region.table.colnames:
                return None
            location = clean.plain(region.table["location"][:])
            rows = np.asarray(region.data[:], dtype=np.int64)
            parts = np.split(rows, np.asarray(index.data[:-1])) if region is not index else list(rows[:, None])
            return np.array([_most(location[part]) for part in parts])
        if "electrode_group" in table.colnames:
            return np.array([str(group.location) for group in table["electrode_group"].data])
        return None

    # -- tables -----------------------------------------------------------------------------------

    def tables(self) -> dict[str, dict[str, np.ndarray]]:
        """Every table of intervals by name: trials, epochs, invalid_times, stimuli, IntervalSeries."""
        found = [t for t in self.of_type("TimeIntervals") if len(t.id)]
        series = self.of_type("IntervalSeries")
        names = clean.short_names([place(t).split("/") for t in found + series])
        out: dict[str, dict[str, np.ndarray]] = {}
        for name, source in zip(names, found + series, strict=True):
            columns = interval_series(source) if source in series else self.columns_of(source)
            name = self.own.get("intervals", {}).get(name, name)
            cleaned = clean.table(name, columns, self.notes, disjoint=False)
            if cleaned is not None:
                out[name] = cleaned
        return out

    def columns_of(self, table: Any) -> dict[str, np.ndarray]:
        found, left = simple_columns(table, skip=("tags", "timeseries"))
        if left:
            self.notes.append(f"{table.name} columns left out (not one value a row): {', '.join(sorted(left))}")
        if "tags" in table.colnames and table["tags"] is not None:  # of epochs: several texts a row
            found["tags"] = np.array([",".join(map(str, tags)) for tags in table["tags"][:]], dtype=np.str_)
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

    def domain(self, times, traces, observed, trials, tables) -> np.ndarray:
        """Where the units were observed: as the file says, else from their first to their last sample or spike."""
        if observed is not None and len(observed):
            domain = clean.union(observed)
        elif traces is not None:
            domain = clean.span(traces.times)
        else:
            ends = times[[0, -1]] if len(times) else times  # they are sorted, and may be many
            parts = [ends, trials["start"], trials["stop"]] if trials else [ends]
            domain = clean.span(*parts)
        if "invalid_times" in tables:
            holes = tables["invalid_times"]
            domain = clean.without(domain, np.stack([holes["start"], holes["stop"]], 1))
        return domain

    # -- behavior ---------------------------------------------------------------------------------

    def behavior(self) -> tuple[dict[str, BehaviorVariable], dict[str, str]]:
        skip = {id(o) for o in self.of_type(*_NOT_BEHAVIOR)}
        found = [o for o in self.of_type("TimeSeries") if id(o) not in skip and "scratch" not in place(o)]
        out, sources = {}, {}
        for name, series in zip(clean.short_names([place(s).split("/") for s in found]), found, strict=True):
            own = self.own.get("behavior", {}).get(series.name, {})
            name = own.get("name", name)
            values = scaled(series)
            if values is None:
                self.notes.append(f"{name} was left out: its data are not numbers")
                continue
            columns = own.get("columns") or _column_names(series, values)
            unit = own.get("unit", str(series.unit or ""))
            var = clean.variable(name, sample_times(series, len(values)), values, self.notes, unit, columns)
            if var is not None:
                out[name], sources[name] = var, place(series)
        return out, sources

    # -- the rest ---------------------------------------------------------------------------------

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
    data, times = np.asarray(series.data[:]), np.asarray(series.timestamps[:], dtype=np.float64)
    start, stop = times[data > 0], times[data < 0]
    count = min(len(start), len(stop))
    return {"start": start[:count], "stop": stop[:count]}


def _column_names(series: Any, values: np.ndarray) -> tuple[str, ...]:
    spatial = any(c.__name__ == "SpatialSeries" for c in type(series).__mro__)
    if spatial and values.ndim == 2 and 1 < values.shape[1] <= 3:
        return ("x", "y", "z")[: values.shape[1]]
    return ()


def _most(names: np.ndarray) -> str:
    if len(names) == 0:
        return ""
    kinds, first, counts = np.unique(names, return_index=True, return_counts=True)
    return str(kinds[np.lexsort((first, -counts))[0]])
