"""``neuroformer generate``."""

from __future__ import annotations

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
    if p.config.traces.likelihood != "none":
        return _traces(args, load_model(bundle), p)
    result = simulate(
        load_model(bundle), p.rec, p.split, p.index, p.builder, p.config, progress=not args.quiet
    )
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
    summarise(args.folder, summary)


def _traces(args, model, prepared) -> None:
    """Continuous activity: the same blocks, samples instead of spikes."""
    from neuroformer.analysis.traces import compare_traces
    from neuroformer.generation.traces import simulate_traces
    from neuroformer.recording.arrays import write_npz

    p = prepared
    result = simulate_traces(model, p.rec, p.split, p.builder, p.config, progress=not args.quiet)
    out = write_npz(result.recording, args.out or args.folder / "simulated.npz")
    print(result.recording)
    print(f"written to {out}; read it with neuroformer.open_recording('{out}')")
    summary = {"generate_seconds": result.seconds, "samples_per_second_generate": result.tokens_per_second}
    summarise(
        args.folder, summary | compare_traces(p.rec, p.split, result.recording, p.config.generate.split)
    )
