"""Training and decoding of one recording, and a table of several: ours beside the baselines, pair by pair."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroformer import runs
from neuroformer.config import apply_overrides, from_dict
from neuroformer.files import write_atomic

SCORES = "decoding.json"  # of one recording, in the folder of its run
SHOWN = ("model", "ensemble", "bayes", "bayes_mode", "kalman", "ridge", "wiener_cascade", "kernel_ridge", "mlp", "gru")


def measure(
    tree: dict[str, Any], folder: Path, overrides: Sequence[str] = (), *, baselines: Sequence[str] = runs.FAST
) -> dict[str, Any]:
    """Train a configuration into a folder and decode its targets; what the folder already holds is not done again.

    Returns
    -------
    dict
        The flat scores of ``neuroformer decode`` of every target.
    """
    file = folder / SCORES
    if file.exists():
        return json.loads(file.read_text())
    train_once(tree, folder, overrides)
    scores: dict[str, Any] = {}
    for one in runs.decode(folder, baselines=baselines).values():
        scores |= one.scores
    write_atomic(file, json.dumps(scores, indent=1).encode())
    return scores


def train_once(tree: dict[str, Any], folder: Path, overrides: Sequence[str] = ()) -> None:
    """Train a configuration into a folder, unless the folder holds a run."""
    if not (folder / "bundle.json").exists():
        runs.train(from_dict(apply_overrides(tree, list(overrides))), folder)


def table(scores_by_name: dict[str, dict[str, Any]], target: str, what: str, unit: str = "") -> str:
    """Markdown: a row a recording, a column a decoder, the better side last.

    Parameters
    ----------
    what : "median_error" (smaller is better) or "r2"
    """
    names = [n for n in SHOWN if any(_key(target, what, n) in s for s in scores_by_name.values())]
    other = "nearest_baseline" if what == "median_error" else "best_baseline"
    difference = "median_error_difference" if what == "median_error" else "difference"
    header = ["recording", *(n.replace("_", " ") for n in names), "against", "model minus it", "ensemble minus it"]
    lines = [f"{target}, {what.replace('_', ' ')}{f' ({unit})' if unit else ''}", ""]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for name, scores in scores_by_name.items():
        cells = [f"{scores.get(_key(target, what, n), float('nan')):.3f}" for n in names]
        key = f"decode_{target}_{difference}"
        pairs = [_interval(scores, key), _interval(scores, f"{key}_ensemble")]
        lines.append("| " + " | ".join([name, *cells, str(scores.get(f"decode_{target}_{other}")), *pairs]) + " |")
    return "\n".join(lines)


def _key(target: str, what: str, decoder: str) -> str:
    return f"decode_{target}_{what}" + ("" if decoder == "model" else f"_{decoder}")


def _interval(scores: dict[str, Any], key: str) -> str:
    if key not in scores:
        return ""
    value, low, high = (scores[f"{key}{end}"] for end in ("", "_low", "_high"))
    return f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if low == low else "")
