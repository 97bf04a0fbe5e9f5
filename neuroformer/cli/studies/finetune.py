"""``neuroformer finetune``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuroformer.cli.options import (
    KEYS,
    override_argument,
    overwrite_argument,
    parse_targets,
    run_argument,
    target_argument,
)
from neuroformer.cli.shared import open_asked, refuse_unwritable, summarise, warn_only_ours
from neuroformer.config import ConfigError, TargetConfig

if TYPE_CHECKING:
    from neuroformer.bundle.bundle import Bundle


def add(command) -> None:
    help = "Teach a trained run behavior targets from labels: heads, top blocks, everything, or adapters."
    p = command("finetune", run, help, KEYS)
    run_argument(p)
    target_argument(p)
    p.add_argument(
        "--labels",
        default="all",
        metavar="AMOUNT",
        help="how many labels, like 10s, 5%% or all (default); drawn in chunks of 1 s",
    )
    p.add_argument(
        "--draw",
        type=int,
        default=0,
        metavar="N",
        help="number of the random draw of labels, also the seed (default: 0)",
    )
    p.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder of the new run (default: <run>[_<recording>]_<targets>)",
    )
    overwrite_argument(p)
    override_argument(p, "e.g. tune.train=top tune.steps=200")


def run(args: argparse.Namespace) -> None:
    from neuroformer.bundle.bundle import LIKELIHOOD, RecordingEntry, load_model, read_bundle
    from neuroformer.bundle.saving import save_bundle, save_weights
    from neuroformer.decoding.decode import decode_windows, predict_targets, true_values
    from neuroformer.decoding.finetune import extend, finetune, know_only
    from neuroformer.studies.fewshot import (
        amounts_in_seconds,
        draw_labels,
        labelled_seconds,
        missing_classes,
    )
    from neuroformer.studies.folds import labelled_windows

    run = read_bundle(args.folder)
    targets = parse_targets(args.targets, run.config.targets)
    out = args.out or _default_folder(args, run, targets)
    if (out / "bundle.json").exists() and not args.overwrite:
        raise ConfigError(f"{out} already holds a trained run; give --out another folder, or --overwrite")
    refuse_unwritable(out, "--out")
    args.results = out  # the run itself is only read
    bundle, trained = open_asked(args)
    warn_only_ours()
    model, prepared = extend(load_model(bundle), trained, targets)
    windows, labels = labelled_windows(prepared)
    if args.labels != "all":
        first = targets[0]
        seconds = amounts_in_seconds([args.labels], labelled_seconds(prepared, first))[0]
        windows = draw_labels(prepared, windows, labels[first.name], first.samples, seconds, args.draw)
    for target in targets:
        _warn_of_absent(target, missing_classes(prepared, target, windows))
    prepared = know_only(model, prepared, windows, targets)
    tuned, info = finetune(model, prepared, windows, targets, prepared.config.tune, args.draw)
    for objective in bundle.digests:  # heads of earlier targets stay as good as they were
        if objective != LIKELIHOOD and objective not in {t.name for t in targets}:
            save_weights(
                out / "weights" / f"{objective}.safetensors", extend(load_model(bundle, objective), trained, targets)[0]
            )
    for objective in (LIKELIHOOD, *(t.name for t in targets)):
        save_weights(out / "weights" / f"{objective}.safetensors", tuned)
    test = decode_windows(prepared, prepared.config.decode.split)
    scores = _scores(targets, true_values(prepared, test), predict_targets(tuned, prepared, test))
    scores |= {"finetune_windows": len(windows), "finetune_steps": info["steps"]}
    scores["finetune_label_seconds"] = float(np.round(len(windows) * prepared.config.window.current, 6))
    rec = prepared.rec
    entry = RecordingEntry(rec.name, list(rec.unit_ids), prepared.normalization, bundle.split)
    save_bundle(out, prepared.config, [entry], scores)
    summarise(out, scores)


def _default_folder(args: argparse.Namespace, run: Bundle, targets: Sequence[TargetConfig]) -> Path:
    several = len(run.recordings) > 1
    names = [run.of(args.recording).recording.replace(":", "_")] if several else []
    return args.folder.with_name("_".join([args.folder.name, *names, *(t.name for t in targets)]))


def _warn_of_absent(target: TargetConfig, classes: list[str]) -> None:
    if classes:
        print(
            f"WARNING the labels of {target.name} hold no {', '.join(classes)}, which the model can then never name: "
            "give more labels (--labels), or another draw of them (--draw)"
        )


def _scores(targets: Sequence[TargetConfig], true: dict, predicted: dict) -> dict[str, float]:
    """The held-out score of every target; a missing one with its reason."""
    from neuroformer.decoding.decode import score_of
    from neuroformer.studies.fewshot import varies

    out = {}
    for t in targets:
        out[f"finetune_{t.name}_score"] = score_of(t)(true[t.name], predicted[t.name])
        if not varies(true[t.name]):
            print(
                f"finetune_{t.name}_score is missing: held-out labels of {t.name} are one value or none; "
                "pretrain with another part held out (split.block, split.pattern)"
            )
    return out
