"""``neuroformer doctor``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuroformer.cli.options import KEYS, override_argument


def add(command) -> None:
    help = "Print versions, devices, kernels in use and free memory; with a configuration, what training it will need."
    p = command("doctor", run, help, KEYS)
    p.add_argument("--config", type=Path, metavar="FILE", help="a YAML configuration to measure a few windows of")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    override_argument(p, "settings that replace the file's")


def run(args) -> None:
    from neuroformer.cli.shared import warn_only_ours
    from neuroformer.config import ConfigError
    from neuroformer.doctor import machine, needs

    if args.override and args.config is None:
        raise ConfigError(f"{args.override[0]} is a setting of a configuration; give --config FILE with it")
    warn_only_ours()
    found: dict[str, Any] = machine()
    if args.config is not None:
        found["needs"] = needs(args.config, args.override)
    if args.json:
        print(json.dumps(found))
        return
    print(_machine_text(found))
    if "needs" in found:
        print(_needs_text(str(args.config), found["needs"]))


def _machine_text(found: dict[str, Any]) -> str:
    libraries = ", ".join(f"{name} {v}" for name, v in sorted(found["libraries"].items()))
    lines = [
        f"neuroformer {found['neuroformer']}, Python {found['python']}, {found['system']}",
        f"libraries: {libraries}",
        f"extras that are not installed, or not whole: {', '.join(found['absent_extras']) or 'none'}",
        f"{found['cpu_cores']} CPU cores, {found['torch_threads']} threads of PyTorch; {found['disk_free_gb']:.1f} GB free on this disk",
    ]
    for d in found["devices"]:
        free = "" if d["free_gb"] is None else f", {d['free_gb']:.1f} GB free"
        lines.append(f"{d['device']} ({d['name']}){free}")
        for dtype, kernels in d["kernels"].items():
            lines.append(f"  {dtype}: " + ", ".join(f"{op} {impl}" for op, impl in kernels.items()))
    return "\n".join(lines)


def _needs_text(config: str, n: dict[str, Any]) -> str:
    cut = f"; each batch is cut into {n['pieces']} pieces" if n["pieces"] > 1 else ""
    return (
        f"\n{config}: {n['units']:,} units, {n['spikes']:,} spikes, {n['seconds']:,.0f} s; {n['windows']:,} windows to train on, "
        f"{n['parameters']:,} parameters\n"
        f"on {n['device']}: a step needs about {n['step_gb']:.2f} GB (it may take {n['free_gb']:.1f} GB at a time{cut}) and takes about "
        f"{n['seconds_per_step']:.2g} s; training at most {n['train_seconds_at_most'] / 60:.1f} min, without its evaluations\n"
        f"on disk: about {n['disk_gb']:.2f} GB"
    )
