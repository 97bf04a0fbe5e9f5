"""``neuroformer probe``."""

from __future__ import annotations

import dataclasses
import json

from neuroformer.cli.options import KEYS, override_argument, parse_targets, run_argument, target_argument
from neuroformer.cli.shared import open_asked, warn_only_ours
from neuroformer.cli.tables import interval, table


def add(command) -> None:
    help = "Linear probes: R2 of a behavior variable from each representation inside a trained run."
    p = command("probe", run, help, KEYS)
    run_argument(p)
    target_argument(p)
    override_argument(p, "e.g. decode.split=valid")


def run(args) -> None:
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
