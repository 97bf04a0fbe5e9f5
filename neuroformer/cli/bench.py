"""``neuroformer bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuroformer.cli.options import override_argument
from neuroformer.cli.shared import warn_only_ours

Result = dict[str, Any] | None  # None: there is no GPU


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

    b = benchmark("adapt", _adapt, "a third recording joins a model of two, against training from scratch")
    _trains(b, "configs/shared.yaml", "what the two train with", "train.steps=400")
    b.add_argument("--seeds", type=int, default=5, help="circuits, each with animals and trainings of its own")
    b.add_argument("--steps", type=int, default=100, help="of adapting, and of training from scratch")
    _keeps(b, "seed")
    benchmark("attend", _attend, "what capturing maps adds to a forward pass")
    b = benchmark("connectivity", _connectivity, "whether maps recover a known coupling, beside pairwise baselines")
    _trains(b, "configs/hubs.yaml", "what to train; a built-in recording with known coupling", "train.steps=400")
    b.add_argument("--seeds", type=int, default=5, help="trainings, each on a recording of its own")
    _keeps(b, "seed")
    b = benchmark("data", _data, "batches built per second")
    b.add_argument(
        "--spikes",
        type=float,
        metavar="N",
        help="a recording of so many spikes on disk (1e8) against the small one",
    )
    benchmark("decode", _decode, "behavior, in batches and as a stream")
    b = benchmark("exposure", _exposure, "what noise on the past buys in closed loop, over paired trainings")
    _trains(b, None, "what to train, e.g. configs/hippocampus.yaml", "recording.path=my.npz")
    b.add_argument(
        "--run",
        type=Path,
        default=Path("runs/exposure"),
        dest="folder",
        help="folder of the trainings (default: runs/exposure); what is there already is not trained again",
    )
    b.add_argument("--noise", default="0,0.2,0.5", help="values of train.past_noise, compared with the first")
    b.add_argument("--seeds", default="0,1,2", help="of the trainings, the same for every value")
    benchmark("generate", _generate, "closed-loop tokens/s against the naive loop")
    benchmark("generate-gpu", _generate_gpu, "closed-loop tokens/s of 512 sequences on a GPU")
    b = benchmark("inputs", _inputs, "whether maps name the one input that drives each neuron")
    _trains(b, "configs/inputs.yaml", "what to train, on synthetic:inputs", "recording.options.num_units=100")
    b.add_argument(
        "--run",
        type=Path,
        dest="folder",
        help="keep the run in this folder, and read it again if it is there",
    )
    benchmark("kernels", _kernels, "fused kernels on a GPU")
    b = benchmark("nulls", _nulls, "how often chance passes beside the maps of independent units")
    b.add_argument("--recordings", type=int, default=20, help="trainings, each on a recording of its own")
    _keeps(b, "recording")
    benchmark("train", _train, "a step at the reference's size against the same weights run the padded way")
    b = benchmark("whatif", _whatif, "whom silencing a hub of synthetic:demo hits")
    b.add_argument("--run", type=Path, required=True, dest="folder", help="a run trained on synthetic:demo")


def _trains(b, config: str | None, help: str, example: str) -> None:
    """Arguments of a benchmark that trains; --config is required where ``config`` is None."""
    default = None if config is None else Path(config)
    b.add_argument("--config", type=Path, default=default, required=default is None, help=help)
    override_argument(b, f"e.g. {example}")


def _keeps(b, part: str) -> None:
    b.add_argument(
        "--run",
        type=Path,
        dest="folder",
        help=f"keep the results of each {part} in this folder, and continue where an earlier call stopped",
    )


def run(args) -> int:
    if args.name == "kernels":
        return _kernels(args)
    warn_only_ours()
    result = args.measure(args)
    if result is None:
        print("no CUDA device: this benchmark needs one GPU (16 GB are enough)")
        return 3
    table = result.pop("table", None)
    lines = table or "\n".join(f"{k}: {v}" for k, v in result.items())
    print(json.dumps(result) if args.json else lines)
    return 0 if result.get("checked", True) else 1


def _kernels(args) -> int:
    from neuroformer.bench import kernels

    return kernels.main([])


def _adapt(args) -> Result:
    from neuroformer.bench import adapt

    result = adapt.run(args.config, args.seeds, args.override, steps=args.steps, folder=args.folder)
    return result | {"table": adapt.table(result)}


def _attend(args) -> Result:
    from neuroformer.bench import attend

    return attend.run()


def _connectivity(args) -> Result:
    from neuroformer.bench import connectivity

    result = connectivity.run(args.config, args.seeds, args.override, folder=args.folder)
    return result | {"table": connectivity.table(result)}


def _data(args) -> Result:
    from neuroformer.bench import data

    return data.run_large(int(args.spikes)) if args.spikes else data.run()


def _decode(args) -> Result:
    from neuroformer.bench import decode

    return decode.run()


def _exposure(args) -> Result:
    from neuroformer.bench import exposure

    numbers = lambda text, kind: [kind(x) for x in text.split(",")]
    result = exposure.run(args.config, args.folder, numbers(args.noise, float), numbers(args.seeds, int), args.override)
    return result | {"table": exposure.table(result)}


def _generate(args) -> Result:
    from neuroformer.bench import generate

    return generate.run()


def _generate_gpu(args) -> Result:
    from neuroformer.bench import generate

    return generate.run_gpu()


def _inputs(args) -> Result:
    from neuroformer.bench import inputs

    result = inputs.run(args.config, args.override, folder=args.folder)
    return result | {"table": inputs.table(result)}


def _nulls(args) -> Result:
    from neuroformer.bench import nulls

    result = nulls.run(args.recordings, args.folder)
    return result | {"table": nulls.table(result)}


def _train(args) -> Result:
    from neuroformer.bench import train

    return train.run()


def _whatif(args) -> Result:
    from neuroformer.bench import whatif

    return whatif.run(args.folder)
