"""Training and decoding of one recording, and a table of several: ours beside the baselines, pair by pair."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from neuroformer import runs
from neuroformer.baselines.glm.fit import VARIANTS
from neuroformer.bundle.bundle import LIKELIHOOD, RecordingEntry, load_model
from neuroformer.bundle.opening import open_run
from neuroformer.bundle.saving import save_bundle, save_weights
from neuroformer.config import apply_overrides, from_dict
from neuroformer.decoding.finetune import extend, finetune, know_only
from neuroformer.files import write_atomic
from neuroformer.studies.folds import labelled_windows
from neuroformer.training.evaluation import evaluate

SCORES = "decoding.json"  # of one recording, in the folder of its run
BITS_FILE = "likelihood.json"  # likewise
BITS = ("bits_per_spike", "bits_per_spike_rate_readout", *(f"bits_per_spike_glm_{variant}" for variant in VARIANTS))
SHOWN = ("model", "ensemble", "bayes", "bayes_mode", "kalman", "ridge", "wiener_cascade", "kernel_ridge", "mlp", "gru")


def measure(
    tree: dict[str, Any],
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    lookahead: float = 0.0,
    baselines: Sequence[str] = runs.FAST,
) -> dict[str, Any]:
    """Train a configuration into a folder and decode its targets; what the folder already holds is not done again.

    The network is trained once, causally: with ``lookahead``, heads that see so many seconds after a moment are fitted on it
    (:func:`look_ahead`), and everybody else sees them, too.

    Returns
    -------
    dict
        The flat scores of ``neuroformer decode`` of every target, and those of ``neuroformer train``.
    """
    train_once(tree, folder, overrides)
    scores = _kept(folder / BITS_FILE, lambda: evaluate(folder))
    if lookahead:
        place = folder / f"ahead_{lookahead:g}"
        if not (place / "bundle.json").exists():
            look_ahead(folder, place, lookahead)
        folder = place
    return scores | _kept(folder / SCORES, lambda: _decoded(folder, baselines))


def look_ahead(run: Path, folder: Path, lookahead: float) -> None:
    """A run with the network of another one, and heads for its targets that see ``lookahead`` seconds after a moment.

    They are fitted as ``neuroformer finetune`` fits heads, on the labels of the training and validation parts.
    """
    bundle, prepared = open_run(run)
    began, targets = time.perf_counter(), prepared.config.targets
    model, ready = extend(load_model(bundle), prepared, targets, lookahead=lookahead)
    windows, _ = labelled_windows(ready)
    ready = know_only(model, ready, windows, targets)
    tuned, _ = finetune(model, ready, windows, targets, ready.config.tune)
    for objective in (LIKELIHOOD, *(t.name for t in targets)):
        save_weights(folder / "weights" / f"{objective}.safetensors", tuned)
    entry = RecordingEntry(ready.rec.name, list(ready.rec.unit_ids), ready.normalization, bundle.split)
    seconds = bundle.metrics["train_seconds"] + time.perf_counter() - began
    save_bundle(folder, ready.config, [entry], {"train_seconds": seconds})


def _decoded(folder: Path, baselines: Sequence[str]) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for one in runs.decode(folder, baselines=baselines).values():
        scores |= one.scores
    return scores


def _kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The scores in a file, made and written if they are not there."""
    if not file.exists():
        write_atomic(file, json.dumps(make(), indent=1).encode())
    return json.loads(file.read_text())


def train_once(tree: dict[str, Any], folder: Path, overrides: Sequence[str] = ()) -> None:
    """Train a configuration into a folder, unless the folder holds a run."""
    if not (folder / "bundle.json").exists():
        runs.train(from_dict(apply_overrides(tree, list(overrides))), folder)


def table(scores_by_name: dict[str, dict[str, Any]], target: str, what: str, unit: str = "") -> str:
    """Markdown: a row per recording, a column per decoder, the better side last.

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


def likelihood_table(scores_by_name: dict[str, dict[str, Any]]) -> str:
    """Markdown: bits/spike of held-out windows, a row per recording."""
    lines = [
        "bits per spike",
        "",
        "| recording | network | its rates | GLM, past | GLM, every bin | GLM, same bin |",
        "|---|---|---|---|---|---|",
    ]
    for name, scores in scores_by_name.items():
        cells = [f"{scores.get(key, float('nan')):.3f}" for key in BITS]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def _key(target: str, what: str, decoder: str) -> str:
    return f"decode_{target}_{what}" + ("" if decoder == "model" else f"_{decoder}")


def _interval(scores: dict[str, Any], key: str) -> str:
    if key not in scores:
        return ""
    value, low, high = (scores[f"{key}{end}"] for end in ("", "_low", "_high"))
    return f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if low == low else "")
