"""Damage to files, and a process that opens what was damaged."""

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HANG_S = 60.0  # of the processor: more than a look that stalls takes; a busy machine takes longer
WORKER = Path(__file__).parents[1] / "recording" / "formats" / "fuzz_worker.py"


class Worker:
    """A process that opens files; restarted when one ends it."""

    def __init__(self):
        self.process = None

    def open(self, path: Path) -> str:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{path}\n".encode())
        self.process.stdin.flush()
        start, begun, ready = self._seconds(), time.monotonic(), []
        while not ready and self._seconds() - start < HANG_S and time.monotonic() - begun < 30 * HANG_S:
            ready, _, _ = select.select([self.process.stdout], [], [], 5.0)
        line = self.process.stdout.readline().decode().strip() if ready else ""
        if not line:
            verdict = f"crash ({self.process.wait()})" if ready else "hang"
            self.close()
            return verdict
        return line

    def _seconds(self) -> float:
        """What the process and those that it started took of the processor; else what has passed."""
        assert self.process is not None
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return time.monotonic()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def corrupt(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four wounds: flipped, zeroed, repeated, swapped or missing bytes, or a lost end."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if len(out) < 4:
            break
        # headers and tables lie in front; more wounds go there
        limit = len(out) if rng.random() < 0.8 else min(len(out), 4096)
        at, size = int(rng.integers(0, limit)), int(rng.integers(1, 64))
        kind = rng.integers(0, 6)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            out[at : at + size] = bytes(min(size, len(out) - at))
        elif kind == 2:
            out[at : at + size] = rng.bytes(min(size, len(out) - at))
        elif kind == 3 and rng.random() < 0.2:
            out[at:at] = out[at : at + size]  # all behind it moves
        elif kind == 4:
            out[at : at + 8] = (b"\xff" * 8)[: len(out) - at]
        elif rng.random() < 0.1:
            del out[at:]
    return bytes(out)
