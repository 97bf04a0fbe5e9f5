"""How well a trained model's maps recover a known coupling, beside pairwise baselines, over seeds."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroformer.analysis import attention, influence
from neuroformer.analysis.connectivity import agreement
from neuroformer.analysis.maps import Map
from neuroformer.analysis.pairwise import pairwise_maps
from neuroformer.bundle.bundle import read_bundle
from neuroformer.config import Config, ConfigError, apply_overrides, from_dict, load_config, to_dict
from neuroformer.data.recordings import open_only
from neuroformer.files import write_atomic

PRIMARY = "knock-out"  # fixed before any model was trained on these recordings
PAIRWISE = ("cross-correlogram", "Pearson of counts", "GLM coupling filter", "transfer entropy")
SCORES = "connectivity.json"  # of one seed, beside its bundle


def run(
    config: Path, seeds: int = 5, overrides: list[str] | None = None, windows: int = 20_000, folder: Path | None = None
) -> dict[str, Any]:
    """Train on a built-in recording with known coupling, once per seed (of recording and training), and map each
    model.

    Every map, the baselines included, is summarised alike: the value at the lag where it is largest in size.
    The baselines see the training blocks, as the model did; the maps are taken on training windows.

    Parameters
    ----------
    windows : over which the maps are taken, a seed
    folder : keeps the result of each seed; a second call continues where the first one stopped

    Returns
    -------
    dict
        ``maps``: by name, mean and standard error over seeds of ``auroc`` and ``r2``; ``primary_minus``: by
        pairwise baseline, mean and standard error of the paired difference of r2; ``bits_per_spike``: of the
        validation blocks.

    Raises
    ------
    ConfigError
        ``folder`` holds seeds of another configuration.
    """
    scores: dict[str, dict[str, list[float]]] = {}
    bits = []
    for seed in range(seeds):
        tree = to_dict(load_config(config, overrides or []))
        tree["recording"]["options"]["seed"] = seed
        one = _seed(from_dict(apply_overrides(tree, [f"seed={seed}"])), windows, folder)
        bits.append(one["bits_per_spike"])
        for s in one["maps"]:
            kept = scores.setdefault(s["name"], {"auroc": [], "r2": []})
            kept["auroc"].append(s["auroc"])
            kept["r2"].append(s["r2"])
    differ = {name: _mean(np.subtract(scores[PRIMARY]["r2"], scores[name]["r2"])) for name in PAIRWISE}
    return {
        "bench": "connectivity",
        "checked": True,
        "config": config.name,
        "seeds": seeds,
        "primary": PRIMARY,
        "maps": {name: {k: _mean(v) for k, v in s.items()} for name, s in scores.items()},
        "primary_minus": differ,
        "bits_per_spike": _mean(bits),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _seed(config: Config, num_windows: int, folder: Path | None) -> dict[str, Any]:
    """The result of one seed, computed now or read from an earlier call."""
    place = contextlib.nullcontext(folder / f"seed_{config.seed}") if folder else tempfile.TemporaryDirectory()
    with place as there:
        mine = Path(there)
        if (mine / "bundle.json").exists() and read_bundle(mine).config != config:
            raise ConfigError(f"{mine} was trained with another configuration; name another folder")
        if (mine / SCORES).exists():
            return json.loads((mine / SCORES).read_text())
        found = _one(config, num_windows, mine)
        write_atomic(mine / SCORES, json.dumps(found, indent=1).encode())
        return found


def _one(config: Config, num_windows: int, folder: Path) -> dict[str, Any]:
    """The agreement of every map with the truth, and the validation bits/spike, of one seed."""
    from neuroformer.training.train import load_best, train

    config, rec = open_only(config)
    prepared, metrics = train(rec, config, folder, progress=False, resume=True)
    model = load_best(folder)
    everything = prepared.windows("train")
    few = np.random.default_rng(config.seed).permutation(len(everything))[:num_windows]
    windows = everything[np.sort(few)]
    maps: list[Map] = [influence.knock_out(model, prepared, windows, batch_size=256)]
    lags = maps[0].lags_s
    assert lags is not None
    maps += [influence.gradients(model, prepared, windows[: max(1, num_windows // 8)], steps=s) for s in (1, 8)]
    for rows in ("predicted", "spike"):
        for m in attention.attention_maps(model, prepared, windows, rows=rows):
            if m.square:
                maps.append(dataclasses.replace(m, name=f"{m.name}, by {rows}"))
    maps += pairwise_maps(prepared, len(lags), len(lags))
    found = [agreement(m, rec.truth["coupling"]) for m in maps]
    return {"maps": found, "bits_per_spike": float(metrics["valid_best_likelihood"])}


def _mean(values) -> list[float]:
    """Mean and standard error."""
    x = np.asarray(values, float)
    return [float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else float("nan")]


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [f"{'map':<44}{'AUROC':>9}{'r squared':>12}{'+-':>9}"]
    for name, s in sorted(result["maps"].items(), key=lambda item: -item[1]["r2"][0]):
        mark = "  primary" if name == result["primary"] else ""
        lines.append(f"{name:<44}{s['auroc'][0]:>9.4f}{s['r2'][0]:>12.4f}{s['r2'][1]:>9.4f}{mark}")
    lines.append("primary minus pairwise, r squared, paired over seeds:")
    lines += [f"  {name:<42}{d[0]:>+21.4f}{d[1]:>9.4f}" for name, d in result["primary_minus"].items()]
    lines.append(f"validation bits/spike {result['bits_per_spike'][0]:.4f}; {result['seeds']} seeds")
    return "\n".join(lines)
