"""Recordings larger than memory: a folder of .npy files, sorted by time and opened without being read.

::

    NAME/
      recording.json                     names, meta, and for each array its shape, dtype and checksums
      spike_times.npy  spike_units.npy   sorted by time, validated when they were written
      frames.npy  frames_times.npy  ...  traces, behavior, tables: one .npy an array

Everything is memory-mapped. Each file has a checksum a megabyte; opening compares sizes, headers and a few
of those pieces, ``verify=True`` compares all. The spikes were validated when the folder was written, so opening does
not check them again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.files import replacing
from neuroformer.recording.formats.npz import UNREADABLE
from neuroformer.recording.recording import (
    BehaviorVariable,
    FrameSeries,
    ObservedIntervals,
    Recording,
    RecordingError,
    Traces,
)
from neuroformer.recording.validation import CheckedSpikes

MANIFEST = "recording.json"
_FORMAT = "neuroformer recording"
_PIECE = 1 << 20  # bytes a checksum covers
_SAMPLES = 16  # pieces compared when a file is opened


def is_store(folder: Path) -> bool:
    """Whether a folder is in this layout."""
    return (folder / MANIFEST).is_file()


def write_store(rec: Recording, path: str | Path, overwrite: bool = False) -> Path:
    """Write a recording as a folder; :func:`read_store` gives the same recording back.

    Spikes and lazy frames are copied in pieces, so neither has to fit into memory.

    Raises
    ------
    RecordingError
        The folder exists (and ``overwrite`` is not set, or it is something else), or a column holds
        Python objects.
    """
    path = Path(path)
    if path.exists() and not (overwrite and is_store(path)):
        raise RecordingError(f"{path} exists; choose another name, or overwrite=True for a recording's folder")
    with replacing(path) as part:
        _write(rec, part)
    return path


def _write(rec: Recording, folder: Path) -> None:
    folder.mkdir()
    names: dict[str, str] = {}
    manifest: dict[str, Any] = {"format": _FORMAT, "version": 1, "name": rec.name, "meta": dict(rec.meta)}
    manifest |= {"names": names, "arrays": {}, "behavior": {}, "unit_spikes": rec.unit_spikes().tolist()}
    for key, values, label in _parts(rec, manifest):
        manifest["arrays"][key] = write_array(folder, key, values)
        if label is not None:
            names[key] = label
    (folder / MANIFEST).write_text(json.dumps(manifest))


def read_store(path: str | Path, verify: bool = False) -> Recording:
    """Open a folder of :func:`write_store` without reading it.

    Parameters
    ----------
    verify : compare every checksum, which reads everything once

    Raises
    ------
    RecordingError
        A file is missing, damaged, or not the one that the manifest describes.
    """
    path = Path(path)
    manifest = _manifest(path)
    try:
        arrays = {k: open_array(path, k, entry, verify) for k, entry in manifest["arrays"].items()}
        return _recording(manifest, arrays)
    except UNREADABLE as e:
        if isinstance(e, RecordingError):
            raise
        raise RecordingError(f"{path}: {MANIFEST} does not fit its files: {type(e).__name__}: {e}") from None


# -- one checked array --------------------------------------------------------------------------------


def write_array(folder: Path, key: str, values: Any) -> dict[str, Any]:
    """Write ``FOLDER/KEY.npy`` in pieces; the entry that :func:`open_array` checks it by."""
    dtype = np.dtype(values.dtype)
    if dtype.hasobject:
        raise RecordingError(f"'{key}' holds Python objects; store plain numbers or strings")
    shape = tuple(int(n) for n in values.shape)
    file = folder / f"{key}.npy"
    with open(file, "wb") as f:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(f, header)
        if not shape:
            f.write(np.asarray(values).tobytes())
        else:
            rows = max(1, (1 << 24) // max(1, int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize))
            for start in range(0, shape[0], rows):
                f.write(np.ascontiguousarray(values[start : start + rows]).tobytes())
    return entry_of(file, shape, dtype)


def entry_of(file: Path, shape: Iterable[int], dtype: np.dtype) -> dict[str, Any]:
    """Shape, dtype and checksums of a .npy file that is there."""
    with open(file, "rb") as f:
        crc = [zlib.crc32(piece) for piece in iter(lambda: f.read(_PIECE), b"")]
    return {"shape": list(shape), "dtype": np.lib.format.dtype_to_descr(dtype), "crc": crc}


def open_array(folder: Path, key: str, entry: Mapping[str, Any], verify: bool = False) -> np.ndarray:
    """Memory-map ``FOLDER/KEY.npy`` if it is what its entry says.

    Raises
    ------
    RecordingError
        It is missing, of another size, shape or dtype, or a checksum differs.
    """
    if Path(key).name != key:
        raise RecordingError(f"{folder}: '{key}' is no name of an array")
    file = folder / f"{key}.npy"
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise RecordingError(f"{file} is missing; the recording's folder was not copied whole") from None
    except UNREADABLE as e:
        if not (file.stat().st_size and 0 in entry["shape"]):
            raise RecordingError(f"{file} is damaged: {e}") from None
        array = np.load(file, allow_pickle=False)  # an empty array cannot be mapped
    crc = entry["crc"]
    expected = (tuple(entry["shape"]), np.dtype(_descr(entry["dtype"])))
    if (array.shape, array.dtype) != expected:
        raise RecordingError(f"{file} holds {array.dtype} {array.shape}; the manifest says {expected}")
    if not verify and len(crc) > 4 * _SAMPLES:
        pieces = np.unique(np.linspace(0, len(crc) - 1, _SAMPLES).astype(int)).tolist()
    else:
        pieces = range(len(crc))
    size = file.stat().st_size
    with open(file, "rb") as f:
        for i in pieces:
            f.seek(i * _PIECE)
            if zlib.crc32(f.read(_PIECE)) != crc[i] or not (len(crc) - 1) * _PIECE < size <= len(crc) * _PIECE:
                raise RecordingError(f"{file} was changed or damaged since it was written (piece {i})")
    return array


def _descr(value: Any) -> Any:
    return [tuple(v) for v in value] if isinstance(value, list) else value


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError, RecursionError) as e:
        raise RecordingError(f"{path / MANIFEST} cannot be read: {e}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise RecordingError(f'{path / MANIFEST} is not a recording\'s; expected "format": "{_FORMAT}"')
    if manifest.get("version") != 1:
        raise RecordingError(f"{path} has version {manifest.get('version')}; this neuroformer reads version 1")
    return manifest


# -- between a Recording and its arrays ---------------------------------------------------------------


def _parts(rec: Recording, manifest: dict[str, Any]) -> Iterable[tuple[str, Any, str | None]]:
    """(file, array, name) of everything; names are free text, so files are named otherwise."""
    yield "spike_times", rec.spike_times, None
    yield "spike_units", rec.spike_units, None
    yield "domain", rec.domain, None
    if rec.observed is not None:
        yield "observed_intervals", rec.observed.intervals, None
        yield "observed_units", rec.observed.units, None
    for i, (name, values) in enumerate(rec.units.items()):
        yield f"units_{i}", values, name
    for i, (name, values) in enumerate(rec.trials.items()):
        yield f"trials_{i}", values, name
    for i, (name, values) in enumerate(rec.truth.items()):
        yield f"truth_{i}", np.asarray(values), name
    for i, (table, columns) in enumerate(rec.intervals.items()):
        for j, (name, values) in enumerate(columns.items()):
            yield f"intervals_{i}_{j}", values, json.dumps([table, name])
    for i, (name, var) in enumerate(rec.behavior.items()):
        manifest["behavior"][f"behavior_{i}"] = {"name": name, "unit": var.unit, "columns": list(var.columns)}
        yield f"behavior_{i}_times", var.times, None
        yield f"behavior_{i}_values", var.values, None
    if rec.traces is not None:
        manifest["traces_unit"] = rec.traces.unit
        yield "traces_times", rec.traces.times, None
        yield "traces", rec.traces.values, None
    if rec.frames is not None:
        yield "frames_times", rec.frames.times, None
        yield "frames_index", rec.frames.index, None
        yield "frames", rec.frames.images, None


def _recording(manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Recording:
    names = manifest["names"]
    of = lambda prefix: {names[k]: v for k, v in arrays.items() if k.startswith(prefix) and k in names}
    intervals: dict[str, dict[str, np.ndarray]] = {}
    for label, values in of("intervals_").items():
        table, name = json.loads(label)
        intervals.setdefault(table, {})[name] = values
    behavior = {
        about["name"]: BehaviorVariable(
            arrays[f"{k}_times"], arrays[f"{k}_values"], about["unit"], tuple(about["columns"])
        )
        for k, about in manifest["behavior"].items()
    }
    traces = frames = observed = None
    if "observed_units" in arrays:
        observed = ObservedIntervals(arrays["observed_intervals"], arrays["observed_units"])
    if "traces" in arrays:
        traces = Traces(arrays["traces_times"], arrays["traces"], manifest["traces_unit"])
    if "frames" in arrays:
        frames = FrameSeries(arrays["frames"], arrays["frames_times"], arrays["frames_index"])
    times, units = np.asarray(arrays["spike_times"]), np.asarray(arrays["spike_units"])
    proof = CheckedSpikes(times, units, np.array(manifest["unit_spikes"], dtype=np.int64))
    return Recording(
        name=manifest["name"],
        spike_times=times,
        spike_units=units,
        units=of("units_"),
        domain=arrays["domain"],
        trials=of("trials_"),
        frames=frames,
        behavior=behavior,
        truth=of("truth_"),
        meta=manifest["meta"],
        traces=traces,
        intervals=intervals,
        observed=observed,
        checked_spikes=proof,
    )
