"""``neuroformer bench``."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

BENCHMARKS = {
    "attend": "what capturing maps adds to a forward pass",
    "connectivity": "whether maps recover a known coupling, beside pairwise baselines",
    "data": "batches built per second",
    "decode": "behavior, in batches and as a stream",
    "kernels": "fused kernels on a GPU; exit code 3 without one",
}


def add(command) -> None:
    help = "Benchmark a part against its plain counterpart; checks that both agree first."
    p = command("bench", run, help)
    what = "; ".join(f"{name}: {text}" for name, text in BENCHMARKS.items())
    p.add_argument("name", choices=list(BENCHMARKS), help=f"what to measure ({what})")
    p.add_argument(
        "--spikes", type=float, metavar="N",
        help="data: a recording of so many spikes on disk (1e8) against the small one",
    )  # fmt: skip
    p.add_argument(
        "--config", type=Path, default=Path("configs/hubs.yaml"),
        help="connectivity: what to train; a built-in recording with known coupling",
    )  # fmt: skip
    p.add_argument(
        "--seeds", type=int, default=5, help="connectivity: trainings, each on a recording of its own"
    )
    p.add_argument("override", nargs="*", metavar="key.sub=value", help="connectivity: e.g. train.steps=400")
    p.add_argument("--json", action="store_true", help="print one JSON object")


def run(args) -> int:
    from neuroformer.cli.shared import warn_only_ours

    module: Any = importlib.import_module(f"neuroformer.bench.{args.name}")
    if args.name == "kernels":
        return module.main([])
    warn_only_ours()
    if args.name == "connectivity":
        result = module.run(args.config, args.seeds, args.override)
    else:
        result = module.run_large(int(args.spikes)) if args.spikes and args.name == "data" else module.run()
    if args.name == "connectivity" and not args.json:
        print(module.table(result))
    else:
        print(json.dumps(result) if args.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    return 0 if result.get("checked", True) else 1
