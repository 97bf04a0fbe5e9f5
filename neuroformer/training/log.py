"""The run's log: one row for each logged step, in a CSV file that a resumed run continues."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuroformer.files import write_atomic


class Log:
    """Rows of ``log/metrics.csv``, also sent to Weights & Biases if the run asks for it.

    Rows reach the disk with :meth:`flush`, which comes before every checkpoint; resuming drops the rows after the
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
        self.path, self.columns, self.wandb = path, ["step", *columns], wandb
        rows = []
        if first and path.exists():
            with open(path, newline="") as f:
                whole = [r for r in csv.DictReader(f) if None not in r.values()]
            rows = [r for r in whole if int(r["step"]) < first]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(path, text.getvalue().encode())
        self.waiting: list[dict[str, Any]] = []

    def add(self, step: int, values: Mapping[str, float | str]) -> None:
        """A row for the step with this number, counted from 0."""
        self.waiting.append({"step": step, **values})
        if self.wandb is not None:
            self.wandb.log(dict(values), step=step)

    def flush(self) -> None:
        if self.waiting:
            with open(self.path, "a", newline="") as f:
                csv.DictWriter(f, self.columns).writerows(self.waiting)
            self.waiting = []
