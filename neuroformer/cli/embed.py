"""``neuroformer embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.cli.shared import (
    KEYS,
    open_asked,
    open_run,
    run_argument,
    save_figure,
    summarise,
    warn_only_ours,
)
from neuroformer.config import ConfigError


def add(command) -> None:
    help = "Latent features along a recording: how well they align, how well two runs agree, a figure."
    p = command("embed", run, help, KEYS)
    run_argument(p)
    p.add_argument(
        "--features",
        choices=["state", "contrast"],
        default="state",
        help="fused state, or the neural side of an alignment",
    )
    p.add_argument(
        "--components", type=int, default=0, help="reduce to so many principal components (0: keep all)"
    )
    p.add_argument(
        "--against", type=Path, help="another run of the same recording: consistency after linear alignment"
    )
    p.add_argument(
        "--color", help="behavior variable that colours the figure (default: the run's first target)"
    )
    p.add_argument("override", nargs="*", metavar="key.sub=value", help="e.g. decode.split=valid")


def run(args) -> None:
    from sklearn.decomposition import PCA

    from neuroformer.decoding.embedding import alignment_bits, consistency, embed
    from neuroformer.model.bundle import load_model
    from neuroformer.report.behavior import embedding_scatter

    bundle, prepared = open_asked(args)
    warn_only_ours()
    model, split = load_model(bundle), prepared.config.decode.split
    windows = {p: prepared.windows(p) for p in ("train", split)}
    x = {p: embed(model, prepared, w, args.features) for p, w in windows.items()}
    summary: dict[str, Any] = {
        f"embed_{k}": v for k, v in alignment_bits(model, prepared, windows[split]).items()
    }
    if args.against is not None:
        other, theirs = open_run(args.against, [], args.recording)
        if theirs.split.sha256() != prepared.split.sha256():
            raise ConfigError(
                f"{args.against} has another split than {args.folder}; consistency needs the same windows"
            )
        y = {p: embed(load_model(other), theirs, w, args.features) for p, w in windows.items()}
        agree = consistency(x["train"], y["train"], x[split], y[split])
        summary |= {f"embed_consistency_{k}": v for k, v in agree.items()}
    pca = PCA(args.components or 2).fit(x["train"])
    low = pca.transform(x[split])
    summary["embed_variance_explained"] = float(pca.explained_variance_ratio_.sum())
    times = windows[split].starts(prepared.index) + prepared.config.window.current
    np.savez_compressed(
        args.folder / "embedding.npz", times=times, features=low if args.components else x[split]
    )
    targets = prepared.config.targets
    color = args.color or (targets[0].name if targets else None)
    if color is not None and low.shape[1] > 1:
        values = prepared.rec.variable(color).interpolate(times)[:, 0]
        save_figure(embedding_scatter(low, values, color), args.folder / "embedding.png")
    summarise(args.folder, summary)
