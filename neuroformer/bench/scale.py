"""How the cost of the default network grows with units: a training step and a simulation, each size in a process of its own.

Workers import the package from whichever checkout is measured, so they use only what earlier versions have as well.
"""

from __future__ import annotations

import importlib
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

SIZES = ((50, 2.0), (200, 2.0), (2000, 2.0), (8000, 1.0))  # units, spikes per second of each
SEQUENCES, GENERATED = 8, 8000  # simulated side by side, and about how many spikes of them all
SECONDS = 60.0  # of the recording
REPEATS = 3
FEWER = 16  # windows of a step where a default batch does not fit into memory


def run(checkout: Path | None = None, sizes: tuple[tuple[int, float], ...] = SIZES) -> dict[str, Any]:
    """Every size in turn, untrained, on one core; with ``checkout``, each also by the package of that folder.

    Returns
    -------
    dict
        ``units``, and in its order lists of ``microseconds_per_spike`` (microseconds of one core in a training step of the default
        batch, the median of three), ``peak_gb`` (of the whole process, up to the end of the steps) and
        ``tokens_per_second_generate`` (of eight sequences side by side); of the other checkout the same under
        ``other_*``. Where a default batch does not fit into the free memory, a step of 16 windows is measured, and
        ``windows`` says so. None where a size failed, which ``failed`` tells why.

    Raises
    ------
    ConfigError
        ``checkout`` holds no package.
    """
    from neuroformer.bench.checkout import ROOT, environment

    out: dict[str, Any] = {"bench": "scale", "units": [n for n, _ in sizes], "rate_hz": [rate for _, rate in sizes]}
    failed = {}
    sides = {"": ROOT} if checkout is None else {"": ROOT, "other_": checkout}
    for (units, rate), (side, root) in itertools.product(sizes, sides.items()):
        command = [sys.executable, str(Path(__file__)), str(units), str(rate)]
        done = subprocess.run(command, env=environment(root), capture_output=True, text=True)
        if done.returncode != 0:
            done = subprocess.run([*command, str(FEWER)], env=environment(root), capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
        if not found:
            failed[f"{side}{units}"] = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        for key in ("windows", "microseconds_per_spike", "peak_gb", "tokens_per_second_generate"):
            out.setdefault(side + key, []).append(found.get(key))
    return out | ({"failed": failed, "checked": False} if failed else {})


def measure(units: int, rate: float, most_windows: int = 0) -> dict[str, float]:
    """What one worker measures, with so many windows in a step (0: the default's)."""
    import torch

    from neuroformer.bundle.cohort import Cohort
    from neuroformer.training.module import Losses, Microbatch, make_optimizer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    prepared = _prepared(units, rate)
    model = _network()(prepared.config, units, prepared.normalization)
    batch = prepared.builder(prepared.windows("train")[: most_windows or prepared.config.train.batch_size])
    losses = Losses(Cohort([model]))
    optimizer = make_optimizer(Cohort([model]), prepared.config.train)
    seconds = []
    for _ in range(REPEATS + 1):  # the first one warms up
        start = time.process_time()
        optimizer.zero_grad()
        losses(Microbatch(batch))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "windows": batch.num_windows,
        "microseconds_per_spike": 1e6 * statistics.median(seconds[1:]) / batch.num_spikes,
        "peak_gb": peak / 1e9,
        "tokens_per_second_generate": _generate(prepared),
    }


def _stay_within_free_memory() -> None:
    """A batch that does not fit ends in a MemoryError, before the system ends some process that it chooses."""
    with suppress(OSError), open("/proc/meminfo") as lines:
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        resource.setrlimit(resource.RLIMIT_AS, (free, resource.RLIM_INFINITY))


def _generate(prepared) -> float:
    """Spikes and ends of windows per second of one core.

    The weights are those that training starts from, with which units fire at their training rates.
    """
    import torch

    from neuroformer.generation.simulate import simulate

    torch.manual_seed(0)
    model = _network()(prepared.config, prepared.rec.num_units, prepared.normalization).eval()
    began = time.process_time()
    found = simulate(model, prepared, progress=False)
    assert found is not None  # no share of a simulation
    return found.tokens_per_second * found.seconds / (time.process_time() - began)


def _prepared(units: int, rate: float):
    """Independent Poisson units, one segment, the default configuration without frames."""
    import numpy as np

    from neuroformer.config import from_dict
    from neuroformer.data.prepared import prepare
    from neuroformer.recording import Recording

    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, SECONDS, rng.poisson(units * rate * SECONDS)))
    fired = rng.integers(0, units, len(times))
    rec = Recording("bench", times, fired, {"id": np.arange(units)}, np.array([[0.0, SECONDS]]))
    longest = min(SECONDS / 5, max(0.1, GENERATED / (units * rate * SEQUENCES)))
    tree = {"window": {"frames": 0.0}, "split": {"block": SECONDS / 5}}
    tree["generate"] = {"samples": SEQUENCES, "batch_size": SEQUENCES, "max_seconds": longest}
    return prepare(rec, from_dict(tree))


def _network():
    """The network's class, whose module had another name in earlier versions."""
    try:
        return importlib.import_module("neuroformer.model.network").Neuroformer
    except ModuleNotFoundError:
        return importlib.import_module("neuroformer.model.neuroformer").Neuroformer


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules are no top-level ones
    _stay_within_free_memory()
    print(json.dumps(measure(int(sys.argv[1]), float(sys.argv[2]), *map(int, sys.argv[3:]))))
