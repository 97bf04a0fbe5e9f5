"""A target head's readout in closed form: ridge from the first state and from the counts around each moment, or kernel ridge.

A network that starts from the best linear readout has only to learn what that lacks; from a few labelled seconds, that
is often all there is to learn.

Shape suffixes: V values, F features, Y encoded columns, K random features.
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
# of features whose products are a kernel of height 1: from a third of the labels' variance as noise to thirty times it.
# Less was never better with few labels, and cross-validation over a few seconds does not know that
KERNEL_PENALTIES = tuple(10.0 ** (k / 4) for k in range(-2, 7))
KERNEL_WIDTHS = (0.7, 1.2, 2.2)  # of Gaussians whose mean is the kernel, in units of the features' spread
FOLDS = 10
SHARPNESS = {
    "circular": 3.0,
    "classification": 5.0,
}  # of what a ridge prediction is worth as concentration or logits


class Features(NamedTuple):
    """What the readouts see, (V, F) float64 each (no columns: not there), and the encoded labels (V, Y)."""

    counts: np.ndarray
    spans: np.ndarray
    state: np.ndarray
    labels: np.ndarray


class Kernel(NamedTuple):
    """Frequencies (K, F) of random features of raw spans and state, phases (K,) and weights (K, Y)."""

    frequency: np.ndarray
    phase: np.ndarray
    weights: np.ndarray


class Anchor(NamedTuple):
    """Weights for raw features, intercept, and what cross-validation chose."""

    counts: np.ndarray
    state: np.ndarray
    bias: np.ndarray
    score: float
    uses: str
    penalty: float
    kernel: Kernel | None = None

    def predict(self, features: Features) -> np.ndarray:
        """(V, Y) encoded values."""
        out = features.counts @ self.counts + features.state @ self.state + self.bias
        if self.kernel is None:
            return out
        x = np.concatenate([features.spans, features.state], 1)
        return out + random_features(x, self.kernel.frequency, self.kernel.phase) @ self.kernel.weights


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
        seen = model.moment_counts(batch, before, head.ends, {})
        none = state.new_zeros(len(state), 0)
        known = [none if x is None else x for x in (seen.counts_VF, seen.spans_VF)]
        parts.append((*known, state, _encoded(head, batch.targets[name].flatten(0, 1))))
    model.train(was_training)
    return Features(*(torch.cat(p).double().numpy() for p in zip(*parts, strict=True)))


def _encoded(head: TargetHead, values_VC: torch.Tensor) -> torch.Tensor:
    if not head.classes:
        return head.normalized(values_VC)
    hit = (values_VC == torch.tensor(head.classes, dtype=values_VC.dtype)).to(values_VC.dtype)
    return torch.where(torch.isfinite(values_VC), hit, torch.nan)


def fit_anchor(
    features: Features, prepared: Prepared, windows: Windows, samples: int, num_random: int = 0
) -> Anchor:
    """Ridge from counts, state or both, or with ``num_random`` features kernel ridge from long counts and state: what a
    few labelled seconds say is seldom linear in the counts. Penalty, and which features, by contiguous cross-validation.

    Features keep their own spread, but each group has the same variance: a unit that hardly fired in training must not
    weigh as much as the others.

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
    folds = contiguous_folds(at[known], prepared.index, shape.reach + shape.ahead, FOLDS)
    out = {name: np.zeros((getattr(features, name).shape[1], y.shape[1])) for name in ("counts", "state")}
    if num_random:
        groups = [x[known] for x in (features.spans, features.state)]
        kernel, bias, score, penalty = _kernel_ridge(groups, y, folds, num_random)
        return Anchor(out["counts"], out["state"], bias, score, "kernel", penalty, kernel)
    groups = {"counts": features.counts[known], "state": features.state[known]}
    groups = {name: x for name, x in groups.items() if x.shape[1]}
    scale = {name: float(np.sqrt(x.var(0).mean())) + 1e-9 for name, x in groups.items()}
    best: tuple[float, tuple[str, ...], float] | None = None
    for uses in dict.fromkeys([*((name,) for name in groups), tuple(groups)]):
        x = np.concatenate([groups[name] / scale[name] for name in uses], 1)
        scores = cross_validated(x, y, folds)
        place = int(np.argmax(scores))
        if best is None or scores[place] > best[0]:
            best = (float(scores[place]), uses, PENALTIES[place])
    assert best is not None
    score, uses, penalty = best
    x = np.concatenate([groups[name] / scale[name] for name in uses], 1)
    weights, bias = ridge_path(x, y, (penalty,))[0]
    start = 0
    for name in uses:
        size = groups[name].shape[1]
        out[name] = weights[start : start + size] / scale[name]
        start += size
    return Anchor(out["counts"], out["state"], bias, score, "+".join(uses), penalty)


