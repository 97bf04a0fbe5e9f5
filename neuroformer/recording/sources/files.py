"""Arrays by name from the files in which behavior is kept: tables, NumPy, MATLAB, HDF5 and pose estimates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats.hdf5 import check_links, look_first, reason
from neuroformer.recording.formats.matlab import flattened, read_matlab
from neuroformer.recording.formats.npz import UNREADABLE, load_arrays, names_in, read_npy
from neuroformer.recording.sources.pose import has_body_parts, read_pose_csv, read_pose_h5, read_sleap
from neuroformer.recording.sources.text import first_rows, read_text
from neuroformer.recording.validation import RecordingError, optional

TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pqt")
ARRAYS = (".npy", ".npz", ".mat", ".h5", ".hdf5")
VALUES = "values"  # what the only array of a .npy file is called


class Arrays(NamedTuple):
    """Arrays of a file, and the names of columns where an array has several."""

    values: dict[str, np.ndarray]
    columns: dict[str, tuple[str, ...]] = {}


def read_arrays(path: str | Path, notes: list[str]) -> Arrays:
    """The arrays of a file by name: columns of a table, arrays of an archive, body parts of a pose table.

    Structures of MATLAB and groups of HDF5 are joined to names by dots. Arrays that are neither numbers nor texts are
    left out with a note.

    Raises
    ------
    RecordingError
        No such file, a kind that is not read here, or damaged content.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if not path.is_file():
        raise RecordingError(f"no file at {path}; expected one of {', '.join(TABLES + ARRAYS)}")
    if suffix in (".csv", ".tsv", ".txt"):
        rows = first_rows(path, 4)
        return Arrays(*read_pose_csv(path, rows, notes)) if has_body_parts(rows) else Arrays(read_text(path))
    if suffix in (".parquet", ".pqt"):
        return Arrays(read_parquet(path))
    if suffix == ".npy":
        return Arrays({VALUES: read_npy(path, mmap=True)})
    if suffix == ".npz":
        return Arrays(_npz(path))
    if suffix == ".mat":
        return Arrays(flattened(read_matlab(path, notes), notes))
    if suffix in (".h5", ".hdf5"):
        look_first(path)
        check_links(path, notes)
        if (pose := read_pose_h5(path, notes)) is not None:
            return Arrays(*pose)
        found = _hdf5(path, notes)
        return Arrays(*read_sleap(path, found, notes)) if {"tracks", "node_names"} <= found.keys() else Arrays(found)
    raise RecordingError(f"{path} is not read beside spikes; expected one of {', '.join(TABLES + ARRAYS)}, or a video")


def array_at(reference: str, notes: list[str]) -> np.ndarray | None:
    """The array that ``FILE`` or ``FILE:NAME`` names; None where that is no file.

    Raises
    ------
    RecordingError
        The file has several arrays and none is named, or none of that name.
    """
    file, name = split_reference(reference)
    if not file:
        return None
    arrays = read_arrays(file, notes).values
    if not name and len(arrays) == 1:
        return next(iter(arrays.values()))
    if name not in arrays:
        asked = f"has no '{name}'" if name else "has several arrays; add ':NAME'"
        raise RecordingError(f"{file} {asked}; it has: {', '.join(arrays) or 'none'}")
    return arrays[name]


def split_reference(reference: str) -> tuple[str, str]:
    """(file, name) of ``FILE`` or ``FILE:NAME``; ("", reference) where it does not end like a file that is read."""
    if Path(reference).suffix.lower() in TABLES + ARRAYS:
        return reference, ""
    file, _, name = reference.rpartition(":")
    return (file, name) if Path(file).suffix.lower() in TABLES + ARRAYS else ("", reference)


def read_parquet(path: Path, lists: bool = False) -> dict[str, Any]:
    """Columns of a Parquet table; with ``lists`` one whose rows are lists is a list of arrays.

    Raises
    ------
    RecordingError
    """
    parquet = optional("pyarrow.parquet", "parquet", "reading Parquet files")
    try:
        table = parquet.read_table(path)
        out: dict[str, Any] = {}
        for name in table.column_names:
            column = table.column(name)
            if lists and "list" in str(column.type):
                kind = column.type.value_type.to_pandas_dtype()  # of single precision stay so: how well times are known
                kind = kind if kind in (np.float16, np.float32) else None
                out[name] = [np.asarray([] if v is None else v, kind) for v in column.to_pylist()]
                continue
            values = column.to_numpy()
            if values.dtype.kind == "M":
                raise RecordingError(f"{path}: '{name}' holds dates; expected seconds")
            out[name] = clean.plain(["" if v is None else v for v in values] if values.dtype.kind == "O" else values)
    except Exception as e:  # pyarrow raises errors of its own
        raise RecordingError(f"{path} is not a readable Parquet table: {e}") from None
    return out


def _npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a ``.npz`` file; of one of pynapple's, its values under the file's name, with their times."""
    if "type" not in names_in(path):
        return load_arrays(path)
    arrays = {k: v for k, v in load_arrays(path, objects=True).items() if isinstance(v, np.ndarray)}
    if "d" in arrays and "t" in arrays:
        return {"t": arrays["t"], path.stem: arrays["d"]}
    return {"start": arrays["start"], "stop": arrays["end"]} if {"start", "end"} <= arrays.keys() else arrays


def _hdf5(path: Path, notes: list[str]) -> dict[str, np.ndarray]:
    """Datasets by their place."""
    import h5py

    out: dict[str, np.ndarray] = {}

    def see(place: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        name = place.replace("/", ".")
        try:
            if item.dtype.kind in "fiubS" or h5py.check_string_dtype(item.dtype):
                out[name] = clean.plain(item[()])
            else:
                notes.append(f"'{name}' is neither numbers nor texts, and was left out")
        except UNREADABLE as e:
            notes.append(f"'{name}' was left out: {reason(e)}")

    try:
        with h5py.File(path, "r") as f:
            f.visititems(see)
    except UNREADABLE as e:
        raise RecordingError(f"{path} is not a readable HDF5 file: {reason(e)}") from None
    return out
