"""torch_brain / brainsets HDF5 files, read; :mod:`neuroformer.recording.formats.torch_brain_writer` writes them.

Names in a file are the library's: ``spikes`` (``timestamps``, ``unit_index``), ``units`` (``id`` and other
columns), ``domain``, ``train_domain``, ``valid_domain``, ``test_domain``, ``trials`` and other Intervals, and
any RegularTimeSeries or IrregularTimeSeries, whose fields become behavior variables. A series with one
column a unit whose name says calcium, dF/F or traces becomes the traces; without spikes its events are them.
What the library has no place for (meta, column names, units of measure) is JSON in ``neuroformer/json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.calcium import spikes_from_traces
from neuroformer.recording.formats import spike_index
from neuroformer.recording.formats.hdf5 import check_links, look_first, reason, use_plugins
from neuroformer.recording.formats.npz import UNREADABLE
from neuroformer.recording.frames import H5Frames
from neuroformer.recording.names import natural
from neuroformer.recording.recording import (
    BehaviorVariable,
    FrameSeries,
    ObservedIntervals,
    Recording,
    RecordingError,
    Traces,
)
from neuroformer.recording.validation import CheckedSpikes
from neuroformer.recording.wanted import TRACES, Wanted

_SERIES = ("IrregularTimeSeries", "RegularTimeSeries")
_CALCIUM = ("calcium", "df_over_f", "dff", "fluorescence", "traces")
_TIME_KEYS = ("timestamps", "timestamp_indices_1s", "domain")


def read_torch_brain(
    path: str | Path, events: str = "auto", check: bool = True, wanted: Wanted | None = None
) -> Recording:
    """Read a torch_brain / brainsets file; its stem is the recording's name.

    Parameters
    ----------
    events : how spikes come from traces where the file has no spikes, see
        :func:`neuroformer.recording.calcium.spikes_from_traces`
    check : let another process look at the file first, so that damage cannot take this one down
    wanted : what is not wanted is not read

    Raises
    ------
    RecordingError
        Not a readable file of that kind, or neither spikes nor traces in it.
    """
    path = Path(path)
    if check:
        look_first(path)
    use_plugins()
    notes: list[str] = []
    check_links(path, notes)
    try:
        with h5py.File(path, "r") as f:
            if "spikes" not in f and _kind(f) != "Data":
                raise RecordingError(
                    f"{path} is HDF5, but not of torch_brain: it has no 'spikes' and no attribute "
                    f"object=Data; it has: {', '.join(f) or 'nothing'}"
                )
            return _read(f, path, events, wanted or Wanted(), notes)
    except RecordingError:
        raise
    except UNREADABLE as e:
        damaged = "; it may be damaged or cut short" if isinstance(e, (OSError, RuntimeError, EOFError)) else ""
        damaged = "" if "hdf5plugin" in reason(e) else damaged
        raise RecordingError(f"{path} cannot be read as torch_brain HDF5: {reason(e)}{damaged}") from e


def _read(f: Any, path: Path, events: str, wanted: Wanted, notes: list[str]) -> Recording:
    proof: CheckedSpikes | None = None
    own = json.loads(_texts(f["neuroformer/json"])[0]) if "neuroformer/json" in f else {}
    units = _columns(f["units"], notes) if "units" in f else {}
    behavior, traces, sources = _series(f, own, len(units.get("id", ())), wanted, notes)
    if "spikes" in f:
        missing = [k for k in ("timestamps", "unit_index") if k not in f["spikes"]]
        if missing:
            raise RecordingError(f"{path}: spikes lack {', '.join(missing)}; they have: {', '.join(f['spikes'])}")
        times, index = f["spikes/timestamps"], f["spikes/unit_index"]
        if times.shape != index.shape or times.ndim != 1 or index.dtype.kind not in "iu":
            raise RecordingError(
                f"{path}: spikes/timestamps has shape {times.shape}, spikes/unit_index {index.shape} of "
                f"{index.dtype}; expected one whole number per spike"
            )
        if len(times) > spike_index.LARGE and "id" in units:
            pieces = spike_index.in_pairs(times, index)
            times, index, proof = spike_index.indexed_spikes(path, pieces, len(units["id"]), notes)
        else:
            times, index = clean.spikes(times[:], index[:], notes)
            if "id" not in units:
                units["id"] = np.arange(clean.count_units(index))
    elif traces is not None:
        times, index = spikes_from_traces(traces, notes, method=events)
        units.setdefault("id", np.arange(traces.values.shape[1]))
    else:
        raise RecordingError(f"{path} has neither 'spikes' nor calcium traces; it has: {', '.join(f) or 'nothing'}")
    if own.get("integer_ids"):  # files of earlier versions say only that
        units["id"] = units["id"].astype(own.get("id_type", "int64"))
    units["id"] = clean.distinct_ids(units["id"], notes)
    tables = _tables(f, own, notes)
    trials = clean.table("trials", tables.pop("trials"), notes, disjoint=True) if "trials" in tables else {}
    domain = tables.pop("domain", None)
    intervals = (
        clean.span(times[[0, -1]] if len(times) else times)
        if domain is None
        else np.stack([domain["start"], domain["stop"]], 1)
    )
    meta = dict(own["meta"]) if own else {"format": "torch_brain", "sources": sources, **_ids(f)}
    if not own:
        _note_the_rest(f, notes)
    if notes:
        meta["notes"] = [*meta.get("notes", ()), *notes]
    return Recording(
        name=own.get("name", path.stem),
        spike_times=times,
        spike_units=index,
        units=units,
        domain=intervals if own else clean.union(intervals),
        trials=trials or {},
        frames=_frames(f, path, own),
        behavior=behavior,
        traces=traces,
        meta=meta,
        truth=_truth(f, own),
        checked_spikes=proof,
        observed=_observed(f) if own.get("observed") else None,
        intervals={k: t for k, v in tables.items() if (t := clean.table(k, v, notes, disjoint=False))},
    )


def _series(f: Any, own: dict, num_units: int, wanted: Wanted, notes: list[str]):
    """Behavior variables, traces, and where each variable lies."""
    found = [(p, g) for p, g in _groups(f) if _kind(g) in _SERIES and p[0] not in ("spikes", "frames")]
    fields = []
    for parts, group in found:
        keys = [k for k in group if k not in _TIME_KEYS and k not in _time_keys(group)]
        generic = len(keys) == 1 and keys[0] in ("values", "value", "data")
        # 'cursor.pos' and 'cursor.vel' belong together, and 'pos' alone would say little
        fields += [((*parts,) if generic else (*parts, k), group, k, len(keys) > 1) for k in keys]
    paths = [(*p[:-2], "_".join(p[-2:])) if several else p for p, _, _, several in fields]
    behavior: dict[str, BehaviorVariable] = {}
    sources: dict[str, str] = {}
    traces: Traces | None = None
    for name, (parts, group, key, _) in zip(clean.short_names(paths), fields, strict=True):
        mine = own.get("behavior", {}).get(parts[0], {})
        name = mine.get("name", name)
        if group[key].ndim not in (1, 2):
            notes.append(f"{name} was left out: shape {group[key].shape}; expected (samples,) or (samples, columns)")
            continue
        calcium = parts[0] == "calcium_traces" if own else any(w in "_".join(parts).lower() for w in _CALCIUM)
        calcium = calcium and traces is None and num_units in (0, *(group[key].shape if group[key].ndim == 2 else (1,)))
        needed = calcium and "spikes" not in f  # its events are the spikes
        if not needed and not wanted(TRACES if calcium else name):
            continue
        try:
            asked = needed or mine or wanted.names(TRACES if calcium else name)
            rate = 0.0 if asked else _channel_rate(group, group[key])
            if rate:
                notes.append(clean.of_a_recorder(name, group[key].shape, rate, "its name in recording.only"))
                continue
            values, about = group[key][:], (mine.get("unit", ""), mine.get("columns", ()))
            var = clean.variable(name, _times(group, len(values)), values, notes, *about)
        except UNREADABLE as e:
            if needed:
                raise
            notes.append(f"{name} was left out: {reason(e)}")
            continue
        if var is None:
            continue
        if calcium and num_units in (0, var.num_columns):
            traces = Traces(var.times, var.values, own.get("traces_unit", ""))
        else:
            behavior[name], sources[name] = var, "/".join([*parts, key] if parts[-1] != key else parts)
    return behavior, traces, sources


def _channel_rate(group: Any, values: Any) -> float:
    """Samples a second of a series that is a recorder's channel; 0 for any other."""
    if "timestamps" not in group:
        return clean.channel_rate(values.shape, float(group.attrs.get("sampling_rate", 0.0)))
    times = group["timestamps"]
    span = float(times[-1]) - float(times[0]) if len(times) > 1 else 0.0
    return clean.channel_rate(values.shape, (len(times) - 1) / span if span > 0 else 0.0)


