"""Does a trained model know which of many inputs drives each neuron? Every map's top input against the truth."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuroformer.analysis import attention, fields
from neuroformer.analysis.maps import Map
from neuroformer.bundle.bundle import read_bundle
from neuroformer.config import Config, ConfigError, load_config
from neuroformer.data.recordings import open_only
from neuroformer.model.network import Neuroformer
from neuroformer.recording import Recording

if TYPE_CHECKING:
    from neuroformer.data.prepared import Prepared


def run(
    config: Path, overrides: list[str] | None = None, windows: int = 512, folder: Path | None = None
) -> dict[str, Any]:
    """Train on ``synthetic:inputs``, where one pixel drives each neuron, and read which.

    Parameters
    ----------
    windows : training windows over which the maps are taken: a place that lights up once in 5 s is lit in one window
        of fifty, and occlusion knows nothing of a place that it never saw lit. Gradients take 32 of them
    folder : keeps the run; a second call reads the same model

    Returns
    -------
    dict
        ``maps``: by name, the share of units whose largest value lies at the pixel that drives them; chance is
        one over the number of pixels. ``best``: the reading of the largest share.

    Raises
    ------
    ConfigError
        A recording whose true inputs are not known, or ``folder`` holds a run of another configuration.
    """
    c = load_config(config, overrides or [])
    c, rec = open_only(c)
    if "input_of_unit" not in rec.truth:
        raise ConfigError(f"'{rec.name}' does not say which input drives each unit; use synthetic:inputs")
    with tempfile.TemporaryDirectory() as temporary:
        mine = folder or Path(temporary)
        model, prepared, metrics = _trained(rec, c, mine)
    everything = prepared.windows("train")
    few = np.random.default_rng(c.seed).permutation(len(everything))[:windows]
    some, args = everything[np.sort(few)], (model, prepared)
    maps = [fields.occlusion(*args, some)]
    maps += [fields.frame_sensitivity(*args, some[:: max(1, len(some) // 32)], batch_size=8)]
    maps += [m for m in attention.attention_maps(*args, some, batch_size=32, rollout=False) if m.grid]
    truth = rec.truth["input_of_unit"]
    found = {m.name: _share(m, truth) for m in maps}
    return {
        "bench": "inputs",
        "checked": True,
        "units": rec.num_units,
        "maps": found,
        "best": max(found, key=lambda name: found[name]),
        "bits_per_spike": float(metrics["valid_best_likelihood"]),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _trained(rec: Recording, config: Config, folder: Path) -> tuple[Neuroformer, Prepared, dict[str, Any]]:
    """What was trained in this folder before, or now."""
    from neuroformer.data.prepared import prepare
    from neuroformer.training.train import load_best, train

    if (folder / "bundle.json").exists():
        bundle = read_bundle(folder)
        if bundle.config != config:
            raise ConfigError(f"{folder} was trained with another configuration; name another folder")
        return load_best(folder), prepare(rec, config, bundle.normalization), bundle.metrics
    prepared, metrics = train(rec, config, folder, progress=False, resume=True)
    return load_best(folder), prepared, metrics


def _share(m: Map, truth: np.ndarray) -> float:
    """How often a unit's largest value, over lags, lies at its true input."""
    return float((np.nan_to_num(m.pairs(), nan=-np.inf).argmax(1) == truth).mean())


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [f"{'map':<44}{'top input is the true one':>28}"]
    lines += [f"{name:<44}{share:>27.1%}" for name, share in result["maps"].items()]
    return "\n".join([*lines, f"{result['units']} units; validation bits/spike {result['bits_per_spike']:.4f}"])
