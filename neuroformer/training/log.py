"""The run's log: one row for each logged step, in a CSV file that a resumed run continues."""

from __future__ import annotations

import contextlib
import csv
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from neuroformer.files import write_atomic

LONGEST_SILENCE_S = 10.0
DOING = "doing"  # the column of what is done outside of steps


class Log:
    """Rows of ``log/metrics.csv``, also sent to Weights & Biases if the run asks for it.

    Rows reach the disk within ten seconds, and with :meth:`flush`, which comes before every checkpoint; resuming drops the rows after the
    checkpoint's step, so that none is lost or duplicated.

    Parameters
    ----------
    path : Path
    columns : names beside ``step``
    first : int
        Steps that are done; rows of later ones, which an interrupted run left, are dropped.
    wandb : a Weights & Biases run, optional
    """

    def __init__(self, path: Path, columns: list[str], first: int, wandb: Any = None):
        self.path, self.columns, self.wandb = path, ["step", *columns, DOING], wandb
        rows = []
        if first and path.exists():
            with open(path, newline="") as f:
                whole = [r for r in csv.DictReader(f) if None not in r.values()]
            rows = [r for r in whole if int(r["step"]) < first and not r.get(DOING)]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(path, text.getvalue().encode())
        self.waiting: list[dict[str, Any]] = []
        self.added_at = self.flushed_at = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the last row."""
        return time.monotonic() - self.added_at

    def add(self, step: int, values: Mapping[str, float | str]) -> None:
        """A row for the step with this number, counted from 0."""
        self.waiting.append({"step": step, **values})
        self.added_at = time.monotonic()
        if self.added_at - self.flushed_at >= LONGEST_SILENCE_S:
            self.flush()
        if self.wandb is not None:
            self.wandb.log(dict(values), step=step)

    def flush(self) -> None:
        self.flushed_at = time.monotonic()
        if self.waiting:
            with open(self.path, "a", newline="") as f:
                csv.DictWriter(f, self.columns).writerows(self.waiting)
            self.waiting = []


def add_doing(path: Path, line: str) -> None:
    """A row of ``metrics.csv`` for what is done after the last step: fitting baselines, scoring. Without such a file, nothing."""
    with contextlib.suppress(OSError):
        with open(path, newline="") as f:
            rows = csv.DictReader(f)
            columns, every = rows.fieldnames or [], list(rows)
        if DOING in columns:
            with open(path, "a", newline="") as f:
                csv.DictWriter(f, columns).writerow({"step": every[-1]["step"] if every else 0, DOING: line})


@contextlib.contextmanager
def told(folder: Path, show: Callable[[str], object]) -> Iterator[Callable[[str], None]]:
    """Yield a function that tells what is done now; it is said again, with the seconds, every ten until something else is,
    or nothing (an empty line).

    Every line goes to ``progress.txt`` and, once a run has one, to ``metrics.csv`` as well, so that a quiet command leaves a
    trace.

    Parameters
    ----------
    folder : of the log, whose files are continued
    show : called with each line
    """
    folder.mkdir(parents=True, exist_ok=True)
    now, done = {"line": "", "since": time.monotonic()}, threading.Event()

    def write(line: str) -> None:
        with open(folder / "progress.txt", "a") as f:
            f.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")
        add_doing(folder / "metrics.csv", line)
        show(line)

    def tell(line: str) -> None:
        now.update(line=line, since=time.monotonic())
        if line:
            write(line)

    def repeat() -> None:
        while not done.wait(LONGEST_SILENCE_S):
            if now["line"]:
                write(f"{now['line']}: {time.monotonic() - now['since']:.0f} s")

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield tell
    finally:
        done.set()
        thread.join()
