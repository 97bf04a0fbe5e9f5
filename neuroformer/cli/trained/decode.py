"""``neuroformer decode``."""

from __future__ import annotations

from typing import Any

from neuroformer.cli.options import (
    KEYS,
    baseline_names,
    baselines_argument,
    override_argument,
    results_argument,
    run_argument,
)
from neuroformer.cli.shared import only_process, open_asked, save_error_figure, save_figure, summarise, warn_only_ours
from neuroformer.cli.tables import image_table, score_table
from neuroformer.files import save_npz


def add(command) -> None:
    help = "Decode the declared behavior targets on held-out data, beside tuned baselines and controls."
    p = command("decode", run, help, KEYS)
    run_argument(p)
    results_argument(p)
    baselines_argument(p)
    override_argument(p, "e.g. decode.split=valid")


def run(args) -> None:
    from neuroformer.runs import refuse_without_targets

    names = baseline_names(args.baselines)
    bundle, prepared = open_asked(args)
    refuse_without_targets(bundle, prepared)
    warn_only_ours()
    with only_process(args.folder, "decoding into"):
        _decode(args, bundle, prepared, names)


def _decode(args, bundle, prepared, names) -> None:
    from neuroformer.decoding.run import sees_more
    from neuroformer.report import figures
    from neuroformer.runs import decode_opened

    beside = [*names, "controls"] + ["the same model trained without spikes"] * sees_more(prepared.config)
    print(
        f"decoding {', '.join(t.name for t in prepared.config.targets)} beside {', '.join(beside)}",
        flush=True,
    )
    labelled = bundle.metrics.get("finetune_label_seconds")
    if labelled is not None and labelled < 0.9 * prepared.split.seconds("train"):
        print(f"the model was fine-tuned on {labelled:g} s of labels; baselines get those of the whole training part")
    summary: dict[str, Any] = {}
    tables = []
    for one in decode_opened(bundle, prepared, args.folder, baselines=names, progress=not args.quiet):
        target, decoded = one.target, one.decoded
        summary |= one.scores
        tables.append(score_table(decoded, target, one.scores))
        scale = prepared.normalization.targets[target.name]
        columns = scale.columns or [scale.titled(target.name)]
        shown = {k: v for k, v in decoded.predicted.items() if k in ("model", "ridge")}
        if target.name == "frames":
            tables.append(image_table(decoded, one.scores))
            fig = figures.decoded_frames(decoded.true_VC, shown, prepared.rec.frames.decoded_shape)
        else:
            fig = figures.decode_trace(decoded.times, decoded.true_VC, shown, target.name, columns, period=scale.period)
            save_error_figure(decoded, target, columns, one.scores, args.folder)
        save_figure(fig, args.folder / f"decode_{target.name}.png")
        save_npz(args.folder / f"decode_{target.name}.npz", one.arrays)
    print("\n".join(tables))
    summarise(args.folder, {}, summary)
