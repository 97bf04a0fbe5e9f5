"""``neuroformer train``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from neuroformer.cli.shared import KEYS, save_figure, summarise, warn_only_ours
from neuroformer.config import ConfigError, load_config


def add(command) -> None:
    p = command("train", run, "Train a model from a YAML file and score it on held-out data.", KEYS)
    p.add_argument("--config", required=True, type=Path, help="YAML file, e.g. configs/demo.yaml")
    p.add_argument("--run", type=Path, help="folder of the run (default: runs/<name>)")
    p.add_argument("--overwrite", action="store_true", help="replace a run that is already there")
    p.add_argument(
        "--no-baselines", action="store_true", help="do not fit the GLMs that the score is compared with"
    )
    p.add_argument("override", nargs="*", metavar="key.sub=value", help="settings that replace the file's")


def run(args) -> None:
    from neuroformer.recording import open_recording
    from neuroformer.training.scores import score
    from neuroformer.training.train import load_best, train

    config = load_config(args.config, args.override)
    folder = args.run or Path("runs") / config.name
    if (folder / "bundle.json").exists() and not args.overwrite:
        raise ConfigError(f"{folder} already holds a trained run; give --run another folder, or --overwrite")
    rec = open_recording(config.recording.path, **config.recording.options)
    warn_only_ours()
    print(rec)
    _clear(folder)
    prepared, metrics = train(rec, config, folder, progress=not args.quiet)
    _print_split(prepared)
    scores = score(load_best(folder), prepared, "test")
    if config.traces.likelihood != "none":
        summarise(folder, metrics | _trace_summary(prepared, scores, not args.no_baselines))
        return _learning_curve(folder)
    summary = metrics | {
        "bits_per_spike": scores.bits_per_spike(),
        "bits_per_spike_rate_readout": scores.bits_per_spike_rates(),
        "test_spikes": scores.spikes, "test_windows": scores.windows,
    }  # fmt: skip
    if "rate" in rec.truth:
        summary["bits_per_spike_oracle"] = _oracle(prepared)
    if not args.no_baselines:
        summary |= _glms(prepared)
    summarise(folder, summary)
    _learning_curve(folder)


def _learning_curve(folder: Path) -> None:
    from neuroformer.report.figures import learning_curve

    save_figure(learning_curve(folder / "log" / "metrics.csv"), folder / "learning_curve.png")


def _trace_summary(prepared, scores, baselines: bool) -> dict[str, Any]:
    """Scores of traces; the baseline is a Gaussian autoregression, so it stands beside Gaussian scores only."""
    from neuroformer.analysis.trace_baseline import autoregression_bits

    out: dict[str, Any] = {"bits_per_sample": scores.bits_per_sample(), "test_samples": scores.samples}
    p = prepared
    if baselines and p.config.traces.likelihood == "gaussian":
        scale = p.normalization["traces"]
        out["bits_per_sample_autoregression"] = autoregression_bits(
            p.builder.traces, p.split, p.builder.shape, scale["mean"], scale["std"]
        )
    return out


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
