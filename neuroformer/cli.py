"""The command line: the only place that prints, parses or exits.

Exit codes: 0 done, 2 a mistake in what was asked for (one message, no traceback), 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer import __version__
from neuroformer.config import Config, ConfigError, from_dict, load_config, to_dict


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}\nSee: {self.prog} --help\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        return args.do(args) or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as e:
        if args.debug:
            raise
        print(f"neuroformer: {e}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument("--quiet", action="store_true", help="no progress bars")
    top = Parser(prog="neuroformer", description="One generative model of spikes, video and behavior.")
    top.add_argument("--version", action="version", version=f"neuroformer {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, help: str, epilog: str = "") -> argparse.ArgumentParser:
        p = commands.add_parser(name, parents=[common], help=help, description=help, epilog=epilog)
        p.set_defaults(do=run)
        return p

    keys = "Any key of configs/reference.yaml can be given as key.sub=value (lists by place: inputs.0.name=speed)."
    p = command("train", run_train, "Train a model from a YAML file and score it on held-out data.", keys)
    p.add_argument("--config", required=True, type=Path, help="YAML file, e.g. configs/demo.yaml")
    p.add_argument("--run", type=Path, help="folder of the run (default: runs/<name>)")
    p.add_argument("--overwrite", action="store_true", help="replace a run that is already there")
    p.add_argument(
        "--no-baselines", action="store_true", help="do not fit the GLMs that the score is compared with"
    )
    p.add_argument("override", nargs="*", metavar="key.sub=value", help="settings that replace the file's")

    p = command(
        "generate", run_generate, "Simulate held-out trials in closed loop and compare their PSTHs.", keys
    )
    _run_argument(p)
    p.add_argument(
        "--out", type=Path, help="where the simulated recording goes (default: <run>/simulated.npz)"
    )
    p.add_argument(
        "override", nargs="*", metavar="key.sub=value", help="e.g. generate.samples=4 generate.top_p_id=0.95"
    )

    p = command(
        "decode",
        run_decode,
        "Decode the declared behavior targets on held-out data, beside ridge and controls.",
        keys,
    )
    _run_argument(p)
    p.add_argument("override", nargs="*", metavar="key.sub=value", help="e.g. decode.split=valid")

    p = command("inspect", run_inspect, "Print what a recording or a trained run holds.")
    p.add_argument("path", help="a recording (file, folder, synthetic:NAME) or a run's folder")

    p = command(
        "bench", run_bench, "Benchmark a part against its plain counterpart; checks that both agree first."
    )
    p.add_argument(
        "name", choices=["data", "kernels"],
        help="what to measure: data (batches built per second), kernels (fused kernels on a GPU; exit code 3 without one)",
    )  # fmt: skip
    p.add_argument("--json", action="store_true", help="print one JSON object")
    return top


def _run_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--run", required=True, type=Path, dest="folder", help="folder of a trained run, e.g. runs/demo"
    )


# -- train ---------------------------------------------------------------------------------------------


def run_train(args) -> None:
    from neuroformer.recording import open_recording
    from neuroformer.training.scores import score
    from neuroformer.training.train import load_best, train

    config = load_config(args.config, args.override)
    folder = args.run or Path("runs") / config.name
    if (folder / "bundle.json").exists() and not args.overwrite:
        raise ConfigError(f"{folder} already holds a trained run; give --run another folder, or --overwrite")
    rec = open_recording(config.recording.path, **config.recording.options)
    _warn_only_ours()
    print(rec)
    _clear(folder)
    prepared, metrics = train(rec, config, folder, progress=not args.quiet)
    _print_split(prepared)
    scores = score(load_best(folder), prepared, "test")
    summary = metrics | {
        "bits_per_spike": scores.bits_per_spike(),
        "bits_per_spike_rate_readout": scores.bits_per_spike_rates(),
        "test_spikes": scores.spikes, "test_windows": scores.windows,
    }  # fmt: skip
    if "rate" in rec.truth:
        summary["bits_per_spike_oracle"] = _oracle(prepared)
    if not args.no_baselines:
        summary |= _glms(prepared)
    _summarise(folder, summary)
    from neuroformer.report.figures import learning_curve

    _save(learning_curve(folder / "log" / "metrics.csv"), folder / "learning_curve.png")


def _glms(prepared) -> dict[str, Any]:
    """Both GLMs; the stronger counts."""
    from neuroformer.decoding.glm import fit_glm, glm_bits_per_spike

    out: dict[str, Any] = {}
    start = time.perf_counter()
    p = prepared
    glm = None
    for variant in ("past", "every"):
        glm = fit_glm(
            p.rec, p.split, p.index, p.config, p.normalization, variant=variant, seed=p.config.seed, like=glm
        )
        out[f"bits_per_spike_glm_{variant}"] = glm_bits_per_spike(glm, p.split, p.index, p.normalization)
    out["bits_per_spike_glm"] = max(out.values())
    return out | {"glm_seconds": time.perf_counter() - start}


def _oracle(prepared) -> float:
    from neuroformer.analysis.oracle import oracle_bits_per_spike

    return oracle_bits_per_spike(prepared.rec, prepared.index, prepared.windows("test"), prepared.builder.shape, prepared.normalization["unit_rate"])  # fmt: skip


def _print_split(prepared) -> None:
    s, c = prepared.split, prepared.config.split
    parts = ", ".join(f"{part} {s.seconds(part):,.0f} s" for part in s.blocks)
    print(f"split by {c.by}: {parts}; claims to generalise over {c.claim}")


def _clear(folder: Path) -> None:
    """Remove what an earlier run left, so that no old number stands beside a new one."""
    for name in ("bundle.json", "summary.json", "log/metrics.csv", "simulated.npz"):
        (folder / name).unlink(missing_ok=True)
    for file in (folder / "weights").glob("*.safetensors"):
        file.unlink()


# -- generate -------------------------------------------------------------------------------------------


def run_generate(args) -> None:
    from neuroformer.analysis.psth import compare_psth
    from neuroformer.generation.simulate import simulate
    from neuroformer.model.bundle import load_model
    from neuroformer.recording.arrays import write_npz
    from neuroformer.report import figures

    bundle, prepared = _open_run(args.folder, args.override)
    _warn_only_ours()
    p = prepared
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
        _save(figures.psths(comparison, p.rec.unit_ids), args.folder / "psth.png")
    _save(figures.rasters(p.rec, result.recording), args.folder / "rasters.png")
    _summarise(args.folder, summary)


# -- decode -----------------------------------------------------------------------------------------------


def run_decode(args) -> None:
    from neuroformer.decoding.run import decode_run
    from neuroformer.report import figures

    bundle, prepared = _open_run(args.folder, args.override)
    if not prepared.config.targets:
        raise ConfigError(
            f"the run in {args.folder} declares no targets; add targets: to its configuration and train"
        )
    _warn_only_ours()
    summary: dict[str, Any] = {}
    for target, decoded, scores in decode_run(bundle, prepared, args.folder, progress=not args.quiet):
        summary |= scores
        columns = prepared.normalization["targets"][target.name].get("columns") or [target.name]
        shown = {k: v for k, v in decoded.predicted.items() if k in ("model", "ridge")}
        fig = figures.decode_trace(decoded.times, decoded.true_WC, shown, target.name, columns)
        _save(fig, args.folder / f"decode_{target.name}.png")
        arrays = {"times": decoded.times, "true": decoded.true_WC, **decoded.predicted}
        np.savez_compressed(args.folder / f"decode_{target.name}.npz", **arrays)  # pyright: ignore[reportArgumentType]
    _summarise(args.folder, summary)


# -- inspect, bench ------------------------------------------------------------------------------------------


def run_inspect(args) -> None:
    from neuroformer.model.bundle import read_bundle
    from neuroformer.recording import open_recording

    if (Path(args.path) / "bundle.json").exists():
        print(read_bundle(args.path))
    else:
        print(open_recording(args.path))


def run_bench(args) -> int:
    if args.name == "kernels":
        from neuroformer.bench import kernels

        return kernels.main([])
    from neuroformer.bench import data

    result = data.run()
    print(json.dumps(result) if args.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    return 0 if result["checked"] else 1


# -- shared ---------------------------------------------------------------------------------------------------


def _open_run(folder: Path, overrides: list[str]):
    """A run's bundle, and its recording prepared as in training; overrides replace the run's settings."""
    from neuroformer.config import apply_overrides
    from neuroformer.model.bundle import check_units, read_bundle
    from neuroformer.recording import open_recording
    from neuroformer.training.data import prepare

    bundle = read_bundle(folder)
    config = _same_model(bundle.config, from_dict(apply_overrides(to_dict(bundle.config), overrides)))
    rec = open_recording(config.recording.path, **config.recording.options)
    check_units(bundle, rec)
    return bundle, prepare(rec, config, bundle.normalization)


def _same_model(trained: Config, asked: Config) -> Config:
    """Refuse overrides of what training fixed."""
    for key in ("window", "inputs", "targets", "split", "model", "loss"):
        if getattr(trained, key) != getattr(asked, key):
            raise ConfigError(
                f"'{key}' was fixed by training and cannot be overridden here; train a run with it"
            )
    return asked


def _summarise(folder: Path, values: dict[str, Any]) -> None:
    """Merge values into the run's flat summary.json and print them."""
    from neuroformer.model.bundle import write_atomic

    path = folder / "summary.json"
    merged = json.loads(path.read_text()) if path.exists() else {}
    merged |= {k: (round(v, 6) if isinstance(v, float) else v) for k, v in values.items()}
    write_atomic(path, json.dumps(merged, indent=1).encode())
    width = max(len(k) for k in values)
    print(
        "\n".join(
            f"  {k:<{width}}  {v:.4g}" if isinstance(v, float) else f"  {k:<{width}}  {v}"
            for k, v in values.items()
        )
    )
    print(f"summary in {path}")


def _save(figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
    print(f"figure in {path}")


def _warn_only_ours() -> None:
    """Lightning's advice is for its own users; ours see our messages."""
    os.environ.setdefault("WANDB_SILENT", "true")
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
