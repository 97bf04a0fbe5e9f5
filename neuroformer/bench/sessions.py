"""Many recordings against few: time to the first step, time of a step, share of validation, memory; and one of them opened alone.

Each run is a process of its own, on animals of ``synthetic:cohort`` that lie on disk already (they are made and indexed before, once).
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from neuroformer.config import Config, from_dict
from neuroformer.data.recordings import expanded
from neuroformer.data.stored import recordings_to_train

STEPS, WARM = 24, 4  # timed, and before them
MB = 2**20


def run(sizes: Sequence[int] = (30, 300), options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Measure runs of so many animals; the first is what the others are compared with.

    Parameters
    ----------
    options : of ``synthetic:cohort``; by default animals of 200 units and ten minutes
    """
    out: dict[str, Any] = {
        "bench": "sessions",
        "steps": STEPS,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    begun = time.perf_counter()
    recordings_to_train(config_of(max(sizes), options))
    out["read_s"] = time.perf_counter() - begun
    found = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            asked = {"size": size, "options": options or {}, "folder": folder}
            _measured("index", asked)  # what is made once
            found[size] = _measured("train", asked) | _measured("open", asked)
            out |= {f"{key}_{size}": value for key, value in found[size].items()}
    few, many = found[sizes[0]], found[sizes[-1]]
    for key in ("step_s", "step_cpu_s", "peak_mb"):
        out[f"{key}_ratio"] = many[key] / few[key]
    return out


def config_of(size: int, options: dict[str, Any] | None = None) -> Config:
    """A run on so many animals."""
    entry = {"path": f"synthetic:cohort[0:{size}]", "options": options or {}}
    tree = {"name": "sessions", "recordings": [entry], "window": {"frames": 0.0}, "train": {"steps": STEPS + WARM}}
    return expanded(from_dict(tree))


def _measured(what: str, asked: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "neuroformer.bench.sessions", what, json.dumps(asked | {"began": time.time()})]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _peak_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB


def _index(asked: dict[str, Any]) -> dict[str, Any]:
    """Everything up to the first step."""
    from neuroformer.training.train import audited, prepare_recordings

    config, recs = recordings_to_train(config_of(asked["size"], asked["options"]))
    audited(prepare_recordings(recs, config))
    return {}


def _train(asked: dict[str, Any]) -> dict[str, Any]:
    from neuroformer.training import train
    from neuroformer.training.loop import Trainer

    ends: list[float] = []
    busy: list[float] = []  # processor seconds, which other work on the machine does not change much
    validating: list[float] = []
    every: list[int] = []  # steps between validations

    class Timed(Trainer):
        def _advance(self, pieces) -> None:
            super()._advance(pieces)
            ends.append(time.time() - sum(validating))
            busy.append(time.process_time())

        def _evaluate(self) -> None:
            begun = time.time()
            super()._evaluate()
            validating.append(time.time() - begun)
            every.append(self.evaluate_every)

    train.Trainer = Timed  # the run is the one that users have, but for the clock
    config, recs = recordings_to_train(config_of(asked["size"], asked["options"]))
    train.train_several(recs, config, Path(asked["folder"]), progress=False)
    step = statistics.median(b - a for a, b in zip(ends[WARM:-1], ends[WARM + 1 :], strict=True))
    return {
        "first_step_s": ends[0] - asked["began"],
        "step_s": step,
        "step_cpu_s": statistics.median(b - a for a, b in zip(busy[WARM:-2], busy[WARM + 1 : -1], strict=True)),
        "validation_s": validating[-1],
        "validation_share": validating[-1] / (validating[-1] + every[-1] * step),
        "peak_mb": _peak_mb(),
    }


def _open(asked: dict[str, Any]) -> dict[str, Any]:
    from neuroformer.bundle.bundle import load_model, read_bundle

    before, begun = _peak_mb(), time.perf_counter()
    bundle = read_bundle(asked["folder"])
    model = load_model(bundle, recording=bundle.names[-1])
    return {"open_s": time.perf_counter() - begun, "open_mb": _peak_mb() - before, "open_units": model.num_units}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"index": _index, "train": _train, "open": _open}[sys.argv[1]](json.loads(sys.argv[2]))))
