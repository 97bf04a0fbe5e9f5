"""``neuroformer bench``."""

from __future__ import annotations

import json


def add(command) -> None:
    help = "Benchmark a part against its plain counterpart; checks that both agree first."
    p = command("bench", run, help)
    p.add_argument(
        "name", choices=["attend", "data", "kernels"],
        help="what to measure: attend (what capturing maps adds to a forward pass), data (batches built per second), kernels (fused kernels on a GPU; exit code 3 without one)",
    )  # fmt: skip
    p.add_argument(
        "--spikes", type=float, metavar="N",
        help="data: a recording of so many spikes on disk (1e8) against the small one",
    )  # fmt: skip
    p.add_argument("--json", action="store_true", help="print one JSON object")


def run(args) -> int:
    if args.name == "kernels":
        from neuroformer.bench import kernels

        return kernels.main([])
    from neuroformer.bench import attend, data

    if args.name == "attend":
        result = attend.run()
    else:
        result = data.run_large(int(args.spikes)) if args.spikes else data.run()
    print(json.dumps(result) if args.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    return 0 if result["checked"] else 1
