"""``neuroformer probe``."""

from __future__ import annotations

import dataclasses
import json

from neuroformer.cli.options import KEYS, TARGET, override_argument, parse_targets, results_argument, run_argument
from neuroformer.cli.shared import open_asked, refuse_results, results_folder, warn_only_ours
from neuroformer.cli.tables import interval, table


def add(command) -> None:
    help = "Linear probes of a trained run: of behavior in what it represents, of what is known of units in what it learnt."
    p = command("probe", run, help, KEYS)
    run_argument(p)
    results_argument(p)
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--target",
        action="append",
        dest="targets",
        metavar=TARGET,
        help="a behavior variable: R2 from each representation inside the run; may be repeated",
    )
    what.add_argument(
        "--unit",
        metavar="COLUMN",
        help="a column of the units table (area, cell_type, depth): how well what the run learnt of each unit tells it; "
        "with commas between, coordinates (x,y): whether units that lie near each other see near places",
    )
    override_argument(p, "e.g. decode.split=valid")


def run(args) -> None:
    if args.unit:
        return _units(args)
    from neuroformer.bundle.bundle import load_model
    from neuroformer.decoding.finetune import extend
    from neuroformer.files import write_atomic
    from neuroformer.studies.probes import probe

    bundle, trained = open_asked(args)
    warn_only_ours()
    seen = {t.name for t in bundle.config.targets}
    declared = [dataclasses.replace(t, samples=1) for t in bundle.config.targets]
    for target in parse_targets(args.targets, declared):
        model, prepared = extend(load_model(bundle), trained, [target])
        rows = probe(model, prepared, target)
        path = args.folder / f"probe_{target.name}.json"
        write_atomic(
            path,
            json.dumps(
                {"target": target.name, "trained_with_its_labels": target.name in seen, "rows": rows}, indent=1
            ).encode(),
        )
        lines = [(r["representation"], r["features"], r["r2"], interval(r["low"], r["high"])) for r in rows]
        note = " (the run was trained with its labels)" if target.name in seen else ""
        print(
            f"{target.name}{note}\n{table(lines, ('representation', 'features', 'R2', '95 % interval'))}\nrows in {path}"
        )


def _units(args) -> None:
    from neuroformer.bundle.bundle import read_bundle
    from neuroformer.files import for_json, write_atomic
    from neuroformer.recording.names import variable_name
    from neuroformer.studies.retinotopy import position_table, probe_distances
    from neuroformer.studies.unit_probes import probe_units, unit_table

    refuse_results(args)
    warn_only_ours()
    columns = args.unit.split(",")
    if len(columns) > 1:
        units = position_table(args.folder, columns, args.override, args.recording)
        rows = probe_distances(units)
    else:
        units = unit_table(args.folder, args.unit, args.override, args.recording)
        rows = probe_units(units)
    bundle = read_bundle(args.folder)
    one = args.recording or len(bundle.recordings) == 1
    folder = results_folder(bundle.of(args.recording), args.results) if one else args.results or args.folder
    path = folder / f"probe_unit_{variable_name(args.unit)}.json"
    write_atomic(
        path,
        json.dumps(for_json({"column": args.unit, "rows": [dataclasses.asdict(r) for r in rows]}), indent=1).encode(),
    )
    lines = [
        (r.features, r.size, r.score, interval(r.low, r.high), r.null, interval(r.beyond_low, r.beyond_high))
        for r in rows
    ]
    number = len(set(units.recording_N.tolist()))
    what = "r of distances" if len(columns) > 1 else "balanced accuracy" if units.is_class else "R2"
    classes = f", chance {rows[0].chance:.3f}" if units.is_class else ""
    held = "; folds hold out " + ("whole recordings" if number >= 3 else "units") if len(columns) == 1 else ""
    print(f"{args.unit} of {len(units.label_N)} units in {number} recording(s){held}{classes}")
    if units.left_out:
        print(f"{units.left_out} units have no value, or one of a class with too few units")
    print(table(lines, ("features", "numbers", what, "95 % interval", "null 95 %", "beyond firing statistics")))
    print(f"rows in {path}")
