"""``neuroformer fields``."""

from __future__ import annotations

import numpy as np

from neuroformer.cli.options import KEYS, override_argument, results_argument, run_argument
from neuroformer.cli.shared import open_asked, save_figure, summarise
from neuroformer.config import ConfigError
from neuroformer.files import save_npz


def add(command) -> None:
    help = "What each unit of a trained run sees: receptive fields, most exciting inputs, an animation over the frames."
    p = command("fields", run, help, KEYS)
    run_argument(p)
    results_argument(p)
    p.add_argument(
        "--windows",
        type=int,
        default=128,
        metavar="N",
        help="training windows over which receptive fields are averaged (default: 128)",
    )
    p.add_argument(
        "--starts",
        type=int,
        default=2,
        metavar="N",
        help="gradient ascents for each most exciting input, of which the best is kept (default: 2)",
    )
    p.add_argument("--steps", type=int, default=60, metavar="N", help="steps of each ascent (default: 60)")
    p.add_argument(
        "--integrated",
        type=int,
        default=0,
        metavar="STEPS",
        help="also integrated gradients to frames, with so many steps",
    )
    p.add_argument(
        "--halves",
        action="store_true",
        help="also train on either half of the training data, and say how alike what units see is between them",
    )
    override_argument(p, "e.g. recording.path=moved.npz")


def run(args) -> None:
    from neuroformer.analysis import fields
    from neuroformer.analysis.maps import save_maps
    from neuroformer.analysis.mei import most_exciting, projection
    from neuroformer.bundle.bundle import load_model
    from neuroformer.report.fields import figure_of, receptive_fields, stimuli

    bundle, p = open_asked(args)
    model, ids = load_model(bundle), p.rec.unit_ids
    if "frames" not in model.streams:
        why = f"recording '{p.rec.name}' has none" if "frames" in bundle.entry.lacks else "window.frames is 0"
        raise ConfigError(
            f"the model in {bundle.path} was trained without frames ({why}), so its units have no receptive fields"
        )
    if p.builder.features is not None:
        raise ConfigError(
            f"{args.folder} sees frames only through the stored features of a frozen backbone, so there is no "
            "gradient to pixels; train with model.frame_encoder.finetune=true, or with a convolution"
        )
    train = p.windows("train")
    few = train[np.sort(np.random.default_rng(p.config.seed).permutation(len(train))[: args.windows])]
    maps = [fields.frame_sensitivity(model, p, few)]
    if args.integrated:
        maps.append(fields.frame_gradients(model, p, few, steps=args.integrated))
    center = fields.centers(maps[0])
    best = most_exciting(model, p, train, starts=args.starts, steps=args.steps, seed=p.config.seed)
    save_maps(args.folder / "fields.npz", maps)
    mei = {k: getattr(best, k) for k in ("images", "contrast", "log_rate", "gray")}
    save_npz(args.folder / "mei.npz", mei | {"centers": center, "unit_ids": np.array(ids)})
    print("\n".join(repr(m) for m in maps))
    save_figure(figure_of(receptive_fields(maps[0], center)), args.folder / "fields.png")
    save_figure(figure_of(stimuli(best.contrast, ids)), args.folder / "mei.png")
    _animate(args.folder, model, p, maps[0])
    summary = {"mei_gain_median": float(np.median(best.log_rate - best.gray))}
    truth = p.rec.truth
    if "rf_center" in truth:
        sees = truth["is_responsive"]
        away = np.linalg.norm(center - truth["rf_center"], axis=1)[sees]
        share = projection(best.contrast, truth["rf_even"], truth["rf_odd"])[sees]
        summary |= {
            "fields_units": int(sees.sum()),
            "fields_within_2_px": float((away <= 2).mean()),
            "fields_distance_median_px": float(np.median(away)),
            "mei_projection_median": float(np.median(share)),
        }
    summarise(args.folder, summary | (_halves(args, p) if args.halves else {}))


def _halves(args, p) -> dict[str, float]:
    """Fields and inputs of two halves of the data, compared: into halves.npz, the medians returned."""
    from neuroformer.studies.halves import agreement

    found = agreement(
        p, args.folder, windows=args.windows, starts=args.starts, steps=args.steps, progress=not args.quiet
    )
    ids = np.array(found.unit_ids)
    save_npz(args.folder / "halves.npz", {"fields": found.field_UU, "clips": found.clip_UU, "unit_ids": ids})
    return found.summary()


def _animate(folder, model, p, field) -> None:
    """A held-out stretch with the fields over it, as a GIF."""
    import torch

    from neuroformer.data.windows import Windows
    from neuroformer.report.fields import animation

    stretch = p.windows("test")[:160]
    images, rates = [], []
    with torch.no_grad():
        for batch in p.batches(stretch, 64):
            assert batch.clips is not None  # a run without frames was refused above
            images.append(p.builder.last_images(Windows(batch.segment_W.numpy(), batch.tick_W.numpy())))
            rates.append(model.expected(batch).exp().sum(1).numpy())
    path = folder / "fields.gif"
    animation(path, np.concatenate(images), field, np.concatenate(rates), p.config.window.current)
    print(f"animation in {path}")
