"""A third recording that joins a model of two, against the same network from scratch on the same little data."""

from __future__ import annotations

import dataclasses
import json
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from neuroformer.baselines.oracle import oracle_bits_per_spike
from neuroformer.bundle.bundle import read_bundle
from neuroformer.config import Config, ConfigError, RecordingConfig, load_config, to_dict
from neuroformer.data.prepared import Prepared
from neuroformer.data.recordings import open_one
from neuroformer.files import write_atomic
from neuroformer.intervals import mean_interval
from neuroformer.training.adapt import Start, Trains, adapted_config
from neuroformer.training.scoring.scores import score
from neuroformer.training.train import load_best, train_several

SHARE = 0.1  # of the third recording's training and validation stretches
# from scratch is also tried with more steps and more dropout: (times the steps, dropout; -1: the configuration's)
TRIES = ((1, -1.0), (2, -1.0), (1, 0.4), (2, 0.4))
SCORES = "adapt.json"  # of one seed, beside its runs
NAMES = ("adapt_new", "adapt_all", "scratch", "scratch_best", "oracle")


def run(
    path: Path,
    seeds: int = 5,
    overrides: Sequence[str] = (),
    *,
    steps: int = 100,
    tries: Sequence[tuple[int, float]] = TRIES,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Bits/spike on the third recording's test blocks. Each seed has its own circuit, three animals and all
    trainings.

    1. Train on the first two animals (the configuration's own steps).
    2. Adapt to the third with :data:`SHARE` of its data, ``steps`` steps: new rows alone, and everything.
    3. From scratch on the same data: with the same settings (``scratch``), and with those of ``tries``.
       ``scratch_best`` is the best of all these *on the test blocks*: more than anybody without them could choose.

    Of every training, the weights that were best on the share of the validation blocks are scored.

    Parameters
    ----------
    path : a configuration of two recordings of ``synthetic:shared``
    folder : keeps the result of each seed; a second call continues where the first one stopped

    Returns
    -------
    dict
        ``scores``: by name, one value a seed; ``minus``: mean and Student's t 95 % interval over seeds of the
        paired differences, which are the bar; ``pretrained``: of the first two animals, the mean.

    Raises
    ------
    ConfigError
        ``folder`` holds seeds of another configuration.
    """
    config = load_config(path, overrides)
    found = []
    with _kept(folder) as place:
        for seed in range(seeds):
            found.append(_seed(_of_seed(config, seed), seed, steps, tries, place / f"seed_{seed}"))
    scores = {name: [f[name] for f in found] for name in (*NAMES, "pretrained")}
    minus = {}
    for ours, theirs in (
        ("adapt_new", "scratch"),
        ("adapt_new", "scratch_best"),
        ("adapt_all", "scratch"),
        ("adapt_all", "scratch_best"),
    ):
        paired = [a - b for a, b in zip(scores[ours], scores[theirs], strict=True)]
        minus[f"{ours} - {theirs}"] = list(mean_interval(paired)) if seeds > 1 else [paired[0], None, None]
    return {
        "bench": "adapt",
        "checked": True,
        "config": path.name,
        "seeds": seeds,
        "share": SHARE,
        "steps": steps,
        "scores": scores,
        "minus": minus,
        "scratch_tried": [f["scratch_tried"] for f in found],
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


@contextmanager
def _kept(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def _of_seed(config: Config, seed: int) -> Config:
    """The same animals' numbers in another circuit."""
    several = tuple(dataclasses.replace(r, options=r.options | {"circuit": seed}) for r in config.recordings)
    if len(several) != 2 or any(r.path != "synthetic:shared" for r in several):
        raise ConfigError("bench adapt takes a configuration of two recordings of synthetic:shared")
    return dataclasses.replace(config, seed=seed, recordings=several)


def _seed(config: Config, seed: int, steps: int, tries, folder: Path) -> dict[str, Any]:
    """The result of one seed, computed now or read from an earlier call."""
    asked = {"config": to_dict(config), "steps": steps, "tries": [list(t) for t in tries]}
    file = folder / SCORES
    if file.exists():
        known = json.loads(file.read_text())
        if known.pop("asked") != asked:
            raise ConfigError(f"{file} is of another configuration; give --run another folder")
        return known
    recs = [open_one(one) for one in config.recordings]
    both, _ = train_several(recs, config, folder / "both", progress=False, resume=True)
    names = [p.rec.name for p in both]
    pretrained = [
        score(load_best(folder / "both", recording=n), p, "test").bits() for n, p in zip(names, both, strict=True)
    ]
    out: dict[str, Any] = {"pretrained": sum(pretrained) / 2}
    third = RecordingConfig("synthetic:shared", options={**config.recordings[0].options, "seed": 2}, share=SHARE)
    rec = open_one(third)
    alone = dataclasses.replace(adapted_config(config, ()), recording=third)
    ways: tuple[Trains, ...] = ("new", "all")
    for way in ways:
        start = Start(read_bundle(folder / "both"), way)
        out[f"adapt_{way}"], prepared = _one(rec, alone, steps, folder / f"adapt_{way}", start)
    tried = {}
    for times, dropout in tries:
        model = alone.model if dropout < 0 else dataclasses.replace(alone.model, dropout=dropout)
        setting = f"{times * steps} steps, dropout {model.dropout:g}"
        place = folder / f"scratch_{len(tried)}"
        tried[setting], prepared = _one(rec, dataclasses.replace(alone, model=model), times * steps, place, None)
    best = max(tried, key=lambda setting: tried[setting])
    out |= {"scratch": next(iter(tried.values())), "scratch_best": tried[best], "scratch_tried": tried}
    out["oracle"] = oracle_bits_per_spike(prepared, prepared.windows("test"))
    write_atomic(file, json.dumps(out | {"asked": asked}, indent=1).encode())
    return out


def _one(rec, config: Config, steps: int, folder: Path, start: Start | None) -> tuple[float, Prepared]:
    """Bits/spike of held-out test blocks after so many steps."""
    train = dataclasses.replace(
        config.train,
        steps=steps,
        evaluate_every=max(1, steps // 10),
    )
    config = dataclasses.replace(config, train=train)
    (prepared,), _ = train_several([rec], config, folder, progress=False, resume=True, start=start)
    return score(load_best(folder), prepared, "test").bits(), prepared


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [f"{'seed':<6}" + "".join(f"{name:>14}" for name in NAMES)]
    for seed in range(result["seeds"]):
        lines.append(f"{seed:<6}" + "".join(f"{result['scores'][name][seed]:>14.4f}" for name in NAMES))
    lines.append(f"bits/spike of the third recording's test blocks, {result['share']:.0%} of its data; over seeds:")
    for name, (mean, low, high) in result["minus"].items():
        interval = "" if low is None else f" ({low:+.4f} to {high:+.4f})"
        lines.append(f"  {name:<26}{mean:>+9.4f}{interval}")
    return "\n".join(lines)
