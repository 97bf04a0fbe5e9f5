"""Arrays by name from the files in which behavior is kept: tables, NumPy, MATLAB, HDF5 and pose estimates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats.hdf5 import check_links, look_first, reason
from neuroformer.recording.formats.npz import UNREADABLE, load_arrays, read_npy
from neuroformer.recording.sources.pose import has_body_parts, read_pose_csv, read_sleap
from neuroformer.recording.sources.text import first_rows, read_text
from neuroformer.recording.validation import RecordingError

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
        return Arrays(_parquet(path))
    if suffix == ".npy":
        return Arrays({VALUES: read_npy(path, mmap=True)})
    if suffix == ".npz":
        return Arrays(load_arrays(path))
    if suffix == ".mat" and not _is_hdf5(path):
        return Arrays(_matlab(path, notes))
    if suffix in (".mat", ".h5", ".hdf5"):
        found = _hdf5(path, notes)
        if suffix != ".mat" and {"tracks", "node_names"} <= found.keys():
            return Arrays(*read_sleap(path, found, notes))
        return Arrays(found)
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


def _parquet(path: Path) -> dict[str, np.ndarray]:
    parquet = clean.optional("pyarrow.parquet", "parquet", "reading Parquet files")
    try:
        table = parquet.read_table(path)
        out = {}
        for name in table.column_names:
            values = table.column(name).to_numpy()
            if values.dtype.kind == "M":
                raise RecordingError(f"{path}: '{name}' holds dates; expected seconds")
            out[name] = clean.plain(["" if v is None else v for v in values] if values.dtype.kind == "O" else values)
    except Exception as e:  # pyarrow raises errors of its own
        raise RecordingError(f"{path} is not a readable Parquet table: {e}") from None
    return out


def _is_hdf5(path: Path) -> bool:
    """Whether a .mat file is of version 7.3; it begins with a text of 512 bytes."""
    with open(path, "rb") as f:
        head = f.read(520)
    return b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520])


def _matlab(path: Path, notes: list[str]) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    try:
        content = loadmat(path, simplify_cells=True)
    except (*UNREADABLE, NotImplementedError, ArithmeticError, AssertionError) as e:
        raise RecordingError(f"{path} is not a readable MATLAB file: {e}") from None
    except Exception as e:
        if not type(e).__module__.startswith("scipy"):
            raise
        raise RecordingError(f"{path} is not a readable MATLAB file: {e}") from None
    out: dict[str, np.ndarray] = {}
    _flatten({k: v for k, v in content.items() if not k.startswith("__")}, "", out, notes)
    return out


def _flatten(value: Any, name: str, out: dict[str, np.ndarray], notes: list[str]) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            _flatten(one, f"{name}.{key}" if name else str(key), out, notes)
        return
    array = np.asarray(value) if not isinstance(value, list) else _listed(value)
    if array is None or (array.dtype.kind == "O" and not all(isinstance(v, str) for v in array.ravel())):
        notes.append(f"'{name}' is neither numbers nor texts, and was left out")
    else:
        out[name] = clean.plain(array)


def _listed(values: list) -> np.ndarray | None:
    try:
        return np.array(values)
    except ValueError:  # of different lengths
        return None


def _hdf5(path: Path, notes: list[str]) -> dict[str, np.ndarray]:
    """Datasets by their place; MATLAB's axes are turned back, and its texts are texts."""
    import h5py

    look_first(path)
    check_links(path, notes)
    out: dict[str, np.ndarray] = {}

    def see(place: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or place.startswith("#"):
            return
        name = place.replace("/", ".")
        kind = item.attrs.get("MATLAB_class", b"")
        try:
            if kind == b"char":
                out[name] = np.array("".join(map(chr, np.ravel(item[()].T))))
            elif item.dtype.kind in "fiubS" or h5py.check_string_dtype(item.dtype):
                values = clean.plain(item[()])
                values = values.T if kind else values
                out[name] = values.reshape(-1) if kind and values.ndim == 2 and 1 in values.shape else values
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
