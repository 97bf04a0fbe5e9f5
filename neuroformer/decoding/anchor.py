"""A target head's linear paths in closed form: ridge from the first state and from the counts around each moment.

A network that starts from the best linear readout has only to learn what that lacks; from a few labelled seconds, that
is often all there is to learn.

Shape suffixes: V values, F features (counts, then the first state), Y encoded columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from neuroformer.data.windows import Windows
from neuroformer.decoding.baselines.features import contiguous_folds
from neuroformer.decoding.decode import moments
from neuroformer.metrics import r2
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.model.targets import TargetHead
from neuroformer.training.data import Prepared

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-2, 11))
SHARPNESS = {
    "circular": 3.0,
    "classification": 5.0,
}  # of what a ridge prediction is worth as concentration or logits


class Features(NamedTuple):
    """What the linear paths see, (V, F) float64, and the encoded labels (V, Y)."""

    counts: np.ndarray
    state: np.ndarray
    labels: np.ndarray


class Anchor(NamedTuple):
    """Weights for raw features, intercept, and what cross-validation chose."""

    counts: np.ndarray
    state: np.ndarray
    bias: np.ndarray
    score: float
    uses: str
    penalty: float


@torch.no_grad()
def linear_features(
    model: Neuroformer, prepared: Prepared, windows: Windows, name: str, batch_size: int = 512
) -> Features:
    """Features and labels of one target at every moment of windows, missing labels included (NaN)."""
    head = model.targets[name]
    assert isinstance(head, TargetHead)
    was_training = model.training
    model.eval()
    parts = []
    for i in range(0, len(windows), batch_size):
        batch = prepared.builder(windows[i : i + batch_size])
        before, h_TD, layout = model.fused(batch)
        state = h_TD.index_select(0, layout.first()).repeat_interleave(len(head.ends), 0)
        counts = model.moment_counts(batch, before, head.ends, {})
        counts = state.new_zeros(len(state), 0) if counts is None else counts
        parts.append((counts, state, _encoded(head, batch.targets[name].flatten(0, 1))))
    model.train(was_training)
    return Features(*(torch.cat(p).double().numpy() for p in zip(*parts, strict=True)))


def _encoded(head: TargetHead, values_VC: torch.Tensor) -> torch.Tensor:
    if not head.classes:
        return head.normalized(values_VC)
    hit = (values_VC == torch.tensor(head.classes, dtype=values_VC.dtype)).to(values_VC.dtype)
    return torch.where(torch.isfinite(values_VC), hit, torch.nan)


def fit_anchor(features: Features, prepared: Prepared, windows: Windows, samples: int) -> Anchor:
    """Ridge; penalty and which features (counts, state, both) by contiguous cross-validation.

    Features keep their own spread, but each group has the same mean variance: a unit that hardly fired in training
    must not weigh as much as the others.

    Raises
    ------
    ValueError
        Fewer than four labelled values.
    """
    known = np.flatnonzero(np.isfinite(features.labels).all(1))
    if len(known) < 4:
        raise ValueError(f"{len(known)} values have a label; at least 4 are needed to fit a readout")
    at, shape = moments(windows, prepared.builder.shape, samples)
    y = features.labels[known]
    groups = {"counts": features.counts[known], "state": features.state[known]}
    groups = {name: x for name, x in groups.items() if x.shape[1]}
    scale = {name: float(np.sqrt(x.var(0).mean())) + 1e-9 for name, x in groups.items()}
    groups = {name: x / scale[name] for name, x in groups.items()}
    folds = contiguous_folds(at[known], prepared.index, shape.reach + shape.ahead, 5)
    choices = [(name,) for name in groups] + ([tuple(groups)] if len(groups) > 1 else [])
    best: tuple[float, tuple[str, ...], float] = (-np.inf, choices[0], PENALTIES[-1])
    for uses in choices:
        x = np.concatenate([groups[name] for name in uses], 1)
        scores = np.mean([fold_scores(x, y, train, held) for train, held in folds], 0)
        place = int(np.argmax(scores))
        best = max(best, (float(scores[place]), uses, PENALTIES[place]))
    score, uses, penalty = best
    x = np.concatenate([groups[name] for name in uses], 1)
    weights, bias = ridge_path(x, y, (penalty,))[0]
    out = {name: np.zeros((getattr(features, name).shape[1], y.shape[1])) for name in ("counts", "state")}
    start = 0
    for name in uses:
        size = groups[name].shape[1]
        out[name] = weights[start : start + size] / scale[name]
        start += size
    return Anchor(out["counts"], out["state"], bias, score, "+".join(uses), penalty)


def fold_scores(x, y, train, held) -> np.ndarray:
    out = []
    for weights, bias in ridge_path(x[train], y[train], PENALTIES):
        each = r2(y[held], x[held] @ weights + bias)
        out.append(float(np.nanmean(each)) if np.isfinite(each).any() else 0.0)
    return np.maximum(out, -1.0)  # one hopeless stretch must not outvote the others


def ridge_path(x: np.ndarray, y: np.ndarray, penalties) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weights of raw features, intercept) for every penalty; solved on the smaller side."""
    mean, y_mean = x.mean(0), y.mean(0)
    z = x - mean
    wide = z.shape[1] > len(z)
    values, vectors = np.linalg.eigh(z @ z.T if wide else z.T @ z)
    target = vectors.T @ ((y - y_mean) if wide else z.T @ (y - y_mean))
    out = []
    for penalty in penalties:
        solved = vectors @ (target / (np.maximum(values, 0)[:, None] + penalty))
        weights = z.T @ solved if wide else solved
        out.append((weights, y_mean - mean @ weights))
    return out


@torch.no_grad()
def set_anchor(head: TargetHead, anchor: Anchor, features: Features) -> None:
    """Write a readout into a head: its linear paths are the ridge, its network starts at zero."""
    gain = SHARPNESS.get(head.kind, 1.0)
    size = anchor.bias.shape[0]
    last = head.out[-1]
    assert isinstance(last, torch.nn.Linear)
    for p in (last.weight, last.bias, head.skip.weight, head.skip.bias):
        p.zero_()
    as_tensor = lambda a: torch.from_numpy(gain * a.T).to(head.skip.weight)
    head.skip.weight[:size] = as_tensor(anchor.state)
    head.skip.bias[:size] = as_tensor(anchor.bias[None])[:, 0]
    if head.linear is not None:
        head.linear.weight.zero_()
        head.linear.bias.zero_()
        head.linear.weight[:size] = as_tensor(anchor.counts)
    if head.kind == "regression" and head.noise != "squared":
        predicted = features.counts @ anchor.counts + features.state @ anchor.state + anchor.bias
        spread = np.nanstd(features.labels - predicted, axis=0) + 1e-3
        head.skip.bias[size:] = torch.from_numpy(np.log(spread)).to(head.skip.bias)
