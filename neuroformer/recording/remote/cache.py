"""Blocks of remote files on disk, the least recently used of which make room for others."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from neuroformer.files import user_cache
from neuroformer.recording.validation import RecordingError

_SWEEP = 32 << 20  # bytes that are written between two looks at how much there is


class BlockCache:
    """A folder of blocks for each file; several processes may share it.

    Parameters
    ----------
    key : what the file is: its address, size and version
    most_bytes : that all files together may take
    """

    def __init__(self, key: str, most_bytes: int, home: Path | None = None):
        self.home = home or user_cache("remote")
        self.folder = self.home / hashlib.sha256(key.encode()).hexdigest()[:32]
        self.most_bytes, self._written = most_bytes, _SWEEP

    def get(self, number: int, size: int | None = None) -> bytes | None:
        """A block, if it is there in its full size, where that is known."""
        file = self.folder / f"{number:08d}"
        with suppress(OSError):
            data = file.read_bytes()
            if size is None or len(data) == size:
                os.utime(file)
                return data
        return None

    def put(self, number: int, data: bytes) -> None:
        """Keep a block. Where nothing can be written, nothing is kept."""
        if len(data) > self.most_bytes:
            return
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=self.folder)
            with os.fdopen(handle, "wb") as f:
                f.write(data)
            os.replace(part, self.folder / f"{number:08d}")
        self._written += len(data)
        if self._written >= min(_SWEEP, self.most_bytes // 8):
            self._written = 0
            self._sweep()

    def _sweep(self) -> None:
        """Delete the blocks that were used longest ago, until the rest leaves room until the next look."""
        found: list[tuple[float, int, Path]] = []
        with suppress(OSError):
            for file in self.home.glob("*/*"):
                with suppress(OSError):
                    stat = file.stat()
                    found.append((stat.st_mtime, stat.st_size, file))
        total, room = sum(size for _, size, _ in found), self.most_bytes - min(_SWEEP, self.most_bytes // 8)
        for _, size, file in sorted(found):
            if total <= room:
                break
            with suppress(OSError):
                file.unlink()
                total -= size


def cache_bytes() -> int:
    """What the blocks of all remote files may take on disk: NEUROFORMER_CACHE_GB, or 10 GB.

    Raises
    ------
    RecordingError
        The variable is no number above 0.
    """
    text = os.environ.get("NEUROFORMER_CACHE_GB", "10")
    try:
        size = float(text)
    except ValueError:
        size = -1.0
    if not 0 < size < 1e9:
        raise RecordingError(f"NEUROFORMER_CACHE_GB is {text!r}; expected gigabytes above 0")
    return round(size * 1e9)
