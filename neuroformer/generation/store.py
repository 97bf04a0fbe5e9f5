"""Simulations on disk while they run: a folder of small HDF5 files, each written whole or not at all.

``plan.json`` says what is simulated and how it is cut into batches; ``batch-0003-window-000400.h5`` holds the spikes
(or the samples of traces) of batch 3 from window 400 on. A killed simulation continues after the last file; several
processes can share a folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuroformer.files import replacing_hdf5, write_once
from neuroformer.generation.rollout import WindowResult
from neuroformer.generation.spikes import Sequences, Spikes


class SimulationError(ValueError):
    """A folder that holds another simulation, or a damaged one."""


@dataclass
class FinishedPart:
    """The finished part of a batch: its windows up to ``stop``, in the arrays of the simulation's kind."""

    stop: int
    made: Any
    guard_hits: int


class SimulationFolder:
    """The parts of one simulation.

    Parameters
    ----------
    path : the folder; made if it is not there
    identity : JSON-able, everything that determines the spikes; the folder of another simulation is refused
    batch_size : sequences in a batch, unless the folder's plan says otherwise
    kind : what is simulated, a dataclass of arrays with ``join``: :class:`neuroformer.generation.spikes.Spikes`, or
        :class:`neuroformer.generation.traces.TraceSamples`

    Raises
    ------
    SimulationError
    """

    def __init__(self, path: Path, identity: dict[str, Any], batch_size: int, kind: Any = Spikes):
        self.path, self.kind = path, kind
        path.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        plan = {"sha256": digest, "batch_size": batch_size, **identity}
        write_once(path / "plan.json", json.dumps(plan, indent=1).encode())
        try:
            plan = json.loads((path / "plan.json").read_text())
            theirs, self.batch_size = plan["sha256"], int(plan["batch_size"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError):
            raise SimulationError(f"{path}/plan.json is damaged; remove the folder") from None
        if theirs != digest:
            changed = [k for k in identity if plan.get(k) != json.loads(json.dumps(identity[k]))]
            raise SimulationError(
                f"{path} holds the unfinished parts of another simulation (it differs in {', '.join(changed)}); "
                "finish that one with its own settings, or remove the folder (--restart)"
            )

    @property
    def _arrays(self) -> list[str]:
        return [f.name for f in fields(self.kind)]

    def write(self, number: int, sequences: Sequences, parts: list[WindowResult]) -> None:
        """Add consecutive windows of a batch; a kill meanwhile leaves the folder as it was."""
        made = self.kind.join([p.made for p in parts])
        name = f"batch-{number:04d}-window-{parts[0].number:06d}.h5"
        with replacing_hdf5(self.path / name) as f:
            for key in self._arrays:
                f.create_dataset(key, data=getattr(made, key), compression="gzip", compression_opts=1)
            for key in ("ident", "segment", "start"):
                f.create_dataset(f"sequences/{key}", data=getattr(sequences, key))
            f.attrs["stop"] = parts[-1].number + 1
            f.attrs["guard_hits"] = sum(p.guard_hits for p in parts)

    def read(self, number: int) -> FinishedPart:
        """All windows of a batch that are done."""
        stop, parts, hits = 0, [], 0
        for file in sorted(self.path.glob(f"batch-{number:04d}-window-*.h5")):
            if int(file.stem.rsplit("-", 1)[1]) != stop:
                raise SimulationError(f"{self.path}: the windows from {stop} of batch {number} are missing")
            try:
                with h5py.File(file) as f:
                    parts.append(self.kind(*(np.asarray(f[k]) for k in self._arrays)))
                    stop = int(f.attrs["stop"])  # pyright: ignore[reportArgumentType]
                    hits += int(f.attrs["guard_hits"])  # pyright: ignore[reportArgumentType]
            except (OSError, KeyError) as e:
                raise SimulationError(f"{file} is damaged ({e}); remove it, and what follows it") from None
        return FinishedPart(stop, self.kind.join(parts), hits)
