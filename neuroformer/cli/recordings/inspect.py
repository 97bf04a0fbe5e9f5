"""``neuroformer inspect``."""

from __future__ import annotations

from pathlib import Path


def add(command) -> None:
    p = command("inspect", run, "Print what a recording or a trained run holds.")
    p.add_argument("path", help="a recording (file, folder, synthetic:NAME) or a run's folder")


def run(args) -> None:
    from neuroformer.bundle.bundle import CHECKPOINT, read_bundle
    from neuroformer.recording import open_recording

    if any((Path(args.path) / file).exists() for file in ("bundle.json", CHECKPOINT)):
        print(read_bundle(args.path))
    else:
        print(open_recording(args.path))
