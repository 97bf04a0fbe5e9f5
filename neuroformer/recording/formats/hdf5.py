"""A check of an HDF5 file in a separate process, before it is opened in this one.

HDF5's C library can loop forever or fault on damaged files, and nothing in Python can stop it then. So
another process reads all names, attributes, texts and small arrays first; this one opens the file only if that one
succeeds. Large arrays are not read: plain numbers do no harm.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from neuroformer.recording.remote import is_remote, open_hdf5
from neuroformer.recording.validation import RecordingError

STALL_S = 10  # seconds of computing at one object, after which the check gives up

# The alarm is not caught, so it ends that process even inside HDF5, and also when this one is gone. It counts seconds of that
# process's own, not of the clock: a busy machine or a slow drive is no damage.
_LOOK = """
import signal, sys
import h5py

def see(name, obj):
    signal.setitimer(signal.ITIMER_PROF, int(sys.argv[2]))
    try:
        for key in list(obj.attrs):
            obj.attrs[key]
        if isinstance(obj, h5py.Dataset) and obj.shape is not None:
            if obj.size * obj.dtype.itemsize < 1 << 20:
                obj[()]
            elif obj.dtype.kind == "O":
                obj[:10000]
    except Exception:
        pass  # an error that Python sees is the reader's to report

try:
    signal.setitimer(signal.ITIMER_PROF, int(sys.argv[2]))
    with h5py.File(sys.argv[1], "r") as f:
        see("/", f)
        f.visititems(see)
except Exception:
    pass
"""


def look_first(path: str | Path, look: str = _LOOK, library: str = "HDF5") -> None:
    """Let another process read the file's structure: ``look`` is Python's text of what it does, with a path and seconds.

    Raises
    ------
    RecordingError
        That process crashed, or stalled at one object for ``STALL_S`` seconds.
    """
    if not sys.executable or not hasattr(signal, "setitimer") or is_remote(path):
        return  # no other process can be started, or none can be ended by an alarm; or it would have to be fetched twice
    command = [sys.executable, "-c", look, str(path), str(STALL_S)]
    quiet = subprocess.DEVNULL
    code = subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, check=False).returncode
    if code == -signal.SIGPROF:
        raise RecordingError(
            f"{path} is damaged: {library} stalled on it for {STALL_S} s; copy the file again from its source"
        )
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        raise RecordingError(
            f"{path} could not be opened: the system ended the process that looked at it (signal {-code}), as it does where "
            "memory runs out; close other programs and try again"
        )
    if code < 0:
        raise RecordingError(
            f"{path} is damaged: {library} crashed on it (signal {-code}); copy the file again from its source"
        )


def use_plugins() -> None:
    """Make the compression filters of ``hdf5plugin`` known to HDF5, where that package is installed."""
    with suppress(ImportError):
        importlib.import_module("hdf5plugin")


def reason(error: Exception) -> str:
    """Say why something in an HDF5 file cannot be read, with the cure where there is one."""
    text = str(error.args[-1] if len(error.args) > 1 and not isinstance(error, OSError) else error)
    if re.search(r"filter .*not (registered|available)|[/\\]plugin\b", text):
        return "it is compressed by a filter that is not installed here; pip install hdf5plugin"
    return text if isinstance(error, RecordingError) else f"{type(error).__name__}: {text}"


def check_links(path: str | Path, notes: list[str]) -> None:
    """Look at what a file takes from other files, before anything of it is read.

    What lies in the file's folder, or below it, is allowed and noted; so is a link that leads nowhere.

    Raises
    ------
    RecordingError
        The file would read another one outside its folder, which could be any file of this machine.
    """
    import h5py

    if is_remote(path):
        with open_hdf5(path) as f:
            found = next((place for place, _, kind in _elsewhere(f) if kind != "object"), None)
        if found is not None:
            raise RecordingError(
                f"{path}: {found} lies in another file, which is not read from an address; download both"
            )
        return
    path = Path(path)
    home, todo, seen = Path(os.path.abspath(path)).parent, [path], set()
    while todo:
        file = todo.pop()
        seen.add(os.path.abspath(file))
        with suppress(OSError, RuntimeError), h5py.File(file, "r") as f:
            for place, target, kind in _elsewhere(f):
                source = _source(file, target, kind)
                if source is None:
                    notes.append(f"{place} was left out: it lies in {target}, which is not there")
                elif not source.is_relative_to(home) or (kind == "storage" and leads_out(source, home)):
                    raise RecordingError(
                        f"{path}: {place} would be read from {source}, outside the folder of the file; if that is meant, "
                        "copy it beside the file and link it by its name alone"
                    )
                elif kind != "object":
                    notes.append(f"{place} is read from {target}, another file of the folder")
                if source is not None and kind == "link" and os.path.abspath(source) not in seen:
                    todo.append(source)


def leads_out(file: Path, folder: Path) -> bool:
    """Whether a file whose bytes are taken as numbers lies outside of a folder once symbolic links are followed.

    What git-annex keeps elsewhere, and leaves a link to, counts as inside.
    """
    real = Path(os.path.realpath(file))
    return not real.is_relative_to(os.path.realpath(folder)) and ".git/annex/objects" not in real.as_posix()


def _source(file: Path, target: str, kind: str) -> Path | None:
    """The file that HDF5 would take for ``target``; None if there is none."""
    if kind == "object":
        return None
    there, here = Path(os.path.abspath(target)), Path(os.path.abspath(file)).parent
    beside = [Path(os.path.normpath(here / target)), here / Path(target).name]
    # storage is looked for from the working directory; links beside the file first, unless they are absolute
    order = [there] if kind == "storage" else [there, *beside] if os.path.isabs(target) else [*beside, there]
    return next((p for p in order if p.exists()), None)


def _elsewhere(f: Any) -> Iterator[tuple[str, str, str]]:
    """(place, target, kind) of external links and storage, of virtual data, and of links inside that are broken."""
    import h5py

    groups, seen = [f], set()
    while groups:
        group = groups.pop()
        info = h5py.h5o.get_info(group.id)  # pyright: ignore[reportAttributeAccessIssue]
        if (info.fileno, info.addr) in seen:
            continue
        seen.add((info.fileno, info.addr))
        for name in group:
            place = f"{group.name}/{name}".lstrip("/")
            with suppress(KeyError, OSError, RuntimeError, ValueError, UnicodeError):  # the reader's to report
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    yield place, link.filename, "link"
                elif isinstance(link, h5py.SoftLink):
                    if group.get(name) is None:
                        yield place, link.path, "object"
                elif isinstance(item := group[name], h5py.Group):
                    groups.append(item)
                elif isinstance(item, h5py.Dataset):
                    yield from ((place, os.fsdecode(s[0]), "storage") for s in item.external or ())
                    if item.is_virtual:
                        sources = {s.file_name for s in item.virtual_sources()} - {"."}
                        yield from ((place, s, "virtual") for s in sources)
