"""One call that takes any recording: the path's suffix or the content of the folder picks the reader."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording.formats.npz import names_in, read_npz, write_npz
from neuroformer.recording.frames import CachedFrames, of_size
from neuroformer.recording.recording import Recording, RecordingError
from neuroformer.recording.remote import is_remote
from neuroformer.recording.remote import suffix as suffix_of
from neuroformer.recording.wanted import FRAMES, Wanted

SYNTHETIC = "synthetic:"

_KNOWN = (
    "a .npz file, a folder with recording.json (write_store), an NWB file (.nwb) or Zarr store (.nwb.zarr), a torch_brain file (.h5), "
    "a table of spikes (.csv, .parquet), a MATLAB file (.mat), a folder of Kilosort or phy (spike_times.npy), of SpikeInterface "
    "(spikes.npy), of ALF (spikes.times.npy), of suite2p (F.npy, spks.npy), of pynapple (.npz), the original Neuroformer's folder "
    "(spikerates_dt_0.01.npy), the address of an NWB file or Zarr store (https://..., dandi://DANDISET/PATH), "
    "or 'synthetic:NAME'"
)


def open_recording(
    source: str | Path,
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    video: str | Path | None = None,
    video_times: np.ndarray | None = None,
    video_rate_hz: float | None = None,
    video_start: float = 0.0,
    frames_size: tuple[int, int] | None = None,
    frame_cache_mb: float | None = None,
    look: bool = False,
    **options: Any,
) -> Recording:
    """A recording from a path, or from ``synthetic:NAME``.

    Parameters
    ----------
    source : path or str
        ``synthetic:NAME`` names a generator; ``https://...`` and ``dandi://DANDISET/PATH`` are addresses of NWB files, of
        which only what is needed is fetched; everything else is a path.
    only, without : names, with ``*`` for any letters
        Which behavior variables, tables of intervals, ``frames`` and ``traces`` are read, and which are not. Trials are
        left out only by ``without``.
    video, video_times, video_rate_hz, video_start
        Frames from a video, TIFF or .npy file in place of the source's own, see
        :func:`neuroformer.recording.video.read_video`.
    frames_size : (height, width)
        Frames are shrunk to this size as they are read.
    frame_cache_mb : float
        The most recently used images stay in memory, up to this many megabytes.
    look : bool
        Of a file at an address, count the spikes and look at the beginning of long series, to show what there is
        (:class:`neuroformer.recording.glance.Glance`); every other source is read as ever.
    options
        Options of the reader of this format.

    Raises
    ------
    RecordingError
        No such file, a format that no reader knows, an option that the reader does not have, a name of ``only`` or
        ``without`` that no series has, or a file that contradicts itself.
    """
    wanted = Wanted(_names("only", only), _names("without", without))
    if video is not None:
        wanted(FRAMES)  # there is something of that name
    asked = {"wanted": wanted, "frames_size": frames_size, "look": look}
    rec = wanted.applied(_read(source, options, asked))
    if video is not None:
        from neuroformer.recording.video import read_video

        rec = replace(rec, frames=read_video(video, video_times, video_rate_hz, video_start, frames_size))
    return fit_frames(rec, frames_size, frame_cache_mb)


def fit_frames(
    rec: Recording, frames_size: Sequence[int] | None = None, frame_cache_mb: float | None = None
) -> Recording:
    """The recording whose frames, if it has any, are resized and cached as :func:`open_recording` says."""
    if rec.frames is None:
        return rec
    images = rec.frames.images
    if frames_size is not None:
        images = of_size(images, frames_size)
    if frame_cache_mb is not None and not isinstance(images, CachedFrames):
        images = CachedFrames(images, int(frame_cache_mb * 1e6))
    return rec if images is rec.frames.images else replace(rec, frames=replace(rec.frames, images=images))


def write_recording(rec: Recording, path: str | Path) -> Path:
    """Write a recording in the format that the path's suffix names; :func:`open_recording` reads it back.

    ``.npz``, ``.nwb``, ``.h5`` (torch_brain), or ``.recording`` (a memory-mapped folder).

    Raises
    ------
    RecordingError
        Another suffix, or content that the format cannot hold.
    """
    path = check_writable(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return write_npz(rec, path)
    if suffix == ".nwb":
        from neuroformer.recording.formats.nwb.writer import write_nwb

        return write_nwb(rec, path)
    if suffix in (".h5", ".hdf5"):
        from neuroformer.recording.formats.torch_brain_writer import write_torch_brain

        return write_torch_brain(rec, path)
    from neuroformer.recording.formats.folder import write_store

    return write_store(rec, path)


def check_writable(path: str | Path) -> Path:
    """The path, if its suffix names a format that is written.

    Raises
    ------
    RecordingError
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".npz", ".nwb", ".h5", ".hdf5", ".recording"):
        raise RecordingError(f"no format is written as '{path.name}'; expected .npz, .nwb, .h5 or .recording")
    return path


