"""A Zarr store at an address: its keys by one request each, what it holds from its consolidated metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, KeysView, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from neuroformer.recording.remote.address import TIMEOUT_S, is_remote, store_address
from neuroformer.recording.remote.cache import BlockCache, cache_bytes
from neuroformer.recording.remote.ranges import RefusedError, attempts, told
from neuroformer.recording.validation import RecordingError, optional

_AT_ONCE = 8  # requests
_LIST = ".zmetadata"
_FACTS = (".zgroup", ".zarray", ".zattrs")
_SUFFIX = ".zarr"


class RemoteStore(MutableMapping[str, bytes]):
    """A Zarr store (version 2) at ``https://...`` or ``dandi://DANDISET/PATH``, for reading; chunks are kept on disk.

    Plain HTTP lists no folders, so what there is comes from ``.zmetadata``, in which Zarr consolidates it.

    Parameters
    ----------
    address : of the store
    most_bytes : that what was fetched may take on disk, all remote files together; by default NEUROFORMER_CACHE_GB, or 10 GB

    Raises
    ------
    RecordingError
        It does not answer, is not there, has no consolidated metadata, or the package requests is not installed. Errors later
        are kept in ``failure`` too, since readers may go on without what they could not read.
    """

    def __init__(self, address: str, most_bytes: int | None = None):
        requests = optional("requests", "remote", "reading files at an address")
        self._session, self._broken = requests.Session(), requests.RequestException
        self.path = self.address = address  # Zarr's own stores call it path
        self._from, self.transferred = store_address(address), 0
        self.failure: RecordingError | None = None
        listed = self._fetch(_LIST)
        if listed is None:
            third = self._fetch("zarr.json") is not None
            raise RecordingError(
                f"{address} "
                + (
                    "is a store of Zarr 3, and NWB is read from Zarr 2; write it again with hdmf-zarr"
                    if third
                    else f"has no {_LIST}, which says what a store at an address holds; run "
                    "zarr.consolidate_metadata('PATH') where it lies, or download it"
                )
            )
        self._facts = self._read_list(listed)
        version = hashlib.sha256(listed).hexdigest()
        self._cache = BlockCache(f"{address} {version}", most_bytes or cache_bytes())

    def _read_list(self, listed: bytes) -> dict[str, bytes]:
        facts: Any = None
        with suppress(ValueError, RecursionError):
            facts = json.loads(listed)
        found = facts.get("metadata") if isinstance(facts, dict) else None
        if not isinstance(found, dict):
            raise RecordingError(f"{self.address} is no Zarr store: its {_LIST} cannot be read")
        return {_LIST: listed} | {str(k): json.dumps(v).encode() for k, v in found.items()}

    # -- as a store -----------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> bytes:
        if key in self._facts:
            return self._facts[key]
        if key.rpartition("/")[2] in _FACTS:
            raise KeyError(key)
        number = int(hashlib.sha256(key.encode()).hexdigest()[:16], 16)
        data = self._cache.get(number)
        if data is None:
            data = self._fetch(key)
            if data is None:
                raise KeyError(key)  # a chunk that holds nothing but the fill value
            self._cache.put(number, data)
        return data

    def __setitem__(self, key: str, value: bytes) -> None:
        raise TypeError(f"{self.address} is only read")

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"{self.address} is only read")

    def getitems(self, keys: Sequence[str], **_: Any) -> dict[str, bytes]:
        """The chunks of ``keys`` that there are, several at a time."""
        found: dict[str, bytes] = {}

        def get(key: str) -> None:
            with suppress(KeyError):
                found[key] = self[key]

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(get, keys))
        return found

    def __contains__(self, key: object) -> bool:
        return bool(self.getitems([str(key)]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def keys(self) -> KeysView[str]:
        """What the list names: groups, arrays and attributes, no chunks."""
        return self._facts.keys()

    def __len__(self) -> int:
        return len(self._facts)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    # -- requests -------------------------------------------------------------------------------------

    def _fetch(self, key: str) -> bytes | None:
        """The value of a key; None if there is none."""
        if self.failure is None:
            parts = urlsplit(self._from)
            url = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(key)}"))
            error = ""
            for _ in attempts():
                try:
                    return self._ask(url)
                except (OSError, self._broken) as e:
                    error = told(e)
                    if isinstance(e, RefusedError) and e.status < 500:
                        break
            self.failure = RecordingError(
                f"{self.address} cannot be read: {error} ({key}); try again later, or download it"
            )
        raise self.failure

    def _ask(self, url: str) -> bytes | None:
        with self._session.get(url, headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT_S) as answer:
            if answer.status_code in (404, 410):
                return None
            if answer.status_code != 200:
                raise RefusedError(answer.status_code, answer.reason)
            data, length = answer.content, answer.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) != len(data):
            raise OSError("the answer broke off")
        self.transferred += len(data)
        return data


def is_zarr_address(address: object) -> bool:
    """Whether an address is that of a Zarr store: its path ends in ``.zarr``."""
    return is_remote(address) and urlsplit(str(address)).path.rstrip("/").lower().endswith(_SUFFIX)


def zarr_store(path: str | Path) -> Any:
    """What zarr and hdmf-zarr take for the store at a path or an address.

    Raises
    ------
    RecordingError
        The address does not give it.
    """
    if not is_remote(path):
        return str(path)
    storage = optional("zarr", "zarr", "reading NWB in Zarr").storage

    # hdmf-zarr takes no stores but some classes of Zarr's own
    class Store(RemoteStore, storage.DirectoryStore):
        listdir = storage.Store.listdir

    return Store(str(path))
