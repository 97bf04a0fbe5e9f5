"""Spikes of tables (CSV, Parquet) and of MATLAB files, whose names a configuration says.

options: {spikes: t, units: cluster}                              a table with a row per spike
options: {spikes: units.times, columns: {area: units.region}}     cells of times, one per unit
options: {spikes: counts, dt: 0.01}                               a matrix of counts, units and bins
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats.arrays import from_counts
from neuroformer.recording.formats.matlab import as_array, read_matlab
from neuroformer.recording.recording import Recording, RecordingError
from neuroformer.recording.sources.files import read_parquet
from neuroformer.recording.sources.text import read_text

_SPIKES = ("spike_times", "spike_time", "times", "time", "t", "timestamps", "timestamp")
_UNITS = (
    "spike_units",
    "unit",
    "units",
    "unit_id",
    "unit_ids",
    "cluster",
    "clusters",
    "cluster_id",
    "spike_clusters",
    "neuron",
)


def read_spike_table(
    path: str | Path,
    spikes: str = "",
    units: str = "",
    dt: float = 0.0,
    scale: float = 1.0,
    columns: Mapping[str, str] | None = None,
) -> Recording:
    """Read spikes of a table or a MATLAB file; names in structures are joined by dots.

    Parameters
    ----------
    spikes : the times of spikes (a column, an array, or cells with one array per unit), or a matrix of counts, whose shorter axis
        is the units; without it what is called spike_times, times, time or t, or the only cells of times
    units : the unit of each spike, a number or a word, where times are one array; by default unit, cluster, ...
    dt : seconds per bin, of counts
    scale : seconds in the file's unit of time: 0.001 for milliseconds, 1/30000 for samples
    columns : our name of a column of the units, and the file's name of an array with one value per unit. In a table with a row per
        spike, columns with one value per unit come along

    Raises
    ------
    RecordingError
        What is named is not there, or is no spikes; lists what there is.
    """
    path, notes = Path(path), []
    if not 0 < scale < np.inf or not 0 <= dt < np.inf:
        raise RecordingError(f"{path}: scale is {scale:g} and dt {dt:g}; expected seconds above 0")
    content = _content(path, notes)
    label = units or next((u for u in _UNITS if u in content), "")
    if path.suffix.lower() != ".mat":
        content = _of_some_unit(content, label, notes)
    name = spikes or _likely(path, content)
    found = _find(path, content, name)
    given = {k: str(v) for k, v in (columns or {}).items()}
    meta: dict[str, Any] = {"format": path.suffix[1:].lower(), "notes": notes}
    if isinstance(found, list):
        times, rows, ids = _cells(path, name, found)
    elif found.ndim == 2:
        times, rows, ids = _counts(path, name, found, dt, notes)
        meta["spike_grid_s"] = dt
        dt *= found.shape[found.shape[0] <= found.shape[1]]
    else:
        times, rows, ids = _labelled(path, name, found, _find(path, content, label) if label else None, notes)
    own: dict[str, Any] = {}
    others = {k: v for k, v in content.items() if k not in (name, units, *_UNITS)}
    if path.suffix.lower() == ".mat":
        _note_unread(content, [name, label, *given.values()], notes)
    elif isinstance(found, np.ndarray):
        own = _of_units(others, given, rows, len(ids), notes)
    else:
        own, ids = others, content.get(label, ids)
    own |= {k: _find(path, content, v) for k, v in given.items()}
    table = {"id": clean.distinct_ids(ids, notes), **_columns(path, own, given, len(ids), notes)}
    is_counts = isinstance(found, np.ndarray) and found.ndim == 2
    clean.coarse("spike times", times, notes, scale)  # in the file's own type of numbers
    times, rows = clean.spikes(times.astype(np.float64) * (1.0 if is_counts else scale), rows, notes)
    return Recording(
        name=path.stem,
        spike_times=times,
        spike_units=rows,
        units=table,
        domain=np.array([[0.0, dt]]) if is_counts else clean.span(times),
        meta=meta,
    )


def _content(path: Path, notes: list[str]) -> dict[str, Any]:
    suffix = path.suffix.lower()
    if suffix == ".mat":
        return read_matlab(path, notes)
    return dict(read_parquet(path, lists=True)) if suffix in (".parquet", ".pqt") else dict(read_text(path))


def _of_some_unit(content: dict[str, Any], label: str, notes: list[str]) -> dict[str, Any]:
    """The rows of a table whose label is not empty."""
    labels = content.get(label)
    columns = [v for v in content.values() if isinstance(v, np.ndarray) and v.ndim == 1]
    if not isinstance(labels, np.ndarray) or len(columns) < len(content) or len({len(c) for c in columns}) > 1:
        return content
    known = labels != "" if labels.dtype.kind == "U" else labels == labels
    if known.all():
        return content
    notes.append(f"{int((~known).sum())} spikes of no unit were dropped")
    return {k: v[known] for k, v in content.items()}


def _note_unread(content: Mapping[str, Any], read: list[str], notes: list[str]) -> None:
    """Name the variables of a MATLAB file that nothing was read of."""
    left = sorted(k for k in content if not any(name == k or name.startswith(f"{k}.") for name in read))
    if left:
        notes.append(
            f"not read: {', '.join(left)}; recording.sources takes behavior and trials from a file, also this one"
        )


# -- names --------------------------------------------------------------------------------------------


def _find(path: Path, content: Mapping[str, Any], name: str) -> Any:
    """What a name with dots leads to: an array, or a list of arrays; a field of an array of structures is a list."""
    value: Any = content
    for part in [name] if name in content else name.split("."):
        several = isinstance(value, list)
        inner = value if several else [value]
        if not inner or not all(isinstance(v, dict) and part in v for v in inner):
            raise RecordingError(f"{path} has no '{name}'; it has: {'; '.join(_held(content)) or 'nothing'}")
        value = [v[part] for v in inner] if several else value[part]
    if isinstance(value, list):
        return value
    array = as_array(value)
    if array is None:
        raise RecordingError(f"{path}: '{name}' is a structure; it has: {'; '.join(_held({name: value}))}")
    return array


def _held(value: Any, name: str = "", depth: int = 0) -> list[str]:
    """Names with what they hold, as an error lists them."""
    if isinstance(value, dict) and depth < 5:
        return [t for k, v in list(value.items())[:40] for t in _held(v, f"{name}.{k}" if name else str(k), depth + 1)]
    if isinstance(value, list):
        if value and all(isinstance(v, dict) for v in value):
            return [f"{name}.{k} ({len(value)} structures)" for k in list(value[0])[:40]]
        return [f"{name} ({len(value)} cells)"]
    shape = value.shape if isinstance(value, np.ndarray) else "(one value)"
    return [f"{name} {shape}"]


def _likely(path: Path, content: Mapping[str, Any]) -> str:
    """The name of the spikes where none is given."""
    known = next((k for k in _SPIKES if k in content), "")
    cells = [t.split(" (")[0] for t in _held(dict(content)) if t.endswith((" cells)", " structures)"))]
    cells = [name for name in cells if _are_times(_find(path, content, name))]
    if not known and len(cells) != 1:
        raise RecordingError(
            f"{path}: say which are the spikes, recording.options: {{spikes: NAME, units: NAME}}; it has: "
            f"{'; '.join(_held(dict(content))) or 'nothing'}"
        )
    return known or cells[0]


def _are_times(cells: Any) -> bool:
    arrays = [np.ravel(c) for c in cells if not isinstance(c, (dict, list))] if isinstance(cells, list) else []
    numbers = bool(arrays) and len(arrays) == len(cells) and all(a.dtype.kind in "fiu" for a in arrays)
    return numbers and any(len(a) > 1 for a in arrays) and all((np.diff(a.astype(float)) >= 0).all() for a in arrays)


# -- spikes -------------------------------------------------------------------------------------------


def _cells(path: Path, name: str, found: list[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = [np.ravel(np.asarray(c)) for c in found if not isinstance(c, (dict, list)) and c is not None]
    wrong = len(arrays) < len(found) or any(a.dtype.kind not in "fiub" for a in arrays)
    if wrong or not arrays or len(arrays) > clean.MAX_UNITS:
        raise RecordingError(
            f"{path}: '{name}' has {len(found)} cells; expected numbers in each, the times of one unit"
        )
    rows = np.repeat(np.arange(len(arrays)), [len(a) for a in arrays])
    single = [a for a in arrays if a.dtype.kind == "f" and a.size]  # an empty cell is double, whatever the others are
    kind = np.result_type(*single) if len(single) == sum(a.size > 0 for a in arrays) > 0 else np.float64
    return np.concatenate(arrays).astype(kind), rows, np.arange(len(arrays))


def _counts(
    path: Path, name: str, found: np.ndarray, dt: float, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not dt:
        raise RecordingError(f"{path}: '{name}' is a matrix {found.shape} of counts; give dt, seconds per bin")
    upright = found if found.shape[0] <= found.shape[1] else found.T
    notes.append(f"'{name}' {found.shape} has {upright.shape[0]} units and {upright.shape[1]} bins")
    return (*from_counts(upright, dt), np.arange(upright.shape[0]))


def _labelled(
    path: Path, name: str, found: np.ndarray, labels: Any, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spikes in one array, with the unit of each in another; without one all are of one unit."""
    times = np.atleast_1d(found)
    if times.dtype.kind not in "fiu" or times.ndim != 1:
        comma = times.dtype.kind == "U" and times.size and re.fullmatch(r"[-+]?\d+,\d+", str(times.flat[0]))
        more = "; its numbers have a decimal comma: write them with a point" if comma else ""
        raise RecordingError(
            f"{path}: '{name}' holds {times.dtype} of shape {times.shape}; expected times of spikes{more}"
        )
    if labels is None:
        notes.append(f"nothing says which unit a spike of '{name}' is of (units: NAME): all are of one")
        return times, np.zeros(len(times), np.int64), np.arange(1)
    labels = as_array(labels)
    if labels is None or labels.shape != times.shape:
        raise RecordingError(
            f"{path}: {times.shape} times but {None if labels is None else labels.shape} units; expected one unit a spike"
        )
    both = _of_some_unit({"times": times, "labels": labels}, "labels", notes)
    times, labels = both["times"], both["labels"]
    if labels.dtype.kind == "f" and (np.rint(labels) == labels).all():
        labels = labels.astype(np.int64)
    ids, rows = np.unique(labels, return_inverse=True)
    return times, rows.reshape(-1), ids


