"""``neuroformer attend``."""

from __future__ import annotations

import numpy as np

from neuroformer.cli.shared import KEYS, open_asked, run_argument, summarise


def add(command) -> None:
    help = "Map who acts on whom in a trained run: knock-out, gradients, attention, pairwise baselines, with nulls."
    p = command("attend", run, help, KEYS)
    run_argument(p)
    p.add_argument(
        "--split", choices=["train", "valid", "test"], default="test", help="which part to look at"
    )
    p.add_argument("--windows", type=int, default=1000, help="windows whose attention is mapped")
    p.add_argument(
        "--occasions", type=int, default=300, help="windows, of these, for knock-outs and gradients"
    )
    p.add_argument("--heads", action="store_true", help="also a map of every head")
    p.add_argument("--gradients", action="store_true", help="also gradient x input and integrated gradients")
    p.add_argument("override", nargs="*", metavar="key.sub=value", help="e.g. recording.path=moved.npz")


def run(args) -> None:
    from neuroformer.analysis import attention, influence
    from neuroformer.analysis.connectivity import agreement
    from neuroformer.analysis.maps import save_maps
    from neuroformer.analysis.nulls import shuffled_identities
    from neuroformer.analysis.pairwise import Pairs
    from neuroformer.model.bundle import load_model

    bundle, p = open_asked(args)
    model, ids = load_model(bundle), p.rec.unit_ids
    everything = p.windows(args.split)
    order = np.random.default_rng(p.config.seed).permutation(len(everything))
    windows = everything[np.sort(order[: args.windows])]
    few = everything[np.sort(order[: args.occasions])]
    maps = [influence.knock_out(model, p.builder, few, ids)]
    if args.gradients:
        maps += [influence.gradients(model, p.builder, few, ids, steps=s) for s in (1, 8)]
    maps += attention.attention_maps(model, p.builder, windows, ids, heads=args.heads)
    if maps[0].lags_s is not None:
        maps += Pairs(p.index, p.split.blocks["train"], len(maps[0].lags_s), ids).all(p.builder.shape.current)
    maps = [shuffled_identities(m) if m.square else m for m in maps]
    save_maps(args.folder / "maps.npz", maps)
    print("\n".join(repr(m) for m in maps))
    print(f"maps in {args.folder / 'maps.npz'}; read them with neuroformer.analysis.maps.load_maps")
    if model.frames is not None:
        stretch = everything[: min(len(everything), 200)]
        seen = attention.frame_attention(model, p.builder, stretch)
        np.savez_compressed(args.folder / "frame_attention.npz", **seen)  # pyright: ignore[reportArgumentType]
    summary = {"attend_windows": len(windows), "attend_knock_out_windows": len(few)}
    if "coupling" in p.rec.truth and np.any(p.rec.truth["coupling"]):
        for m in (m for m in maps if m.square):
            score = agreement(m, p.rec.truth["coupling"])
            key = m.name.replace(" ", "_").replace(",", "").replace("-", "_")
            summary |= {f"coupling_auroc_{key}": score["auroc"], f"coupling_r2_{key}": score["r2"]}
    summarise(args.folder, summary)
