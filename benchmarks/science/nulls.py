"""Are the nulls of the maps calibrated? Where units are independent, or share a slow drift only, no pair may pass."""

from __future__ import annotations

import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal import lfilter

from neuroformer.analysis import attention, influence
from neuroformer.analysis.maps import Map
from neuroformer.analysis.nulls import shuffled_identities
from neuroformer.analysis.pairwise import pairwise_maps
from neuroformer.config import Config, from_dict
from neuroformer.files import write_atomic
from neuroformer.recording import Recording

PRIMARY = "knock-out"
SETTINGS = {
    "window": {"dt": 0.01, "current": 0.05, "past": 0.1, "frames": 0.0},
    "split": {"block": 20.0},
    "model": {
        "width": 16,
        "heads": 2,
        "blocks": [{"attend": "past"}, {"attend": "current"}],
    },
    "train": {
        "steps": 200,
        "batch_size": 128,
        "average": 0.0,
        "evaluate_every": 200,
        "accelerator": "cpu",
    },
}


def run(
    recordings: int = 20, folder: Path | None = None, num_units: int = 24, seconds: float = 240.0, steps: int = 200
) -> dict[str, Any]:
    """Train a small model on each of some recordings of independent Poisson units, and of as many that share a drift;
    count the pairs that pass.

    Parameters
    ----------
    folder : keeps the result of each recording; a second call continues where the first one stopped

    Returns
    -------
    dict
        ``maps``: by kind of recording and name, ``share`` of ordered pairs with p below 0.05, ``any``: recordings
        in which any pair passes at a false-discovery rate of 5 %, and ``rate``: whether ``attend`` prints that rate for the
        reading. ``checked``: at most one recording for each reading that prints it, as the pairwise ones do; the model's own
        maps, whose null is their own spread, print none.
    """
    readings = {}
    for kind in KINDS:
        found = [_recording(kind, seed, num_units, seconds, steps, folder) for seed in range(recordings)]
        readings[kind] = {
            n: {
                "share": float(np.mean([f[n][0] for f in found])),
                "any": int(sum(f[n][1] > 0 for f in found)),
                "rate": found[0][n][2],
            }
            for n in found[0]
        }
    return {
        "bench": "nulls",
        "checked": all(r["any"] <= 1 for maps in readings.values() for r in maps.values() if r["rate"]),
        "recordings": recordings,
        "units": num_units,
        "seconds": seconds,
        "primary": PRIMARY,
        "maps": readings,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _recording(
    kind: str, seed: int, num_units: int, seconds: float, steps: int, folder: Path | None
) -> dict[str, list]:
    """By reading: the share of pairs with p < 0.05, how many pass after correction, and whether a rate is printed."""
    path = folder / f"nulls_{kind}_{num_units}x{seconds:g}_{steps}_{seed}.json" if folder else None
    if path is not None and path.exists():
        return json.loads(path.read_text())
    config = from_dict(SETTINGS | {"seed": seed, "train": SETTINGS["train"] | {"steps": steps}})
    maps = _maps(KINDS[kind](seed, num_units, seconds), config)
    out = {m.name: [_share(m), int(m.discoveries().sum()), not m.null] for m in maps}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(out).encode())
    return out


def _share(m: Map) -> float:
    """Of the pairs that have a p value: all but a square map's diagonal, and what was never seen."""
    p = m.p()
    return float((p[np.isfinite(p)] < 0.05).mean())


def poisson_recording(seed: int, num_units: int, seconds: float) -> Recording:
    """Independent units of constant rates, 2 to 10 Hz."""
    rng = np.random.default_rng([seed, 7])
    counts = rng.poisson(rng.uniform(2, 10, num_units) * seconds)
    units = np.repeat(np.arange(num_units), counts)
    times = rng.uniform(0, seconds, len(units))
    order = np.argsort(times, kind="stable")
    return Recording(
        name=f"independent Poisson units, seed {seed}",
        spike_times=times[order],
        spike_units=units[order],
        units={"id": np.array([f"p{i:02d}" for i in range(num_units)])},
        domain=np.array([[0.0, seconds]]),
    )


def drifting_recording(seed: int, num_units: int, seconds: float, time_constant_s: float = 4.0) -> Recording:
    """Poisson units whose rates follow one slow autoregression, each by a factor of its own, and nothing else."""
    rng, dt = np.random.default_rng([seed, 8]), 0.01
    keep, noise = np.exp(-dt / time_constant_s), rng.standard_normal(round(seconds / dt))
    noise[1:] *= np.sqrt(1 - keep**2)
    slow = np.asarray(lfilter([1.0], [1.0, -keep], noise))
    rates = rng.uniform(2, 10, num_units) * np.exp(np.outer(slow, rng.uniform(-0.5, 1.0, num_units)))
    counts = rng.poisson(np.minimum(rates, 100) * dt)
    row, unit = (np.repeat(x, counts[counts > 0]) for x in np.nonzero(counts))
    times = (row + rng.uniform(0, 1, len(row))) * dt
    order = np.argsort(times, kind="stable")
    return Recording(
        name=f"units that share a drift, seed {seed}",
        spike_times=times[order],
        spike_units=unit[order],
        units={"id": np.array([f"p{i:02d}" for i in range(num_units)])},
        domain=np.array([[0.0, seconds]]),
    )


KINDS = {"independent": poisson_recording, "shared drift": drifting_recording}


def _maps(rec: Recording, config: Config) -> list[Map]:
    from neuroformer.training.train import load_best, train

    with tempfile.TemporaryDirectory() as folder:
        prepared, _ = train(rec, config, Path(folder), progress=False)
        model = load_best(Path(folder))
    windows = prepared.windows("train")[:1500]
    maps = [influence.knock_out(model, prepared, windows)]
    lags = maps[0].lags_s
    assert lags is not None
    maps.append(influence.gradients(model, prepared, windows[:500]))
    maps += [m for m in attention.attention_maps(model, prepared, windows) if m.square]
    maps += pairwise_maps(prepared, len(lags), prepared.builder.shape.current)
    return [shuffled_identities(m) for m in maps]


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = []
    for kind, maps in result["maps"].items():
        lines.append(f"{kind:<36}{'pairs with p < 0.05':>21}{'recordings with a discovery':>30}")
        for name, r in maps.items():
            mark = ("  primary" if name == result["primary"] else "") + ("" if r["rate"] else "  prints no rate")
            lines.append(f"{name:<36}{r['share']:>20.1%}{r['any']:>27} of {result['recordings']}{mark}")
    return "\n".join(lines)
