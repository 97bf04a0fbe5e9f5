"""``neuroformer folds``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from neuroformer.cli.options import (
    KEYS,
    baseline_names,
    baselines_argument,
    config_arguments,
    override_argument,
)
from neuroformer.cli.shared import only_process, refuse_unwritable, save_error_figure, summarise, warn_only_ours
from neuroformer.cli.tables import score_table
from neuroformer.config import Config, ConfigError, load_config
from neuroformer.files import save_npz


def add(command) -> None:
    help = "Decode behavior over contiguous folds: train, fine-tune and compare in each, then pool them."
    p = command("folds", run, help, KEYS)
    config_arguments(p, "folds", "<name>_folds")
    p.add_argument(
        "--folds", type=int, default=5, metavar="N", help="contiguous parts, each held out once (default: 5)"
    )
    p.add_argument(
        "--members",
        type=int,
        default=1,
        metavar="N",
        help="models of different seeds in each fold, which are averaged (default: 1)",
    )
    p.add_argument(
        "--only",
        metavar="FOLD[,FOLD]",
        default="",
        help="only run and pool these folds, counted from 0; a later call continues from there",
    )
    baselines_argument(p)
    override_argument(p, "e.g. window.lookahead=0.75")


def run(args) -> None:
    if args.members < 1:
        raise ConfigError(f"--members is {args.members}; expected 1 or more")
    only = args.only.split(",") if args.only else []
    if not all(fold.isdigit() for fold in only):
        raise ConfigError(f"--only is {args.only!r}; expected folds counted from 0, like 0,2")
    config = load_config(args.config, args.override)
    if not config.targets:
        raise ConfigError(f"{args.config} declares no targets; there is nothing to decode")
    folder = args.run or Path("runs") / f"{config.name}_folds"
    refuse_unwritable(folder, "--run")
    with only_process(folder, "running folds in", [f"fold-{int(fold)}" for fold in only]):
        _decode(args, config, folder, [int(fold) for fold in only])


def _decode(args, config: Config, folder: Path, only: list[int]) -> None:
    from neuroformer.data.recordings import open_only
    from neuroformer.studies.folds import decode_folds

    config, rec = open_only(config)
    warn_only_ours()
    names = baseline_names(args.baselines)
    start = time.perf_counter()
    summary: dict[str, Any] = {"folds": args.folds, "lookahead_s": config.window.lookahead}
    tables = []
    for target, decoded, scores in decode_folds(
        rec,
        config,
        folder,
        args.folds,
        names,
        members=args.members,
        only=only,
        progress=not args.quiet,
    ):
        summary |= scores
        tables.append(score_table(decoded, target, scores))
        if only:
            continue
        arrays = {"times": decoded.times, "true": decoded.true_VC, **decoded.predicted}
        save_npz(folder / f"folds_{target.name}.npz", arrays)
        save_error_figure(decoded, target, list(rec.variable(target.name).columns), scores, folder)
    if only:
        tables.append(f"only folds {', '.join(map(str, only))} of {args.folds}; they are in {folder}")
    print("\n".join(tables))
    if not only:
        summarise(folder, {}, summary | {"folds_seconds": time.perf_counter() - start})
