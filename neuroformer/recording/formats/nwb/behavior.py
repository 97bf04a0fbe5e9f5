"""Behavior in an NWB file: every TimeSeries and SpatialSeries that is not raw electrophysiology, imaging or text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats.nwb.parts import OpenFile, oriented, place, sample_times, scaled
from neuroformer.recording.glance import LOOK
from neuroformer.recording.series import BehaviorVariable
from neuroformer.recording.validation import RecordingError
from neuroformer.recording.wanted import Wanted

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
_PLAIN_FIELDS = ("data", "timestamps", "control", "control_description")


def read_behavior(
    reader: OpenFile, wanted: Wanted, analog: Sequence[str]
) -> tuple[dict[str, BehaviorVariable], dict[str, str]]:
    """The wanted variables by name, and the place of each in the file.

    Parameters
    ----------
    analog : names of a recorder's channels that are read as well; so is one that ``wanted.only`` names

    Raises
    ------
    RecordingError
        A name of ``analog`` that no series has.
    """
    skip = {id(o) for o in reader.of_type(*_NOT_BEHAVIOR)}
    found = [o for o in reader.of_type("TimeSeries") if id(o) not in skip and "scratch" not in place(o)]
    out: dict[str, BehaviorVariable] = {}
    sources: dict[str, str] = {}
    names = clean.short_names([place(s).split("/") for s in found])
    for name, series in zip(names, found, strict=True):
        own = reader.own.get("behavior", {}).get(series.name, {})
        name = own.get("name", name)
        reader.seen.add(id(series))
        with reader.leaving_out(name):
            keys = {name: "data", **{f"{name}_{key}": key for key in _beside(series)}}
            keys = {key: what for key, what in keys.items() if wanted(key)}
            asked = not keys or own or name in analog or place(series) in analog or wanted.names(name)
            rate = 0.0 if asked else _fast(series)
            if rate:
                reader.notes.append(clean.of_a_recorder(name, np.shape(series.data), rate, f"analog=['{name}']"))
                continue
            for key, values in _samples(reader, name, series, own, keys).items():
                key = key if own else clean.distinct(key, out)
                out[key], sources[key] = values, place(series)
    unknown = [a for a in analog if a not in {*names, *map(place, found)}]
    if unknown:
        raise RecordingError(f"{reader.path} has no series '{unknown[0]}'; it has: {', '.join(names) or 'none'}")
    return out, sources


def _samples(
    reader: OpenFile, name: str, series: Any, own: dict[str, Any], keys: Mapping[str, str]
) -> dict[str, BehaviorVariable]:
    """The variables of a series by name: its ``data``, and what an extension stores beside them for each sample."""
    out: dict[str, BehaviorVariable] = {}
    count = len(series.data) if np.shape(series.data) else 0
    first = _looked_at(reader, name, series)
    if name in keys:
        data, turned = oriented(np.asarray(series.data[:first]), series)
        if turned:
            reader.notes.append(f"{name} is stored as (columns, samples) {data.T.shape}, and was turned round")
        values = scaled(series, data)
        if values is None:
            reader.notes.append(f"{name} was left out: its data are not numbers")
            return {}
        count, unit = len(values), own.get("unit", str(series.unit or ""))
        columns = own.get("columns") or _column_names(series, values)
        var = clean.variable(name, sample_times(series, count, first), values, reader.notes, unit, columns)
        out |= {} if var is None else {name: var}
    for label, key in keys.items():
        if label == name:
            continue
        more, times, var = series.fields[key], sample_times(series, count, first), None
        if len(more) == (count if first else len(times)):
            var = clean.variable(label, times, np.asarray(more[:first]), reader.notes)
        if var is not None:
            out[label] = var
        else:
            reader.notes.append(f"{name}: its further data '{key}' {tuple(more.shape)} were left out")
    return out


def _looked_at(reader: OpenFile, name: str, series: Any) -> int | None:
    """How many samples of a long series are looked at for a glance; None: all."""
    count = len(series.data) if np.shape(series.data) else 0
    if not reader.glance or count <= LOOK or (series.timestamps is not None and len(series.timestamps) != count):
        return None
    reader.notes.append(f"{name}: the first {LOOK:,} of {count:,} samples were looked at")
    return LOOK


def _column_names(series: Any, values: np.ndarray) -> tuple[str, ...]:
    spatial = any(c.__name__ == "SpatialSeries" for c in type(series).__mro__)
    if spatial and values.ndim == 2 and 1 < values.shape[1] <= 3:
        return ("x", "y", "z")[: values.shape[1]]
    return ()


def _beside(series: Any) -> list[str]:
    """What an extension stores beside the data of a series."""
    return [key for key, more in series.fields.items() if key not in _PLAIN_FIELDS and getattr(more, "shape", None)]


def _fast(series: Any) -> float:
    """Samples a second of a series that is a recorder's channel; 0 for any other."""
    rate = float(series.rate or 0.0)
    if series.timestamps is not None and len(series.timestamps) > 1:
        first, last = (float(series.timestamps[i]) for i in (0, -1))
        rate = (len(series.timestamps) - 1) / (last - first) if last > first else 0.0
    return clean.channel_rate(np.shape(series.data), rate)
