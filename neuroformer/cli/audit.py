"""``neuroformer audit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuroformer.cli.shared import KEYS, save_figure
from neuroformer.config import Config, from_dict, load_config
from neuroformer.config.loader import apply_overrides


def add(command) -> None:
    help = "Say what is wrong with a recording and what its split leaks; exit code 1 when it leaks."
    p = command("audit", run, help, KEYS)
    p.add_argument("path", help="a YAML configuration, or a recording (file, folder, synthetic:NAME)")
    p.add_argument("override", nargs="*", metavar="key.sub=value", help="e.g. split.claim=stimuli")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    p.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw rates, split and tokens (.png, .pdf, .svg)"
    )


def run(args) -> int:
    from neuroformer.audit import audit
    from neuroformer.data.splits import make_split
    from neuroformer.recording import open_recording

    is_config = Path(args.path).suffix.lower() in (".yaml", ".yml")
    config = load_config(args.path, args.override) if is_config else _of_recording(args.path, args.override)
    rec = open_recording(config.recording.path, **config.recording.options)
    if not is_config and rec.frames is None:
        config = _of_recording(args.path, ["window.frames=0", *args.override])
    # a recording's own split, where it has one, unless the user asks for another
    asked = is_config or any(o.startswith("split.") for o in args.override)
    found = audit(rec, config, make_split(rec, config) if asked else None)
    print(json.dumps(found.to_dict()) if args.json else found)
    if "split" not in found.facts and not args.json:
        print("\nno split was looked at: give a configuration, or say e.g. split.by=blocks split.block=20")
    if args.figure:
        from neuroformer.report.figures import audit_overview

        save_figure(audit_overview(found), args.figure)
    return int(found.leaks)


def _of_recording(path: str, overrides: list[str]) -> Config:
    tree: dict[str, Any] = {"name": "audit", "recording": {"path": path}}
    return from_dict(apply_overrides(tree, overrides))
