"""A check of an HDF5 file in a separate process, before it is opened in this one.

HDF5's C library can loop forever or fault on damaged files, and nothing in Python can stop it then. So
another process reads all names, attributes, texts and small arrays first; this one opens the file only if that one
succeeds. Large arrays are not read: plain numbers do no harm.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from neuroformer.recording.recording import RecordingError

STALL_S = 10  # whole seconds at one object, after which the check gives up

# The alarm is not caught, so it ends that process even inside HDF5, and also when this one is gone.
_LOOK = """
import signal, sys
import h5py

def see(name, obj):
    signal.alarm(int(sys.argv[2]))
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
    signal.alarm(int(sys.argv[2]))
    with h5py.File(sys.argv[1], "r") as f:
        see("/", f)
        f.visititems(see)
except Exception:
    pass
"""


def look_first(path: str | Path) -> None:
    """Let another process read the file's structure.

    Raises
    ------
    RecordingError
        That process crashed, or stalled at one object for ``STALL_S`` seconds.
    """
    if not sys.executable or not hasattr(signal, "alarm"):
        return  # no other process can be started, or none can be ended by an alarm
    command = [sys.executable, "-c", _LOOK, str(path), str(STALL_S)]
    quiet = subprocess.DEVNULL
    code = subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, check=False).returncode
    if code == -signal.SIGALRM:
        raise RecordingError(
            f"{path} is damaged: HDF5 stalled on it for {STALL_S} s; copy the file again from its source "
            "(check=False opens it all the same)"
        )
    if code < 0:
        raise RecordingError(
            f"{path} is damaged: HDF5 crashed on it (signal {-code}); copy the file again from its source"
        )
