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
KERNEL_PENALTIES = tuple(10.0 ** (k / 2) for k in range(-5, 5))
KERNEL_WIDTHS = (0.7, 1.2, 2.2)  # of the Gaussian, in units of the features' distance from their mean
SHARPNESS = {
    "circular": 3.0,
    "classification": 5.0,
}  # of what a ridge prediction is worth as concentration or logits


class Features(NamedTuple):
    """What the linear paths see, (V, F) float64, and the encoded labels (V, Y)."""

    counts: np.ndarray
    state: np.ndarray
    labels: np.ndarray


class Kernel(NamedTuple):
    """Frequencies (K, F) of random features of raw counts and state, phases (K,) and weights (K, Y)."""

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
        x = np.concatenate([features.counts, features.state], 1)
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
        counts = model.moment_counts(batch, before, head.ends, {}).counts_VF
        counts = state.new_zeros(len(state), 0) if counts is None else counts
        parts.append((counts, state, _encoded(head, batch.targets[name].flatten(0, 1))))
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
    """Ridge; penalty and which features (counts, state, both) by contiguous cross-validation. With ``num_random``
    features also kernel ridge on both: what a few labelled seconds say is seldom linear in the counts.

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
    best: tuple[float, _Choice, float] | None = None
    for choice in _choices(groups, num_random):
        x = choice.design(groups)
        scores = np.mean([fold_scores(x, y, *fold, choice.penalties) for fold in folds], 0)
        place = int(np.argmax(scores))
        if best is None or scores[place] > best[0]:
            best = (float(scores[place]), choice, choice.penalties[place])
    assert best is not None
    score, choice, penalty = best
    weights, bias = ridge_path(choice.design(groups), y, (penalty,))[0]
    out = {name: np.zeros((getattr(features, name).shape[1], y.shape[1])) for name in ("counts", "state")}
    if choice.frequency is not None and choice.phase is not None:
        each = np.concatenate([np.full(x.shape[1], scale[name]) for name, x in groups.items()])
        kernel = Kernel(choice.frequency / each, choice.phase, weights)
        return Anchor(
            out["counts"], out["state"], bias, score, f"kernel of width {choice.width:g}", penalty, kernel
        )
    start = 0
    for name in choice.uses:
        size = groups[name].shape[1]
        out[name] = weights[start : start + size] / scale[name]
        start += size
    return Anchor(out["counts"], out["state"], bias, score, "+".join(choice.uses), penalty)


class _Choice(NamedTuple):
    """Features that a readout may use: groups as they are, or random features of a Gaussian kernel over them."""

    uses: tuple[str, ...]
    penalties: tuple[float, ...]
    width: float = 0.0
    frequency: np.ndarray | None = None
    phase: np.ndarray | None = None

    def design(self, groups: dict[str, np.ndarray]) -> np.ndarray:
        x = np.concatenate([groups[name] for name in self.uses], 1)
        return x if self.frequency is None else random_features(x, self.frequency, self.phase)


def random_features(x_VF: np.ndarray, frequency_KF: np.ndarray, phase_K) -> np.ndarray:
    """(V, K) whose products approximate a Gaussian kernel (Rahimi and Recht, NeurIPS 2007)."""
    return np.sqrt(2 / len(frequency_KF)) * np.cos(x_VF @ frequency_KF.T + phase_K)


def _choices(groups: dict[str, np.ndarray], num_random: int) -> list[_Choice]:
    every = tuple(groups)
    out = [_Choice(uses, PENALTIES) for uses in dict.fromkeys([*((name,) for name in groups), every])]
    if num_random:
        rng = np.random.default_rng(0)
        size = sum(x.shape[1] for x in groups.values())
        frequency, phase = rng.standard_normal((num_random, size)), rng.uniform(0, 2 * np.pi, num_random)
        for width in KERNEL_WIDTHS:
            out.append(_Choice(every, KERNEL_PENALTIES, width, frequency / (width * np.sqrt(size)), phase))
    return out


def fold_scores(x, y, train, held, penalties: tuple[float, ...] = PENALTIES) -> np.ndarray:
    out = []
    for weights, bias in ridge_path(x[train], y[train], penalties):
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
