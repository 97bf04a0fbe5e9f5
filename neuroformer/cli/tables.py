"""Tables of scores as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # it loads PyTorch, which would make --help slow
    from neuroformer.decoding.decode import Decoded


MOST_CLASSES = 8  # in a table; all are in summary.json
LEAST_BEYOND = 0.02  # of R2 or balanced accuracy, by which a model must exceed a control without spikes


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


def _costs(cost: dict[str, Any]) -> tuple[str, str, str]:
    """How many models were fitted for a decoder, how long it took, and what it chose."""
    seconds = cost.get("seconds", float("nan"))
    return str(cost.get("fits", "-")), f"{seconds:.1f}" if np.isfinite(seconds) else "-", cost.get("choice", "")


def score_table(decoded: Decoded, target, scores: dict[str, Any]) -> str:
    """One variable: the score of every decoder, whole and by column or class, with 95 % intervals, and the best control."""
    from neuroformer.decoding.decode import measure

    what = measure(target)
    main = f"decode_{decoded.name}_{what}"
    keys = [main, *(k for k in scores if k.endswith("_r2") and k != main and f"{k}_low" in scores)]
    keys += [f"decode_{decoded.name}_{word}_recall" for word in decoded.classes.values()][:MOST_CLASSES]
    rows = []
    for name in decoded.predicted:
        if not name.startswith("control_"):
            s = "" if name == "model" else f"_{name}"
            of = [(scores[f"{k}{s}"], interval(scores[f"{k}{s}_low"], scores[f"{k}{s}_high"])) for k in keys]
            errors = _errors(scores, decoded.name, s)
            rows.append((name, *(x for pair in of for x in pair), *errors, *_costs(decoded.chosen.get(name, {}))))
    if f"{main}_control" in scores:
        of = [(scores[f"{k}_control"], "") for k in keys]
        rows.append(
            (
                f"control: {scores[f'decode_{decoded.name}_control_name']}",
                *(x for pair in of for x in pair),
                *_errors(scores, decoded.name, "_control"),
                *_costs({}),
            )
        )
    header = ["decoder", {"accuracy": "balanced accuracy", "r2": "R2"}[what], "95 % interval"]
    for k in keys[1:]:
        column = k.removeprefix("decode_").removesuffix("_r2")
        if k.endswith("_recall"):
            column = "recall of " + column.removeprefix(f"{decoded.name}_").removesuffix("_recall")
        header += [column, "95 % interval"]
    if f"decode_{decoded.name}_median_error" in scores:
        unit = f" ({decoded.unit})" if decoded.unit else ""
        header += [f"median error{unit}", "95 % interval", "mean error"]
    header += ["fits", "seconds", "chosen"]
    title = f"{decoded.name}: {scores[f'decode_{decoded.name}_windows']} held-out values"
    missing = scores[f"decode_{decoded.name}_missing"]
    title += f" ({missing} more have no label, or none that counts: decode.moving)" if missing else ""
    lines = [title, table(rows, header), *_against_baselines(decoded, scores)]
    if f"{main}_control" in scores:
        name, known = (scores[f"decode_{decoded.name}_control_{what}"] for what in ("name", "meaning"))
        lines.append(f"control {name}: {known}")
    return "\n".join([*lines, *verdict(decoded.name, main, scores)])


def verdict(name: str, main: str, scores: dict[str, Any]) -> list[str]:
    """In words: whether the network's own head says more than a control without spikes, and than the best baseline; ``main`` is the
    key of the score."""
    model, control = scores[main], scores.get(f"{main}_control", float("-inf"))
    if model < control + LEAST_BEYOND:
        return [
            f"=> no evidence that spikes tell {name}: a control that sees none has {control:.3f}, the model {model:.3f}"
        ]
    key = f"decode_{name}_difference"
    if key not in scores:
        return []
    best, lines = scores[f"decode_{name}_best_baseline"], []
    for own, suffix in (("the model", ""), ("the ensemble with its readouts", "_ensemble")):
        if f"{key}{suffix}" not in scores:
            continue
        low, high = scores[f"{key}{suffix}_low"], scores[f"{key}{suffix}_high"]
        where = "is above" if low > 0 else "is below" if high < 0 else "is not shown to differ from"
        how = f"paired {interval(low, high)}"
        if np.isnan(low):
            where, how = "cannot be told from", "too few independent held-out values"
        lines.append(f"=> {own} {where} {best}, the best baseline ({how})")
    return lines


def _errors(scores: dict[str, Any], name: str, suffix: str) -> tuple[Any, ...]:
    """Median error, its interval, mean error; nothing for classes."""
    key, mean = f"decode_{name}_median_error{suffix}", f"decode_{name}_mean_error{suffix}"
    nan = float("nan")
    ends = interval(scores.get(f"{key}_low", nan), scores.get(f"{key}_high", nan)) if suffix != "_control" else ""
    return (scores[key], ends, scores[mean]) if key in scores else ()


def _against_baselines(decoded: Decoded, scores: dict[str, Any]) -> list[str]:
    """Ours minus the best baseline and minus the nearest one, a line each."""
    name, lines = f"decode_{decoded.name}", []
    for key, other, what in (
        (f"{name}_difference", f"{name}_best_baseline", ""),
        (f"{name}_median_error_difference", f"{name}_nearest_baseline", "median error, "),
    ):
        for own, suffix in (("model", ""), ("ensemble", "_ensemble")):
            if f"{key}{suffix}" in scores:
                value, low, high = (scores[f"{key}{suffix}{end}"] for end in ("", "_low", "_high"))
                lines.append(f"{what}{own} minus {scores[other]}: {value:.3f} {interval(low, high)}, paired")
    return lines


def image_table(decoded: Decoded, scores: dict[str, Any]) -> str:
    """Decoded frames: how like they are to those that were shown."""
    rows = []
    for name in (
        "model",
        *(k for k in decoded.predicted if k != "model" and not k.startswith("control_")),
        "mean_frame",
    ):
        s = "" if name == "model" else f"_{name}"
        key = lambda what, s=s: f"decode_frames_{what}{s}"
        if key("ssim") in scores:
            both = [
                (scores[key(w)], interval(scores[f"{key(w)}_low"], scores[f"{key(w)}_high"])) for w in ("ssim", "r")
            ]
            rows.append((name, *both[0], *both[1], scores[key("psnr")], scores[key("mse")]))
    header = ("decoder", "SSIM", "95 % interval", "r over pixels", "95 % interval", "PSNR (dB)", "MSE")
    return f"frames as images\n{table(rows, header)}"
