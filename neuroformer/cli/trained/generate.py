"""``neuroformer generate``."""

from __future__ import annotations

import json
import shutil
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.cli.options import KEYS, override_argument, results_argument, run_argument
from neuroformer.cli.shared import (
    only_process,
    open_asked,
    plain_json,
    refuse_unwritable,
    save_figure,
    summarise,
    warn_only_ours,
)
from neuroformer.config import ConfigError
from neuroformer.files import read_values


def add(command) -> None:
    p = command("generate", run, "Simulate in closed loop, and compare with held-out data.", KEYS)
    run_argument(p)
    results_argument(p)
    p.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where the simulated recording goes: .npz, .nwb, .h5 or .recording (default: <run>/simulated.npz)",
    )
    p.add_argument(
        "--score",
        action="store_true",
        help="also compare the simulation with its ceiling (data against data) and two Poisson simulators, in "
        "simulation_scores.json",
    )
    new = p.add_mutually_exclusive_group()
    new.add_argument(
        "--stimulus",
        type=Path,
        metavar="FILE",
        help="simulate with the frames and behavior of this recording, which needs no spikes",
    )
    new.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="simulate so many seconds without a stimulus (models that read only spikes)",
    )
    p.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="a simulation with the same seed, without the interventions: print how each unit's rate changed",
    )
    p.add_argument(
        "--share",
        type=_share,
        default=(1, 1),
        metavar="I/N",
        help="simulate share I of N; afterwards, the same command without --share joins them",
    )
    p.add_argument("--restart", action="store_true", help="discard an unfinished simulation and start again")
    override_argument(p, "e.g. generate.samples=4 'generate.interventions=[{do: silence, units: [3, 7]}]'")


def _share(text: str) -> tuple[int, int]:
    try:
        i, n = (int(x) for x in text.split("/"))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not understood; expected I/N, e.g. 1/4") from None
    if not 1 <= i <= n:
        raise ArgumentTypeError(f"{text!r} is not a share; expected 1/{max(n, 1)} to {max(n, 1)}/{max(n, 1)}")
    return i, n


def run(args) -> None:
    from neuroformer.bundle.bundle import LIKELIHOOD, load_model
    from neuroformer.generation.sequences import simulation_device
    from neuroformer.generation.simulate import simulate
    from neuroformer.recording import check_writable, open_recording, write_recording
    from neuroformer.simulator import imitates_trials, with_stimulus

    if args.out is not None:
        check_writable(args.out)
        refuse_unwritable(args.out.parent, "--out")
    before = open_recording(args.against) if args.against else None
    bundle, p = open_asked(args)
    warn_only_ours()
    new = args.seconds if args.stimulus is None else args.stimulus
    compares = new is None and imitates_trials(p.config.generate)
    is_traces = p.config.traces.likelihood != "none"
    if args.score and is_traces:
        raise ConfigError("--score is for spikes; simulated traces are always compared with the held-out ones")
    if args.score and not compares:
        raise ConfigError(
            "--score compares with held-out trials; it cannot score another interval, stimulus or past, nor interventions"
        )
    identity = {"weights": bundle.digests[LIKELIHOOD]}
    if new is not None:
        p = with_stimulus(p, bundle.units, new)
        identity["stimulus"] = p.rec.sha256()
    out = args.out or args.folder / "simulated.npz"
    parts = out.with_name(out.name + ".parts")
    model = load_model(bundle).to(simulation_device(p.config.train.accelerator, args.share[0]))
    mine = ["{}-of-{}".format(*args.share)] if args.share[1] > 1 else []
    if args.restart and parts.exists():
        with only_process(parts, "simulating into"):
            shutil.rmtree(parts)
    with only_process(parts, "simulating into", mine):
        result = simulate(
            model,
            p,
            folder=parts,
            identity=identity,
            share=args.share,
            progress=not args.quiet,
        )
        if result is None:
            print(f"share {args.share[0]} of {args.share[1]} is in {parts}; join the shares without --share")
            return
        out = write_recording(result.recording, out)
        shutil.rmtree(parts)
    print(result.recording)
    print(f"written to {out}; read it with neuroformer.open_recording('{out}')")
    if result.guard_hits:
        print(
            f"{result.guard_hits} windows hit the guard of {p.config.generate.max_tokens} spikes (generate.max_tokens)"
        )
    if before is not None:
        _print_changes(before, result.recording)
    if compares:
        _compare(args, p, model, result)


def _compare(args, p, model, result) -> None:
    """The simulated against the held-out part, and with --score everything else."""
    from neuroformer.simulator import compared

    if p.config.traces.likelihood != "none":
        speed = {"generate_seconds": result.seconds, "samples_per_second_generate": result.tokens_per_second}
        return summarise(args.folder, speed | compared(p, result.recording))
    speed = {"generate_seconds": result.seconds, "tokens_per_second_generate": result.tokens_per_second}
    summary = compared(p, result.recording) | speed
    _draw(args.folder, p, result.recording)
    scores = _score(args, p, model, result.recording) if args.score else {}
    summarise(args.folder, summary, scores)


def _draw(folder: Path, p, simulated) -> None:
    """PSTHs, where trials repeat a stimulus, and rasters."""
    from neuroformer.report import figures
    from neuroformer.simulation_scores.psth import compare_psth

    comparison = compare_psth(p.rec, p.split, simulated, p.config.generate.split)
    if comparison is not None:
        save_figure(figures.psths(comparison, p.rec.unit_ids), folder / "psth.png")
    save_figure(figures.rasters(p.rec, simulated), folder / "rasters.png")


