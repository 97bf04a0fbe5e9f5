"""``neuroformer bench``: speed that users measure on their own machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuroformer.cli.shared import warn_only_ours
from neuroformer.cli.tables import table


def add(command) -> None:
    p = command(
        "bench",
        run,
        "Benchmark one part against a plain implementation, after checking that both agree.",
        "Exit codes: 1 the two sides disagree, 3 a GPU is needed and there is none.",
    )
    names = p.add_subparsers(dest="name", required=True, metavar="NAME")

    def benchmark(name: str, measure, help: str):
        b = names.add_parser(name, help=help, description=help)
        b.add_argument("--json", action="store_true", help="print one JSON object")
        b.set_defaults(measure=measure)
        return b

    benchmark("attend", _attend, "what capturing maps adds to a forward pass")
    b = benchmark("data", _data, "batches built per second")
    b.add_argument(
        "--spikes", type=float, metavar="N", help="a recording of so many spikes on disk (1e8) against the small one"
    )
    benchmark("decode", _decode, "behavior, in batches and as a stream")
    benchmark("generate", _generate, "closed-loop tokens/s against the naive loop")
    benchmark("generate-gpu", _generate_gpu, "closed-loop tokens/s of 512 sequences on a GPU")
    b = benchmark("scale", _scale, "a training step and a simulation of 50 to 8,000 units, on one core")
    b.add_argument("--checkout", type=Path, metavar="FOLDER", help="also by the package of this checkout, to compare")
    b = benchmark(
        "scaling", _scaling, "on paper: bytes and operations for many sessions on many GPUs, from one step here"
    )
    b.add_argument("--width", type=int, default=64, metavar="N", help="model.width (64)")
    b = benchmark(
        "sessions", _sessions, "training on many recordings against few: first step, step, validation, memory"
    )
    b.add_argument(
        "--recordings", type=int, nargs="+", default=[30, 300], metavar="N", help="animals of synthetic:cohort (30 300)"
    )
    b.add_argument("--units", type=int, default=200, metavar="N", help="of each animal (200)")
    b.add_argument("--seconds", type=float, default=600.0, metavar="S", help="of each animal (600)")
    benchmark("train", _train, "a step at the reference's size against the same weights run the padded way")


def run(args) -> int:
    warn_only_ours()
    result = args.measure(args)
    if result is None:
        print("no CUDA device: this benchmark needs one GPU (16 GB are enough)")
        return 3
    lines = "\n".join(f"{k}: {v}" for k, v in result.items())
    print(json.dumps(result) if args.json else lines)
    return 0 if result.get("checked", True) else 1


def _attend(args) -> dict[str, Any]:
    from neuroformer.bench import attend

    return attend.run()


def _data(args) -> dict[str, Any]:
    from neuroformer.bench import data

    return data.run_large(int(args.spikes)) if args.spikes else data.run()


def _decode(args) -> dict[str, Any]:
    from neuroformer.bench import decode

    return decode.run()


def _generate(args) -> dict[str, Any]:
    from neuroformer.bench import generate

    return generate.run()


def _generate_gpu(args) -> dict[str, Any] | None:
    from neuroformer.bench import generate

    return generate.run_gpu()


def _scale(args) -> dict[str, Any]:
    from neuroformer.bench import scale

    return scale.run(args.checkout)


def _scaling(args) -> dict[str, Any]:
    from neuroformer.bench import scaling

    result = scaling.run(width=args.width)
    if not args.json:
        rows = result.pop("plan")
        print(table([[f"{v:,.4g}" for v in row.values()] for row in rows], list(rows[0])))
    return result


def _sessions(args) -> dict[str, Any]:
    from neuroformer.bench import sessions

    return sessions.run(args.recordings, {"num_units": args.units, "duration_s": args.seconds})


def _train(args) -> dict[str, Any]:
    from neuroformer.bench import train

    return train.run()
