"""``neuroformer bench``."""

from __future__ import annotations

import json
from pathlib import Path


def add(command) -> None:
    help = "Benchmark a part against its plain counterpart; checks that both agree first."
    p = command("bench", run, help)
    p.add_argument(
        "name", choices=["attend", "connectivity", "data", "kernels"],
        help="what to measure: attend (what capturing maps adds to a forward pass), connectivity (whether maps recover a known coupling, beside pairwise baselines), data (batches built per second), kernels (fused kernels on a GPU; exit code 3 without one)",
    )  # fmt: skip
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
    if args.name == "kernels":
        from neuroformer.bench import kernels

        return kernels.main([])
    if args.name == "connectivity":
        return _connectivity(args)
    from neuroformer.bench import attend, data

    if args.name == "attend":
        result = attend.run()
    else:
        result = data.run_large(int(args.spikes)) if args.spikes else data.run()
    print(json.dumps(result) if args.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    return 0 if result["checked"] else 1


def _connectivity(args) -> int:
    from neuroformer.bench import connectivity
    from neuroformer.cli.shared import warn_only_ours

    warn_only_ours()
    result = connectivity.run(args.config, args.seeds, args.override)
    print(json.dumps(result) if args.json else connectivity.table(result))
    return 0
