"""torch_brain / brainsets HDF5 files, written: groups that say which class of the library they are.

A class has its arrays as datasets; text is ASCII, and ``_unicode_keys`` names what was text. A time series also has its domain
and, for reading slices, ``timestamp_indices_1s``: the first sample at or after each whole second of the domain.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.files import replacing_hdf5
from neuroformer.recording.clean import distinct, safe_name
from neuroformer.recording.recording import Recording, RecordingError

_OWN_NAMES = {
    "spikes",
    "units",
    "domain",
    "trials",
    "neuroformer",
    "truth",
    "frames",
    "frame_images",
    "calcium_traces",
    "brainset",
    "session",
    "subject",
}
# what the library's classes call their own: an array of that name would hide it
_OF_DATA = {
    "absolute_start",
    "close",
    "end",
    "file",
    "from_hdf5",
    "get_nested_attribute",
    "has_nested_attribute",
    "keys",
    "load",
    "materialize",
    "save",
    "select_by_interval",
    "set_nested_attribute",
    "set_test_domain",
    "set_train_domain",
    "set_valid_domain",
    "slice",
    "start",
    "to_dict",
    "to_hdf5",
}
_OF_INTERVAL = {
    "arange",
    "coalesce",
    "difference",
    "dilate",
    "end",
    "from_dataframe",
    "from_hdf5",
    "from_list",
    "is_disjoint",
    "is_sorted",
    "keys",
    "linspace",
    "materialize",
    "register_timekey",
    "select_by_interval",
    "select_by_mask",
    "slice",
    "sort",
    "split",
    "subdivide",
    "timekeys",
    "timestamps",
    "to_hdf5",
}


def write_torch_brain(rec: Recording, path: str | Path) -> Path:
    """Write a recording as the library's ``Data``; :func:`~neuroformer.recording.formats.torch_brain.read_torch_brain` gives
    the same recording back.

    Raises
    ------
    RecordingError
        A text column is not ASCII, which the format cannot hold.
    """
    own: dict[str, Any] = {"name": rec.name, "meta": dict(rec.meta)}
    own |= {k: {} for k in ("behavior", "intervals", "columns", "truth")}
    own["integer_ids"] = rec.units["id"].dtype.kind in "iuf"
    own["id_type"] = rec.units["id"].dtype.name
    with replacing_hdf5(path) as f:
        _is(f, "Data", absolute_start=0.0)
        _is(f.create_group("session"), "Data", absolute_start=0.0, id=rec.name)
        domain = rec.domain.T
        _interval(f, "domain", {"start": domain[0], "stop": domain[1]}, own)
        _series(f, "spikes", rec.spike_times, {"unit_index": rec.spike_units.astype(np.int64)}, domain)
        _arrays(f, "units", dict(rec.units) | {"id": np.array(rec.unit_ids)})
        _write_tables(f, rec, own)
        _write_series(f, rec, own)
        if rec.truth:
            _write_truth(f, rec.truth, own)
        _arrays(f, "neuroformer", {"json": np.array([json.dumps(own)])})
        if rec.frames is not None:
            _write_bank(f, rec.frames.images)
    return Path(path)


def _write_tables(f: Any, rec: Recording, own: dict[str, Any]) -> None:
    if rec.observed is not None:
        own["observed"] = True
        start, stop = rec.observed.intervals.T
        # units overlap in time, and the library cuts every Interval that it takes a slice of
        _arrays(f, "observed", {"start": start, "end": stop, "unit_index": rec.observed.units.astype(np.int64)})
    if rec.trials:
        _interval(f, "trials", rec.trials, own)
    for name, columns in rec.intervals.items():
        safe = _free(f, name)
        own["intervals"][safe] = name
        _interval(f, safe, columns, own)


def _write_series(f: Any, rec: Recording, own: dict[str, Any]) -> None:
    for name, var in rec.behavior.items():
        safe = _free(f, name)
        own["behavior"][safe] = {"name": name, "unit": var.unit, "columns": list(var.columns)}
        _series(f, safe, var.times, {"values": var.values[:, 0] if var.num_columns == 1 else var.values})
    if rec.traces is not None:
        own["traces_unit"] = rec.traces.unit
        _series(f, "calcium_traces", rec.traces.times, {"df_over_f": rec.traces.values})
    if rec.frames is not None:
        _series(f, "frames", rec.frames.times, {"image_index": rec.frames.index})


def _write_truth(f: Any, truth: Mapping[str, Any], own: dict[str, Any]) -> None:
    texts = [k for k, v in truth.items() if np.asarray(v).dtype.kind == "U"]
    if texts:
        raise RecordingError(f"truth '{texts[0]}' is text, which torch_brain files cannot hold; leave it out")
    own["truth"] = {f"truth_{i}": k for i, k in enumerate(truth)}
    own["scalars"] = [k for k, v in own["truth"].items() if np.asarray(truth[v]).ndim == 0]
    group = f.create_group("truth")
    _is(group, "Data", absolute_start=0.0)
    for key, name in own["truth"].items():  # the library reads arrays of one dimension or more only
        group.create_dataset(key, data=np.atleast_1d(truth[name]))


def _free(f: Any, name: str) -> str:
    """A name for a group that neither the library nor we use."""
    return distinct(safe_name(name), _OF_DATA | _OWN_NAMES | set(f))


def _is(group: Any, kind: str, **attributes: Any) -> None:
    """Say of a group which class of the library it is."""
    group.attrs.update({"object": kind} | attributes)


def _arrays(f: Any, name: str, arrays: Mapping[str, Any], kind: str = "ArrayDict", timekeys: Iterable[str] = ()) -> Any:
    group, texts = f.create_group(name), []
    for key, value in arrays.items():
        value = np.asanyarray(value)
        if value.dtype.kind == "U":
            texts.append(key)
            try:
                value = value.astype("S")
            except UnicodeEncodeError:
                raise RecordingError(
                    f"the recording cannot be written for torch_brain: '{key}' of '{name}' has letters beyond ASCII, which the "
                    "format cannot hold"
                ) from None
        group.create_dataset(key, data=value)
    _is(group, kind, _unicode_keys=np.array(texts, dtype="S"))
    if timekeys:
        group.attrs["timekeys"] = np.array(list(timekeys), dtype="S")
    return group


def _series(f: Any, name: str, times: np.ndarray, arrays: Mapping[str, Any], domain: Any = None) -> None:
    """An IrregularTimeSeries; its domain is from the first to the last sample, or (2, N) starts and ends."""
    group = _arrays(f, name, {"timestamps": times} | dict(arrays), "IrregularTimeSeries", ("timestamps",))
    start, end = (times[:1], times[-1:]) if domain is None else domain
    _arrays(group, "domain", {"start": start, "end": end}, "Interval", ("start", "end"))
    seconds = np.arange(start[0], end[-1] + 1.0, 1.0) if len(start) else np.zeros(0)
    group.create_dataset("timestamp_indices_1s", data=np.searchsorted(times, seconds))


def _interval(f: Any, name: str, columns: Mapping[str, Any], own: dict[str, Any]) -> None:
    names: dict[str, str] = {}
    for k in columns:
        if k not in ("start", "stop"):
            names[distinct(safe_name(k), _OF_INTERVAL | set(names))] = k
    own["columns"][name] = names
    start, end = (np.asarray(columns[k], dtype=np.float64) for k in ("start", "stop"))
    arrays = {"start": start, "end": end} | {safe: columns[k] for safe, k in names.items()}
    if (start[1:] < end[:-1]).any():
        # the library cuts every Interval when it takes a slice, and overlapping ones stop it there
        _arrays(f, name, arrays)
    else:
        _arrays(f, name, arrays, "Interval", ("start", "end"))


def _write_bank(f: Any, images: Any) -> None:
    """The images as an ArrayDict, but in pieces, so that lazy frames stay lazy."""
    group = _arrays(f, "frame_images", {})
    shape = tuple(images.shape)
    out = group.create_dataset("images", shape, dtype=np.dtype(images.dtype))
    rows = max(1, (1 << 24) // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], rows):
        out[start : start + rows] = images[start : start + rows]
