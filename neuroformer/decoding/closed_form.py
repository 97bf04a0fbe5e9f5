"""A target head's readout in closed form: ridge from the first state and from the counts around each moment, or kernel ridge.

A network that starts from the best linear readout has only to learn what that lacks; from a few labelled seconds, that
is often all there is to learn.

Shape suffixes: V values, F features, Y encoded columns, K kernel centers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from neuroformer.baselines.features import contiguous_folds
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.decoding.decode import moments
from neuroformer.metrics import r2
from neuroformer.model.moments import gaussian_kernel
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.model.targets import TargetHead

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-2, 11))
# of a kernel of height 1
KERNEL_PENALTIES = tuple(10.0 ** (k / 4) for k in range(-4, 7))
USUAL = KERNEL_PENALTIES[2]  # a third of the labels' variance as noise
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
    later: np.ndarray
    labels: np.ndarray


class Kernel(NamedTuple):
    """Weights (K, Y) of Gaussian kernels around ``center`` (K, F), which are (spans, state and later - offset) / scale."""

    offset: np.ndarray
    scale: np.ndarray
    center: np.ndarray
    weights: np.ndarray


class Anchor(NamedTuple):
    """Weights for raw features, intercept, what cross-validation chose, and the spread (Y,) of its held-out errors."""

    counts: np.ndarray
    state: np.ndarray
    bias: np.ndarray
    score: float
    uses: str
    penalty: float
    spread: np.ndarray
    kernel: Kernel | None = None

    def predict(self, features: Features) -> np.ndarray:
        """(V, Y) encoded values."""
        out = features.counts @ self.counts + features.state @ self.state + self.bias
        if self.kernel is None:
            return out
        x = np.concatenate([features.spans, features.state, features.later], 1)
        return out + _kernel((x - self.kernel.offset) / self.kernel.scale, self.kernel.center) @ self.kernel.weights


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
    for batch in prepared.batches(windows, batch_size, model.sos.device):
        before, h_TD, layout = model.fused(batch)
        state = h_TD.index_select(0, layout.first()).repeat_interleave(len(head.ends), 0)
        seen = model.moment_counts(batch, before, head.ends, {})
        none = state.new_zeros(len(state), 0)
        known = [none if x is None else x for x in (seen.counts_VF, seen.spans_VF)]
        later = none if head.kernel is None else model.later_states(batch, head.ends)
        parts.append((*known, state, later, _encoded(head, batch.targets[name].flatten(0, 1))))
    model.train(was_training)
    return Features(*(torch.cat(p).double().cpu().numpy() for p in zip(*parts, strict=True)))


def _encoded(head: TargetHead, values_VC: torch.Tensor) -> torch.Tensor:
    if not head.classes:
        return head.normalized(values_VC)
    hit = (values_VC == values_VC.new_tensor(head.classes)).to(values_VC.dtype)
    return torch.where(torch.isfinite(values_VC), hit, torch.nan)


def fit_anchor(features: Features, prepared: Prepared, windows: Windows, samples: int, num_centers: int = 0) -> Anchor:
    """Ridge from counts, state or both, or with ``num_centers`` kernel ridge from long counts and state: what a few
    labelled seconds say is seldom linear in the counts. Penalty, and which features, by contiguous cross-validation.

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
    if num_centers:
        groups = [x[known] for x in (features.spans, features.state, features.later)]
        kernel, bias, score, penalty, spread = _kernel_ridge(groups, y, folds, num_centers)
        return Anchor(out["counts"], out["state"], bias, score, "kernel", penalty, spread, kernel)
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
    spread = held_out_spread(x, y, folds, penalty)
    return Anchor(out["counts"], out["state"], bias, score, "+".join(uses), penalty, spread)


