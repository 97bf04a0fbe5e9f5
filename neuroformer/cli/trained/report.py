"""``neuroformer report``."""

from __future__ import annotations

from pathlib import Path

from neuroformer.bundle.opening import absent_recording
from neuroformer.cli.options import override_argument, results_argument, run_argument
from neuroformer.cli.shared import refuse_unwritable, results_folder


def add(command) -> None:
    help = "Write one self-contained HTML page that shows a run; it opens anywhere, without a network."
    epilog = "The recording is read again; if it has moved, give recording.path=..."
    p = command("report", run, help, epilog)
    run_argument(p)
    results_argument(p)
    p.add_argument("--out", type=Path, metavar="FILE", help="where the page goes (default: <run>/report.html)")
    override_argument(p, "e.g. recording.path=moved.npz")


def run(args) -> None:
    from neuroformer.bundle.bundle import read_bundle
    from neuroformer.config import apply_overrides, from_dict, to_dict
    from neuroformer.report.html import write_report

    bundle = read_bundle(args.folder).of(args.recording)
    args.folder = results_folder(bundle, args.results)
    config = from_dict(apply_overrides(to_dict(bundle.config), args.override))
    out = args.out or args.folder / "report.html"
    refuse_unwritable(out.parent, "--out")
    path, absent = write_report(args.folder, bundle, config, out)
    if absent_recording(config):
        print(f"{absent_recording(config)}; panels that need it are empty")
    print(f"report in {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if absent:
        print(f"panels without data, each naming the command that makes them: {', '.join(absent)}")
