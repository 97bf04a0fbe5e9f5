"""The content of a run's folder, panel by panel, ready for the page; a panel without data names the command that
makes it.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from typing import Any

import yaml

from neuroformer.analysis.maps import load_maps
from neuroformer.config import to_dict
from neuroformer.files import for_json
from neuroformer.recording import RecordingError
from neuroformer.report.comparison import comparison
from neuroformer.report.forecast import forecast_charts
from neuroformer.report.identity import identity
from neuroformer.report.panels.charts import decoded_charts, fewshot_charts, learning_charts
from neuroformer.report.panels.seeing import connectivity, fields, frames
from neuroformer.report.panels.simulated import psth, rasters, statistics, unit_groups, unit_orders
from neuroformer.report.panels.summary import summary
from neuroformer.report.run import Missing, Run

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, json.JSONDecodeError, RecordingError)  # by a kill, or a full disk


def collect(run: Run) -> list[dict[str, Any]]:
    """Every panel in the page's order: id, title, note, and ``data`` or ``missing``."""
    out = []
    for key, title, note, gather in PANELS:
        panel: dict[str, Any] = {"id": key, "title": title, "note": note}
        try:
            panel["data"] = gather(run)
        except Missing as m:
            panel["missing"] = {"why": m.why, "command": m.command}
        except DAMAGED as e:
            panel["missing"] = {"why": f"A file of it is damaged ({e}); make it again.", "command": ""}
        out.append(panel)
    return out


def _summary(run: Run) -> dict[str, Any]:
    if not run.values:
        raise Missing("No summary.json in this run yet.", "neuroformer train --config ...")
    return summary(run.values, [t.name for t in run.bundle.config.targets])


def _audit(run: Run) -> dict[str, Any]:
    split = run.bundle.split
    parts = {p: split[p] for p in ("train", "valid", "test")}
    seconds = {p: float(sum(b - a for a, b in i)) for p, i in parts.items()}
    out: dict[str, Any] = {"split": parts, "seconds": seconds, "claim": split.get("claim", "time")}
    if "audit" not in split:
        why = "This run was trained without an audit of its split."
        return out | {"findings": [], "missing": {"why": why, "command": "neuroformer train --config ..."}}
    return out | {"findings": for_json(split["audit"].get("findings", []))}


def _learning(run: Run) -> dict[str, Any]:
    path = run.bundle.path / "log" / "metrics.csv"
    if not path.exists():
        raise Missing("No training log in this run.", "neuroformer train --config ...")
    return learning_charts(path)


def _decoding(run: Run) -> dict[str, Any]:
    found = decoded_charts(run.folder, run.bundle, run.values)
    if not found["targets"]:
        why = "Nothing has been decoded yet." if run.bundle.config.targets else "This run declares no targets."
        raise Missing(why, f"neuroformer decode --run {run.shell}" if run.bundle.config.targets else "")
    return for_json(found)


def _forecast(run: Run) -> dict[str, Any]:
    path = run.folder / "forecast.json"
    if not path.exists():
        raise Missing("Nothing has been forecast yet.", f"neuroformer forecast --run {run.shell}")
    return for_json(forecast_charts(path))


def _fewshot(run: Run) -> dict[str, Any]:
    charts = fewshot_charts(run.folder)
    if not charts:
        if run.bundle.config.targets:
            why = "This run saw the labels; a few-shot curve is of one that was pretrained without them."
            raise Missing(why, "neuroformer train --config ... --run ... targets=[]")
        raise Missing("No few-shot curve in this run.", f"neuroformer fewshot --run {run.shell} --target ...")
    return for_json({"charts": charts})


def _setup(run: Run) -> dict[str, Any]:
    b = run.bundle
    facts = {"recording": b.recording, "units": str(len(b.units)), "split, SHA-256": b.split["sha256"][:16]}
    facts |= {f"version of {k}": v for k, v in b.versions.items()}
    facts |= {f"weights for {k}, SHA-256": v[:16] for k, v in b.digests.items()}
    return {"facts": facts, "config": yaml.safe_dump(for_json(to_dict(b.config)), sort_keys=False)}