# -- columns of the units -----------------------------------------------------------------------------


def _of_units(
    columns: Mapping[str, np.ndarray], given: Mapping[str, str], rows: np.ndarray, count: int, notes: list[str]
) -> dict[str, np.ndarray]:
    """Columns of spikes that have one value per unit, as columns of the units; others get a note."""
    out = {}
    first = np.zeros(count, np.int64)
    first[rows[::-1]] = np.arange(len(rows))[::-1]
    for name, values in columns.items():
        if len(values) == len(rows) and ((values == values[first][rows]) | (values != values)).all():
            out[name] = values[first]
    left = [k for k in columns if k not in out and k not in given.values()]
    if left:
        notes.append(f"columns left out, since they have no one value per unit: {', '.join(left)}")
    return out


def _columns(
    path: Path, found: Mapping[str, Any], given: Mapping[str, str], count: int, notes: list[str]
) -> dict[str, np.ndarray]:
    out = {}
    for name, values in found.items():
        array = as_array(values)
        if array is not None and np.atleast_1d(array).shape == (count,):
            out[name] = np.atleast_1d(array)
        elif name in given:
            shape = "cells of different kinds" if array is None else f"shape {array.shape}"
            raise RecordingError(f"{path}: '{given[name]}' has {shape}; expected one value for each of {count} units")
        else:
            notes.append(f"column '{name}' was left out: it has not one value per unit")
    return {k: v for k, v in out.items() if k != "id"}
