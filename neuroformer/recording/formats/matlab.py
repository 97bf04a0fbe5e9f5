"""MATLAB files of every version as nested dictionaries, arrays and lists: structures, cells and arrays of structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats.hdf5 import check_links, look_first, reason, use_plugins
from neuroformer.recording.formats.npz import UNREADABLE
from neuroformer.recording.validation import RecordingError

_LOOK = """
import signal, sys
signal.setitimer(signal.ITIMER_PROF, int(sys.argv[2]) + 20)
try:
    from scipy.io import loadmat
    loadmat(sys.argv[1], simplify_cells=True)
except Exception:
    pass
"""
_DEEPEST = 20  # structures in structures
_MOST_CELLS = 5_000_000
_MOST_FULL = 4 << 30  # bytes of a sparse matrix


def read_matlab(path: str | Path, notes: list[str]) -> dict[str, Any]:
    """The variables of a file: numbers and texts are arrays, structures dictionaries, cells and arrays of structures lists.

    Axes are MATLAB's, without those of length one.

    Raises
    ------
    RecordingError
        Damaged, or no MATLAB file.
    """
    path = Path(path)
    try:
        return _hdf5(path, notes) if _is_hdf5(path) else _classic(path, notes)
    except RecordingError:
        raise
    except UNREADABLE as e:
        raise RecordingError(f"{path} is not a readable MATLAB file: {reason(e)}") from None


def flattened(value: Any, notes: list[str], name: str = "") -> dict[str, np.ndarray]:
    """Arrays by name, those in structures with dots; cells that are no array get a note."""
    if isinstance(value, dict):
        parts = [flattened(one, notes, f"{name}.{key}" if name else str(key)) for key, one in value.items()]
        return {k: v for part in parts for k, v in part.items()}
    array = as_array(value)
    if array is None:
        notes.append(f"'{name}' is neither numbers nor texts, and was left out")
        return {}
    return {name: array}


def as_array(value: Any) -> np.ndarray | None:
    """An array of numbers or texts; None where cells differ in length or kind."""
    try:
        array = np.asarray(value)
    except ValueError:  # of different lengths
        return None
    if array.dtype.kind == "O" and not all(isinstance(v, str) for v in array.ravel()):
        return None
    return clean.plain(array)


def _is_hdf5(path: Path) -> bool:
    """Whether a file is of version 7.3; it begins with a text of 512 bytes."""
    with open(path, "rb") as f:
        head = f.read(520)
    return b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520])


def _classic(path: Path, notes: list[str]) -> dict[str, Any]:
    from scipy.io import loadmat

    look_first(path, _LOOK, "SciPy")  # whose reader can fault on damaged files
    try:
        content = loadmat(path, simplify_cells=True)
    except Exception as e:  # SciPy raises of every kind on damaged files, names that it has not assigned among them
        raise RecordingError(f"{path} is not a readable MATLAB file: {reason(e)}") from None
    out = {}
    for name, value in content.items():
        try:
            out |= {} if name.startswith("__") else {name: _listed(value)}
        except ValueError as e:
            notes.append(f"'{name}' was left out: {e}")
    return out


def _listed(value: Any) -> Any:
    if hasattr(value, "toarray"):
        return _filled(value)
    if isinstance(value, dict):
        return {str(k): _listed(v) for k, v in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return [_listed(v) for v in value.ravel()]
    return [_listed(v) for v in value] if isinstance(value, list) else value


def _filled(sparse: Any) -> np.ndarray:
    """A sparse matrix as a full one.

    Raises
    ------
    ValueError
        That takes more than 4 GB.
    """
    size = int(np.prod(sparse.shape, dtype=object)) * sparse.dtype.itemsize
    if size > _MOST_FULL:
        raise ValueError(
            f"a sparse matrix {sparse.shape} takes {size / 1e9:.3g} GB when it is full; store the times of its entries"
        )
    return np.squeeze(sparse.toarray())


def _hdf5(path: Path, notes: list[str]) -> dict[str, Any]:
    import h5py

    look_first(path)
    use_plugins()
    check_links(path, notes)
    with h5py.File(path, "r") as f:
        budget, out = [_MOST_CELLS], {}
        for name in (str(k) for k in f if not str(k).startswith("#")):
            try:
                out[name] = _value(f, f[name], 0, budget)
            except UNREADABLE as e:
                if isinstance(e, RecordingError):
                    raise
                notes.append(f"'{name}' was left out: {reason(e)}")
        return out


def _value(f: Any, item: Any, depth: int, budget: list[int]) -> Any:
    """A group as a dictionary, a dataset as an array or text; references are followed, but not round and round."""
    import h5py

    budget[0] -= 1
    if depth > _DEEPEST or budget[0] < 0:
        raise RecordingError(f"{f.filename} has structures within structures without end, or too many cells")
    if "MATLAB_sparse" in item.attrs:
        from scipy.sparse import csc_array

        data, rows, ends = (np.ravel(item[k][()]) if k in item else np.zeros(0, np.int64) for k in ("data", "ir", "jc"))
        return _filled(csc_array((data, rows, ends), shape=(int(item.attrs["MATLAB_sparse"]), len(ends) - 1)))
    if isinstance(item, h5py.Group):
        fields = {str(k): _value(f, item[k], depth + 1, budget) for k in item}
        return _as_rows(fields) if fields and all(isinstance(v, _Cells) for v in fields.values()) else fields
    kind = item.attrs.get("MATLAB_class", b"")
    if item.attrs.get("MATLAB_empty", 0):
        return np.array("") if kind == b"char" else np.zeros(0)
    if item.dtype == h5py.ref_dtype:
        cells = [_value(f, f[r], depth + 1, budget) for r in np.ravel(item[()].T) if r]
        return cells if kind == b"cell" else _Cells(cells)
    if kind == b"char":
        return np.array("".join(map(chr, np.ravel(item[()].T))))
    if item.dtype.kind not in "fiubS" and not h5py.check_string_dtype(item.dtype):
        return None
    values = clean.plain(item[()]).T
    return np.squeeze(values) if values.ndim and values.size else values


class _Cells(list):
    """Values of one field of an array of structures."""


def _as_rows(fields: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]
