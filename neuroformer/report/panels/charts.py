"""Curves of the page: learning, decoding and its errors, few labels. Series are lists of numbers, ready for JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.bundle.bundle import Bundle
from neuroformer.config import TargetConfig
from neuroformer.data.scales import VariableScale
from neuroformer.metrics import absolute_errors
from neuroformer.report.behavior import median_by_value
from neuroformer.report.panels.pack import pack, pack_rounded


def learning_charts(file: Path) -> dict[str, Any]:
    """The terms of the loss and the scores on the validation part, from ``metrics.csv``."""
    with open(file) as f:
        rows = list(csv.DictReader(f))
    columns = [k for k in rows[0] if "/" in k] if rows else []
    charts = {
        "Training loss terms, unweighted": [k for k in columns if k.startswith("train/") and k != "train/loss"],
        "Validation bits/spike": [k for k in columns if k.startswith("valid/bits")],
        "Validation scores of the targets": [k for k in columns if k.startswith("valid/") and k.endswith("_score")],
    }
    made = []
    for name, keys in charts.items():
        series = [_series(rows, k) for k in keys]
        made.append({"name": name, "series": [s for s in series if s["x"]]})
    return {"charts": [c for c in made if c["series"]]}


def _series(rows: list[dict[str, str]], key: str) -> dict[str, Any]:
    known = [(int(r["step"]) + 1, float(r[key])) for r in rows if r.get(key)]
    every = max(1, len(known) // 400)
    points = [p for p in known[::every] if np.isfinite(p[1])]
    return {"name": key.split("/", 1)[1].replace("_", " "), "x": [p[0] for p in points], "y": [p[1] for p in points]}


def decoded_charts(folder: Path, bundle: Bundle, values: dict[str, Any]) -> dict[str, Any]:
    """Of every decoded target, recorded and decoded values along time, and the median error against the true value.

    Parameters
    ----------
    values : the run's summary, which names the baseline of least error
    """
    targets, charts = [], []
    for target in bundle.config.targets:
        path = folder / f"decode_{target.name}.npz"
        if not path.exists():
            continue
        with np.load(path) as file:
            found = {key: file[key] for key in file.files}
        scale = bundle.normalization.targets.get(target.name, VariableScale())
        width = found["true"].shape[1]
        columns = list(scale.columns) or [scale.titled(target.name)]
        columns = columns if len(columns) == width else [f"{target.name} {c}" for c in range(width)]
        named = {"true": ("recorded", "true"), "model": ("model", "model"), "ridge": ("ridge", "other")}
        lines = [
            {"name": name, "kind": kind, "y": pack_rounded(found[key])}
            for key, (name, kind) in named.items()
            if key in found
        ]
        one = {"name": target.name, "columns": columns, "period": scale.period, "lines": lines}
        targets.append(one | {"times": pack(found["times"])})
        if target.kind != "classification" and target.name != "frames":
            charts += _error_charts(
                target, scale, columns, found, str(values.get(f"decode_{target.name}_nearest_baseline", ""))
            )
    return {"targets": targets, "charts": charts}


def _error_charts(
    target: TargetConfig, scale: VariableScale, columns: list[str], found: dict[str, np.ndarray], nearest: str
) -> list[dict[str, Any]]:
    """The median error against each column, a line a decoder."""
    period = (scale.period or 2 * np.pi) if target.kind == "circular" else 0.0
    shown = [n for n in dict.fromkeys(("model", "ensemble", nearest, "bayes", "ridge")) if n in found]
    true = found["true"]
    errors = {n: absolute_errors(true, found[n], period) for n in shown}
    charts = []
    for c, column in enumerate(columns):
        series = []
        for name, error in errors.items():
            middle, median = median_by_value(true[:, c], error)
            known = np.isfinite(median)
            series.append({"name": name.replace("_", " "), "x": middle[known].tolist(), "y": median[known].tolist()})
        charts.append({"name": f"Median error of {target.name}", "xlabel": column, "ylabel": "", "series": series})
    return [c for c in charts if any(s["x"] for s in c["series"])]


def fewshot_charts(folder: Path) -> list[dict[str, Any]]:
    """Curves of every target with few-shot results; scores below -0.5 are cut off."""
    charts = []
    for path in sorted(folder.glob("fewshot_*.json")):
        tree = json.loads(path.read_text())
        rows = [r for r in tree["rows"] if r["seconds"] > 0]
        series = []
        for method in dict.fromkeys(r["method"] for r in rows):
            mine = [r for r in rows if r["method"] == method]
            cut = lambda key, mine=mine: [max(-0.5, r[key]) for r in mine]
            x = np.log10([r["seconds"] for r in mine]).tolist()
            series.append({"name": method, "x": x, "y": cut("score"), "low": cut("low"), "high": cut("high")})
        name = f"Held-out score of {tree['target']}"
        charts.append({"name": name, "xlabel": "labelled seconds", "ylabel": "score", "log": True, "series": series})
    return charts
