"""``neuroformer forecast``."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from neuroformer.cli.options import KEYS, override_argument, results_argument, run_argument
from neuroformer.cli.shared import open_asked, plain_json, save_figure, summarise, warn_only_ours
from neuroformer.cli.tables import interval, table
from neuroformer.config import ConfigError

MAIN = ("bits_per_spike", "mse_over_copied")  # of counts, and of traces


def add(command) -> None:
    help = "Score what the model expects some time ahead, given the true past up to now, beside simple predictors."
    p = command("forecast", run, help, KEYS)
    run_argument(p)
    results_argument(p)
    p.add_argument(
        "--horizon",
        default="0.05,0.1,0.25,0.5,1.0",
        metavar="S[,S]",
        help="seconds ahead; predicted bins are as long as the shortest (default: 0.05,0.1,0.25,0.5,1.0)",
    )
    p.add_argument(
        "--samples",
        type=int,
        default=0,
        metavar="N",
        help="continuations of each moment beyond one window (default: 16, fewer where the population is very active)",
    )
    p.add_argument("--no-baselines", action="store_true", help="fit no GLM beside the model")
    override_argument(p, "e.g. window.dt=0.01")


def run(args) -> None:
    from neuroformer.bundle.bundle import load_model
    from neuroformer.files import save_npz, write_atomic
    from neuroformer.generation.sequences import simulation_device
    from neuroformer.report.forecast import forecast_curves
    from neuroformer.studies.forecast import flat_scores, forecast

    try:
        horizons = [float(x) for x in args.horizon.split(",")]
    except ValueError:
        raise ConfigError(f"--horizon is {args.horizon!r}; expected seconds joined by commas, like 0.05,0.5") from None
    if args.samples < 0:
        raise ConfigError(f"--samples is {args.samples}; expected 1 or more, or 0 for the default")
    bundle, prepared = open_asked(args)
    warn_only_ours()
    model = load_model(bundle).to(simulation_device(prepared.config.train.accelerator))
    say = (lambda line: None) if args.quiet else (lambda line: print(f"forecasting: {line}", flush=True))
    found = forecast(model, prepared, horizons, samples=args.samples, baselines=not args.no_baselines, say=say)
    print(_table(found.scores))
    write_atomic(args.folder / "forecast.json", json.dumps(plain_json(found.scores), indent=1).encode())
    arrays = {"times": found.times, "horizons": np.array(found.horizons), "true": found.true_NHU, **found.expected}
    save_npz(args.folder / "forecast.npz", {k: v.astype(np.float32) if v.ndim == 3 else v for k, v in arrays.items()})
    save_figure(forecast_curves(found.scores), args.folder / "forecast.png")
    summarise(args.folder, {}, flat_scores(found.scores))


def _fits(number: int | None) -> str:
    return f" ({number} fits)" if number else ""


def _table(scores: dict[str, Any]) -> str:
    """A row a candidate and a column a horizon, of the main score; the other scores of the model; pairs; areas."""
    horizons, candidates = scores["horizons_s"], scores["candidates"]
    main = next(key for key in MAIN if key in candidates["model"])
    header = [main.replace("_", " "), *(f"{h:g} s" for h in horizons)]
    cell = lambda v: f"{v[0]:.3f}" + (f" {interval(v[1], v[2])}" if np.isfinite(v[1]) else "")
    rows = [[name, *(cell(v) for v in each[main])] for name, each in candidates.items()]
    rows += [[f"model minus {name}", *(cell(v) for v in each)] for name, each in scores.get("minus", {}).items()]
    lines = [
        f"{scores['moments']:,} moments of the {scores['part']} part, bins of {scores['bin_s']:g} s",
        table(rows, header),
    ]
    others = [k for k in candidates["model"] if k != main]
    for key in others:
        rows = [[name, *(v[0] for v in each[key])] for name, each in candidates.items()]
        lines += ["", table(rows, [key.replace("_", " "), *header[1:]])]
    took = [f"{name} {s:.3g} s" + _fits(scores["fits"].get(name)) for name, s in scores["seconds"].items()]
    lines += ["", "time, and regressions fitted: " + ", ".join(took)]
    if scores.get("groups"):
        keys = ("group", "units", "r", "r_error", "rate_hz", "fano", "ceiling")
        said = ("units of", "number", f"r, {horizons[0]:g} s", "standard error", "Hz", "Fano", "Poisson ceiling of r")
        lines += ["", table([[row[k] for k in keys] for row in scores["groups"]], said)]
    return "\n".join(lines)
