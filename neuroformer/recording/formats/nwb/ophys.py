"""Calcium imaging in an NWB file: RoiResponseSeries in DfOverF, Fluorescence or on their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.calcium import spikes_from_traces
from neuroformer.recording.formats.nwb.parts import OpenFile, oriented, place, sample_times, scaled, simple_columns
from neuroformer.recording.series import Traces
from neuroformer.recording.validation import RecordingError


@dataclass
class Ophys:
    """Traces of regions of interest, their table, and deconvolved activity if the file has it."""

    name: str
    traces: Traces
    units: dict[str, np.ndarray]
    deconvolved: np.ndarray | None
    is_deconvolved: bool = False  # the traces themselves are

    def spikes(self, events: str, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Sorted spike times and units, from the deconvolved activity or the traces."""
        if self.is_deconvolved and events == "oasis":
            raise RecordingError(f"events='oasis' needs fluorescence, and '{self.name}' is deconvolved already")
        return spikes_from_traces(self.traces, notes, method=events, deconvolved=self.deconvolved)


def read_ophys(reader: OpenFile, name: str | None) -> Ophys | None:
    """The RoiResponseSeries called ``name``, else the one that shows activity best; None without any.

    Raises
    ------
    RecordingError
        ``name`` is not in the file, or what is there cannot be read.
    """
    series = reader.of_type("RoiResponseSeries")
    reader.seen |= {id(s) for s in series}
    names = clean.short_names([place(s).split("/") for s in series])
    if name is not None:
        chosen = next((s for s, n in zip(series, names, strict=True) if name in (n, place(s))), None)
        if chosen is None:
            raise RecordingError(
                f"{reader.path} has no RoiResponseSeries '{name}'; it has: {', '.join(sorted(names)) or 'none'}"
            )
    else:
        chosen = min(series, key=_rank, default=None)
        if chosen is None:
            return None
    label = names[series.index(chosen)]
    left = [n for s, n in zip(series, names, strict=True) if s is not chosen and not _is_deconvolved(s)]
    if left:
        reader.notes.append(f"traces are '{label}'; also there: {', '.join(left)} (open with traces='NAME')")
    values = _values(reader, chosen, label)
    var = clean.variable("traces", sample_times(chosen, len(values)), values, reader.notes)
    if var is None:
        raise RecordingError(f"{reader.path}: '{label}' holds no samples with times")
    own = reader.own.get("traces_unit")
    unit = own if own is not None else str(chosen.unit or "")
    traces = Traces(var.times, var.values, unit)
    if _is_deconvolved(chosen):
        reader.notes.append(f"traces '{label}' are deconvolved activity, and there are no others")
        events: np.ndarray | None = np.asarray(var.values, dtype=np.float64)
    else:
        events = _deconvolved(reader, chosen, series, names, var.values.shape)
    regions = _regions(reader, chosen, var.num_columns)
    return _cells_only(reader, Ophys(label, traces, regions, events, _is_deconvolved(chosen)))


def _values(reader: OpenFile, series: Any, label: str) -> np.ndarray:
    """(samples, regions) of a series, whichever way it is stored."""
    known = None if series.rois is None else len(series.rois.data)
    data, turned = oriented(np.asarray(series.data[:]), series, known)
    if turned:
        reader.notes.append(f"'{label}' is stored as (regions, samples) {data.T.shape}, and was turned round")
    values = scaled(series, data[:, None] if data.ndim == 1 else data)
    if values is None or values.ndim != 2:
        raise RecordingError(f"{reader.path}: '{label}' is {data.dtype} of shape {data.shape}; expected numbers")
    return values


def _deconvolved(
    reader: OpenFile, chosen: Any, series: list[Any], names: list[str], shape: tuple[int, ...]
) -> np.ndarray | None:
    """Deconvolved activity of the same regions as the chosen traces, of the same name before others."""
    found = [(s, n) for s, n in zip(series, names, strict=True) if _is_deconvolved(s) and _same_regions(s, chosen)]
    for s, label in sorted(found, key=lambda f: f[0].name != chosen.name):
        with reader.leaving_out(f"deconvolved activity '{label}'"):
            values = _values(reader, s, label)
            if values.shape == shape:
                return np.asarray(values, dtype=np.float64)
            reader.notes.append(f"deconvolved activity '{label}' {values.shape} does not fit the traces {shape}")
    return None


def _same_regions(a: Any, b: Any) -> bool:
    if a.rois is None or b.rois is None:
        return True
    return a.rois.table is b.rois.table and np.array_equal(a.rois.data[:], b.rois.data[:])


def _rank(series: Any) -> tuple:
    """Lower is better: dF/F, then plain fluorescence; neuropil and deconvolved activity last."""
    kind = type(series.parent).__name__
    worth = 3 if _says(series, "neuropil") else 2 if _is_deconvolved(series) else 0 if kind == "DfOverF" else 1
    return worth, -(np.shape(series.data)[-1] if series.rois is None else len(series.rois.data))


def _is_deconvolved(series: Any) -> bool:
    return _says(series, "deconv", "spike", "spks", "event", "inferred")


def _says(series: Any, *words: str) -> bool:
    """Whether one of the words is in the name of the series, of what holds it, or of its type."""
    names = f"{series.name} {getattr(series.parent, 'name', '')} {type(series).__name__}".lower()
    return any(w in names for w in words)


def _regions(reader: OpenFile, series: Any, count: int) -> dict[str, np.ndarray]:
    """The units table of a series: ids and plain columns of its regions, and where their plane lies."""
    region = series.rois
    rows = np.asarray(region.data[:], dtype=np.int64) if region is not None else np.arange(count)
    if len(rows) != count or region is None:
        return {"id": np.arange(count)}
    table = region.table
    columns = {"id": clean.distinct_ids(np.asarray(table.id[:])[rows], reader.notes)}
    found, _ = simple_columns(table, skip=("image_mask", "pixel_mask", "voxel_mask"))
    columns |= {k: v[rows] for k, v in found.items() if k != "id" and (v.ndim == 1 or k.lower() == "iscell")}
    plane = getattr(table, "imaging_plane", None)
    if plane is not None and plane.location and "area" not in columns:
        columns["area"] = np.full(count, str(plane.location))
    return columns


def _cells_only(reader: OpenFile, ophys: Ophys) -> Ophys:
    """Without the regions that the file marks as not a cell."""
    name = next((k for k in ophys.units if k.lower() in ("iscell", "is_cell", "accepted", "valid_roi")), None)
    if name is None:
        return ophys
    flag = ophys.units.pop(name)
    keep = (flag[:, 0] if flag.ndim > 1 else flag).astype(float) > 0
    if keep.all() or not keep.any():
        return ophys
    reader.notes.append(f"{int((~keep).sum())} of {len(keep)} regions are not cells ('{name}') and were left out")
    traces = Traces(ophys.traces.times, ophys.traces.values[:, keep], ophys.traces.unit)
    units = {k: v[keep] for k, v in ophys.units.items()}
    events = None if ophys.deconvolved is None else ophys.deconvolved[:, keep]
    return Ophys(ophys.name, traces, units, events, ophys.is_deconvolved)
