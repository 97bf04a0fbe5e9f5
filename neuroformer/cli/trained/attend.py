"""``neuroformer attend``."""

from __future__ import annotations

from pathlib import Path

from neuroformer.cli.options import KEYS, override_argument, results_argument, run_argument
from neuroformer.cli.shared import refuse_results, results_folder, summarise
from neuroformer.files import save_npz


def add(command) -> None:
    help = "Map who acts on whom in a trained run: knock-out, gradients, attention, pairwise baselines, with nulls."
    p = command("attend", run, help, KEYS)
    run_argument(p)
    results_argument(p)
    where = p.add_mutually_exclusive_group()
    where.add_argument(
        "--split", choices=["train", "valid", "test"], default="test", help="part to look at (default: test)"
    )
    where.add_argument(
        "--interval",
        type=float,
        nargs=2,
        metavar=("START", "STOP"),
        help="look at this interval in place of a part: seconds of the recording",
    )
    p.add_argument(
        "--windows", type=int, default=1000, metavar="N", help="windows whose attention is mapped (default: 1000)"
    )
    p.add_argument(
        "--knocked-out",
        type=int,
        default=300,
        metavar="N",
        help="windows in which units are knocked out and gradients are taken (default: 300)",
    )
    p.add_argument("--heads", action="store_true", help="also one map for each head")
    p.add_argument("--gradients", action="store_true", help="also gradient x input and integrated gradients")
    p.add_argument(
        "--surrogates",
        type=int,
        default=0,
        metavar="N",
        help="take the null from N recordings in which each unit is shifted in time, not from shuffled identities",
    )
    p.add_argument(
        "--reliability",
        action="store_true",
        help="also how well each map repeats between two halves of the windows",
    )
    p.add_argument(
        "--pool",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="further runs, trained on the same recording with other seeds: maps are averaged over all, and each pair's "
        "spread is its null",
    )
    p.add_argument(
        "--units",
        type=int,
        default=500,
        metavar="N",
        help="of a larger population, maps are of so many units, those with the most spikes (default: 500; 0: of all)",
    )
    override_argument(p, "e.g. recording.path=moved.npz")


def run(args) -> None:
    from neuroformer.analysis.maps import save_maps
    from neuroformer.bundle.bundle import read_bundle
    from neuroformer.runs import attend

    refuse_results(args)
    found = attend(
        args.folder,
        args.override,
        recording=args.recording,
        split=args.split,
        interval=args.interval,
        pool=args.pool,
        num_windows=args.windows,
        num_knock_out=args.knocked_out,
        heads=args.heads,
        gradients=args.gradients,
        surrogates=args.surrogates,
        reliability=args.reliability,
        most_units=args.units,
    )
    args.folder = results_folder(read_bundle(args.folder).of(args.recording), args.results)
    save_maps(args.folder / "maps.npz", found.maps)
    print("\n".join(repr(m) for m in found.maps))
    if "attend_units" in found.summary:
        print(
            f"maps are of the {found.summary['attend_units']:,} units with the most spikes; --units N asks for others, 0 for all"
        )
    print(f"maps in {args.folder / 'maps.npz'}; read them with neuroformer.analysis.maps.load_maps")
    if found.frames is not None:
        save_npz(args.folder / "frame_attention.npz", found.frames)
    summarise(args.folder, found.summary)
