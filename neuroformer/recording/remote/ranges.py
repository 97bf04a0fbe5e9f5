"""A file at an address as a file that can be read from any place, by HTTP range requests."""

from __future__ import annotations

import io
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neuroformer.recording.remote.address import TIMEOUT_S, download_address, is_remote
from neuroformer.recording.remote.cache import BlockCache, cache_bytes
from neuroformer.recording.validation import RecordingError, optional

BLOCK = 1 << 17  # bytes: what HDF5 asks for at once is mostly smaller, and lies close together
_MOST_AT_ONCE = 64  # blocks in one request
_IN_MEMORY = 256  # blocks
_ATTEMPTS = 4
_PAUSE_S = 0.5  # before the second attempt, twice as long before each one after
_EXPIRED = (401, 403, 404, 410)  # of an address to which another one leads: that is asked again
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class RemoteFile(io.RawIOBase):
    """A file at ``https://...`` or ``dandi://DANDISET/PATH``; what was read is kept on disk.

    An answer that breaks off is asked for again from where it broke; an address that expired is resolved anew.

    Parameters
    ----------
    address : of the file
    most_bytes : that the blocks of all remote files may take on disk; by default NEUROFORMER_CACHE_GB, or 10 GB

    Raises
    ------
    RecordingError
        It does not answer, is not there, the package requests is not installed, or the server serves no ranges. Errors later, within a read, are kept in
        ``failure`` too, since HDF5 hides what its files raise.
    """

    def __init__(self, address: str, most_bytes: int | None = None):
        super().__init__()
        requests = optional("requests", "remote", "reading files at an address")
        self._session, self._broken = requests.Session(), requests.RequestException
        self.address, self.transferred = address, 0
        self.failure: RecordingError | None = None
        self._from = download_address(address)
        self._at, self._place = self._from, 0  # where it leads to; the position in the file
        self._version = ""
        self.size = 0
        first = self._fetch(0, BLOCK)
        self._cache = BlockCache(f"{address} {self.size} {self._version}", most_bytes or cache_bytes())
        self._memory: OrderedDict[int, bytes] = OrderedDict()
        self._keep(0, first)

    # -- as a file ------------------------------------------------------------------------------------

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.size - self._place))
        if count:
            first, last = self._place // BLOCK, (self._place + count - 1) // BLOCK
            at = 0
            for number in range(first, last + 1):
                start = self._place + at - number * BLOCK
                piece = self._block(number, last)[start : start + count - at]
                view[at : at + len(piece)] = piece
                at += len(piece)
        self._place += count
        return count

    # -- blocks ---------------------------------------------------------------------------------------

    def _block(self, number: int, last: int) -> bytes:
        """A block; those after it up to ``last`` come with it in one request, if they are not there either."""
        data = self._known(number)
        if data is not None:
            return data
        stop = number + 1
        while stop <= min(last, number + _MOST_AT_ONCE - 1) and self._known(stop) is None:
            stop += 1
        data = self._fetch(number * BLOCK, min(stop * BLOCK, self.size) - number * BLOCK)
        for i in range(number, stop):
            self._keep(i, data[(i - number) * BLOCK : (i - number + 1) * BLOCK])
        return data[:BLOCK]

    def _known(self, number: int) -> bytes | None:
        data = self._memory.get(number)
        if data is None:
            data = self._cache.get(number, min(BLOCK, self.size - number * BLOCK))
            if data is not None:
                self._remember(number, data)
        return data

    def _remember(self, number: int, data: bytes) -> None:
        self._memory[number] = data
        self._memory.move_to_end(number)
        while len(self._memory) > max(_IN_MEMORY, 2 * _MOST_AT_ONCE):
            self._memory.popitem(last=False)

    def _keep(self, number: int, data: bytes) -> None:
        self._remember(number, data)
        self._cache.put(number, data)

    # -- requests -------------------------------------------------------------------------------------

    def _fetch(self, start: int, count: int) -> bytes:
        if self.failure is not None:  # HDF5 hides it and asks on; each time would take as long
            raise self.failure
        try:
            return self._attempts(start, count)
        except RecordingError as e:
            self.failure = e
            raise

    def _attempts(self, start: int, count: int) -> bytes:
        """``count`` bytes from ``start``, fewer at the end of the file; resumed where an answer breaks off."""
        out, error = bytearray(), None
        for attempt in attempts():
            try:
                count = self._ask(start, count, out)
                if len(out) >= count:
                    return bytes(out)
                error = f"the answer broke off after {len(out):,} of {count:,} bytes"
            except RefusedError as e:
                error, moved = str(e), self._at != self._from or self._from != self.address
                if e.status in _EXPIRED:
                    if not moved or attempt:
                        break
                    self._at = self._from = download_address(self.address)
            except (OSError, self._broken) as e:
                error = told(e)
        raise RecordingError(
            f"{self.address} cannot be read: {error} (bytes {start:,} to {start + count:,}, {attempt + 1} attempt(s)); try again "
            "later, or download the file"
        )

    def _ask(self, start: int, count: int, out: bytearray) -> int:
        """One request for what ``out`` lacks; the count, which is smaller at the end of the file."""
        headers = {"Range": f"bytes={start + len(out)}-{start + count - 1}", "Accept-Encoding": "identity"}
        with self._session.get(self._at, headers=headers, timeout=TIMEOUT_S, stream=True) as answer:
            if answer.status_code >= 400:
                raise RefusedError(answer.status_code, answer.reason)
            found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status_code != 206 or found is None or int(found[1]) != start + len(out):
                raise RecordingError(
                    f"the server of {self.address} serves no ranges (it answers {answer.status_code}); download the file"
                )
            size, version = int(found[3]), answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            if self.size and (size, version) != (self.size, self._version):
                raise RecordingError(f"{self.address} changed while it was read; open it again")
            self.size, self._version, self._at = size, version, answer.url
            count = min(count, size - start)
            for piece in answer.iter_content(1 << 16):
                self.transferred += len(piece)
                out += piece
        del out[count:]  # what a server sends beyond the range
        return count


def attempts() -> Iterator[int]:
    """The number of each attempt at a request, after a pause that doubles."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_S * 2 ** (attempt - 1))
        yield attempt


def told(error: Exception) -> str:
    """What is said of an error of the connection."""
    if isinstance(error, RefusedError):
        return str(error)
    return type(error).__name__ if "timed out" not in str(error) else f"no answer for {TIMEOUT_S:g} s"


class RefusedError(OSError):
    """The server answered that it does not serve this."""

    def __init__(self, status: int, reason: str):
        super().__init__(f"{status} {reason}")
        self.status = status


def open_hdf5(path: str | Path) -> Any:
    """An HDF5 file for reading, of a path or an address.

    Raises
    ------
    OSError
        It cannot be opened as HDF5.
    RecordingError
        The address does not give it.
    """
    import h5py

    if not is_remote(path):
        return h5py.File(path, "r")
    source = RemoteFile(str(path))
    with telling(source):
        file: Any = h5py.File(source, "r")
    file.source = source
    return file


@contextmanager
def telling(source: Any) -> Iterator[None]:
    """A block that ends in the error of the connection, if there was one, whatever libraries and readers made of it.

    Parameters
    ----------
    source : a remote file or store, an HDF5 file opened from one, or anything else, which is left alone
    """
    source = getattr(source, "source", source)
    try:
        yield
    finally:
        failure = getattr(source, "failure", None)
        if failure is not None:
            raise failure from None
