"""``neuroformer embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuroformer.cli.options import KEYS, override_argument, results_argument, run_argument
from neuroformer.cli.shared import open_asked, open_run, save_figure, summarise, warn_only_ours
from neuroformer.files import save_npz


def add(command) -> None:
    help = "Latent features along a recording: how well they align, how well two runs agree, a figure."
    p = command("embed", run, help, KEYS)
    run_argument(p)
    results_argument(p)
    p.add_argument(
        "--features",
        choices=["state", "contrast"],
        default="state",
        help="the fused state (default), or the neural side of an alignment",
    )
    p.add_argument(
        "--components",
        type=int,
        default=0,
        metavar="N",
        help="reduce to N principal components (default: 0, keep all)",
    )
    p.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="another run: consistency after linear alignment (of another recording: along the --color variable)",
    )
    p.add_argument(
        "--color",
        metavar="NAME",
        help="behavior variable that colours the figure and aligns recordings (default: the run's first target)",
    )
    override_argument(p, "e.g. decode.split=valid")


def run(args) -> None:
    from sklearn.decomposition import PCA

    from neuroformer.bundle.bundle import load_model
    from neuroformer.report.behavior import embedding_scatter
    from neuroformer.studies.embeddings import agreement, bits_beside_null, embed, retrieval

    bundle, prepared = open_asked(args)
    warn_only_ours()
    model, split = load_model(bundle), prepared.config.decode.split
    windows = {p: prepared.windows(p) for p in ("train", split)}
    x = {p: embed(model, prepared, w, args.features) for p, w in windows.items()}
    summary: dict[str, Any] = {f"embed_{k}": v for k, v in bits_beside_null(model, prepared, windows[split]).items()}
    summary |= {f"embed_{k}": v for k, v in retrieval(model, prepared, windows[split]).items()}
    pca = PCA(args.components or 2).fit(x["train"])
    low = pca.transform(x[split])
    targets = prepared.config.targets
    color = args.color or (targets[0].name if targets else None)
    if args.against is not None:
        other, theirs = open_run(args.against, [], args.recording)
        agree = agreement((model, prepared), (load_model(other), theirs), args.features, args.components, color)
        summary |= {f"embed_consistency_{k}": v for k, v in agree.items()}
    summary["embed_variance_explained"] = float(pca.explained_variance_ratio_.sum())
    times = windows[split].starts(prepared.index) + prepared.config.window.current
    save_npz(args.folder / "embedding.npz", {"times": times, "features": low if args.components else x[split]})
    if color is not None and low.shape[1] > 1:
        values = prepared.rec.variable(color).interpolate(times)[:, 0]
        save_figure(embedding_scatter(low, values, color), args.folder / "embedding.png")
    summarise(args.folder, summary)
