"""``neuroformer inspect``."""

from __future__ import annotations

from pathlib import Path

from neuroformer.cli.options import override_argument
from neuroformer.config import ConfigError, apply_overrides, from_dict, load_config


def add(command) -> None:
    p = command("inspect", run, "Print what a recording or a trained run holds.")
    p.add_argument(
        "path", help="a recording (file, folder, synthetic:NAME), a YAML file that names one, or a run's folder"
    )
    override_argument(
        p, 'units, series, options of the reader: "recording.units.where=rate > 0.5", "recording.options.frames=movie"'
    )


def run(args) -> None:
    from neuroformer.bundle.bundle import CHECKPOINT, read_bundle
    from neuroformer.data.recordings import open_recordings, opening_yaml

    if any((Path(args.path) / file).exists() for file in ("bundle.json", CHECKPOINT)):
        if args.override:
            raise ConfigError(
                f"{args.path} is a trained run, which is printed as it is; leave out {args.override[0]!r}"
            )
        print(read_bundle(args.path))
        return
    if Path(args.path).suffix in (".yaml", ".yml"):
        config, recs = open_recordings(load_config(args.path, args.override), look=True)
        print("\n\n".join(map(str, recs)))
        return
    config = from_dict(apply_overrides({"recording": {"path": args.path}}, args.override))
    [rec] = open_recordings(config, look=True)[1]
    print(f"{rec}\n\n{opening_yaml(config.recording, rec)}")
