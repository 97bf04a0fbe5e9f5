"""``neuroformer train``."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from neuroformer.cli.options import KEYS, config_arguments, override_argument, training_arguments
from neuroformer.cli.shared import (
    exit_code,
    only_process,
    refuse_unwritable,
    save_figure,
    summarise,
    warn_only_ours,
)
from neuroformer.config import Config, ConfigError, load_config
from neuroformer.files import read_values

MOST_PRINTED = 16  # recordings that are printed one by one


def add(command) -> None:
    help = "Train a model from a YAML file and score it on held-out data."
    p = command(
        "train",
        run,
        help,
        KEYS + " Exit code 75: the system stopped training, which was saved; continue with --resume.",
    )
    config_arguments(p, "run", "<name>", required=False)
    training_arguments(p)
    p.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="train N seeds, counted from `seed`, each into seed_<k> of the folder, and summarise their scores with "
        "intervals; with --resume, finished seeds are not run again",
    )
    override_argument(p, "settings that replace the file's")


def run(args) -> int:
    if args.seeds is not None:
        return _run_seeds(args)
    return _run_one(args, *_asked(args))


def _run_seeds(args) -> int:
    """One run for each seed, then a summary of their scores."""
    from neuroformer.cli.training.seeds import seed_folder, summarise_seeds
    from neuroformer.training.train import is_first_process

    if args.seeds < 1:
        raise ConfigError(f"--seeds is {args.seeds}; expected 1 or more")
    first = args.run and next(iter(sorted(args.run.glob("seed_*"), key=lambda f: int(f.name[5:]))), None)
    config, folder = _asked(args, args.run if args.config or not first else first)
    folder = folder.parent if folder == first else folder
    seeds = [config.seed + k for k in range(args.seeds)]
    for seed in seeds:
        refuse_what_is_there(args, seed_folder(folder, seed))
    for seed in seeds:
        code = _run_one(args, dataclasses.replace(config, seed=seed), seed_folder(folder, seed))
        if code:
            return code
    if is_first_process():
        summarise_seeds(folder, seeds)
    return 0


def refuse_what_is_there(args, folder: Path) -> bool:
    """Whether the folder holds a run to resume.

    Raises
    ------
    ConfigError
        It holds a run that was asked neither to be resumed nor to be replaced, or it cannot be written.
    """
    from neuroformer.training.checkpoint import FILE

    refuse_unwritable(folder, "--out" if hasattr(args, "out") else "--run")
    there = [name for name in ("bundle.json", FILE) if (folder / name).exists()]
    if there and not (args.overwrite or args.resume):
        what = "a trained run" if "bundle.json" in there else "a run that was stopped"
        more = "" if "bundle.json" in there else "--resume it, "
        raise ConfigError(f"{folder} already holds {what}; {more}give --run another folder, or --overwrite")
    return bool(there) and args.resume


def _run_one(args, config: Config, folder: Path) -> int:
    from neuroformer.bundle.bundle import read_bundle
    from neuroformer.data.stored import recordings_to_train
    from neuroformer.training.checkpoint import refuse_other_config

    if args.resume and _is_scored(folder):
        if not config.recordings:  # several get their names only when they are opened
            refuse_other_config(read_bundle(folder).config, config, folder)
        print(f"{folder} holds a finished run; nothing to resume")
        return 0
    goes_on = refuse_what_is_there(args, folder)
    config, recs = recordings_to_train(config)
    again = f"neuroformer train --run {folder} --resume"
    return train_and_score(args, recs, config, folder, goes_on=goes_on, again=again)


def train_and_score(args, recs, config: Config, folder: Path, *, goes_on: bool, again: str, start=None) -> int:
    """Train into a folder, from the weights of ``start`` if given, and score; returns the exit code.

    ``goes_on``: the folder already holds a part of the run. ``again``: the command that continues a stopped run.
    """
    from neuroformer.training.train import is_first_process

    with only_process(folder, "training into") if is_first_process() else contextlib.nullcontext():
        return _train_and_score(args, recs, config, folder, goes_on=goes_on, again=again, start=start)


def _train_and_score(args, recs, config: Config, folder: Path, *, goes_on: bool, again: str, start) -> int:
    from neuroformer.audit import time_findings
    from neuroformer.recording import Recording
    from neuroformer.runs import train
    from neuroformer.training.log import told as keep_telling
    from neuroformer.training.stopping import Stopped
    from neuroformer.training.train import is_first_process

    warn_only_ours()
    first = is_first_process()
    # recordings on disk were looked at before, and their audits say so
    told = [f for rec in recs if isinstance(rec, Recording) for f in time_findings(rec) if f is not None]
    if first:
        print_recordings(recs)
        # now, since the audit takes very long where milliseconds are taken for seconds
        print_warnings(told)
    what, audited = "preparing and auditing", []
    # of what is soon done, nothing is shown
    show = lambda line: None if args.quiet or line == what else print(line, flush=True)
    progress = keep_telling(folder / "log", show) if first else contextlib.nullcontext(lambda line: None)
    try:
        with progress as say:

            def tell(found) -> None:
                audited.append(found)
                if len(audited) == len(recs):
                    print_audits(audited, told)
                    say("")  # from here on there is a bar

            say(what)
            trained = train(
                config,
                folder,
                recordings=recs,
                resume=goes_on,
                progress=not args.quiet,
                start=start,
                tell=tell,
                say=print,
            )
    except Stopped as e:
        if first:
            print(f"stopped by {e}; continue with: {again}")
        return exit_code(e)
    if first:
        score_recordings(folder, trained.prepared, trained.metrics, baselines=args.baselines, quiet=args.quiet)
    return 0


def print_recordings(recs) -> None:
    """What each recording holds; of very many, what all of them hold."""
    if len(recs) <= MOST_PRINTED:
        return print(*recs, sep="\n")
    units, spikes = sum(r.num_units for r in recs), sum(r.num_spikes for r in recs)
    hours = sum(r.duration for r in recs) / 3600
    print(f"{len(recs):,} recordings on disk: {units:,} units, {spikes:,} spikes, {hours:,.1f} hours")


def print_audits(audits, told) -> None:
    """The warnings of all audits; of very many, each kind once."""
    if len(audits) <= MOST_PRINTED:
        return print_warnings([f for a in audits for f in a.of("warning") if f not in told])
    kinds: dict[str, list] = {}
    for audit in audits:
        for f in audit.of("warning"):
            kinds.setdefault(f.name, []).append((audit.recording, f))
    for name, each in kinds.items():
        recording, f = each[0]
        print(
            f"WARNING {name} in {len(each):,} of {len(audits):,} recordings; in '{recording}': {f.measured}; {f.advice}"
        )


def print_warnings(findings) -> None:
    """What an audit warns of, before time is spent on training."""
    for f in findings:
        print(f"WARNING {f.name}: {f.measured}; {f.advice}", flush=True)


def _asked(args, resumed: Path | None = None) -> tuple[Config, Path]:
    """The configuration and the folder; a resumed run knows its own configuration."""
    from neuroformer.config import apply_overrides, from_dict, to_dict
    from neuroformer.training.checkpoint import FILE, read_config

    folder = resumed or args.run
    if args.config is not None:
        config = load_config(args.config, args.override)
        return config, folder or Path("runs") / config.name
    if not args.resume or folder is None:
        file = next((x for x in args.override if x.endswith((".yaml", ".yml"))), "FILE")
        raise ConfigError(f"give --config {file}, or --run FOLDER --resume to continue a run")
    if (folder / FILE).exists():
        config = read_config(folder / FILE)
    elif (folder / "bundle.json").exists():
        from neuroformer.bundle.bundle import read_bundle

        config = read_bundle(folder).config
    else:
        raise ConfigError(f"{folder} holds no run to resume; give --config FILE to begin one")
    return from_dict(apply_overrides(to_dict(config), args.override)), folder


def _is_scored(folder: Path) -> bool:
    summary = folder / "summary.json"
    if not (folder / "bundle.json").exists() or not summary.exists():
        return False
    return not {"bits_per_spike", "bits_per_sample"}.isdisjoint(read_values(summary))


def score_recordings(folder: Path, recordings, metrics: dict[str, Any], *, baselines: bool | None, quiet: bool) -> None:
    """Held-out scores beside their baselines, and the learning curve. Of several recordings, see
    :func:`neuroformer.cli.trained.evaluate.score_each`.
    """
    from neuroformer.cli.trained.evaluate import score_each
    from neuroformer.training.evaluation import evaluate, sampled
    from neuroformer.training.log import told

    train = recordings[0].config.train
    if metrics["train_steps"] < train.steps:
        print(
            f"stopped after {metrics['train_steps']:,} of {train.steps:,} steps: no validation score gained 1 % in the "
            f"last {train.patience} evaluations (train.patience); the best weights of each are kept"
        )
    show = (lambda line: None) if quiet else (lambda line: print(line, flush=True))
    with told(folder / "log", show) as say:

        def score(prepared, baselines: bool, most: int = 0) -> dict[str, Any]:
            return evaluate(folder, prepared, baselines=baselines, most=most, tell=print, say=say)

        if len(recordings) == 1:
            _print_split(recordings[0])
            scores = score(recordings[0], baselines is not False)
            summarise(folder, metrics | scores)
            _say_if_below_baseline(scores)
        else:
            most, names = sampled(len(recordings)), [p.name for p in recordings]
            each = None if baselines else ((p.name, score(p, False, most)) for p in recordings)
            score_each(folder, names, bool(baselines), say, each, also=metrics)
    _learning_curve(folder)


def _say_if_below_baseline(scores: dict[str, Any]) -> None:
    """In words, since a table of numbers is easily overlooked."""
    pairs = (
        ("bits_per_spike", "bits_per_spike_glm", "the Poisson GLM", "bits/spike"),
        ("bits_per_sample", "bits_per_sample_autoregression", "the linear autoregression", "bits/sample"),
    )
    for own, other, baseline, unit in pairs:
        if own in scores and scores[own] < scores.get(other, 0.0):
            value, name = (scores[other], baseline) if other in scores else (0.0, "constant rates")
            print(
                f"WARNING the model predicts held-out data worse than {name} ({scores[own]:.3f} against {value:.3f} "
                f"{unit}), so do not draw conclusions from it yet; see 'When the model is below its baseline' in docs/training.md"
            )


def _learning_curve(folder: Path) -> None:
    from neuroformer.report.figures import learning_curve

    save_figure(learning_curve(folder / "log" / "metrics.csv"), folder / "learning_curve.png")


def _print_split(prepared) -> None:
    s, c = prepared.split, prepared.config.split
    parts = ", ".join(f"{part} {s.seconds(part):,.0f} s" for part in s.blocks)
    print(f"split by {c.by}: {parts}; claims to generalise over {c.claim}")
