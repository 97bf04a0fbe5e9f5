"""``neuroformer fewshot``."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

from neuroformer.cli.options import (
    KEYS,
    baseline_names,
    baselines_argument,
    override_argument,
    parse_targets,
    results_argument,
    run_argument,
    target_argument,
)
from neuroformer.cli.shared import open_asked, open_run, save_figure, warn_only_ours
from neuroformer.cli.tables import interval, table
from neuroformer.config import ConfigError

AMOUNTS = "1%,2%,5%,10%,25%,50%,all"


def add(command) -> None:
    help = "Decode behavior from few labels: a pretrained run against the same network from scratch and baselines."
    p = command("fewshot", run, help, KEYS)
    run_argument(p)
    results_argument(p)
    target_argument(p)
    p.add_argument(
        "--labels",
        default=AMOUNTS,
        metavar="AMOUNT[,AMOUNT]",
        help=f"amounts, like 1s,10s,5%%,all (default: {AMOUNTS.replace('%', '%%')})",
    )
    p.add_argument("--draws", type=int, default=3, metavar="N", help="random draws of labels, and seeds (default: 3)")
    p.add_argument(
        "--pool",
        nargs="+",
        type=Path,
        default=[],
        metavar="RUN",
        help="further runs, trained with other parts held out, to score together with this one",
    )
    baselines_argument(p)
    override_argument(p, "e.g. tune.train=top")


def run(args) -> None:
    from neuroformer.bundle.bundle import load_model
    from neuroformer.files import write_atomic
    from neuroformer.report.behavior import fewshot_curve
    from neuroformer.studies.fewshot import fewshot, pooled

    names = baseline_names(args.baselines)
    targets = parse_targets(args.targets)
    runs = [open_asked(args), *(open_run(folder, args.override, args.recording) for folder in args.pool)]
    recordings = sorted({prepared.rec.name for _, prepared in runs})
    if len(recordings) > 1:
        raise ConfigError(f"--pool takes runs of one recording, and these are of {', '.join(recordings)}")
    warn_only_ours()
    report = (lambda text: None) if args.quiet else print
    options = {"labels": args.labels, "draws": args.draws, "baselines": list(names), "targets": args.targets}
    options |= {"pool": [str(folder) for folder in args.pool], "settings": args.override}
    for target in targets:
        start = time.perf_counter()
        amounts = args.labels.split(",")
        curves = [
            fewshot(load_model(bundle), prepared, target, amounts, args.draws, names, report=report)
            for bundle, prepared in runs
        ]
        curve = pooled(curves)
        rows = curve.rows()
        result = {
            "target": target.name,
            "draws": args.draws,
            "runs": 1 + len(args.pool),
            "seconds_taken": time.perf_counter() - start,
            "options": options,
            "rows": rows,
        }
        path = args.folder / f"fewshot_{target.name}.json"
        _keep_other(path, options)
        write_atomic(path, json.dumps(result, indent=1).encode())
        lines = [
            (
                f"{r['seconds']:g}",
                f"{100 * r['share']:.1f} %",
                r["method"],
                r["score"],
                interval(r["low"], r["high"]),
                *_difference(r),
            )
            for r in rows
        ]
        header = (
            "labels (s)",
            "share",
            "decoder",
            "score",
            "95 % interval",
            "pretrained minus it",
            "95 % interval",
        )
        print("\n".join([target.name, table(lines, header), *curve.notes, f"rows in {path}"]))
        save_figure(fewshot_curve(rows, target.name), args.folder / f"fewshot_{target.name}.png")


def _difference(row: dict[str, Any]) -> tuple[Any, str]:
    """How much better the pretrained model is than a row's decoder, which may be itself."""
    if row["method"] == "pretrained":
        return "", ""
    ends = interval(row["pretrained_minus_low"], row["pretrained_minus_high"])
    return row["pretrained_minus"], ends


def _keep_other(path: Path, options: dict[str, Any]) -> None:
    """Move results of other options out of the way: they may have taken hours."""
    if not path.exists() or json.loads(path.read_text()).get("options") == options:
        return
    kept = path.parent / "earlier"
    kept.mkdir(exist_ok=True)
    number = next(n for n in itertools.count(1) if not (kept / f"{path.stem}_{n}.json").exists())
    for file in (path, path.with_suffix(".png")):
        if file.exists():
            file.replace(kept / f"{path.stem}_{number}{file.suffix}")
    print(f"earlier results, of other options, are now in {kept / f'{path.stem}_{number}.json'}")
