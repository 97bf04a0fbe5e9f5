"""``neuroformer evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from neuroformer.cli.options import glm_argument, run_argument
from neuroformer.cli.shared import plain_json, results_folder, summarise, warn_only_ours
from neuroformer.cli.tables import table
from neuroformer.files import merge_values, read_values

BASELINES = "baselines"  # in a recording's summary: whether they were fitted


def add(command) -> None:
    help = "Score a trained run on held-out data, beside baselines; several recordings in parallel processes."
    more = (
        "Of several recordings, the run's summary has the distribution of their scores, and each recording's its own; those "
        "that have their scores already are not scored again."
    )
    p = command("evaluate", run, help, more)
    run_argument(p)
    glm_argument(p)


def run(args) -> None:
    from neuroformer.bundle.bundle import read_bundle
    from neuroformer.training.evaluation import evaluate
    from neuroformer.training.log import told

    warn_only_ours()
    bundle, show = read_bundle(args.folder), (lambda line: None if args.quiet else print(line, flush=True))
    names = bundle.names
    with told(args.folder / "log", show) as say:
        if len(names) == 1 or args.recording:
            one = bundle.of(args.recording)
            scores = evaluate(
                args.folder, recording=one.recording, baselines=args.baselines is not False, tell=print, say=say
            )
            return summarise(results_folder(one), scores | {BASELINES: args.baselines is not False})
        score_each(args.folder, names, bool(args.baselines), say)


def score_each(
    folder: Path,
    names: Sequence[str],
    baselines: bool,
    say: Callable[[str], object],
    each: Iterable[tuple[str, dict[str, Any]]] | None = None,
    also: dict[str, Any] | None = None,
) -> None:
    """Score the recordings of a run, keep each one's scores in its own folder, and show their distribution.

    What an earlier call scored, with baselines if they are asked for now, is taken from there.

    Parameters
    ----------
    each : scores by recording as they are done, where they are at hand; by default they are computed in parallel
    also : further values of the run's summary
    """
    from neuroformer.bundle.bundle import read_bundle
    from neuroformer.training.evaluation import distribution, evaluate_each, sampled

    bundle = read_bundle(folder)
    places = {name: bundle.of(name).results for name in names}
    scores: dict[str, dict[str, Any]] = {}
    if each is None:
        known = {name: read_values(place / "summary.json") for name, place in places.items()}
        scores = {n: s for n, s in known.items() if s.get(BASELINES, -1) >= baselines}
        left = [name for name in names if name not in scores]
        each = evaluate_each(folder, left, baselines=baselines, most=0 if baselines else sampled(len(names)))
    for name, found in each:
        scores[name] = found | {BASELINES: baselines}
        places[name].mkdir(exist_ok=True)
        merge_values(places[name] / "summary.json", plain_json(scores[name]))
        say(f"scored {len(scores):,} of {len(names):,} recordings")
    say("")
    found = distribution({name: scores[name] for name in names})
    kinds = [k.removesuffix("_median") for k in found if k.endswith("_median")]
    ends = ("", "_worst", "_lower_quartile", "_median", "_upper_quartile")
    print(f"{len(names):,} recordings, each in a folder of its own; fewest bits: {found['worst_recording']}")
    print(table([(k, *(found[k + end] for end in ends)) for k in kinds], ("", "mean", *(e[1:] for e in ends[1:]))))
    summarise(folder, also or {}, found)
