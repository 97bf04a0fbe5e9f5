"""pynapple's own ``.npz`` files, one an object, and folders of them; read without pynapple, and without its pickles being run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats.hdf5 import reason
from neuroformer.recording.formats.npz import UNREADABLE, load_arrays, names_in
from neuroformer.recording.formats.pynapple import UNIT_ID, Objects, touching
from neuroformer.recording.recording import Recording, RecordingError

_OWN = {"type", "t", "d", "index", "keys", "start", "end", "columns", "rate", "_metadata"}


def is_pynapple(path: Path) -> bool:
    """Whether a ``.npz`` file, or one in a folder, is of pynapple."""
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    return any({"type", "start", "end"} <= set(names_in(file)) for file in files)


def read_pynapple(path: str | Path, units: str | None = None) -> Recording:
    """Read the ``.npz`` of a TsGroup, or a folder with it and others: each file is an object of the file's name.

    Tsd and TsdFrame become behavior variables, IntervalSet intervals (``trials`` and ``domain`` by these names), a TsdTensor of
    images the frames. Without ``domain`` it is the time support of the spikes.

    Parameters
    ----------
    units : name of the file with the TsGroup, where there are several

    Raises
    ------
    RecordingError
        No TsGroup, several without ``units``, or damaged files.
    """
    path = Path(path)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    found = Objects()
    objects: dict[str, dict[str, Any]] = {}
    for file in files:
        try:
            objects[file.stem] = load_arrays(file, objects=True)
        except RecordingError as e:
            if len(files) == 1:
                raise
            found.notes.append(f"{file.name} was left out: {e}")
    kinds = {name: _kind(arrays) for name, arrays in objects.items()}
    groups = [name for name, kind in kinds.items() if kind == "TsGroup"]
    chosen = units or next((k for k in ("units", "spikes") if k in groups), groups[0] if len(groups) == 1 else "")
    if chosen not in groups:
        told = ", ".join(f"{name} ({kind or 'not of pynapple'})" for name, kind in kinds.items())
        raise RecordingError(
            f"{path}: expected one TsGroup of spikes (units: NAME picks one); got: {told or 'nothing'}"
            + "".join(f"; {note}" for note in found.notes)
        )
    for name, arrays in objects.items():
        try:
            if name != chosen:
                _add(found, name, kinds[name], arrays)
        except UNREADABLE as e:
            found.notes.append(f"{name} was left out: {e if isinstance(e, RecordingError) else reason(e)}")
    try:
        spikes = _units(objects[chosen], found.notes)
        return found.recording(path.resolve().stem, *spikes, _span(objects[chosen]))
    except RecordingError:
        raise
    except UNREADABLE as e:
        raise RecordingError(f"{path} does not hold what pynapple writes: {type(e).__name__}: {e}") from None


def _kind(arrays: dict[str, Any]) -> str:
    kind = np.ravel(np.asarray(arrays.get("type", "")))
    return str(kind[0]) if len(kind) else ""


def _span(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    start, stop = (np.asarray(arrays[k], np.float64).reshape(-1) for k in ("start", "end"))
    if start.shape != stop.shape:
        raise RecordingError(f"an interval set has {len(start)} starts and {len(stop)} ends")
    return {"start": start, "stop": touching(start, stop)}


def _metadata(arrays: dict[str, Any], count: int) -> dict[str, np.ndarray]:
    """Columns of units or intervals: a dictionary, or in files of older versions arrays of their own."""
    own = np.asarray(arrays.get("_metadata", {}), object).reshape(-1)[:1]
    found = {k: v for k, v in arrays.items() if k not in _OWN}
    found |= own[0] if len(own) and isinstance(own[0], dict) else {}
    columns = {str(k): clean.plain(v) for k, v in found.items() if k != "rate"}
    return {k: v for k, v in columns.items() if v.ndim >= 1 and len(v) == count}


def _add(found: Objects, name: str, kind: str, arrays: dict[str, Any]) -> None:
    if kind == "IntervalSet":
        span = _span(arrays)
        found.add_intervals(name, {**span, **_metadata(arrays, len(span["start"]))})
    elif kind in ("Tsd", "TsdFrame"):
        found.add_series(name, np.asarray(arrays["t"]), np.asarray(arrays["d"]), arrays.get("columns", ()))
    elif kind == "TsdTensor" and np.ndim(arrays["d"]) == 3:
        found.add_images(name, np.asarray(arrays["t"]), np.asarray(arrays["d"]))
    else:
        found.notes.append(f"{name} ({kind or 'not of pynapple'}) was left out")


def _units(arrays: dict[str, Any], notes: list[str]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    keys = np.asarray(arrays["keys"]).reshape(-1)
    times, index = (np.asarray(arrays[k]) for k in ("t", "index"))
    order = np.argsort(keys, kind="stable")
    place = np.searchsorted(keys[order], index).clip(0, max(len(keys) - 1, 0))
    if times.shape != index.shape or times.ndim != 1 or (len(index) and not (keys[order][place] == index).all()):
        raise RecordingError(
            f"a TsGroup has times {times.shape} of units {index.shape} that are not all among its keys"
        )
    columns = _metadata(arrays, len(keys))
    ids = columns.pop(UNIT_ID, keys)
    return (*clean.spikes(times, order[place], notes), {"id": clean.distinct_ids(ids, notes), **columns})
