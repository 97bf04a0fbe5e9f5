"""``neuroformer ablate``."""

from __future__ import annotations

import json
from pathlib import Path

from neuroformer.cli.options import KEYS, config_arguments, override_argument
from neuroformer.cli.shared import refuse_unwritable, save_figure, warn_only_ours
from neuroformer.cli.tables import interval, table
from neuroformer.config import ConfigError, load_config


def add(command) -> None:
    help = "What each part of a model is worth: train without it, and compare likelihood, responses and decoding."
    p = command("ablate", run, help, KEYS)
    config_arguments(p, "runs", "<name>_ablate")
    p.add_argument(
        "--parts",
        default="all",
        metavar="PART[,PART]",
        help="past, frames, behavior, contrast, rates (default: all that the model has)",
    )
    p.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each variant (default: 1)")
    p.add_argument(
        "--only",
        metavar="PART[,PART]",
        default="",
        help="only train these variants ('full' is one), without comparing them; a later call continues from there",
    )
    override_argument(p, "e.g. train.steps=300")


def run(args) -> None:
    from neuroformer.data.recordings import open_only
    from neuroformer.files import write_atomic
    from neuroformer.report.behavior import ablation_bars
    from neuroformer.studies.ablations import FULL, compare, parts_of, train_variant, variant_folder, without

    if args.seeds < 1:
        raise ConfigError(f"--seeds is {args.seeds}; expected 1 or more")
    config, rec = open_only(load_config(args.config, args.override))
    parts = parts_of(config) if args.parts == "all" else args.parts.split(",")
    todo = args.only.split(",") if args.only else [FULL, *parts]
    for part in (*parts, *todo):
        without(config, part)  # refuses now, not after hours, a part that the model does not have
    folder = args.run or Path("runs") / f"{config.name}_ablate"
    refuse_unwritable(folder, "--run")
    warn_only_ours()
    for part in todo:
        for seed in range(args.seeds):
            train_variant(rec, config, part, seed, variant_folder(folder, part, seed), not args.quiet)
    if args.only:
        print(f"{', '.join(todo)}: trained and scored in {folder}")
        return
    rows = compare(rec, config, folder, parts, args.seeds)
    path = folder / "ablation.json"
    write_atomic(path, json.dumps({"seeds": args.seeds, "rows": rows}, indent=1).encode())
    lines = [
        (
            r["without"],
            r["measure"],
            r["value"],
            interval(r["low"], r["high"]),
            r["minus"],
            interval(r["minus_low"], r["minus_high"]),
            " ".join(f"{v:.3f}" for v in r["seeds"]),
        )
        for r in rows
    ]
    header = ("without", "score", "value", "95 % interval", "minus full", "95 % interval, paired", "seeds")
    print(f"{table(lines, header)}\nrows in {path}")
    save_figure(ablation_bars(rows), folder / "ablation.png")
