"""``neuroformer demo``: the commands of a first run, one after another, on a small built-in recording."""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path

from neuroformer.cli.trained import attend, decode, generate, report
from neuroformer.cli.training import train

CONFIG = Path(__file__).with_name("demo.yaml")

STEPS = (
    (train, "--config {config} --run {run} --overwrite", "learning_curve.png", "held-out likelihood while it learnt"),
    (generate, "--run {run}", "rasters.png", "a held-out trial, recorded and simulated from the movie alone"),
    (decode, "--run {run} --baselines ridge", "decode_speed.png", "running speed from spikes, beside ridge"),
    (attend, "--run {run} --windows 200 --knocked-out 100", "maps.npz", "who acts on whom; drawn in the page"),
    (report, "--run {run}", "report.html", "all of it on one page: open it in a browser"),
)


def add(command) -> None:
    help = "A first run: train, simulate, decode and map a small built-in recording, and show it on one page."
    p = command("demo", run, help, "Each step is a command that is printed before it runs.")
    p.add_argument(
        "--run",
        type=Path,
        default=Path("runs/demo_small"),
        metavar="FOLDER",
        help="folder of the run, replaced if it is there (default: runs/demo_small)",
    )


def run(args) -> int:
    begun = time.monotonic()
    for number, (module, line, shows, what) in enumerate(STEPS, 1):
        words = [w.format(config=CONFIG, run=args.run) for w in line.split()]
        name = module.__name__.rpartition(".")[2]
        print(f"\n[{number} of {len(STEPS)}] neuroformer {name} {shlex.join(words)}", flush=True)
        code = module.run(_arguments(module, [*words, *["--quiet"] * args.quiet]))
        if code:
            return code
        print(f"after {time.monotonic() - begun:.0f} s: {args.run / shows} ({what})", flush=True)
    return 0


def _arguments(module, words: list[str]) -> argparse.Namespace:
    """What the command line would hand to a command."""
    p = argparse.ArgumentParser()
    p.add_argument("--quiet", action="store_true")
    module.add(lambda name, run, help, epilog="": p)
    return p.parse_args(words)