def _connectivity(run: Run) -> dict[str, Any]:
    maps = _maps(run)
    rec = run.rec
    made = connectivity(maps, run.bundle.units, None if rec is None else rec.truth.get("coupling"))
    if made is None:
        raise Missing("No map of units by units in this run.", f"neuroformer attend --run {run.shell}")
    known = {"unit": list(range(len(run.bundle.units)))} if rec is None else unit_orders(rec)
    groups = {} if rec is None else unit_groups(rec)
    shown = made.pop("shown")
    place = {unit: i for i, unit in enumerate(shown)}
    known = {name: [place[u] for u in order if u in place] for name, order in known.items()}
    groups = {name: [of[u] for u in shown] for name, of in groups.items()}
    return made | {"orders": made["orders"] | known, "groups": groups}


def _frames(run: Run) -> dict[str, Any]:
    if run.bundle.config.window.frames <= 0:
        raise Missing("This run has no frames.")
    made = frames(run.folder / "frame_attention.npz", _maps(run))
    if made is None:
        raise Missing("No attention to frames in this run.", f"neuroformer attend --run {run.shell}")
    return made


def _fields(run: Run) -> dict[str, Any]:
    if run.bundle.config.window.frames <= 0:
        raise Missing("This run has no frames.")
    made = fields(run.folder, {} if run.rec is None else run.rec.truth)
    if made is None:
        raise Missing("No receptive fields in this run.", f"neuroformer fields --run {run.shell}")
    return made


def _comparison(run: Run) -> dict[str, Any]:
    made = comparison(run.folder)
    if made is None:
        raise Missing(
            "This run has not been compared with other features yet.", f"neuroformer compare --run {run.shell}"
        )
    return made


def _identity(run: Run) -> dict[str, Any]:
    made = identity((run.bundle.path, run.folder))
    if made is None:
        raise Missing(
            "What this run learnt of each unit has not been probed yet.",
            f"neuroformer probe --run {run.shell} --unit area",
        )
    return made


def _maps(run: Run):
    path = run.folder / "maps.npz"
    if not path.exists():
        raise Missing("No maps in this run yet.", f"neuroformer attend --run {run.shell}")
    return load_maps(path)


PANELS = (
    (
        "summary",
        "Summary",
        "Every score beside its baselines, its control without spikes, and its ceiling. Bars are 95 % intervals.",
        _summary,
    ),
    ("audit", "Audit", "Training, validation and test data, and what the audit of this split found.", _audit),
    ("learning", "Learning", "Loss terms are unweighted. Click a name to hide its line.", _learning),
    (
        "rasters",
        "Rasters",
        "A held-out trial as it was recorded, and as the model simulated it in closed loop: the model saw its own spikes, never the recorded ones.",
        rasters,
    ),
    (
        "psth",
        "PSTHs",
        "Mean response to the repeated stimuli in bins of 50 ms: held-out repeats, and simulated ones. The fewer the repeats, the lower the ceiling.",
        psth,
    ),
    (
        "statistics",
        "Statistics",
        "The simulation beside data against data (its ceiling) and two Poisson simulators. For the classifier, 0.5 is perfect.",
        statistics,
    ),
    (
        "forecast",
        "Forecast",
        "What is expected some time ahead, given the true past up to now: the model, simple predictors, and what repeats of a stimulus say. Bands are 95 % intervals.",
        _forecast,
    ),
    (
        "decoding",
        "Decoding",
        "Behavior along the held-out stretches: recorded, decoded by the model, decoded by ridge regression. Below, how large the error is where.",
        _decoding,
    ),
    (
        "fewshot",
        "Few labels",
        "Score against labelled seconds: pretrained, from scratch, and baselines on the same draws. Bands are 95 % intervals.",
        _fewshot,
    ),
    (
        "connectivity",
        "Connectivity",
        "Columns act on rows. The knock-out is the causal reading of the model: one unit's past spikes are removed and the change of every other unit's predicted log-odds is measured.",
        _connectivity,
    ),
    (
        "frames",
        "Frames",
        "Where the model looks in the video: attention of the current spikes to each place of the frames.",
        _frames,
    ),
    (
        "fields",
        "Fields",
        "What each unit sees, according to the model: its receptive field (mean squared gradient of its log-odds to every pixel) and its most exciting input (gradient ascent on its predicted rate).",
        _fields,
    ),
    (
        "comparison",
        "Comparison",
        "How well features explain the units of the held-out part, layer by layer. Bars are 95 % intervals over units and stimuli; what sees past spikes sees those of the very trials that it is compared with.",
        _comparison,
    ),
    (
        "identity",
        "Identity",
        "How well a linear probe of what the run learnt of each unit tells what is known of it, on held-out units, beside firing statistics. Bars are 95 % intervals.",
        _identity,
    ),
    ("setup", "Setup", "The configuration and versions that made this run, and that would repeat it.", _setup),
)
