"""``neuroformer finetune``."""

from __future__ import annotations

import argparse
import typing
from pathlib import Path

import numpy as np

from neuroformer.cli.shared import KEYS, open_asked, run_argument, summarise, warn_only_ours
from neuroformer.config import ConfigError, TargetConfig


def add(command) -> None:
    help = "Teach a trained run behavior targets from labels: heads, top blocks, everything, or adapters."
    p = command("finetune", run, help, KEYS)
    run_argument(p)
    target_argument(p)
    p.add_argument(
        "--labels", default="all", help="how many: like 10s, 5%% or all (default), drawn as 1 s chunks"
    )
    p.add_argument(
        "--draw", type=int, default=0, help="which random draw of labels, and the seed (default: 0)"
    )
    p.add_argument("--out", type=Path, help="folder of the new run (default: <run>_<targets>)")
    p.add_argument("--overwrite", action="store_true", help="replace a run that is already there")
    p.add_argument("override", nargs="*", metavar="key.sub=value", help="e.g. tune.train=top tune.rank=8")


def target_argument(p) -> None:
    p.add_argument(
        "--target", required=True, action="append", dest="targets", metavar="NAME[:KIND[:SAMPLES]]",
        help="a behavior variable, its kind (regression, classification, circular) and values a window; may be repeated",
    )  # fmt: skip


def parse_targets(asked: list[str]) -> list[TargetConfig]:
    """Targets from the command line's words.

    Raises
    ------
    ConfigError
        An unknown kind, or a count that is none.
    """
    out = []
    kinds = typing.get_args(typing.get_type_hints(TargetConfig)["kind"])
    for item in asked:
        name, _, rest = item.partition(":")
        kind, _, samples = rest.partition(":")
        if (kind or "regression") not in kinds or not (samples or "1").isdigit():
            raise ConfigError(
                f"--target is {item!r}; expected NAME[:KIND[:SAMPLES]] with a kind of {', '.join(kinds)}"
            )
        out.append(TargetConfig(name, kind or "regression", samples=int(samples or 1)))  # pyright: ignore[reportArgumentType]
    if len({t.name for t in out}) < len(out):
        raise ConfigError(f"--target names a variable twice: {', '.join(asked)}")
    return out


def run(args: argparse.Namespace) -> None:
    from neuroformer.decoding.decode import decode_windows, predict_targets, score_of, true_values
    from neuroformer.decoding.fewshot import amounts_in_seconds, draw_labels, labelled_seconds
    from neuroformer.decoding.finetune import extend, finetune
    from neuroformer.decoding.folds import labelled_windows
    from neuroformer.model.bundle import LIKELIHOOD, Member, load_model, save_bundle, save_weights

    targets = parse_targets(args.targets)
    out = args.out or args.folder.with_name(f"{args.folder.name}_{'_'.join(t.name for t in targets)}")
    if (out / "bundle.json").exists() and not args.overwrite:
        raise ConfigError(f"{out} already holds a trained run; give --out another folder, or --overwrite")
    bundle, trained = open_asked(args)
    warn_only_ours()
    model, prepared = extend(load_model(bundle), trained, targets)
    windows, labels = labelled_windows(prepared)
    if args.labels != "all":
        first = targets[0]
        seconds = amounts_in_seconds([args.labels], labelled_seconds(prepared, first))[0]
        windows = draw_labels(prepared, windows, labels[first.name], first.samples, seconds, args.draw)
    tuned, info = finetune(model, prepared, windows, targets, prepared.config.tune, args.draw)
    for objective in bundle.digests:  # heads of earlier targets stay as good as they were
        if objective != LIKELIHOOD and objective not in {t.name for t in targets}:
            save_weights(out / "weights" / f"{objective}.safetensors", extend(load_model(bundle, objective), trained, targets)[0])  # fmt: skip
    for objective in (LIKELIHOOD, *(t.name for t in targets)):
        save_weights(out / "weights" / f"{objective}.safetensors", tuned)
    test = decode_windows(prepared, prepared.config.decode.split)
    predicted, true = predict_targets(tuned, prepared, test), true_values(prepared, test)
    scores = {f"finetune_{t.name}_score": score_of(t)(true[t.name], predicted[t.name]) for t in targets}
    scores |= {"finetune_windows": len(windows), "finetune_steps": info["steps"]}
    scores["finetune_label_seconds"] = float(np.round(len(windows) * prepared.config.window.current, 6))
    rec = prepared.rec
    member = Member(rec.name, list(rec.unit_ids), prepared.normalization, bundle.split)
    save_bundle(out, prepared.config, [member], scores)
    summarise(out, scores)
