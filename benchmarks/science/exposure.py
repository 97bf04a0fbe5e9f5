"""What noise on the past gains in closed loop: trainings with and without it, from paired seeds.

A model is trained on true pasts and simulates from its own. Each training is scored by its held-out likelihood and by
the late part of its closed loop (32 s to 64 s), beside the same model after the true past: the difference is exposure
bias.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroformer.bundle.bundle import read_bundle
from neuroformer.config import Config, apply_overrides, from_dict, load_config, to_dict
from neuroformer.data.recordings import open_only
from neuroformer.files import write_atomic
from neuroformer.generation.chain import simulate_chain
from neuroformer.generation.simulate import simulate, simulate_true_past
from neuroformer.intervals import mean_interval
from neuroformer.simulation_scores.drift import chain_order, chained, late_scores, since_closed
from neuroformer.simulation_scores.recorded import recorded_trials, simulated_trials
from neuroformer.training.scoring.scores import score
from neuroformer.training.train import load_best, train

RESULT = "exposure.json"


def run(
    config: Path, folder: Path, noises: list[float], seeds: list[int], overrides: list[str], samples: int = 8
) -> dict[str, Any]:
    """Train and score what ``folder`` does not hold yet, and compare every noise level with the first one.

    Returns
    -------
    dict
        ``scores``: by noise and score, the mean over seeds; ``minus``: by noise and score, the paired difference
        from the first noise and its 95 % interval (Student's t over seeds); ``since_closed``: by noise, the means over
        seeds. Scores: ``bits_per_spike`` of the test part; of the late closed loop ``rate_off`` (absolute log2 of the
        population rate over the recorded one), ``rate_r``, ``pair_r`` and ``psth_r`` (see
        :mod:`neuroformer.simulation_scores.drift`); each also ``true_past_...``, and
        ``ceiling_...`` of training stretches in place of the simulation.
    """
    found: dict[float, list[dict[str, Any]]] = {}
    for seed in seeds:
        for noise in noises:
            tree = apply_overrides(
                to_dict(load_config(config, overrides)), [f"seed={seed}", f"train.past_noise={noise}"]
            )
            one = _one(from_dict(tree), folder / f"noise-{noise:g}-seed-{seed}", samples)
            found.setdefault(noise, []).append(one)
    out: dict[str, Any] = {
        "bench": "exposure",
        "checked": True,
        "config": config.name,
        "seeds": seeds,
        "noises": noises,
        "samples": samples,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "scores": {},
        "minus": {},
        "since_closed": {},
    }
    for noise, results in found.items():
        values = {k: np.array([r["scores"][k] for r in results]) for k in results[0]["scores"]}
        first = {k: np.array([r["scores"][k] for r in found[noises[0]]]) for k in values}
        out["scores"][noise] = {k: float(v.mean()) for k, v in values.items()}
        drift = [r["since_closed"] for r in results]
        out["since_closed"][noise] = {k: np.mean([d[k] for d in drift], 0).tolist() for k in drift[0]}
        if noise != noises[0]:
            out["minus"][noise] = {k: paired(v - first[k]) for k, v in values.items()}
    return out


def _one(config: Config, folder: Path, samples: int) -> dict[str, Any]:
    """Train, unless it was, and score, unless it was."""
    done = folder / RESULT
    if done.exists():
        return json.loads(done.read_text())
    config, rec = open_only(config)
    if not (folder / "bundle.json").exists():
        train(rec, config, folder, progress=False, resume=True)
    p, model = _prepared(rec, config, folder, samples), load_best(folder)
    closed = simulate(model, p, progress=False)
    assert closed is not None
    after = simulate_true_past(model, p, progress=False)
    parts = recorded_trials(p.rec, p.split, p.config.generate.split, p.config.generate.max_seconds)
    order_LC = chain_order(parts.held_out)
    recordings = simulate_chain(model, p, closed.recording, order_LC, progress=False)
    legs = [simulated_trials(r, parts.held_out) for r in recordings]
    chains = chained(order_LC, legs, parts, simulated_trials(after, parts.held_out), config.seed)
    late: dict[str, Any] = late_scores(chains)
    scores = {"bits_per_spike": score(model, p, "test").bits()}
    for name, prefix in (("model", ""), ("true_past", "true_past_"), ("ceiling", "ceiling_")):
        for key, (value, _, _) in late[name].items():
            scores[prefix + key] = value
        scores[prefix + "rate_off"] = abs(float(np.log2(late[name]["rate_ratio"][0])))
    out = {"scores": scores, "since_closed": since_closed(chains), "guard_hits": closed.guard_hits}
    write_atomic(done, json.dumps(out, indent=1).encode())
    return out


def _prepared(rec, config: Config, folder: Path, samples: int):
    from neuroformer.data.prepared import prepare

    generate = dataclasses.replace(config.generate, samples=samples)
    return prepare(rec, dataclasses.replace(config, generate=generate), read_bundle(folder).normalization)


def paired(difference: np.ndarray) -> tuple[float, float, float]:
    """Mean of paired differences and its 95 % interval over seeds; NaN ends from one seed."""
    if len(difference) < 2:
        return float(difference.mean()), float("nan"), float("nan")
    return mean_interval(difference.tolist())


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    keys = list(next(iter(result["scores"].values())))
    first, *others = result["noises"]
    width = max(len(k) for k in keys) + 2
    lines = [f"{result['config']}, seeds {result['seeds']}, {result['samples']} samples; closed loop from 32 s on"]
    heads = "".join(f"{f'{n:g} minus {first:g} (95 %)':>34}" for n in others)
    lines.append(f"{'train.past_noise':<{width}}" + "".join(f"{n:>9g}" for n in result["noises"]) + heads)
    for key in keys:
        cells = "".join(f"{result['scores'][n][key]:>9.3f}" for n in result["noises"])
        for n in others:
            mean, low, high = result["minus"][n][key]
            cells += f"{f'{mean:+.3f} ({low:+.3f} to {high:+.3f})':>34}"
        lines.append(f"{key:<{width}}{cells}")
    for n, drift in result["since_closed"].items():
        lines.append(f"noise {n:g}: seconds since the loop closed, rate ratio, pair r, the same after the true past")
        for i, start in enumerate(drift["start_s"]):
            cells = [drift[k][i] for k in ("rate_ratio", "pair_r", "true_past_rate_ratio", "true_past_pair_r")]
            lines.append(f"{start:>8g}" + "".join(f"{v:>9.3f}" for v in cells))
    return "\n".join(lines)