def _print_changes(before, changed) -> None:
    """How each unit's rate differs from the simulation without the interventions, largest first."""
    from neuroformer.simulation_scores.whatif import first_divergence, rate_changes

    change, parted = rate_changes(before, changed), first_divergence(before, changed)
    if changed.traces is None:
        print(f"spikes differ in {np.isfinite(parted).sum()} of {len(parted)} sequences", end="")
        print(f", the first after {np.nanmin(parted):.3g} s" if np.isfinite(parted).any() else "")
    what = "Hz" if changed.traces is None else "mean"
    print(
        f"{'unit':>12}{f'{what} before':>14}{f'{what} after':>14}{'change':>10}   "
        + (
            "95 % interval of the paired change"
            if len(parted) > 1
            else "(one sequence: no interval; generate.samples=4)"
        )
    )
    order = np.argsort(-np.abs(change.change_U))
    for u in order[:20]:
        print(
            f"{changed.unit_ids[u]:>12}{change.before_U[u]:>14.2f}{change.after_U[u]:>14.2f}{change.change_U[u]:>+10.2f}"
            + (f"   {change.low_U[u]:+.2f} to {change.high_U[u]:+.2f}" if len(parted) > 1 else "")
        )
    if len(order) > 20:
        print(f"{'':>12}... and {len(order) - 20} units that changed less")


def _score(args, p, model, simulated) -> dict[str, float]:
    """Every score of the simulation: all into simulation_scores.json, the flat ones returned."""
    from neuroformer.files import write_atomic
    from neuroformer.report.simulation import simulation_panel
    from neuroformer.simulation_scores.scores import flat_scores
    from neuroformer.simulator import scored

    g = p.config.generate
    scores, closed, held_out = scored(model, p, simulated, progress=not args.quiet)
    path = args.folder / "simulation_scores.json"
    write_atomic(path, json.dumps(plain_json(scores), indent=1).encode())
    _print_scores(scores["candidates"])
    _print_floor(scores["candidates"])
    _print_drift(scores["since_closed"], scores["late"])
    _print_bits(args.folder, scores["bits_per_spike"], whole_test=g.split == "test" and not g.max_seconds)
    print(f"all scores in {path}")
    save_figure(simulation_panel(scores, closed, held_out), args.folder / "simulation.png")
    return flat_scores(scores)


def _print_drift(drift: dict[str, list[float]], late: dict[str, Any]) -> None:
    """One row per stretch of the closed loop, and its late part with intervals."""
    names = [k for k in drift if k != "start_s"]
    if not drift["start_s"]:
        return
    print("seconds since the loop closed")
    print(f"{'':16}" + "".join(f"{n:>{len(n) + 2}}" for n in names))
    for i, start in enumerate(drift["start_s"]):
        print(f"{start:>16g}" + "".join(f"{drift[n][i]:>{len(n) + 2}.3f}" for n in names))
    print(f"from {late['since_s']:g} s to {late['until_s']:g} s")
    for name in ("model", "true_past", "ceiling"):
        cells = [f"{k} {v:.3f}{_ends(low, high)}" for k, (v, low, high) in late.get(name, {}).items()]
        if cells:
            print(f"{name:>16}  " + ", ".join(cells))


def _ends(low: float, high: float) -> str:
    """An interval behind its value; nothing where there is none."""
    return f" ({low:.3f} to {high:.3f})" if np.isfinite(low) and np.isfinite(high) else ""


def _print_scores(candidates: dict[str, dict[str, list[float]]]) -> None:
    """One row a score, one column a candidate; the simulation's own with its 95 % interval."""
    from neuroformer.intervals import LEAST_TRIALS

    names = list(candidates)
    print(f"{'':16}" + "".join(f"{n:>{26 if n == 'model' else 14}}" for n in names))
    for key in candidates["model"]:
        value, low, high = candidates["model"][key]
        interval = f"({low:.3f} to {high:.3f})" if np.isfinite(low) else ""
        others = [candidates[n].get(key, [float("nan")])[0] for n in names[1:]]
        cells = "".join(f"{v:>14.3f}" if np.isfinite(v) else f"{'':>14}" for v in others)
        print(f"{key:16}{value:>8.3f}{interval:>18}" + cells)
    if not any(np.isfinite(low) for _, low, _ in candidates["model"].values()):
        print(f"no 95 % intervals: they are over held-out trials, and fewer than {LEAST_TRIALS} tell too little")


LDNS = ("population_kl", "pair_error", "isi_mean_error", "isi_std_error")


def _print_floor(candidates: dict[str, dict[str, list[float]]]) -> None:
    """The measures of LDNS over data against data, the least that a finite recording allows."""
    floor = candidates.get("ceiling", {})
    known = [k for k in LDNS if floor.get(k, [float("nan")])[0] > 0 and np.isfinite(candidates["model"][k][0])]
    if known:
        ratios = [f"{k} {candidates['model'][k][0] / floor[k][0]:.2f}" for k in known]
        print("model over data against data: " + ", ".join(ratios))


def _print_bits(folder: Path, simulators: dict[str, float], *, whole_test: bool) -> None:
    """Likelihood of the held-out spikes under the Poisson simulators, beside what training found for the model."""
    summary = folder / "summary.json"
    known = read_values(summary) if whole_test else {}
    own = {"model": known["bits_per_spike"]} if "bits_per_spike" in known else {}
    if len(own | simulators) > 1:  # a score alone says nothing
        print("bits/spike      " + ", ".join(f"{n} {value:.3f}" for n, value in (own | simulators).items()))
