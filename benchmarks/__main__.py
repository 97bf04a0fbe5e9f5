"""``python -m benchmarks NAME``: what reproduces the tables of docs/results.md that need several trainings.

They are kept outside the package: users of a laboratory's own recording need none of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.public import command as public
from benchmarks.science import (
    adapt,
    connectivity,
    coverage,
    exposure,
    inputs,
    leaks,
    long,
    nulls,
    reconstruction,
    whatif,
)

Result = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = top.add_subparsers(dest="name", required=True, metavar="NAME")

    def benchmark(name: str, measure, help: str):
        b = names.add_parser(name, help=help, description=help)
        b.add_argument("--json", action="store_true", help="print one JSON object")
        b.set_defaults(measure=measure)
        return b

    b = benchmark("adapt", _adapt, "a third recording joins a model of two, against training from scratch")
    _trains(b, "configs/shared.yaml", "what the two train with", "train.steps=400")
    b.add_argument("--seeds", type=int, default=5, help="circuits, each with animals and trainings of its own")
    b.add_argument("--steps", type=int, default=100, help="of adapting, and of training from scratch")
    _keeps(b, "seed")
    b = benchmark("connectivity", _connectivity, "whether maps recover a known coupling, beside pairwise baselines")
    _trains(b, "configs/hubs.yaml", "what to train; a built-in recording with known coupling", "train.steps=400")
    b.add_argument("--seeds", type=int, default=5, help="trainings, each on a recording of its own")
    _keeps(b, "seed")
    b = benchmark(
        "coverage", _coverage, "whether intervals of every kind hold the truth as often as they say, where it is known"
    )
    b.add_argument("--draws", type=int, default=200, help="recordings for each cell")
    b.add_argument("--trial-draws", type=int, default=100, help="for each number of trials; 0: none")
    b = benchmark("exposure", _exposure, "what noise on the past buys in closed loop, over paired trainings")
    _trains(b, None, "what to train, e.g. configs/hippocampus.yaml", "recording.path=my.npz")
    _pairs(b)
    b = benchmark("inputs", _inputs, "whether maps name the one input that drives each neuron")
    _trains(b, "configs/inputs.yaml", "what to train, on synthetic:inputs", "recording.options.num_units=100")
    b.add_argument(
        "--run",
        type=Path,
        dest="folder",
        help="keep the run in this folder, and read it again if it is there",
    )
    b = benchmark("leaks", _leaks, "whether the audit names planted leaks, and nothing where there are none")
    b.add_argument("--recordings", type=int, default=20, help="of each kind")
    b = benchmark("long", _long, "memory of training with baselines on a day of 20 units, an hour of 150; their time")
    b.add_argument("--sizes", nargs="+", choices=sorted(long.SIZES), default=list(long.SIZES), help="which of the two")
    b.add_argument("--set", nargs="*", default=[], dest="override", metavar="key.sub=value", help="settings to replace")
    b = benchmark("nulls", _nulls, "how often a pair passes by chance where units are independent, or share a drift")
    b.add_argument("--recordings", type=int, default=20, help="of each kind, each with a training of its own")
    _keeps(b, "recording")
    b = benchmark("public", _public, "a public recording: where to get it, and what comes out on your copy of it")
    _reads(b)
    b = benchmark(
        "reconstruction", _reconstruction, "whether an encoder that also reconstructs images predicts neurons better"
    )
    b.add_argument("--seeds", type=int, default=5, help="trainings of each of the three ways, paired")
    b.add_argument("override", nargs="*", metavar="key.sub=value", help="settings to replace, e.g. train.steps=100")
    _keeps(b, "training")
    b = benchmark("whatif", _whatif, "whom silencing a hub of synthetic:demo hits")
    b.add_argument("--run", type=Path, required=True, dest="folder", help="a run trained on synthetic:demo")
    return top


def _trains(b, config: str | None, help: str, example: str) -> None:
    """Arguments of a benchmark that trains; --config is required where ``config`` is None."""
    default = None if config is None else Path(config)
    b.add_argument("--config", type=Path, default=default, required=default is None, help=help)
    b.add_argument("override", nargs="*", metavar="key.sub=value", help=f"settings to replace, e.g. {example}")


def _pairs(b) -> None:
    """Arguments of paired trainings with noise on the past."""
    b.add_argument(
        "--run",
        type=Path,
        default=Path("runs/exposure"),
        dest="folder",
        help="folder of the trainings (default: runs/exposure); what is there already is not trained again",
    )
    b.add_argument("--noise", default="0,0.2,0.5", help="values of train.past_noise, compared with the first")
    b.add_argument("--seeds", default="0,1,2", help="of the trainings, the same for every value")


def _reads(b) -> None:
    """Arguments of a benchmark on the user's copy of a public recording."""
    b.add_argument(
        "dataset", choices=public.NAMES, help="without --data: where to get it, its licence, published numbers"
    )
    b.add_argument("--data", type=Path, help="folder of your copy")
    b.add_argument("--run", type=Path, dest="folder", help="folder of the runs (default: runs/public/NAME)")
    b.add_argument("--lookahead", type=float, default=0.0, help="seconds after a decoded moment, for all sides")
    b.add_argument("override", nargs="*", metavar="key.sub=value", help="settings to replace, right after the dataset")


def _keeps(b, part: str) -> None:
    b.add_argument(
        "--run",
        type=Path,
        dest="folder",
        help=f"keep the results of each {part} in this folder, and continue where an earlier call stopped",
    )


def _adapt(args) -> Result:
    result = adapt.run(args.config, args.seeds, args.override, steps=args.steps, folder=args.folder)
    return result | {"table": adapt.table(result)}


def _connectivity(args) -> Result:
    result = connectivity.run(args.config, args.seeds, args.override, folder=args.folder)
    return result | {"table": connectivity.table(result)}


def _coverage(args) -> Result:
    result = coverage.run(args.draws, args.trial_draws)
    return result | {"table": coverage.table(result)}


def _exposure(args) -> Result:
    numbers = lambda text, kind: [kind(x) for x in text.split(",")]
    result = exposure.run(args.config, args.folder, numbers(args.noise, float), numbers(args.seeds, int), args.override)
    return result | {"table": exposure.table(result)}


def _inputs(args) -> Result:
    result = inputs.run(args.config, args.override, folder=args.folder)
    return result | {"table": inputs.table(result)}


def _leaks(args) -> Result:
    result = leaks.run(args.recordings)
    return result | {"table": leaks.table(result)}


def _long(args) -> Result:
    result = long.run(args.sizes, args.override)
    return result | {"table": long.table(result)}


def _nulls(args) -> Result:
    result = nulls.run(args.recordings, args.folder)
    return result | {"table": nulls.table(result)}


def _public(args) -> Result:
    return public.run(args.dataset, args.data, args.folder, args.lookahead, args.override)


def _reconstruction(args) -> Result:
    result = reconstruction.run(args.folder, args.seeds, args.override)
    return result | {"table": reconstruction.table(result)}


def _whatif(args) -> Result:
    return whatif.run(args.folder)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    result = args.measure(args)
    table = result.pop("table", None)
    lines = table or "\n".join(f"{k}: {v}" for k, v in result.items())
    print(json.dumps(result) if args.json else lines)
    return 0 if result.get("checked", True) else 1


if __name__ == "__main__":
    sys.exit(main())
