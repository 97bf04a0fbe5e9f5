"""Tables of scores as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from neuroformer.decoding.decode import Decoded, measure


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Columns of equal width; numbers with three decimals, a missing number as a dash."""
    text = [list(header)] + [[_cell(x) for x in row] for row in rows]
    widths = [max(len(row[c]) for row in text) for c in range(len(header))]
    return "\n".join("  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in text)


def _cell(x: Any) -> str:
    if isinstance(x, (float, np.floating)):
        return f"{x:.3f}" if np.isfinite(x) else "-"
    return str(x)


def interval(low: float, high: float) -> str:
    return f"[{low:.3f}, {high:.3f}]" if np.isfinite(low) and np.isfinite(high) else "-"


def score_table(decoded: Decoded, target, scores: dict[str, Any]) -> str:
    """One variable: every decoder's score with its 95 % interval, and the best control."""
    key = f"decode_{decoded.name}_{measure(target)}"
    rows = []
    for name in decoded.predicted:
        if not name.startswith("control_"):
            s = "" if name == "model" else f"_{name}"
            rows.append(
                (name, scores[f"{key}{s}"], interval(scores[f"{key}{s}_low"], scores[f"{key}{s}_high"]))
            )
    if f"{key}_control" in scores:
        rows.append(
            (f"control: {scores[f'decode_{decoded.name}_control_name']}", scores[f"{key}_control"], "")
        )
    what = {"accuracy": "balanced accuracy", "r2": "R2"}[measure(target)]
    title = f"{decoded.name}: {scores[f'decode_{decoded.name}_windows']} held-out values"
    return f"{title}\n{table(rows, ('decoder', what, '95 % interval'))}"
