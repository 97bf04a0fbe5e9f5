"""Opens the paths that come in on standard input, one a line; says how each ended. A path after + is a source.

A process of its own: HDF5's C library can fault on damaged files, and a test must outlive that.
"""

import resource
import sys
import traceback
import warnings

import numpy as np

from neuroformer.recording import Recording, RecordingError, open_recording
from neuroformer.recording.sources import add_source

SPIKES = Recording("m", np.arange(0, 50, 0.5), np.zeros(100, int), {"id": np.arange(1)}, np.array([[0.0, 50.0]]))
MEMORY = 6 << 30  # a damaged header that asks for more is an error, not a dead machine


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        try:
            path = line.rstrip("\n")
            rec = add_source(SPIKES, path[1:], rate_hz=1.0) if path.startswith("+") else open_recording(path)
            repr(rec)
            if rec.frames is not None and len(rec.frames.index):
                rec.frames.images[rec.frames.index[:2]]
            verdict = f"recording {rec.sha256()}" if isinstance(rec, Recording) else f"a {type(rec).__name__}"
        except RecordingError as e:
            verdict = "error" if str(e).strip() else "an error without a message"
        except BaseException as e:
            at = traceback.extract_tb(e.__traceback__)
            ours = [f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in at if "neuroformer" in f.filename]
            verdict = f"{type(e).__name__}: {str(e)[:200]!r} at {ours}".replace("\n", " ")
        print(verdict, flush=True)


if __name__ == "__main__":
    main()
