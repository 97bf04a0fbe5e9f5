"""Calcium imaging in an NWB file: RoiResponseSeries in DfOverF, Fluorescence or on their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.calcium import spikes_from_traces
from neuroformer.recording.formats.nwb.parts import OpenFile, place, sample_times, scaled, simple_columns
from neuroformer.recording.recording import RecordingError, Traces


@dataclass
class Ophys:
    """Traces of regions of interest, their table, and deconvolved activity if the file has it."""

    name: str
    traces: Traces
    units: dict[str, np.ndarray]
    deconvolved: np.ndarray | None

    def spikes(self, events: str, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Sorted spike times and units, from the deconvolved activity or the traces."""
        return spikes_from_traces(self.traces, notes, method=events, deconvolved=self.deconvolved)


def read_ophys(reader: OpenFile, name: str | None) -> Ophys | None:
    """The RoiResponseSeries called ``name``, else the one that shows activity best; None without any.

    Raises
    ------
    RecordingError
        ``name`` is not in the file.
    """
    series = reader.of_type("RoiResponseSeries")
    names = clean.short_names([place(s).split("/") for s in series])
    deconvolved = [s for s in series if _says(s, "deconv", "spike", "event")]
    if name is not None:
        chosen = next((s for s, n in zip(series, names, strict=True) if name in (n, place(s))), None)
        if chosen is None:
            raise RecordingError(
                f"{reader.path} has no RoiResponseSeries '{name}'; it has: {', '.join(sorted(names)) or 'none'}"
            )
    else:
        chosen = min(series, key=lambda s: _rank(s, s in deconvolved), default=None)
        if chosen is None:
            return None
    label = names[series.index(chosen)]
    left = [n for s, n in zip(series, names, strict=True) if s is not chosen and s not in deconvolved]
    if left:
        reader.notes.append(f"traces are '{label}'; also there: {', '.join(left)} (open with traces='NAME')")
    values = scaled(chosen)
    if values is None:
        raise RecordingError(f"{reader.path}: '{label}' does not hold numbers")
    var = clean.variable("traces", sample_times(chosen, len(values)), values, reader.notes)
    if var is None:
        raise RecordingError(f"{reader.path}: '{label}' holds no samples with times")
    own = reader.own.get("traces_unit")
    unit = own if own is not None else str(chosen.unit or "")
    events = None
    for s in deconvolved:
        if s is not chosen and tuple(np.shape(s.data)) == var.values.shape:
            events = np.asarray(s.data[:], dtype=np.float64)
            break
    traces = Traces(var.times, var.values, unit)
    return _cells_only(reader, Ophys(label, traces, _regions(reader, chosen, var.num_columns), events))


def _rank(series: Any, is_deconvolved: bool) -> tuple:
    """Lower is better: dF/F, then plain fluorescence; neuropil and deconvolved activity last."""
    kind = type(series.parent).__name__
    worth = 3 if _says(series, "neuropil") else 2 if is_deconvolved else 0 if kind == "DfOverF" else 1
    return worth, -int(np.shape(series.data)[-1])


def _says(series: Any, *words: str) -> bool:
    return any(w in series.name.lower() for w in words)


def _regions(reader: OpenFile, series: Any, count: int) -> dict[str, np.ndarray]:
    """The units table of a series: ids and plain columns of its regions, and where their plane lies."""
    region = series.rois
    rows = np.asarray(region.data[:], dtype=np.int64) if region is not None else np.arange(count)
    if len(rows) != count or region is None:
        return {"id": np.arange(count)}
    table = region.table
    columns = {"id": np.asarray(table.id[:])[rows]}
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
    return Ophys(ophys.name, traces, units, events)
