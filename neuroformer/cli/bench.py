"""``neuroformer bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuroformer.config import ConfigError


def add(command) -> None:
    help = "Benchmark a part against its plain counterpart; checks that both agree first."
    p = command("bench", run, help)
    p.add_argument(
        "name", choices=["attend", "data", "kernels", "generate", "generate-gpu", "whatif"],
        help="what to measure: attend (what capturing maps adds to a forward pass), data (batches built per second), "
        "kernels (fused kernels on a GPU; exit code 3 without one), generate (closed-loop tokens/s against the naive loop), "
        "generate-gpu (of 512 sequences; exit code 3 without a GPU), "
        "whatif (whom does silencing a hub hit? needs --run of synthetic:demo)",
    )  # fmt: skip
    p.add_argument(
        "--spikes", type=float, metavar="N",
        help="data: a recording of so many spikes on disk (1e8) against the small one",
    )  # fmt: skip
    p.add_argument("--run", type=Path, dest="folder", help="folder of a trained run, for whatif")
    p.add_argument("--json", action="store_true", help="print one JSON object")


def run(args) -> int:
    if args.name == "kernels":
        from neuroformer.bench import kernels

        return kernels.main([])
    result = _measure(args)
    if result is None:
        print("no CUDA device: this benchmark needs one GPU (16 GB are enough)")
        return 3
    print(json.dumps(result) if args.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    return 0 if result["checked"] else 1


def _measure(args) -> dict[str, Any] | None:
    """What the benchmark found; None where it needs a GPU and there is none."""
    if args.name.startswith("generate"):
        from neuroformer.bench import generate

        return generate.run() if args.name == "generate" else generate.run_gpu()
    if args.name == "whatif":
        from neuroformer.bench import whatif

        if args.folder is None:
            raise ConfigError("bench whatif needs --run, the folder of a run trained on synthetic:demo")
        return whatif.run(args.folder)
    from neuroformer.bench import attend, data

    if args.name == "attend":
        return attend.run()
    return data.run_large(int(args.spikes)) if args.spikes else data.run()
