"""``neuroformer decode``."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroformer.cli.options import KEYS, baseline_names, baselines_argument, override_argument, run_argument
from neuroformer.cli.shared import open_asked, save_figure, summarise, warn_only_ours
from neuroformer.cli.tables import score_table
from neuroformer.config import ConfigError


def add(command) -> None:
    help = "Decode the declared behavior targets on held-out data, beside tuned baselines and controls."
    p = command("decode", run, help, KEYS)
    run_argument(p)
    baselines_argument(p)
    override_argument(p, "e.g. decode.split=valid")


def run(args) -> None:
    from neuroformer.decoding.decode import at_samples
    from neuroformer.decoding.run import decode_run, sees_more
    from neuroformer.report import figures

    names = baseline_names(args.baselines)
    bundle, prepared = open_asked(args)
    if not prepared.config.targets:
        raise ConfigError(
            f"the run in {args.folder} declares no targets; add targets: to its configuration and train"
        )
    warn_only_ours()
    beside = [*names, "controls"] + ["the same model trained without spikes"] * sees_more(prepared.config)
    print(
        f"decoding {', '.join(t.name for t in prepared.config.targets)} beside {', '.join(beside)}",
        flush=True,
    )
    summary: dict[str, Any] = {}
    tables = []
    decoding = decode_run(bundle, prepared, args.folder, baselines=names, progress=not args.quiet)
    for target, decoded, scores in decoding:
        summary |= scores
        tables.append(score_table(decoded, target, scores))
        columns = prepared.normalization["targets"][target.name].get("columns") or [target.name]
        shown = {k: v for k, v in decoded.predicted.items() if k in ("model", "ridge")}
        period = prepared.normalization["targets"][target.name].get("period", 0.0)
        fig = figures.decode_trace(decoded.times, decoded.true_VC, shown, target.name, columns, period=period)
        save_figure(fig, args.folder / f"decode_{target.name}.png")
        arrays = {"times": decoded.times, "true": decoded.true_VC, **decoded.predicted}
        if decoded.spread_VC is not None:
            arrays["model_spread"] = decoded.spread_VC
        arrays |= at_samples(decoded, target, prepared)
        np.savez_compressed(args.folder / f"decode_{target.name}.npz", **arrays)  # pyright: ignore[reportArgumentType]
    print("\n".join(tables))
    summarise(args.folder, {}, summary)
