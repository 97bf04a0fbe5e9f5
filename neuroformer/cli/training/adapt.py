"""``neuroformer adapt``."""

from __future__ import annotations

from pathlib import Path

from neuroformer.cli.options import KEYS, override_argument, training_arguments
from neuroformer.cli.shared import refuse_unwritable
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
    out = args.out or args.folder.with_name(f"{args.folder.name}_{rec.name.replace(':', '_')}")
    goes_on = refuse_what_is_there(args, out)
    again = "the same command with --resume"
    code = train_and_score(args, [rec], config, out, goes_on=goes_on, again=again, start=start)
    if args.join and code == 0 and is_first_process():
        join(bundle, read_bundle(out), args.join)
        print(f"{args.join} holds {args.folder} and '{rec.name}'; choose a recording with --recording")
    return code
