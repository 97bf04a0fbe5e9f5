"""``neuroformer audit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuroformer.cli.options import KEYS, override_argument
from neuroformer.cli.shared import save_figure
from neuroformer.config import Config, apply_overrides, from_dict, load_config, member_config

NO_SPLIT = "no split was looked at: give a configuration, or say e.g. split.by=blocks split.block=20"


def add(command) -> None:
    help = "Say what is wrong with a recording and what its split leaks; exit code 1 when it leaks."
    p = command("audit", run, help, KEYS)
    p.add_argument("path", help="a YAML configuration, or a recording (file, folder, synthetic:NAME)")
    override_argument(p, "e.g. split.claim=stimuli")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    p.add_argument("--figure", type=Path, metavar="FILE", help="draw rates, split and tokens (.png, .pdf, .svg)")


def run(args) -> int:
    from neuroformer.audit import audit, audit_together, own_split
    from neuroformer.data.recordings import lacking, open_recordings
    from neuroformer.recording.clean import safe_name

    is_config = Path(args.path).suffix.lower() in (".yaml", ".yml")
    config = load_config(args.path, args.override) if is_config else _of_recording(args.path, args.override)
    config, recs = open_recordings(config)
    # a recording's own split, where it has one, unless the user asks for another
    asked = is_config or any(o.startswith("split.") for o in args.override)
    found = []
    for i, (rec, lacks) in enumerate(zip(recs, lacking(recs, config), strict=True)):
        c = member_config(config, i, lacks)
        found.append(audit(rec, c, parts=None if asked else own_split(rec)))
    found = audit_together(found, recs)
    if args.json:
        print(json.dumps([f.to_dict() for f in found] if config.recordings else found[0].to_dict()))
    else:
        print(*found, sep="\n")
        if not any("split" in f.facts for f in found):
            print(f"\n{NO_SPLIT}")
    for one in found if args.figure else []:
        from neuroformer.report.figures import audit_overview

        several = f"_{safe_name(one.recording)}" if len(found) > 1 else ""
        save_figure(audit_overview(one), args.figure.with_stem(args.figure.stem + several))
    return int(any(f.leaks for f in found))


def _of_recording(path: str, overrides: list[str]) -> Config:
    tree: dict[str, Any] = {"name": "audit", "recording": {"path": path}}
    return from_dict(apply_overrides(tree, overrides))
