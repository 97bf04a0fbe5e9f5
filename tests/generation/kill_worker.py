"""Simulates slowly into a folder, so that a test can kill it; prints a line at every part written."""

import sys
import time
from pathlib import Path

from helpers import small_config, small_model, small_recording

from neuroformer.generation import simulate as module
from neuroformer.generation.store import SimulationFolder
from neuroformer.recording.formats.npz import write_npz

CONFIG = {"generate": {"samples": 3, "max_seconds": 2.0, "batch_size": 4}}


def main(folder: str, out: str, part: str = "1/1") -> None:
    module.FLUSH_S = 0.0  # every window is a file of its own
    write = SimulationFolder.write

    def slowly(self, *args):
        write(self, *args)
        print("written", flush=True)
        time.sleep(0.02)

    SimulationFolder.write = slowly
    net, p = small_model(small_recording(seconds=80.0), small_config(**CONFIG))
    i, n = (int(x) for x in part.split("/"))
    result = module.simulate(net, p, folder=Path(folder), share=(i, n), progress=False)
    if result is not None:
        write_npz(result.recording, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
