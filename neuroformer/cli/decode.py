"""``neuroformer decode``."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroformer.cli.shared import KEYS, open_run, run_argument, save_figure, summarise, warn_only_ours
from neuroformer.config import ConfigError


def add(command) -> None:
    help = "Decode the declared behavior targets on held-out data, beside ridge and controls."
    p = command("decode", run, help, KEYS)
    run_argument(p)
    p.add_argument("override", nargs="*", metavar="key.sub=value", help="e.g. decode.split=valid")


def run(args) -> None:
    from neuroformer.decoding.run import decode_run
    from neuroformer.report import figures

    bundle, prepared = open_run(args.folder, args.override)
    if not prepared.config.targets:
        raise ConfigError(
            f"the run in {args.folder} declares no targets; add targets: to its configuration and train"
        )
    warn_only_ours()
    summary: dict[str, Any] = {}
    for target, decoded, scores in decode_run(bundle, prepared, args.folder, progress=not args.quiet):
        summary |= scores
        columns = prepared.normalization["targets"][target.name].get("columns") or [target.name]
        shown = {k: v for k, v in decoded.predicted.items() if k in ("model", "ridge")}
        fig = figures.decode_trace(decoded.times, decoded.true_WC, shown, target.name, columns)
        save_figure(fig, args.folder / f"decode_{target.name}.png")
        arrays = {"times": decoded.times, "true": decoded.true_WC, **decoded.predicted}
        np.savez_compressed(args.folder / f"decode_{target.name}.npz", **arrays)  # pyright: ignore[reportArgumentType]
    summarise(args.folder, summary)
