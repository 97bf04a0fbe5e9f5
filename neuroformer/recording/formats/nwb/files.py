"""Opening an NWB file, in HDF5 or in Zarr, after what pynwb would stumble over was refused."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from neuroformer.recording import clean
from neuroformer.recording.formats import plain_pickle
from neuroformer.recording.formats.hdf5 import check_links, leads_out, look_first, use_plugins
from neuroformer.recording.remote import is_remote, is_zarr_address, open_hdf5, telling, zarr_store
from neuroformer.recording.validation import RecordingError, optional


def is_zarr(path: str | Path) -> bool:
    """Whether a path is a folder that Zarr wrote, or the address of one."""
    if is_remote(path):
        return is_zarr_address(path)
    return any((Path(path) / name).exists() for name in (".zgroup", "zarr.json"))


@contextmanager
def opened(path: str | Path, check: bool, notes: list[str]) -> Iterator[Any]:
    """The ``NWBFile`` at a path or an address, open within the block.

    Parameters
    ----------
    check : let a separate process look at an HDF5 file first, so that a damaged one cannot crash this one
    notes : take what is read from other files

    Raises
    ------
    RecordingError
        It is no NWB 2, or would read files outside its folder.
    """
    pynwb = optional("pynwb", "nwb", "reading NWB files")
    # files that carry older copies of a schema warn on every load; what matters ends in notes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if is_zarr(path):
            with _zarr(path) as file:
                yield file
            return
        if check:
            look_first(path)
        use_plugins()
        check_links(path, notes)
        _check_layout(path)
        with (
            open_hdf5(path) as f,
            telling(f),
            pynwb.NWBHDF5IO(file=f, mode="r", load_namespaces=True) as io,
        ):
            yield io.read()


@contextmanager
def _zarr(path: str | Path) -> Iterator[Any]:
    hdmf_zarr = optional("hdmf_zarr", "zarr", "reading NWB in Zarr")
    if not is_remote(path) and (Path(path) / "zarr.json").exists():
        raise RecordingError(f"{path} is a store of Zarr 3, and NWB is read from Zarr 2; write it again with hdmf-zarr")
    if not is_remote(path):
        _check_inside(Path(path))
    store, facts = zarr_store(path), None
    with suppress(OSError, ValueError, RecursionError, KeyError):
        facts = json.loads(store[".zattrs"] if is_remote(path) else (Path(path) / ".zattrs").read_bytes())
    if not isinstance(facts, dict) or "nwb_version" not in facts:
        raise RecordingError(f"{path} is a Zarr store without 'nwb_version', so no NWB")

    class OneStore(hdmf_zarr.NWBZarrIO):
        def resolve_ref(self, zarr_ref: Any) -> Any:
            source = str(zarr_ref.get("source") or zarr_ref.get("path"))
            here = not is_remote(path) and (Path(path) / source).resolve() == Path(path).resolve()
            if source != "." and not here:
                raise RecordingError(
                    f"{path}: {zarr_ref.get('path')} lies in another store ({source}), which is not read; export both into one"
                )
            return super().resolve_ref({**zarr_ref, "source": "."})

    with telling(store), _plain_pickles(), OneStore(store, mode="r", load_namespaces=True) as io:
        yield io.read()


def _check_inside(store: Path) -> None:
    """Refuse a store with a symbolic link to a file elsewhere, whose bytes would be read as numbers."""
    for folder, below, files in os.walk(store):
        for name in (n for n in (*below, *files) if os.path.islink(os.path.join(folder, n))):
            if leads_out(Path(folder, name), store):
                raise RecordingError(
                    f"{store}: {Path(folder, name).relative_to(store)} is a link out of the store, to {os.readlink(Path(folder, name))}; if "
                    "that is meant, copy it there"
                )


@contextmanager
def _plain_pickles() -> Iterator[None]:
    """Texts and references lie in Zarr stores as pickles: within the block, these are decoded and never run."""
    import numcodecs
    from numcodecs.abc import Codec

    class Plain(Codec):
        codec_id = "pickle"

        def __init__(self, protocol: int = 5):
            self.protocol = protocol

        def encode(self, buf: Any) -> Any:
            raise NotImplementedError("this codec reads only")

        def decode(self, buf: Any, out: Any = None) -> Any:
            value = plain_pickle.loads(bytes(buf))
            if out is None:
                return value
            out[...] = value
            return out

    before = type(numcodecs.get_codec({"id": "pickle"}))
    numcodecs.register_codec(Plain, "pickle")
    try:
        yield
    finally:
        numcodecs.register_codec(before, "pickle")


def _check_layout(path: str | Path) -> None:
    """Refuse what pynwb would stumble over: what is no NWB 2, and spikes that belong to nobody."""
    import h5py

    with suppress(OSError, RuntimeError), open_hdf5(path) as f:  # which pynwb reports
        if isinstance(f.get("nwb_version"), h5py.Dataset):
            version = clean.plain(f["nwb_version"][()]).item()  # pyright: ignore[reportIndexIssue]
            raise RecordingError(
                f"{path} is in the older format NWB {str(version).removeprefix('NWB-')}, which shares only its name with "
                "NWB 2; take the release of these data in NWB 2, or store the spikes as .npz"
            )
        if "nwb_version" not in f.attrs:
            raise RecordingError(
                f"{path} is an HDF5 file without 'nwb_version', so no NWB; it has: {clean.some(list(f)) or 'nothing'}"
            )
        for place in ("units/id", *(f"intervals/{name}/id" for name in f.get("intervals", ()))):
            item: Any = f.get(place)
            if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
                raise RecordingError(
                    f"{path}: {place} holds {item.dtype}, but ids of NWB are whole numbers, without which pynwb reads nothing of "
                    "the file; write it again with ids.astype(int) (h5py: delete the dataset, and create it with the same "
                    "attributes)"
                )
        found: list[Any] = [f.get(f"units/{name}") for name in ("spike_times", "id")]
        times, ids = found
        if times is not None and ids is not None and "units/spike_times_index" not in f and len(times) != len(ids):
            raise RecordingError(
                f"{path}: units/spike_times holds {len(times)} times for {len(ids)} units and has no spike_times_index "
                "that says which are whose; write the file again, with pynwb's add_unit"
            )