def _names(key: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise RecordingError(f"{key} is {names!r}; expected a list of names")
    return tuple(names)


def _read(source: str | Path, options: dict[str, Any], asked: dict[str, Any]) -> Recording:
    if isinstance(source, str) and source.startswith(SYNTHETIC):
        from neuroformer.recording.synthetic import synthetic

        return _call(synthetic, source.removeprefix(SYNTHETIC), options, asked)
    if is_remote(source):
        return _call(_remote_reader(str(source)), source, options, asked)
    if not isinstance(source, (str, Path)):
        raise RecordingError(f"cannot open a {type(source).__name__} as a recording; expected a path: {_KNOWN}")
    path = Path(source).expanduser()
    if not path.exists():
        raise RecordingError(f"no file or folder at {path}; expected {_KNOWN}")
    return _call(_reader(path), path, options, asked)


def _reader(path: Path) -> Callable[..., Recording]:
    """The reader of a path, imported only now: each format's library loads when it is needed."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return _folder_reader(path)
    if suffix == ".npz":
        return _npz_reader(path)
    if suffix in (".csv", ".tsv", ".txt", ".parquet", ".pqt", ".mat"):
        from neuroformer.recording.formats.sorted.spike_tables import read_spike_table

        return read_spike_table
    if suffix == ".nwb":
        from neuroformer.recording.formats.nwb.reader import read_nwb

        return read_nwb
    if suffix in (".h5", ".hdf5"):
        from neuroformer.recording.formats.torch_brain import read_torch_brain

        return read_torch_brain
    if suffix in (".pkl", ".pickle"):
        from neuroformer.recording.formats.original import refuse_pickle

        refuse_pickle(path)
    what = f"a '{path.suffix}' file" if suffix else "a file without suffix"
    raise RecordingError(f"{path} is {what} that no reader knows; expected {_KNOWN}")


def _remote_reader(address: str) -> Callable[..., Recording]:
    if suffix_of(address) not in (".nwb", ".zarr"):
        raise RecordingError(
            f"{address} is no NWB file (.nwb) or Zarr store of one (.nwb.zarr), and nothing else is read from an address; "
            "download it"
        )
    from neuroformer.recording.formats.nwb.reader import read_nwb

    return read_nwb


def _npz_reader(path: Path) -> Callable[..., Recording]:
    from neuroformer.recording.formats.pynapple_files import is_pynapple, read_pynapple
    from neuroformer.recording.formats.sorted.spikeinterface import is_packed, read_spikeinterface

    if is_pynapple(path):
        return read_pynapple
    return read_spikeinterface if is_packed(names_in(path)) else read_npz


def _folder_reader(path: Path) -> Callable[..., Recording]:
    from neuroformer.recording.formats.folder import is_store, read_store
    from neuroformer.recording.formats.nwb.files import is_zarr
    from neuroformer.recording.formats.original import is_original, read_original
    from neuroformer.recording.formats.pynapple_files import is_pynapple, read_pynapple
    from neuroformer.recording.formats.sorted.alf import is_alf, read_alf
    from neuroformer.recording.formats.sorted.phy import is_phy, read_phy
    from neuroformer.recording.formats.sorted.spikeinterface import is_spikeinterface, read_spikeinterface
    from neuroformer.recording.formats.suite2p import is_suite2p, read_suite2p

    if is_store(path):
        return read_store
    if is_zarr(path):
        from neuroformer.recording.formats.nwb.reader import read_nwb

        return read_nwb
    if is_phy(path):
        return read_phy
    if is_spikeinterface(path):
        return read_spikeinterface
    if is_suite2p(path):
        return read_suite2p
    if is_original(path):
        return read_original
    if is_alf(path):
        return read_alf
    if is_pynapple(path):
        return read_pynapple
    raise RecordingError(f"{path} is a folder that no reader knows; expected {_KNOWN}")


def _call(reader: Callable[..., Recording], source: Any, options: dict[str, Any], asked: dict[str, Any]) -> Recording:
    """Call a reader; an option it does not have is the user's mistake, not a TypeError from within."""
    parameters = dict(inspect.signature(reader).parameters)
    for name, value in asked.items():  # which every source takes, and some readers can use
        if parameters.pop(name, None):
            reader = partial(reader, **{name: value})
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return reader(source, **options)
    known = list(parameters)[1:]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise RecordingError(
            f"the reader of {source} has no option {', '.join(repr(u) for u in unknown)}; "
            f"it has: {', '.join(known) or 'none'}"
        )
    return reader(source, **options)
