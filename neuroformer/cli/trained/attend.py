"""``neuroformer attend``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroformer.cli.options import KEYS, override_argument, run_argument
from neuroformer.cli.shared import open_asked, open_run, summarise
from neuroformer.config import ConfigError
from neuroformer.files import save_npz

if TYPE_CHECKING:
    from neuroformer.data.windows import Windows


def add(command) -> None:
    help = "Map who acts on whom in a trained run: knock-out, gradients, attention, pairwise baselines, with nulls."
    p = command("attend", run, help, KEYS)
    run_argument(p)
    where = p.add_mutually_exclusive_group()
    where.add_argument(
        "--split", choices=["train", "valid", "test"], default="test", help="part to look at (default: test)"
    )
    where.add_argument(
        "--interval",
        type=float,
        nargs=2,
        metavar=("START", "STOP"),
        help="look at this stretch in place of a part: seconds of the recording",
    )
    p.add_argument(
        "--windows", type=int, default=1000, metavar="N", help="windows whose attention is mapped (default: 1000)"
    )
    p.add_argument(
        "--occasions",
        type=int,
        default=300,
        metavar="N",
        help="how many of these windows are used for knock-outs and gradients (default: 300)",
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
    override_argument(p, "e.g. recording.path=moved.npz")


def run(args) -> None:
    from neuroformer.analysis import attention, nulls
    from neuroformer.analysis.maps import save_maps
    from neuroformer.bundle.bundle import load_model

    bundle, p = open_asked(args)
    model = load_model(bundle)
    everything = _stretch(args, p)
    maps, summary = _read(args, model, p)
    for folder in args.pool:
        other, theirs = open_run(folder, args.override, args.recording)
        if theirs.rec.unit_ids != p.rec.unit_ids:
            raise ConfigError(
                f"{folder} was trained on other units than {args.folder}; maps can be averaged over the same units only"
            )
        more, _ = _read(args, load_model(other), theirs)
        maps = {name: [*found, *more[name]] for name, found in maps.items() if name in more}
    maps = [nulls.average(found) if len(found) > 1 else found[0] for found in maps.values()]
    save_maps(args.folder / "maps.npz", maps)
    print("\n".join(repr(m) for m in maps))
    print(f"maps in {args.folder / 'maps.npz'}; read them with neuroformer.analysis.maps.load_maps")
    if model.frames is not None:
        seen = attention.frame_attention(model, p.builder, everything[: min(len(everything), 200)])
        save_npz(args.folder / "frame_attention.npz", seen)
    summarise(args.folder, summary | _against_truth(maps, p.rec))


def _stretch(args, p) -> Windows:
    """The windows to look at: of a part, or of every part within an interval."""
    from neuroformer.data.windows import Windows

    if args.interval is None:
        return p.windows(args.split)
    start, stop = args.interval
    parts = [p.windows(part) for part in p.split.blocks]
    every = Windows(np.concatenate([w.segment for w in parts]), np.concatenate([w.tick for w in parts]))
    at = every.starts(p.index)
    inside = np.flatnonzero((at >= start) & (at < stop))
    if not len(inside):
        raise ConfigError(
            f"no window lies between {start:g} and {stop:g} s; windows start from {at.min():g} to {at.max():g} s"
        )
    return every[inside[np.argsort(at[inside], kind="stable")]]


def _read(args, model, p) -> tuple[dict[str, list], dict[str, Any]]:
    """Every map of one run, by name, beside its null; and what of it goes into the summary."""
    from neuroformer.analysis import attention, influence, nulls
    from neuroformer.analysis.pairwise import Pairs

    ids, everything = p.rec.unit_ids, _stretch(args, p)
    order = np.random.default_rng(p.config.seed).permutation(len(everything))
    windows = everything[np.sort(order[: args.windows])]
    few = everything[np.sort(order[: args.occasions])]

    def of_model(builder, windows, few) -> list:
        maps = [influence.knock_out(model, builder, few, ids)]
        if args.gradients:
            maps += [influence.gradients(model, builder, few, ids, steps=s) for s in (1, 8)]
        return maps + attention.attention_maps(model, builder, windows, ids, heads=args.heads)

    def all_maps(builder) -> list:
        maps = of_model(builder, windows, few)
        assert maps[0].lags_s is not None
        pairs = Pairs(builder.index, p.split.blocks["train"], len(maps[0].lags_s), ids)
        return maps + pairs.all(builder.shape.current)

    if args.surrogates:
        maps = nulls.rate_matched(all_maps, p.builder, surrogates=args.surrogates, seed=p.config.seed)
    else:
        maps = [nulls.shuffled_identities(m) if m.square else m for m in all_maps(p.builder)]
    summary = {"attend_windows": len(windows), "attend_knock_out_windows": len(few)}
    if args.reliability:
        found = nulls.split_half(lambda half: of_model(p.builder, half, half[: len(few)]), windows)
        summary |= {f"reliability_{_key(name)}": r for name, r in found.items()}
    return {m.name: [m] for m in maps}, summary


def _against_truth(maps: list, rec) -> dict[str, float]:
    from neuroformer.analysis.connectivity import agreement

    summary = {}
    if "coupling" in rec.truth and np.any(rec.truth["coupling"]):
        for m in (m for m in maps if m.square):
            score = agreement(m, rec.truth["coupling"])
            summary |= {f"coupling_auroc_{_key(m.name)}": score["auroc"], f"coupling_r2_{_key(m.name)}": score["r2"]}
    return summary


def _key(name: str) -> str:
    return name.replace(" ", "_").replace(",", "").replace("-", "_")