def _kernel_ridge(
    groups: list[np.ndarray], y: np.ndarray, folds, num_random: int
) -> tuple[Kernel, np.ndarray, float, float]:
    """A readout, its intercept, its score in cross-validation, and its penalty.

    One kernel over all features, several widths at once: choosing among kernels by a few seconds costs more than it gives.
    """
    groups = [x for x in groups if x.shape[1]]
    each = [np.full(x.shape[1], np.sqrt(len(groups) * x.var(0).sum()) + 1e-9) for x in groups]
    x, scale = np.concatenate(groups, 1), np.concatenate(each)
    rng = np.random.default_rng(0)
    width = np.resize(KERNEL_WIDTHS, num_random)[:, None]
    frequency = rng.standard_normal((num_random, x.shape[1])) / width / scale
    phase = rng.uniform(0, 2 * np.pi, num_random)
    wave = random_features(x, frequency, phase)
    scores = cross_validated(wave, y, folds, KERNEL_PENALTIES)
    place = int(np.argmax(scores))
    weights, bias = ridge_path(wave, y, KERNEL_PENALTIES[place : place + 1])[0]
    return Kernel(frequency, phase, weights), bias, float(scores[place]), KERNEL_PENALTIES[place]


def random_features(x_VF: np.ndarray, frequency_KF: np.ndarray, phase_K) -> np.ndarray:
    """(V, K) whose products approximate a Gaussian kernel (Rahimi and Recht, NeurIPS 2007)."""
    return np.sqrt(2 / len(frequency_KF)) * np.cos(x_VF @ frequency_KF.T + phase_K)


def cross_validated(x: np.ndarray, y: np.ndarray, folds, penalties=PENALTIES) -> np.ndarray:
    """(penalties,) R2 of held-out predictions, all folds together, the mean over columns: stretches that a few seconds
    are cut into are too short for an R2 of their own."""
    rows = np.concatenate([held for _, held in folds])
    parts = []
    for train, held in folds:
        path = ridge_path(x[train], y[train], penalties)
        parts.append(np.stack([x[held] @ weights + bias for weights, bias in path]))
    each = [r2(y[rows], predicted) for predicted in np.concatenate(parts, 1)]
    return np.array([np.mean(r[np.isfinite(r)]) if np.isfinite(r).any() else 0.0 for r in each])


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
    """Write a readout into a head: its linear paths are the ridge, its network starts at zero, and no other readout
    has a share."""
    head.share.copy_(torch.eye(len(head.share))[0])
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
    if head.kernel is not None:
        head.kernel.clear()
    if head.kernel is not None and anchor.kernel is not None:
        frequency, phase, weights = (torch.from_numpy(a).to(head.skip.weight) for a in anchor.kernel)
        head.kernel.set(frequency, phase, weights, gain)
    if head.kind == "regression" and head.noise != "squared":
        spread = np.nanstd(features.labels - anchor.predict(features), axis=0) + 1e-3
        head.skip.bias[size:] = torch.from_numpy(np.log(spread)).to(head.skip.bias)
