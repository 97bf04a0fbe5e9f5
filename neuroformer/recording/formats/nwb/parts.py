"""What all parts of the NWB reader share: the open file, paths, clocks, scaled values, plain columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats.hdf5 import reason
from neuroformer.recording.formats.npz import UNREADABLE
from neuroformer.recording.formats.nwb.files import is_zarr
from neuroformer.recording.frames import H5Frames, LazyFrames, ZarrFrames
from neuroformer.recording.remote import is_remote, stem

# the scratch entry of neuroformer.recording.formats.nwb.writer: what NWB has no place for
OWN = "neuroformer"
_GROUPS = ("processing", "acquisition", "stimulus", "stimulus_template", "analysis", "scratch", "intervals")


class OpenFile:
    """One open file, the notes on what was left out of it, and the images that were opened in it."""

    def __init__(self, nwbfile: Any, path: str | Path):
        self.file, self.path = nwbfile, path
        self.stem = stem(str(path)) if is_remote(path) else Path(path).stem
        self.notes: list[str] = []
        self.glance = False  # count spikes, and look at the beginning of long series
        self.banks: dict[int, Any] = {}  # by the identity of what holds them
        self.seen: set[int] = set()  # identities of what was read, or has a note of its own
        self.objects = list(nwbfile.objects.values())
        scratch = nwbfile.scratch.get(OWN) if nwbfile.scratch else None
        self.own: dict[str, Any] = json.loads(_text(scratch.data)) if scratch is not None else {}

    def images(self, datasets: Any) -> LazyFrames:
        """The images of a dataset (images, height, width), or of a list of datasets with one image each, read lazily."""
        one, names = datasets, getattr(datasets, "name", None)
        if names is None:
            one, names = datasets[0], [d.name for d in datasets]
        if is_zarr(self.path):
            return ZarrFrames(self.path, names)
        return H5Frames(self.path if is_remote(self.path) else one.file.filename, names)

    @contextmanager
    def leaving_out(self, name: str) -> Iterator[None]:
        """Whatever cannot be read within the block gets a note; the rest of the file is of use without it."""
        try:
            yield
        except Exception as e:
            if not is_unreadable(e):
                raise
            self.notes.append(f"{name} was left out: {reason(e)}")

    def of_type(self, *names: str) -> list[Any]:
        """Objects of an NWB type or of one derived from it, in the order of their places in the file."""
        found = [o for o in self.objects if any(c.__name__ in names for c in type(o).__mro__)]
        return sorted(found, key=place)


def is_unreadable(error: Exception) -> bool:
    """Whether an error says something about the file, and not about this program."""
    return isinstance(error, UNREADABLE) or type(error).__module__.startswith(
        ("hdmf", "pynwb", "h5py", "zarr", "numcodecs")
    )


def _text(value: Any) -> str:
    value = value[()] if hasattr(value, "shape") else value
    return value.decode() if isinstance(value, bytes) else str(value)


def place(obj: Any) -> str:
    """The path of an object in its file: ``processing/behavior/Position/head``."""
    parts, top = [], obj
    while obj is not None and type(obj).__name__ != "NWBFile":
        parts.append(obj.name)
        top, obj = obj, obj.parent
    for group in _GROUPS:
        if getattr(obj, group, None) is not None and getattr(obj, group).get(top.name) is top:
            parts.append(group)
            break
    return "/".join(reversed(parts))


def oriented(values: Any, series: Any, columns: int | None = None) -> tuple[Any, bool]:
    """(samples, columns) of a series' data, and whether they were stored the other way round.

    They were where the times, or the known number of ``columns``, fit only so.
    """
    if values.ndim != 2 or values.shape[0] == values.shape[1]:
        return values, False
    count = None if series.timestamps is None else len(series.timestamps)
    turned = values.shape[1] == count if count is not None else columns is not None and values.shape[0] == columns
    fits = values.shape[0] == count if count is not None else columns is not None and values.shape[1] == columns
    return (values.T, True) if turned and not fits else (values, False)


def sample_times(series: Any, count: int, first: int | None = None) -> np.ndarray:
    """(count,) seconds of a TimeSeries, from its timestamps (the ``first`` of them, if given), in their own type of
    numbers, or its rate."""
    if series.timestamps is not None:
        return np.asarray(series.timestamps[:first])
    if not series.rate or not np.isfinite(series.rate):
        return np.zeros(0)
    return float(series.starting_time or 0.0) + np.arange(count) / float(series.rate)


def scaled(series: Any, values: Any = None) -> np.ndarray | None:
    """data * conversion + offset of a TimeSeries; None where the data are not numbers."""
    values = np.asarray(series.data[:] if values is None else values)
    if values.dtype.kind not in "fiub":
        return None
    conversion, offset = float(series.conversion or 1.0), float(getattr(series, "offset", 0.0) or 0.0)
    if (conversion, offset) == (1.0, 0.0) or values.dtype.kind == "b":
        return values
    return values.astype(np.float64) * conversion + offset


def simple_columns(table: Any, skip: Sequence[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns of a DynamicTable with one value (or one fixed row) a row, and the names of all others."""
    out, left = {}, []
    for name in table.colnames:
        if name in skip:
            continue
        try:
            values = _simple_column(table[name])
        except Exception as e:
            if not is_unreadable(e):
                raise
            values, name = None, f"{name} ({reason(e)})"
        if values is None or len(values) != len(table.id):
            left.append(name)
        else:
            out[name] = values
    return out, left


def _simple_column(column: Any) -> np.ndarray | None:
    kind = type(column).__name__
    if kind == "EnumData":
        return clean.plain(column.elements[:])[np.asarray(column.data[:])]
    if kind != "VectorData" or not hasattr(column.data, "__getitem__"):
        return None
    values = np.asarray(column.data[:])
    objects = values.dtype.kind == "O" and not all(isinstance(v, (str, bytes)) for v in values.ravel())
    return None if objects or values.dtype.kind not in "OSUfiub" else clean.plain(values)
