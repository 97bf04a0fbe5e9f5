"""Several seeds of one configuration as one table: ``neuroformer train --seeds N``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuroformer.cli.tables import interval, table
from neuroformer.intervals import mean_interval

MEANING = (
    "mean over seeds with Student's t 95 % interval: how much initialisation, batches and dropout matter. Recording "
    "and split are the same in all, so it says nothing of other recordings or other held-out data"
)


def seed_folder(folder: Path, seed: int) -> Path:
    return folder / f"seed_{seed}"


def summarise_seeds(folder: Path, seeds: list[int]) -> None:
    """Every number that all seeds' ``summary.json`` have, into ``seeds.json`` and a table."""
    from neuroformer.files import write_atomic

    summaries = [json.loads((seed_folder(folder, s) / "summary.json").read_text()) for s in seeds]
    names = [k for k in summaries[0] if all(_is_number(x.get(k)) for x in summaries)]
    scores = {name: _over_seeds([float(x[name]) for x in summaries]) for name in names}
    tree = {"seeds": seeds, "meaning": MEANING, "scores": scores}
    write_atomic(folder / "seeds.json", json.dumps(tree, indent=1).encode())
    rows = [
        (name, s["mean"], interval(s["low"], s["high"]) if len(seeds) > 1 else "-", min(s["values"]), max(s["values"]))
        for name, s in scores.items()
        if len(seeds) == 1 or len(set(s["values"])) > 1  # a number that all seeds share is not a score
    ]
    print(f"{len(seeds)} seeds ({', '.join(map(str, seeds))}): {MEANING}")
    print(table(rows, ("score", "mean", "95 % interval", "lowest", "highest")))
    print(f"seeds in {folder / 'seeds.json'}")


def _over_seeds(values: list[float]) -> dict[str, Any]:
    if len(values) == 1:
        return {"mean": values[0], "low": None, "high": None, "values": values}
    mean, low, high = mean_interval(values)
    return {"mean": mean, "low": low, "high": high, "values": values}


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and x == x
