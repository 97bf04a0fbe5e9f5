"""The units table of an NWB file: spikes, columns, and when each unit was observed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats import spike_index
from neuroformer.recording.formats.hdf5 import reason
from neuroformer.recording.formats.nwb.parts import OpenFile, is_unreadable, place, simple_columns
from neuroformer.recording.remote import is_remote
from neuroformer.recording.series import ObservedIntervals
from neuroformer.recording.validation import CheckedSpikes, RecordingError

_AREA = ("area", "brain_area", "location", "brain_region", "region", "acronym", "ecephys_structure_acronym")


@dataclass
class SortedUnits:
    """Spikes sorted by time, their units, and what the table says of these."""

    times: np.ndarray
    units: np.ndarray
    columns: dict[str, np.ndarray]
    observed: list[np.ndarray] | None = None  # (k, 2) seconds of each unit, as they stand in the file
    proof: CheckedSpikes | None = None  # of spikes that were sorted and validated in their index
    counted: np.ndarray | None = None  # (units,) spikes of each unit, where they were not read
    ends: np.ndarray = field(default_factory=lambda: np.zeros(0))  # first and last spike that is known


def read_units(reader: OpenFile) -> SortedUnits | None:
    """The units table with ``spike_times``; None where the file has none.

    Raises
    ------
    RecordingError
        Its spikes cannot be read, or their index does not fit them.
    """
    found = [t for t in reader.of_type("Units") if "spike_times" in t.colnames]
    found.sort(key=lambda t: t is not reader.file.units)
    reader.seen |= {id(t) for t in reader.of_type("Units")}
    if not found:
        return None
    if len(found) > 1:
        reader.notes.append(f"units come from {place(found[0])}; {len(found) - 1} other units table(s) left out")
    table, proof = found[0], None
    try:
        flat, ends = _spikes(reader, table)
        if reader.glance:
            return _counted(reader, table, flat, ends)
        if ends[-1:] > spike_index.LARGE and is_remote(reader.path):
            raise RecordingError(
                f"{reader.path} has {ends[-1]:,} spikes, more than are sorted in memory; download the file"
            )
        if ends[-1:] > spike_index.LARGE:
            pieces = spike_index.by_unit(flat, ends)
            times, units, proof = spike_index.indexed_spikes(Path(reader.path), pieces, len(ends), reader.notes)
        else:
            rows = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
            times, units = clean.spikes(flat[: len(rows)], rows, reader.notes)
    except Exception as e:
        if isinstance(e, RecordingError) or not is_unreadable(e):
            raise
        raise RecordingError(f"{reader.path}: units/spike_times cannot be read: {reason(e)}") from e
    # times are sorted, and may be many
    return SortedUnits(
        times, units, _columns(reader, table), _when(reader, table), proof, ends=times[[0, -1]] if len(times) else times
    )


def _counted(reader: OpenFile, table: Any, flat: Any, ends: np.ndarray) -> SortedUnits:
    """How many spikes each unit has, from the index alone, and how far those of the unit with the most reach."""
    counted = np.diff(ends, prepend=0)
    known = np.zeros(0)
    if counted.any():
        most = int(np.argmax(counted))
        known = np.array([flat[ends[most] - counted[most]], flat[ends[most] - 1]], dtype=np.float64)
        known = np.sort(known[np.isfinite(known)])
    reader.notes.append(
        "spikes were counted and not fetched; where the file does not say when units were observed, that is from the first to "
        "the last spike of the unit with the most, or trial"
    )
    none = np.zeros(0)
    observed = _when(reader, table)
    return SortedUnits(none, none.astype(np.int32), _columns(reader, table), observed, counted=counted, ends=known)


def _spikes(reader: OpenFile, table: Any) -> tuple[Any, np.ndarray]:
    """Spike times, unit after unit, and where those of each unit end."""
    column, count = table["spike_times"], len(table.id)
    if not hasattr(column, "target"):
        reader.notes.append("units/spike_times has no spike_times_index: each unit has one spike")
        return np.asarray(column.data[:]), np.arange(1, count + 1)
    ends = np.asarray(column.data[:], dtype=np.int64)
    flat = column.target.data
    if (np.diff(ends, prepend=0) < 0).any() or (len(ends) and ends[-1] > len(flat)) or len(ends) != count:
        raise RecordingError(f"{reader.path}: the index of units/spike_times does not fit its spikes")
    return flat, ends


def _when(reader: OpenFile, table: Any) -> list[np.ndarray] | None:
    with reader.leaving_out("obs_intervals"):
        return _observed(table)


def _observed(table: Any) -> list[np.ndarray] | None:
    if "obs_intervals" not in table.colnames:
        return None
    column, count = table["obs_intervals"], len(table.id)
    if not hasattr(column, "target"):  # one interval a unit
        flat, ends = np.asarray(column.data[:], dtype=np.float64).reshape(-1, 2), np.arange(1, count + 1)
    else:
        flat = np.asarray(column.target.data[:], dtype=np.float64).reshape(-1, 2)
        ends = np.asarray(column.data[:], dtype=np.int64)
    if len(ends) != count or (count and ends[-1] > len(flat)):
        raise RecordingError(f"{len(flat)} intervals do not fit {count} units")
    return np.split(flat[: ends[-1]], ends[:-1]) if count else None


def observed_intervals(
    found: list[np.ndarray], span: np.ndarray, notes: list[str]
) -> tuple[np.ndarray | None, ObservedIntervals | None]:
    """The domain that units' intervals give, and these where units differ.

    Parameters
    ----------
    found : (k, 2) of each unit; infinite ones are cut to ``span``, and a unit without any that is a number counts as
        observed whenever another is
    span : (1, 2) or (0, 2) from the first to the last time of spikes and trials
    """
    if len(span):
        found = [np.where(np.isinf(i), np.clip(i, *span[0]), i) for i in found]
    parts = [clean.union(i) for i in found]
    known = [p for p in parts if len(p)]
    if not known:
        notes.append("obs_intervals hold no times; the units count as observed from the first to the last spike")
        return None, None
    domain = clean.union(np.concatenate(known))
    if len(known) < len(parts):
        notes.append(f"{len(parts) - len(known)} units have no obs_intervals, and count as observed throughout")
    parts = [p if len(p) else domain for p in parts]
    if all(np.array_equal(p, domain) for p in parts):
        return domain, None
    notes.append("units have different obs_intervals: what they did outside of them is unknown, not silence")
    return domain, ObservedIntervals.from_units(parts)


def _columns(reader: OpenFile, table: Any) -> dict[str, np.ndarray]:
    columns = {"id": clean.distinct_ids(np.asarray(table.id[:]), reader.notes)}
    found, left = simple_columns(table, skip=("spike_times", "obs_intervals", "electrodes"))
    names = reader.own.get("unit_columns")
    if names is not None:
        columns |= {names[k]: np.asarray(v) for k, v in found.items() if k in names}
        return columns
    columns |= {k: v for k, v in found.items() if v.ndim == 1 and k != "id"}
    left += [k for k, v in found.items() if v.ndim > 1]
    if left:
        reader.notes.append(f"units columns left out (not one value per unit): {', '.join(sorted(left))}")
    if "area" not in columns:
        area = next((columns[k] for k in _AREA if k in columns and columns[k].dtype.kind == "U"), None)
        with reader.leaving_out("the area of the units"):
            area = _electrode_area(table) if area is None else area
        if area is not None:
            columns["area"] = area
    return columns


def _electrode_area(table: Any) -> np.ndarray | None:
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


def _most(names: np.ndarray) -> str:
    if len(names) == 0:
        return ""
    kinds, first, counts = np.unique(names, return_index=True, return_counts=True)
    return str(kinds[np.lexsort((first, -counts))[0]])
