"""Recordings at an address: read by ranges, and what was read kept in a cache of bounded size."""

from neuroformer.recording.remote.address import is_remote, stem, suffix
from neuroformer.recording.remote.ranges import RemoteFile, open_hdf5

__all__ = ["RemoteFile", "is_remote", "open_hdf5", "stem", "suffix"]
