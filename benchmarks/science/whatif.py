"""Do simulated interventions act on the right units? Silence each hub of ``synthetic:demo`` and see whose rates fall.

The generator's own coupling says whose rates should fall. The score is the AUROC of the paired change of each unit's
rate
(over its standard error) as a detector of the hub's targets; the hub itself is left out.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.bundle.bundle import load_model, read_bundle
from neuroformer.config import ConfigError, InterventionConfig
from neuroformer.data.prepared import prepare
from neuroformer.data.recordings import open_one
from neuroformer.generation.simulate import simulate
from neuroformer.simulation_scores.whatif import auroc, rate_changes


def run(folder: Path, samples: int = 8, max_seconds: float = 12.0) -> dict[str, Any]:
    """Simulate the test trials of a run as they are and with each hub silenced, from the same random numbers.

    Returns
    -------
    dict
        ``auroc_hub_ID`` of each, ``auroc`` (the smallest of them), ``auroc_mean``, and the mean relative change of
        targets and of others.

    Raises
    ------
    ConfigError
        A run of a recording whose true coupling is not known.
    """
    bundle = read_bundle(folder).of()
    rec = open_one(bundle.config.recording)
    if "coupling" not in rec.truth or "is_hub" not in rec.truth:
        raise ConfigError(f"{folder} was trained on '{rec.name}', whose coupling is not known; use synthetic:demo")
    p = prepare(rec, bundle.config, bundle.normalization)
    model = load_model(bundle)

    def simulated(*interventions: InterventionConfig):
        g = dataclasses.replace(
            p.config.generate, samples=samples, max_seconds=max_seconds, interventions=interventions
        )
        result = simulate(model, p.asking(g), progress=False)
        assert result is not None
        return result.recording

    base = simulated()
    out: dict[str, Any] = {
        "bench": "whatif",
        "checked": True,
        "samples": samples,
        "seconds_each": max_seconds,
    }
    each, hit, spared = [], [], []
    for hub in np.flatnonzero(rec.truth["is_hub"]):
        change = rate_changes(base, simulated(InterventionConfig("silence", units=(int(hub),))))
        others = np.arange(rec.num_units) != hub
        is_target = (rec.truth["coupling"][:, hub] > 0)[others]
        relative = (change.change_U / np.maximum(change.before_U, 1e-9))[others]
        each.append(auroc(-change.z_U[others], is_target))
        hit.append(relative[is_target].mean())
        spared.append(relative[~is_target].mean())
        out[f"auroc_hub_{rec.unit_ids[hub]}"] = each[-1]
    return out | {
        "auroc": float(np.min(each)),
        "auroc_mean": float(np.mean(each)),
        "change_of_targets": float(np.mean(hit)),
        "change_of_others": float(np.mean(spared)),
    }
