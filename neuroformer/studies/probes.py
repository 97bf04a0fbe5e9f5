"""Linear probes: how much of a variable each representation inside a model holds.

Shape suffixes: W windows, V values, D features, Y encoded columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroformer.baselines.features import contiguous_folds
from neuroformer.config import ConfigError, TargetConfig
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.decoding.closed_form import PENALTIES, cross_validated, ridge_with_intercept
from neuroformer.decoding.decode import (
    decode_labels,
    decode_windows,
    encode_labels,
    score_terms,
    true_values,
)
from neuroformer.decoding.run import start_decoded
from neuroformer.intervals import over_time
from neuroformer.model.network import Neuroformer
from neuroformer.ops import Ragged


@torch.no_grad()
def representations(model: Neuroformer, prepared: Prepared, windows: Windows) -> dict[str, np.ndarray]:
    """(W, D) of every representation of each window.

    - ``past``: the first token before fusion and the mean embedding of past spikes.
    - ``past + stimulus``: beside it the pooled frames, where the model sees frames.
    - ``past + stimulus + current``: beside them the mean of the fused states of the window's tokens.
    - ``block K (stream)``: the mean state of the tokens after each block of the fusion.
    - ``contrast``: the neural side of an alignment, where there is one.
    """
    parts: dict[str, list[Tensor]] = {}
    model.eval()
    for batch in prepared.batches(windows, 512, model.device):
        for name, x in _of_batch(model, batch).items():
            parts.setdefault(name, []).append(x)
    return {name: torch.cat(x).double().cpu().numpy() for name, x in parts.items()}


def _of_batch(model: Neuroformer, batch) -> dict[str, Tensor]:
    encoded = model.encode(batch)
    first_WD = model.first_token(batch, encoded)
    past = [first_WD] + ([encoded["past"].pooled()] if "past" in encoded else [])
    seen = past + ([encoded["frames"].pooled()] if "frames" in encoded else [])
    out = {"past": torch.cat(past, 1), "past + stimulus": torch.cat(seen, 1)}
    x_TD, layout = model.tokens(batch, encoded)
    blocks = {}
    for k, block in enumerate(model.blocks):
        stream = encoded.get(str(block.attend))
        x_TD = block(x_TD, layout, stream.context if stream else None)
        blocks[f"block {k + 1} ({block.attend})"] = _mean(x_TD, layout)
    out["past + stimulus + current"] = torch.cat([*seen, _mean(model.norm(x_TD), layout)], 1)
    out |= blocks
    for contrast, pair in zip(model.config.loss.contrast, model.alignment(batch, encoded), strict=True):
        if "neural" in contrast.pair and "contrast" not in out:
            out["contrast"] = pair[contrast.pair.index("neural")]
    return out


def _mean(x_TD: Tensor, layout: Ragged) -> Tensor:
    total = x_TD.new_zeros(len(layout), x_TD.shape[1]).index_add(0, layout.row_T, x_TD)
    return total / layout.lengths_B[:, None]


def probe(model: Neuroformer, prepared: Prepared, target: TargetConfig, seed: int = 0) -> list[dict[str, Any]]:
    """Ridge from every representation to one variable: R2 on held-out windows with its 95 % interval over held-out time
    (:func:`neuroformer.intervals.over_time`).

    The penalty is chosen by contiguous cross-validation on training windows. ``random`` is the last representation
    (past + stimulus + current) of the same network with random weights.

    Raises
    ------
    ConfigError
        Class labels (a ridge has no R2 of them) or words, or several values per window.
    """
    if prepared.rec.variable(target.name).classes:
        raise ConfigError(
            f"'{target.name}' is recorded as words and a probe is a regression; add a column of 0 and 1 to probe for"
        )
    if target.kind == "classification" or target.samples != 1:
        raise ConfigError(
            f"'{target.name}' cannot be probed as a {target.kind} of {target.samples} value(s) per window: a probe is a "
            f"regression (or circular) on one value; ask for {target.name}:regression"
        )
    windows = {p: decode_windows(prepared, p) for p in ("train", prepared.config.decode.split)}
    test = windows[prepared.config.decode.split]
    labels = {p: true_values(prepared, w)[target.name] for p, w in windows.items()}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = Neuroformer(model.config, model.num_units, prepared.normalization).to(model.first)
    last = "past + stimulus + current"
    x = {p: representations(model, prepared, w) for p, w in windows.items()}
    for p, w in windows.items():
        x[p] = {"random": representations(fresh, prepared, w)[last], **x[p]}
    decoded = start_decoded(prepared, target, test, labels[prepared.config.decode.split])
    return [_row(name, x, labels, windows, prepared, target, decoded) for name in x["train"]]


def _row(name: str, x, labels, windows, prepared: Prepared, target: TargetConfig, decoded) -> dict[str, Any]:
    part = prepared.config.decode.split
    known = np.flatnonzero(np.isfinite(labels["train"]).all(1))
    features, y = x["train"][name][known], encode_labels(target, labels["train"][known])
    center, scale = features.mean(0), np.sqrt(features.var(0).mean()) + 1e-9
    features = (features - center) / scale
    reach = prepared.builder.shape.reach + prepared.builder.shape.ahead
    folds = contiguous_folds(windows["train"][known], prepared.index, reach, 5)
    penalty = PENALTIES[int(np.argmax(cross_validated(features, y, folds)))]
    weights, bias = ridge_with_intercept(features, y, (penalty,))[0]
    predicted = decode_labels(target, (x[part][name] - center) / scale @ weights + bias)
    found = over_time(score_terms(decoded, target, predicted), f"the R2 of {target.name}")
    low, high = found.ends()[:, 0]
    return {
        "representation": name,
        "features": features.shape[1],
        "r2": float(found.value_S[0]),
        "low": float(low),
        "high": float(high),
        "penalty": penalty,
    }
