"""``neuroformer domains``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from neuroformer.cli.options import KEYS, config_arguments, override_argument
from neuroformer.cli.shared import only_process, refuse_unwritable, warn_only_ours
from neuroformer.cli.tables import interval, table
from neuroformer.config import load_config


def add(command) -> None:
    help = (
        "How far a model goes beyond its stimuli: train on each kind alone and on all, score every model on every kind."
    )
    p = command("domains", run, help, KEYS)
    config_arguments(p, "trainings", "<name>_domains")
    p.add_argument(
        "--column", required=True, metavar="NAME", help="column of the trials that says the kind of stimulus"
    )
    override_argument(p, "e.g. split.hold_out=stimulus")


def run(args) -> None:
    from neuroformer.data.recordings import open_only
    from neuroformer.files import for_json, write_atomic
    from neuroformer.studies.domains import domains

    config = load_config(args.config, args.override)
    folder = args.run or Path("runs") / f"{config.name}_domains"
    refuse_unwritable(folder, "--run")
    warn_only_ours()
    with only_process(folder, "training on kinds of stimuli in"):
        config, rec = open_only(config)
        rows = domains(
            rec, config, args.column, folder, progress=not args.quiet, say=lambda line: print(line, flush=True)
        )
    lines = [
        (r.tested, r.trained, f"{r.train_seconds:,.0f}", r.bits_per_spike, r.r, r.beyond, interval(r.low, r.high))
        for r in rows
    ]
    header = (
        "tested on",
        "trained on",
        "seconds",
        "bits/spike (rates)",
        "r, median unit",
        "beyond its own kind",
        "95 % interval",
    )
    print(table(lines, header))
    print(
        "beyond its own kind: bits/spike less those of the model that was trained on the tested kind alone, same windows"
    )
    path = folder / "domains.json"
    tree = {"column": args.column, "rows": [dataclasses.asdict(r) for r in rows]}
    write_atomic(path, json.dumps(for_json(tree), indent=1).encode())
    print(f"rows in {path}")