def _groups(f: Any, parts: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key in f:
        value = f[key]
        if hasattr(value, "keys"):
            if _kind(value) == "Data" and key not in ("truth", "neuroformer"):
                yield from _groups(value, (*parts, key))
            else:
                yield (*parts, key), value


def _times(group: Any, count: int) -> np.ndarray:
    if "timestamps" in group:
        return group["timestamps"][:]
    rate = float(group.attrs.get("sampling_rate", np.nan))
    start = group["domain/start"][:] if "domain/start" in group else np.zeros(1)
    if not 0 < rate < np.inf or len(start) == 0:
        return np.zeros(0)
    return float(start[0]) + np.arange(count) / rate


def _tables(f: Any, own: dict, notes: list[str]) -> dict[str, dict[str, np.ndarray]]:
    mine = own.get("intervals", {})
    found = [(p, g) for p, g in _groups(f) if _kind(g) == "Interval" or p[0] in mine]
    out = {}
    for name, (parts, group) in zip(clean.short_names([p for p, _ in found]), found, strict=True):
        columns = _columns(group, notes)
        if "start" not in columns or "end" not in columns:
            notes.append(f"intervals {name} were left out: they need start and end")
            continue
        names = own.get("columns", {}).get(parts[0], {})
        columns["stop"] = columns.pop("end")
        out[mine.get(parts[0], name)] = {names.get(k, k): v for k, v in columns.items()}
    return out


def _note_the_rest(f: Any, notes: list[str]) -> None:
    """Name the groups that no part of a recording was made of."""
    read = (*_SERIES, "Interval")
    left = [
        "/".join(parts)
        for parts, group in _groups(f)
        if parts[0] not in ("spikes", "units") and (_kind(group) not in read or parts[0] == "frames")
    ]
    left += [name for name, item in f.items() if isinstance(item, h5py.Dataset)]
    if left:
        notes.append(f"not read, since no part of a recording holds it: {', '.join(sorted(left, key=natural))}")


def _observed(f: Any) -> ObservedIntervals:
    group = f["observed"]
    return ObservedIntervals(np.stack([group["start"][:], group["end"][:]], 1), group["unit_index"][:])


def _frames(f: Any, path: Path, own: dict) -> FrameSeries | None:
    if not own or "frame_images" not in f:
        return None
    images = H5Frames(path, "frame_images/images")
    return FrameSeries(images, f["frames/timestamps"][:], f["frames/image_index"][:])


def _truth(f: Any, own: dict) -> dict[str, np.ndarray]:
    if not own or "truth" not in f:
        return {}
    arrays = {k: f["truth"][k][:] for k in own["truth"]}
    return {own["truth"][k]: v[0] if k in own["scalars"] else v for k, v in arrays.items()}


def _columns(group: Any, notes: list[str]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for key, values in group.items():
        try:
            if hasattr(values, "shape") and values.ndim:
                out[key] = clean.plain(values[:])
        except UNREADABLE as e:
            notes.append(f"{group.name.strip('/')}/{key} was left out: {reason(e)}")
    return out


def _kind(group: Any) -> str:
    kind = group.attrs.get("object", "")
    return kind.decode() if isinstance(kind, bytes) else str(kind)


def _time_keys(group: Any) -> list[str]:
    return [str(k) for k in clean.plain(group.attrs.get("timekeys", np.array([], dtype="S")))]


def _ids(f: Any) -> dict[str, str]:
    names = [k for k in ("brainset", "session", "subject") if k in f and "id" in f[k].attrs]
    return {k: str(f[k].attrs["id"]) for k in names}


def _texts(dataset: Any) -> list[str]:
    return [str(v) for v in clean.plain(dataset[:])]
