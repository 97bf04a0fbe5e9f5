"""Files and folders written whole or not at all: beside their place, synced to the disk, then renamed.

A kill or a full disk leaves what was there before; nothing half-written ever has the final name.
"""

from __future__ import annotations

import glob
import io
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

_STALE_S = 3600  # a part that nobody has written to for so long was left by a kill


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write a file or a folder to, which takes its place when the block ends.

    If the block or the disk fails, what was written is removed and what was at ``path`` stays.

    Raises
    ------
    OSError
        It could not be written; ``filename`` is ``path``.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_stale(path)
        yield part
        for file in [f for f in part.rglob("*") if f.is_file()] if part.is_dir() else [part]:
            _sync(file, os.O_RDWR)
        if part.is_dir() and path.exists():
            old = part.with_suffix(".old")
            os.replace(path, old)
            os.replace(part, path)
            _remove(old)
        else:
            os.replace(part, path)
        if hasattr(os, "O_DIRECTORY"):  # the renaming itself; Windows has no such call
            _sync(path.parent, os.O_DIRECTORY)
    except OSError as e:
        if e.errno is not None and e.filename in (None, str(part)):
            e.filename = str(path)
        raise
    finally:
        _remove(part)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all; see :func:`replacing`."""
    with replacing(path) as part:
        part.write_bytes(data)


def user_cache(part: str) -> Path:
    """A folder of what can be made again: in NEUROFORMER_CACHE, XDG_CACHE_HOME or ``~/.cache``."""
    base = os.environ.get("NEUROFORMER_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "neuroformer" / part


def write_once(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, unless it is there, also when several processes try at once."""
    if path.exists():
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.link(part, path)
    except FileExistsError:
        pass
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Wait until no other process holds ``path``, and hold it; the system lets go when this one ends.

    Where the file system knows no locks, nothing is held.
    """
    path = Path(path)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_values(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file of results; empty if there is no file.

    Raises
    ------
    ValueError
        It was cut off, or holds something else.
    """
    path = Path(path)
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} is damaged (it is no JSON object: cut off, or changed); move it away, and the commands that gave its "
            "numbers write them anew"
        )
    return found


def merge_values(path: str | Path, values: Mapping[str, Any]) -> None:
    """Put values into a JSON file of results beside those that are there, also while other processes do so."""
    with locked(path):
        write_atomic(path, json.dumps(read_values(path) | dict(values), indent=1).encode())


def for_json(value: Any) -> Any:
    """As JSON can hold it: NaN and infinity become null, tuples become lists."""
    if isinstance(value, dict):
        return {str(k): for_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [for_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def save_npz(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to a compressed ``.npz`` file, whole or not at all; see :func:`replacing`."""
    with replacing(path) as part, open(part, "wb") as f:
        np.savez_compressed(f, **arrays)  # pyright: ignore[reportArgumentType]


@contextmanager
def replacing_hdf5(path: str | Path) -> Iterator[Any]:
    """Yield an open, writable ``h5py.File`` that takes the place of ``path`` when the block ends; see :func:`replacing`.

    The HDF5 library cannot close a file that it failed to write, and crashes the process at its end. So it writes
    through an object that never fails, and the failure is raised after the file is closed.
    """
    import h5py

    with replacing(path) as part, _Steady(part) as raw:
        try:
            with h5py.File(raw, "w") as f:
                yield f
        except Exception:
            if raw.failure is None:
                raise
        if raw.failure is not None:
            raise raw.failure


class _Steady(io.RawIOBase):
    """A file for HDF5: the first failure is kept, and whatever is written after it goes nowhere."""

    def __init__(self, path: Path):
        self._raw = open(path, "w+b", buffering=0)  # noqa: SIM115  (closed by close)
        self._at = self._end = 0
        self.failure: OSError | None = None

    def _try(self, call: Callable[[], Any]) -> None:
        if self.failure is None:
            try:
                call()
            except OSError as e:
                self.failure = e

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")

        def all_of_it() -> None:
            done = 0
            self._raw.seek(self._at)
            while done < len(view):
                done += self._raw.write(view[done:]) or 0

        self._try(all_of_it)
        self._at += len(view)
        self._end = max(self._end, self._at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))  # after a failure there is nothing to read

        def all_of_it() -> None:
            done, more = 0, 1
            self._raw.seek(self._at)
            while done < len(view) and more:
                more = self._raw.readinto(view[done:]) or 0
                done += more

        self._try(all_of_it)
        self._at += len(view)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self._end = self._at if size is None else size
        self._try(lambda: self._raw.truncate(self._end))
        return self._end

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._raw.close()
        super().close()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def reserve(path: str | Path) -> None:
    """Take the disk's space for all of a sparse file: writing to one that is mapped ends the process where it is full.

    Raises
    ------
    OSError
        There is not enough.
    """
    if hasattr(os, "posix_fallocate"):
        with open(path, "rb+") as f:
            os.posix_fallocate(f.fileno(), 0, os.path.getsize(path))


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _clear_stale(path: Path) -> None:
    for left in glob.glob(f".{glob.escape(path.name)}.*.part", root_dir=path.parent):
        with suppress(OSError):
            if time.time() - (path.parent / left).stat().st_mtime > _STALE_S:
                _remove(path.parent / left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
