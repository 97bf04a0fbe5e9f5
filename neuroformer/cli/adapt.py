"""``neuroformer adapt``."""

from __future__ import annotations

from pathlib import Path

from neuroformer.cli.shared import KEYS, warn_only_ours
from neuroformer.cli.train import STOPPED, refuse_what_is_there, score_members, start_clean
from neuroformer.config import ConfigError


def add(command) -> None:
    help = "Let a new recording join a trained run: its units get rows of their own, the trunk is taken over."
    p = command("adapt", run, help, KEYS + " Exit code 75: a signal stopped it, saved; go on with --resume.")
    p.add_argument("--run", required=True, type=Path, dest="folder", help="folder of the trained run")
    p.add_argument(
        "--train", choices=["new", "all"], default="new",
        help="what trains: the new units' rows and heads with a frozen trunk (default), or everything",
    )  # fmt: skip
    p.add_argument("--out", type=Path, help="folder of the new run (default: <run>_<name of the recording>)")
    p.add_argument(
        "--join", type=Path, metavar="FOLDER",
        help="also write one bundle there, of the run's recordings and the new one (with --train new)",
    )  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="replace a run that is already there")
    p.add_argument("--resume", action="store_true", help="go on exactly where it stopped; begins otherwise")
    p.add_argument("--no-baselines", action="store_true", help="do not fit the GLMs beside the score")
    p.add_argument(
        "override", nargs="*", metavar="key.sub=value",
        help="recording.path=new.npz (needed); recording.share=0.1 uses the first tenth of its training stretches",
    )  # fmt: skip


def run(args) -> int:
    from neuroformer.data.members import open_one
    from neuroformer.model.bundle import read_bundle
    from neuroformer.training.adapt import Start, adapted_config, join
    from neuroformer.training.loop import Stopped
    from neuroformer.training.train import is_first_process, train_several

    if not any(o.startswith(("recording.path=", "recording.options.")) for o in args.override):
        raise ConfigError("say which recording joins: recording.path=new.npz (recording.name=... names it)")
    if args.join and args.train != "new":
        raise ConfigError("--join needs --train new: recordings of one bundle share a trunk")
    if args.join and (args.join / "bundle.json").exists() and not args.overwrite:
        raise ConfigError(f"{args.join} already holds a run; give --join another folder, or --overwrite")
    bundle = read_bundle(args.folder)
    asked = adapted_config(bundle.config, args.override)
    rec = open_one(asked.recording)
    start = Start(bundle, args.train)
    config = start.config_for(rec, asked)
    out = args.out or args.folder.with_name(f"{args.folder.name}_{rec.name.replace(':', '_')}")
    goes_on = refuse_what_is_there(args, out)
    warn_only_ours()
    first = is_first_process()
    if first:
        print(rec)
        if not goes_on:
            start_clean(out)
    try:
        members, metrics = train_several(
            [rec], config, out, progress=not args.quiet, resume=args.resume, start=start
        )
    except Stopped as e:
        if first:
            print(f"stopped by {e}; go on with the same command and --resume")
        return STOPPED
    if first:
        score_members(out, members, metrics, baselines=not args.no_baselines)
        if args.join:
            join(bundle, read_bundle(out), args.join)
            print(f"{args.folder} and '{rec.name}' in {args.join}; say which with --recording")
    return 0
