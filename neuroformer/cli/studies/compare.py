"""``neuroformer compare``."""

from __future__ import annotations

import json

from neuroformer.cli.options import KEYS, override_argument, results_argument, run_argument
from neuroformer.cli.shared import refuse_results, results_folder, save_figure, warn_only_ours
from neuroformer.cli.tables import interval, table

SOURCES = ("pixels", "gabor", "model")


def add(command) -> None:
    help = "Which features explain the units: pixels, filters, the run's own stages, other networks, your own arrays."
    p = command("compare", run, help, KEYS)
    run_argument(p)
    results_argument(p)
    p.add_argument(
        "--with",
        dest="sources",
        type=lambda text: text.split(","),
        default=list(SOURCES),
        metavar="SOURCES",
        help="with commas between: pixels, gabor, model, FEATURES.npz (arrays with times), NAME:FOLDER of a vision network "
        f"that transformers loads (default: {','.join(SOURCES)})",
    )
    p.add_argument(
        "--metric",
        dest="metrics",
        type=lambda text: text.split(","),
        default=["ridge", "rsa", "cka"],
        metavar="METRICS",
        help="with commas between: ridge, pls (predictivity of units), rsa, cka (similarity) (default: ridge,rsa,cka)",
    )
    p.add_argument(
        "--split", choices=["train", "valid", "test"], default="test", help="the part compared (default: test)"
    )
    p.add_argument(
        "--latencies",
        type=lambda text: tuple(float(x) for x in text.split(",")),
        metavar="SECONDS",
        help="delays of responses among which training folds choose (default: 0,0.05,0.1,0.15)",
    )
    p.add_argument("--by", default="area", metavar="COLUMN", help="column that groups the units (default: area)")
    p.add_argument(
        "--tuning",
        default="",
        metavar="NAME[:PERIOD]",
        help="also how units and features are tuned to a behavior variable or a column of the trials (direction:360, speed)",
    )
    override_argument(p, "e.g. recording.path=moved.npz")


def run(args) -> None:
    from neuroformer.bundle.bundle import read_bundle
    from neuroformer.comparison.compare import LATENCIES, compare
    from neuroformer.files import for_json, save_npz, write_atomic
    from neuroformer.report.comparison import layers_figure, tuning_figure

    refuse_results(args)
    warn_only_ours()
    found = compare(
        args.folder,
        args.sources,
        args.metrics,
        args.override,
        recording=args.recording,
        split=args.split,
        latencies=args.latencies or LATENCIES,
        by=args.by,
        tuning=args.tuning,
        say=lambda line: None if args.quiet else print(line, flush=True),
    )
    folder = results_folder(read_bundle(args.folder).of(args.recording), args.results)
    for metric in dict.fromkeys(s.metric for s in found.scores):
        _print(metric, [s for s in found.scores if s.metric == metric])
    if found.tuning:
        _print_tuning(args.tuning, found.tuning)
    print(_facts(found.facts))
    write_atomic(folder / "compare.json", json.dumps(for_json(found.as_dict()), indent=1).encode())
    if found.per_unit:
        names = ["/".join(key) for key in found.per_unit]
        save_npz(
            folder / "compare_units.npz",
            {"unit_ids": found.unit_ids, "rows": names, "scores": list(found.per_unit.values())},
        )
    save_figure(layers_figure(found.as_dict()), folder / "compare.png")
    if found.tuning:
        save_figure(tuning_figure(found.as_dict(), args.tuning), folder / "compare_tuning.png")
    print(f"all numbers in {folder / 'compare.json'}")


def _print(metric: str, scores) -> None:
    rows = [
        (
            s.source,
            s.layer,
            s.sees,
            f"{s.units} ({s.num_units})",
            s.score,
            interval(s.low, s.high),
            s.null,
            s.ceiling,
            s.normalized,
            interval(s.normalized_low, s.normalized_high),
            interval(s.beyond_low, s.beyond_high),
            f"{1000 * s.latency_s:g}",
        )
        for s in scores
    ]
    first = f"{scores[0].source}: {scores[0].layer}"
    header = ("source", "layer", "sees", "units", "score", "95 % interval", "null 95 %", "ceiling", "of ceiling")
    print(f"\n{metric}\n{table(rows, (*header, '95 % interval', f'beyond {first}', 'latency ms'))}")


def _print_tuning(name: str, rows) -> None:
    lines = [
        (r.source, r.layer, r.number, r.tuned, r.selectivity[2], r.orientation[2])
        + ((r.agreement.get("preferred_apart", float("nan")), r.agreement.get("selectivity_r", float("nan"))))
        for r in rows
    ]
    header = (
        "source",
        "layer",
        "number",
        "share tuned",
        "selectivity",
        "for orientation",
        "preferred apart",
        "r of selectivity",
    )
    print(f"\ntuning to {name} (medians over what is tuned, P < 0.05)\n{table(lines, header)}")


def _facts(f: dict) -> str:
    what = (
        f"{f['repeats']} repeats of {f['stimuli']} stimuli" if f["repeats"] > 1 else "single trials (nothing repeats)"
    )
    text = f"\n{f['moments']} moments of {1000 * f['moment_s']:g} ms, {what}, of '{f['split']}'; folds: {f['folds']}"
    if f["claim"] != "stimuli":
        text += (
            f"\nthe run's claim is '{f['claim']}': its own network saw these stimuli in training, on other trials; only "
            "split.claim: stimuli holds them out"
            if f["repeats"] > 1
            else f"\nthe run's claim is '{f['claim']}'"
        )
    return text
