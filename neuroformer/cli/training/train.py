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
    results_folder,
    save_figure,
    summarise,
    warn_only_ours,
)
from neuroformer.config import Config, ConfigError, load_config
from neuroformer.files import read_values


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
    from neuroformer.data.recordings import open_recordings
    from neuroformer.training.checkpoint import refuse_other_config

    if args.resume and _is_scored(folder):
        if not config.recordings:  # several get their names only when they are opened
            refuse_other_config(read_bundle(folder).config, config, folder)
        print(f"{folder} holds a finished run; nothing to resume")
        return 0
    goes_on = refuse_what_is_there(args, folder)
    config, recs = open_recordings(config)
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
    from neuroformer.runs import train
    from neuroformer.training.log import told as keep_telling
    from neuroformer.training.stopping import Stopped
    from neuroformer.training.train import is_first_process

    warn_only_ours()
    first = is_first_process()
    told = [f for rec in recs for f in time_findings(rec) if f is not None]
    if first:
        print(*recs, sep="\n")
        # now, since the audit takes very long where milliseconds are taken for seconds
        print_warnings(told)
    what, audited = "preparing and auditing", []
    # of what is soon done, nothing is shown
    show = lambda line: None if args.quiet or line == what else print(line, flush=True)
    progress = (
        keep_telling(folder / "log" / "progress.txt", show) if first else contextlib.nullcontext(lambda line: None)
    )
    try:
        with progress as say:

            def tell(found) -> None:
                print_warnings([f for f in found.of("warning") if f not in told])
                audited.append(found)
                if len(audited) == len(recs):
                    say("")  # from here on there is a bar

            say(what)
            prepared, metrics = train(
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
        score_recordings(folder, prepared, metrics, baselines=not args.no_baselines, quiet=args.quiet)
    return 0


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


def score_recordings(folder: Path, recordings, metrics: dict[str, Any], *, baselines: bool, quiet: bool) -> None:
    """Held-out scores of every recording beside their baselines, and the learning curve.

    With several recordings, each has its scores in its own folder, and the run's scores are their means.
    """
    from neuroformer.bundle.bundle import read_bundle
    from neuroformer.training.evaluation import mean_scores

    train = recordings[0].config.train
    if metrics["train_steps"] < train.steps:
        print(
            f"stopped after {metrics['train_steps']:,} of {train.steps:,} steps: no validation score gained 1 % in the "
            f"last {train.patience} evaluations (train.patience); the best weights of each are kept"
        )
    if len(recordings) == 1:
        scores = _scores(folder, recordings[0], baselines, quiet)
        summarise(folder, metrics | scores)
        _say_if_below_baseline(scores)
        return _learning_curve(folder)
    every = []
    for prepared in recordings:
        print(f"{prepared.rec.name}:")
        every.append(_scores(folder, prepared, baselines, quiet))
        of_one = results_folder(read_bundle(folder).of(prepared.rec.name))
        summarise(of_one, every[-1])
        _say_if_below_baseline(every[-1])
    print("all recordings, bits the mean over them:")
    summarise(folder, metrics | mean_scores(every))
    _learning_curve(folder)


def _scores(folder: Path, prepared, baselines: bool, quiet: bool) -> dict[str, Any]:
    from neuroformer.training.evaluation import evaluate
    from neuroformer.training.log import told

    _print_split(prepared)
    show = (lambda line: None) if quiet else (lambda line: print(line, flush=True))
    with told(folder / "log" / "progress.txt", show) as say:
        return evaluate(folder, prepared, baselines=baselines, tell=print, say=say)


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
