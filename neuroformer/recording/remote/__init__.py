"""Recordings at an address: read by ranges, and what was read kept in a cache of bounded size."""

from neuroformer.recording.remote.address import is_remote, stem, suffix
from neuroformer.recording.remote.ranges import RemoteFile, open_hdf5, telling
from neuroformer.recording.remote.store import RemoteStore, is_zarr_address, zarr_store

__all__ = [
    "RemoteFile",
    "RemoteStore",
    "is_remote",
    "is_zarr_address",
    "open_hdf5",
    "stem",
    "suffix",
    "telling",
    "zarr_store",
]
