"""``neuroformer generate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.cli.shared import KEYS, open_run, run_argument, save_figure, summarise, warn_only_ours


def add(command) -> None:
    p = command("generate", run, "Simulate held-out trials in closed loop and compare their PSTHs.", KEYS)
    run_argument(p)
    p.add_argument(
        "--out", type=Path, help="where the simulated recording goes (default: <run>/simulated.npz)"
    )
    p.add_argument(
        "--score",
        action="store_true",
        help="also score the simulation beside data against data and two Poisson simulators, into simulation_scores.json",
    )
    p.add_argument(
        "override", nargs="*", metavar="key.sub=value", help="e.g. generate.samples=4 generate.top_p_id=0.95"
    )


def run(args) -> None:
    from neuroformer.analysis.psth import compare_psth
    from neuroformer.generation.simulate import simulate
    from neuroformer.model.bundle import load_model
    from neuroformer.recording.arrays import write_npz
    from neuroformer.report import figures

    bundle, prepared = open_run(args.folder, args.override)
    warn_only_ours()
    p = prepared
    model = load_model(bundle)
    result = simulate(model, p.rec, p.split, p.index, p.builder, p.config, progress=not args.quiet)
    out = write_npz(result.recording, args.out or args.folder / "simulated.npz")
    print(result.recording)
    print(f"written to {out}; read it with neuroformer.open_recording('{out}')")
    if result.guard_hits:
        print(
            f"{result.guard_hits} windows hit the guard of {p.config.generate.max_tokens} spikes (generate.max_tokens)"
        )
    rates = result.recording.rates()
    true = np.asarray(p.normalization["unit_rate"]) / p.config.window.dt
    summary: dict[str, Any] = {
        "generate_seconds": result.seconds, "tokens_per_second_generate": result.tokens_per_second,
        "simulated_rate_ratio": float(rates.mean() / true.mean()), "guard_hits": result.guard_hits,
    }  # fmt: skip
    comparison = compare_psth(p.rec, p.split, result.recording, p.config.generate.split)
    if comparison is not None:
        summary |= {"psth_r": comparison.r, "psth_r_ceiling": comparison.ceiling, "psth_repeats_simulated": comparison.num_simulated}  # fmt: skip
        save_figure(figures.psths(comparison, p.rec.unit_ids), args.folder / "psth.png")
    save_figure(figures.rasters(p.rec, result.recording), args.folder / "rasters.png")
    scores = _score(args, p, model, result.recording) if args.score else {}
    summarise(args.folder, summary, scores)


def _score(args, p, model, simulated) -> dict[str, float]:
    """Every score of the simulation: all into simulation_scores.json, the flat ones returned."""
    from neuroformer.analysis.simulation import (
        flat_scores,
        recorded_parts,
        score_simulation,
        simulated_trials,
    )
    from neuroformer.generation.simulate import simulate_true_past
    from neuroformer.model.bundle import write_atomic
    from neuroformer.report.simulation import simulation_panel

    g = p.config.generate
    after_truth = simulate_true_past(
        model, p.rec, p.split, p.index, p.builder, p.config, progress=not args.quiet
    )
    parts = recorded_parts(p.rec, p.split, g.split, g.max_seconds)
    closed, true_past = (simulated_trials(r, parts.held_out) for r in (simulated, after_truth))
    scores = score_simulation(
        closed, parts, true_past=true_past, whole=p.builder.shape.current, seed=p.config.seed
    )
    path = args.folder / "simulation_scores.json"
    write_atomic(path, json.dumps(_null_for_nan(scores), indent=1).encode())
    _print_scores(scores["candidates"])
    print(f"all scores in {path}")
    save_figure(simulation_panel(scores, closed, parts.held_out), args.folder / "simulation.png")
    return flat_scores(scores)


def _print_scores(candidates: dict[str, dict[str, list[float]]]) -> None:
    """One row a score, one column a candidate; the simulation's own with its 95 % interval."""
    names = list(candidates)
    print(f"{'':16}" + "".join(f"{n:>{26 if n == 'model' else 14}}" for n in names))
    for key in candidates["model"]:
        value, low, high = candidates["model"][key]
        interval = f"({low:.3f} to {high:.3f})" if np.isfinite(low) else ""
        others = [candidates[n].get(key, [float("nan")])[0] for n in names[1:]]
        cells = "".join(f"{v:>14.3f}" if np.isfinite(v) else f"{'':>14}" for v in others)
        print(f"{key:16}{value:>8.3f}{interval:>18}" + cells)


def _null_for_nan(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _null_for_nan(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_null_for_nan(v) for v in tree]
    return None if isinstance(tree, float) and not np.isfinite(tree) else tree