def _kernel_ridge(
    groups: list[np.ndarray], y: np.ndarray, folds, num_centers: int
) -> tuple[Kernel, np.ndarray, float, float, np.ndarray]:
    """A readout, its intercept, its score in cross-validation, its penalty, and the spread of its held-out errors.

    One kernel over all features. It rests on every labelled moment, or on ``num_centers`` of them evenly spaced (Nystroem:
    Williams and Seeger, NeurIPS 2000).
    """
    groups = [x for x in groups if x.shape[1]]
    each = [np.full(x.shape[1], np.sqrt(len(groups) * x.var(0).sum()) + 1e-9) for x in groups]
    offset, scale = np.concatenate([x.mean(0) for x in groups]), np.concatenate(each)
    x = (np.concatenate(groups, 1) - offset) / scale
    center = x[np.unique(np.linspace(0, len(x) - 1, min(num_centers, len(x))).round().astype(int))]
    values, vectors = np.linalg.eigh(_kernel(center, center))
    kept = values > 1e-9 * values[-1]
    root = vectors[:, kept] / np.sqrt(values[kept])
    features = _kernel(x, center) @ root
    penalty, score = clearly_best(features, y, folds)
    weights, bias = ridge_path(features, y, (penalty,))[0]
    spread = held_out_spread(features, y, folds, penalty)
    return Kernel(offset, scale, center, root @ weights), bias, score, penalty, spread


def _kernel(x_VF: np.ndarray, center_KF: np.ndarray) -> np.ndarray:
    return gaussian_kernel(torch.from_numpy(x_VF), torch.from_numpy(center_KF)).numpy()


def clearly_best(x: np.ndarray, y: np.ndarray, folds) -> tuple[float, float]:
    """:data:`USUAL` penalty, or another one where held-out errors say so beyond their standard error over folds: a few
    seconds prefer some penalty by chance. And its R2 as :func:`cross_validated` has it."""
    rows = np.concatenate([held for _, held in folds])
    predicted = held_out(x, y, folds, KERNEL_PENALTIES)
    spread = y[rows].var(0) + 1e-12
    error = ((predicted - y[rows]) ** 2 / spread).mean(2)
    ends = np.cumsum([len(held) for _, held in folds])[:-1]
    gain = np.stack([part.mean(1) for part in np.split(error[KERNEL_PENALTIES.index(USUAL)] - error, ends, axis=1)])
    sure = gain.mean(0) - gain.std(0, ddof=1) / np.sqrt(len(gain))
    place = int(np.argmax(sure)) if sure.max() > 0 else KERNEL_PENALTIES.index(USUAL)
    return KERNEL_PENALTIES[place], _r2(y[rows], predicted[place])


def cross_validated(x: np.ndarray, y: np.ndarray, folds, penalties=PENALTIES) -> np.ndarray:
    """(penalties,) R2 of held-out predictions, all folds together, the mean over columns: stretches that a few seconds
    are cut into are too short for an R2 of their own."""
    rows = np.concatenate([held for _, held in folds])
    return np.array([_r2(y[rows], predicted) for predicted in held_out(x, y, folds, penalties)])


def held_out(x: np.ndarray, y: np.ndarray, folds, penalties) -> np.ndarray:
    """(penalties, V, Y) what each fold's readout says of the rows it did not see, fold after fold."""
    parts = []
    for train, held in folds:
        path = ridge_path(x[train], y[train], penalties)
        parts.append(np.stack([x[held] @ weights + bias for weights, bias in path]))
    return np.concatenate(parts, 1)


def held_out_spread(x: np.ndarray, y: np.ndarray, folds, penalty: float) -> np.ndarray:
    """(Y,) root mean square of held-out errors: a readout of many features hardly errs where it was fitted."""
    rows = np.concatenate([held for _, held in folds])
    return np.sqrt(((held_out(x, y, folds, (penalty,))[0] - y[rows]) ** 2).mean(0))


def _r2(true: np.ndarray, predicted: np.ndarray) -> float:
    each = r2(true, predicted)
    return float(np.mean(each[np.isfinite(each)])) if np.isfinite(each).any() else 0.0


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
def set_anchor(head: TargetHead, anchor: Anchor) -> None:
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
        offset, scale, center, weights = (torch.from_numpy(a).to(head.skip.weight) for a in anchor.kernel)
        head.kernel.set(offset, scale, center, weights, gain)
    if head.kind == "regression" and head.noise != "squared":
        head.skip.bias[size:] = torch.from_numpy(np.log(anchor.spread + 1e-3)).to(head.skip.bias)
