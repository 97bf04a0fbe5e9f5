"""``.npz`` files: reader and writer, with the names of :mod:`neuroformer.recording.formats.arrays`; and ``.npy`` files."""

from __future__ import annotations

import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.files import save_npz
from neuroformer.recording.formats import plain_pickle
from neuroformer.recording.formats.array_names import unwanted
from neuroformer.recording.formats.arrays import from_arrays, to_arrays
from neuroformer.recording.recording import Recording, RecordingError
from neuroformer.recording.wanted import Wanted

_ALWAYS = 64 << 20  # bytes that any array may take
_MOST_SHRUNK = 950  # times that compression may shrink an array; that of zlib is at most 1,032, for a single value
# what NumPy, zipfile, h5py and codecs raise on damaged bytes
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    SyntaxError,
    OSError,
    EOFError,
    MemoryError,
    RuntimeError,
    AttributeError,
    SystemError,  # of compiled code that was handed an impossible size
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


_NEEDED = ("spike", "unit_ids", "domain", "n_", "trial_duration", "events")


def read_npz(path: str | Path, wanted: Wanted | None = None) -> Recording:
    """Read a ``.npz`` file; its stem is the recording's name.

    Parameters
    ----------
    wanted : what is not wanted is not read

    Raises
    ------
    RecordingError
        Not a readable ``.npz``, or arrays that contradict each other.
    """
    wanted, objects = wanted or Wanted(), _beside_the_spikes(path)
    rec = from_arrays(load_arrays(path, lambda names: unwanted(names, wanted) | objects), name=Path(path).stem)
    if not objects:
        return rec
    note = f"left out, since they hold Python objects: {', '.join(sorted(objects))}; store plain numbers or strings"
    return replace(rec, meta={**rec.meta, "notes": [*rec.meta.get("notes", ()), note]})


def _beside_the_spikes(path: str | Path) -> set[str]:
    """Arrays of objects, which are not read, of which the recording can do without."""
    try:
        with zipfile.ZipFile(path) as z:
            names = [n.removesuffix(".npy") for n in z.namelist() if n.endswith(".npy")]
            return {n for n in names if not n.startswith(_NEEDED) and _holds_objects(z, n)}
    except UNREADABLE:  # which is said where the arrays are read
        return set()


def _holds_objects(z: zipfile.ZipFile, name: str) -> bool:
    with z.open(f"{name}.npy") as f:
        version = np.lib.format.read_magic(f)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(f)[2].hasobject


def load_arrays(
    path: str | Path, without: Callable[[list[str]], Collection[str]] = lambda names: (), objects: bool = False
) -> dict[str, Any]:
    """The arrays of a ``.npz`` file.

    Parameters
    ----------
    without : which of the names are not read
    objects : arrays of objects are read as the texts, numbers and arrays that they hold, and nothing of them is run

    Raises
    ------
    RecordingError
        Not a readable ``.npz`` of plain arrays, or one that unpacks to far more than it holds.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as z:
            _check_directory(path, len(z.files))
            _check_size(path, [] if z.zip is None else z.zip.infolist())
            left = without(list(z.files))
            return {k: _plain_member(z, k) if objects else z[k] for k in z.files if k not in left}
    except FileNotFoundError:
        raise RecordingError(f"no file at {path}") from None
    except RecordingError:
        raise
    except UNREADABLE as e:
        more = ""
        if "allow_pickle" in str(e):  # a list of one array per unit, as NumPy saves it
            more = "; give all spikes in one array, 'spike_times', and the unit of each in 'spike_units'"
        raise RecordingError(f"{path} is not a readable .npz of plain arrays: {e}{more}") from None


def _plain_member(z: Any, name: str) -> Any:
    try:
        return z[name]
    except ValueError as e:
        if "allow_pickle" not in str(e):
            raise
    with z.zip.open(f"{name}.npy") as f:
        version = np.lib.format.read_magic(f)
        (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(f)
        return plain_pickle.loads(f.read(plain_pickle.MOST_BYTES + 1))


def names_in(path: str | Path) -> list[str]:
    """The names of the arrays of a ``.npz`` file; none where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as z:
            return [name.removesuffix(".npy") for name in z.namelist()]
    except UNREADABLE:
        return []


def read_npy(path: str | Path, mmap: bool = False) -> np.ndarray:
    """The numbers of a ``.npy`` file; with ``mmap`` they stay on disk.

    Raises
    ------
    RecordingError
        Not a readable ``.npy``, or something else than numbers.
    """
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except UNREADABLE as e:
        raise RecordingError(f"{path} is not a readable .npy of numbers: {e}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        held = array.dtype if isinstance(array, np.ndarray) else "several arrays"
        raise RecordingError(f"{path} holds {held}; expected numbers")
    return array


def _check_directory(path: Path, num_found: int) -> None:
    """Arrays have checksums, but the list of them has none: a damaged entry can swallow those after it."""
    end = b"PK\x05\x06"  # the record that ends a zip file; the list's length stands 10 bytes into it
    with open(path, "rb") as f:
        f.seek(max(0, path.stat().st_size - (1 << 16) - 22))
        tail = f.read()
    at = tail.rfind(end)
    (count,) = struct.unpack_from("<H", tail, at + 10)
    if count not in (num_found, 0xFFFF):  # the latter: more arrays than it can say
        raise zipfile.BadZipFile(f"it lists {count} arrays, but {num_found} can be found")


def _check_size(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """A small file may say that it unpacks to any size: that is looked at before anything is unpacked."""
    for one in members:
        if one.file_size > _ALWAYS and one.file_size > _MOST_SHRUNK * one.compress_size:
            raise RecordingError(
                f"{path}: array '{one.filename.removesuffix('.npy')}' takes {one.file_size / 1e9:.3g} GB, "
                f"{one.file_size / max(one.compress_size, 1):,.0f} times what it takes in the file; no measurement "
                "shrinks like that. If it is one, save it with np.savez, without compression"
            )
    total, memory = sum(one.file_size for one in members), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if total > memory:
        raise RecordingError(
            f"{path} unpacks to {total / 1e9:.3g} GB, and this machine has {memory / 1e9:.3g} GB; write it as a "
            "folder (.recording), which is read in pieces"
        )


def write_npz(rec: Recording, path: str | Path) -> Path:
    """Write a recording to ``.npz``; reading it back gives the same recording."""
    save_npz(path, {k: np.asarray(v) for k, v in to_arrays(rec).items()})
    return Path(path)
