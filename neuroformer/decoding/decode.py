"""Behavior along a recording: the model's heads, ridge, and controls, on the same windows.

Shape suffixes: W windows, C columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from neuroformer.config import Config, TargetConfig
from neuroformer.data.windows import Windows
from neuroformer.metrics import balanced_accuracy, block_bootstrap, pearson, r2
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.model.targets import TargetHead
from neuroformer.training.data import Prepared


@dataclass
class Decoded:
    """One variable at the end of every window.

    Attributes
    ----------
    times : (W,) seconds
    segment : (W,) which segment of the clock each lies in
    true_WC : NaN where the recording has no value
    predicted : by decoder ("model", "ridge", ...), (W, C) in the variable's own unit; class labels for classes
    """

    name: str
    times: np.ndarray
    segment: np.ndarray
    true_WC: np.ndarray
    predicted: dict[str, np.ndarray] = field(default_factory=dict)


@torch.no_grad()
def predict_targets(
    model: Neuroformer, prepared: Prepared, windows: Windows, batch_size: int = 512
) -> dict[str, np.ndarray]:
    """(W, C) of every target at the end of each window, in its own unit; class labels for classes.

    Causal: a window's value is read from the spikes before its end.
    """
    out: dict[str, list[np.ndarray]] = {name: [] for name in model.targets}
    device = model.sos.device
    for i in range(0, len(windows), batch_size):
        output = model(prepared.builder(windows[i : i + batch_size]).to(device))
        for name, raw in output.targets.items():
            head = model.targets[name]
            assert isinstance(head, TargetHead)
            values = head.values(raw.float()).cpu().numpy()
            if head.classes:
                values = np.asarray(head.classes)[values.argmax(1)][:, None]
            out[name].append(values)
    return {name: np.concatenate(parts) for name, parts in out.items()}


def true_values(prepared: Prepared, windows: Windows) -> dict[str, np.ndarray]:
    """(W, C) of every target at the end of each window; NaN where missing."""
    parts = [prepared.builder(windows[i : i + 4096]).targets for i in range(0, len(windows), 4096)]
    return {t.name: np.concatenate([p[t.name].numpy() for p in parts]) for t in prepared.config.targets}


def decode_windows(prepared: Prepared, part: str) -> Windows:
    """The windows that a decoding score is over: they leave room for the baselines' lags."""
    config = prepared.config
    reach = max(config.window.past, *config.decode.lags)
    return prepared.windows(part, reach=int(np.ceil(reach / config.window.dt - 1e-9)))


def stitch(decoded: Decoded, decoder: str, at: np.ndarray, period: float) -> np.ndarray:
    """(times, C) the decoded value at any time: the last one before it, for at most one window.

    Causal stitching holds; NaN where no window ended within ``period`` seconds before.
    """
    k = np.searchsorted(decoded.times, at + 1e-9, side="right") - 1
    out = decoded.predicted[decoder][np.maximum(k, 0)].astype(np.float64)
    out[(k < 0) | (at - decoded.times[np.maximum(k, 0)] > period + 1e-9)] = np.nan
    return out


def score_decoded(
    decoded: Decoded, target: TargetConfig, config: Config, columns: list[str]
) -> dict[str, float]:
    """Flat scores of every decoder of a variable, with block-bootstrap 95 % intervals of the model's.

    Regression: ``decode_<variable>_r2`` for the model and ``..._r2_<decoder>`` for the others, the mean over
    columns; ``decode_<variable>_<column>_r2`` too where there are several. Classification: balanced accuracy with chance.
    Windows without a true value are left out and counted.
    """
    keep = np.isfinite(decoded.true_WC).all(1)
    true = decoded.true_WC[keep]
    out: dict[str, float] = {
        f"decode_{decoded.name}_windows": int(keep.sum()),
        f"decode_{decoded.name}_missing": int((~keep).sum()),
    }
    block = max(1, round(config.decode.bootstrap_block / config.window.current))
    for decoder, values in decoded.predicted.items():
        suffix = "" if decoder == "model" else f"_{decoder}"
        name, predicted = f"decode_{decoded.name}", values[keep]
        if target.kind == "classification":
            result = balanced_accuracy(true[:, 0], predicted[:, 0])
            out[f"{name}_accuracy{suffix}"], out[f"{name}_chance"] = result.score, result.chance
            continue
        each = r2(true, predicted)
        out[f"{name}_r2{suffix}"] = float(np.mean(each))
        if len(columns) > 1:
            for column, value in zip(columns, each, strict=True):
                full = column if column.startswith(decoded.name) else f"{decoded.name}_{column}"
                out[f"decode_{full}_r2{suffix}"] = float(value)
        if decoder in ("model", "ridge"):
            interval = block_bootstrap(
                lambda t, p: float(np.mean(r2(t, p))),
                (true, predicted),
                block,
                n=config.decode.bootstraps,
                seed=config.seed,
            )
            out[f"{name}_r2{suffix}_low"], out[f"{name}_r2{suffix}_high"] = interval[0], interval[1]
            out[f"{name}_pearson{suffix}"] = float(np.mean(pearson(true, predicted)))
    return out
