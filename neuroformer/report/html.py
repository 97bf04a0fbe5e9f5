"""One self-contained HTML file that shows a run: no network, no server."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path

import neuroformer
from neuroformer.bundle.bundle import Bundle
from neuroformer.files import for_json, write_atomic
from neuroformer.recording import Recording
from neuroformer.report.collect import collect
from neuroformer.report.run import Run, open_parts

PAGE = Path(__file__).parent / "page"
SCRIPTS = ("core.js", "panels.js", "fields.js", "matrix.js")  # the last one starts the page
MAX_MB = 15.0


def write_report(folder: Path, bundle: Bundle, config, path: Path) -> tuple[Path, list[str]]:
    """Write the page of a run.

    Parameters
    ----------
    folder : the run's
    bundle : read from it
    config : the bundle's, with overrides (``recording.path`` may have moved)
    path : the HTML file

    Returns
    -------
    Path, and the titles of panels whose data are absent.

    Raises
    ------
    ValueError
        A page larger than 15 MB, which would be a bug of this package.
    """
    rec, split = open_parts(bundle, config)
    panels = collect(Run(folder, bundle, rec, split))
    text = render(bundle.config.name or folder.name, _lead(bundle, rec), panels)
    if len(text) > MAX_MB * 1e6:
        raise ValueError(f"the report would take {len(text) / 1e6:.1f} MB; at most {MAX_MB:g} MB were expected")
    write_atomic(path, text.encode())
    return path, [p["title"] for p in panels if "missing" in p]


def render(title: str, lead: str, panels: list[dict]) -> str:
    """The page as text."""
    # "<" cannot close the script element that holds the data
    data = json.dumps(for_json({"panels": panels}), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {
        "title": escape(title),
        "lead": escape(lead),
        "version": neuroformer.__version__,
        "css": (PAGE / "page.css").read_text(encoding="utf-8"),
        "data": data,
        "js": "\n".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS),
    }
    text = (PAGE / "page.html").read_text(encoding="utf-8")
    pieces = re.split(r"\{(title|lead|version|css|data|js)\}", text)
    return "".join(parts[p] if i % 2 else p for i, p in enumerate(pieces))


def _lead(bundle: Bundle, rec: Recording | None) -> str:
    c = bundle.config
    size = f"{len(bundle.units)} units"
    if rec is not None:
        size += f", {rec.num_spikes:,} spikes in {rec.duration:,.0f} s"
    inputs = [v.name for v in c.inputs] + (["video"] if c.window.frames > 0 else [])
    sees = f", seeing {c.window.past:g} s of past spikes" + "".join(f", {i}" for i in inputs)
    return f"A generative model of {bundle.recording}: {size}; windows of {1000 * c.window.current:g} ms{sees}."
