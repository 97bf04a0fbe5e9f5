"""``neuroformer adapt``."""

from __future__ import annotations

import json
from pathlib import Path

from neuroformer.cli.options import KEYS, override_argument, training_arguments
from neuroformer.cli.shared import only_process, plain_json, refuse_unwritable, save_figure, warn_only_ours
from neuroformer.cli.tables import interval, table
from neuroformer.cli.training.train import refuse_what_is_there, train_and_score
from neuroformer.config import ConfigError


def add(command) -> None:
    help = "Let a new recording join a trained run: its units get their own rows, the trunk is reused."
    p = command(
        "adapt",
        run,
        help,
        KEYS + " Exit code 75: the system stopped training, which was saved; continue with --resume.",
    )
    p.add_argument("--run", required=True, type=Path, dest="folder", metavar="FOLDER", help="folder of the trained run")
    p.add_argument(
        "--train",
        choices=["new", "all"],
        default="new",
        help="what is trained: only the new units' rows and heads, with a frozen trunk (default), or everything",
    )
    p.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder of the new run (default: <run>_<name of the recording>)",
    )
    p.add_argument(
        "--join",
        type=Path,
        metavar="FOLDER",
        help="also write there one bundle that holds the run's recordings and the new one (with --train new)",
    )
    p.add_argument(
        "--seconds",
        metavar="S[,S]",
        default="",
        help="instead, the curve: train on the first so many seconds of it, new rows alone, everything, and from scratch, and "
        "score all on its test part",
    )
    training_arguments(p)
    override_argument(
        p,
        "recording.path=new.npz (required); recording.share=0.1 uses the first tenth of its training data",
    )


def run(args) -> int:
    from neuroformer.bundle.bundle import read_bundle
    from neuroformer.data.recordings import open_one
    from neuroformer.training.adapt import Start, adapted_config, join
    from neuroformer.training.train import is_first_process

    if not any(o.startswith(("recording.path=", "recording.options.")) for o in args.override):
        raise ConfigError("say which recording joins: recording.path=new.npz (recording.name=... names it)")
    if args.join and args.train != "new":
        raise ConfigError("--join needs --train new: recordings of one bundle share a trunk")
    if args.join and (args.join / "bundle.json").exists() and not args.overwrite:
        raise ConfigError(f"{args.join} already holds a run; give --join another folder, or --overwrite")
    if args.join:
        refuse_unwritable(args.join, "--join")
    bundle = read_bundle(args.folder)
    asked = adapted_config(bundle.config, args.override)
    rec = open_one(asked.recording)
    start = Start(bundle, args.train)
    config = start.config_for(rec, asked)
    if args.seconds:
        return _curve(args, bundle, rec, asked)
    out = args.out or args.folder.with_name(f"{args.folder.name}_{rec.name.replace(':', '_')}")
    goes_on = refuse_what_is_there(args, out)
    again = "the same command with --resume"
    code = train_and_score(args, [rec], config, out, goes_on=goes_on, again=again, start=start)
    if args.join and code == 0 and is_first_process():
        join(bundle, read_bundle(out), args.join)
        print(f"{args.join} holds {args.folder} and '{rec.name}'; choose a recording with --recording")
    return code


def _curve(args, bundle, rec, config) -> int:
    """The table, ``adapting.json`` and the figure."""
    from neuroformer.files import write_atomic
    from neuroformer.report.figures import adapting
    from neuroformer.studies.adapting import adapting_curve

    try:
        seconds = [float(s) for s in args.seconds.split(",")]
    except ValueError:
        raise ConfigError(f"--seconds is {args.seconds!r}; expected seconds joined by commas, like 10,30,120") from None
    warn_only_ours()
    folder = args.out or args.folder.with_name(f"{args.folder.name}_{rec.name.replace(':', '_')}_seconds")
    refuse_unwritable(folder, "--out")
    say = (lambda line: None) if args.quiet else (lambda line: print(line, flush=True))
    runs = {args.folder.name: bundle}
    with only_process(folder, "adapting into"):
        points = adapting_curve(runs, rec, config, seconds, folder, progress=not args.quiet, say=say)
        write_atomic(folder / "adapting.json", json.dumps(plain_json([vars(p) for p in points]), indent=1).encode())
        save_figure(adapting(points), folder / "adapting.png")
    rows = [
        (f"{p.seconds:g}", p.way, p.bits, interval(p.low, p.high), p.more, interval(p.more_low, p.more_high))
        for p in points
    ]
    print(table(rows, ("seconds", "way", "held-out bits", "95 % interval", "more than scratch", "95 % interval")))
    print(f"numbers in {folder / 'adapting.json'}")
    return 0
