"""Readouts in closed form, fitted on a trained network's states.

Ridge from the first state and from the counts around each moment is where a target's head starts to learn from a few labels:
a network that starts from the best linear readout has only to learn what that lacks. Kernel ridge on what the head sees is a
decoder of its own, beside the head.

Shape suffixes: V values, F features, Y encoded columns, K kernel centers, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import cdist

from neuroformer.baselines.features import contiguous_folds
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.decoding.decode import moments
from neuroformer.metrics import r2
from neuroformer.model.network import Neuroformer
from neuroformer.model.targets import TargetHead

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-2, 11))
# of a kernel of height 1
KERNEL_PENALTIES = tuple(10.0 ** (k / 4) for k in range(-4, 7))
USUAL = KERNEL_PENALTIES[2]  # a third of the labels' variance as noise
FOLDS = 10
WIDTHS = (0.7, 1.2, 2.2)  # of Gaussians, in units of the features' spread
CENTERS, MOST = 1024, 20_000  # of a kernel readout, and labelled moments that it is fitted on
SHARPNESS = {
    "circular": 3.0,
    "classification": 5.0,
}  # of what a ridge prediction is worth as concentration or logits


class Features(NamedTuple):
    """What linear readouts see, (V, F) float64 each, and the encoded labels (V, Y)."""

    counts: np.ndarray
    state: np.ndarray
    labels: np.ndarray


class Anchor(NamedTuple):
    """Weights for raw features, intercept, what cross-validation chose, and the spread (Y,) of its held-out errors."""

    counts: np.ndarray
    state: np.ndarray
    bias: np.ndarray
    score: float
    uses: str
    penalty: float
    spread: np.ndarray

    def predict(self, features: Features) -> np.ndarray:
        """(V, Y) encoded values."""
        return features.counts @ self.counts + features.state @ self.state + self.bias


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
    for batch in prepared.batches(windows, batch_size, model.device):
        _, h_TD, layout = model.states(batch)
        state = h_TD.index_select(0, layout.first()).repeat_interleave(len(head.ends), 0)
        parts.append((head.counted(batch).flatten(1), state, _encoded(head, batch.targets[name].flatten(0, 1))))
    model.train(was_training)
    return Features(*(torch.cat(p).double().cpu().numpy() for p in zip(*parts, strict=True)))


def _encoded(head: TargetHead, values_VC: torch.Tensor) -> torch.Tensor:
    if not head.classes:
        return head.normalized(values_VC)
    hit = (values_VC == values_VC.new_tensor(head.classes)).to(values_VC.dtype)
    return torch.where(torch.isfinite(values_VC), hit, torch.nan)


def fit_anchor(features: Features, prepared: Prepared, windows: Windows, samples: int) -> Anchor:
    """Ridge from counts, state or both. Penalty, and which features, by contiguous cross-validation.

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


class KernelReadout(NamedTuple):
    """Kernel ridge on the network's states, one kernel over all features.

    Attributes
    ----------
    offset, scale : (F,) features are (x - offset) / scale
    center : (K, F) of the Gaussian kernels
    weights, bias : (K, Y), (Y,)
    score, penalty : R2 in cross-validation, and the penalty that it chose
    """

    offset: np.ndarray
    scale: np.ndarray
    center: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    score: float
    penalty: float

    def predict(self, x_VF: np.ndarray) -> np.ndarray:
        """(V, Y) encoded values."""
        return _kernel((x_VF - self.offset) / self.scale, self.center) @ self.weights + self.bias


@torch.no_grad()
def seen_by_head(model: Neuroformer, prepared: Prepared, windows: Windows, name: str) -> np.ndarray:
    """(V, 3 D) what the head of a target sees at every moment of windows: pooled states, the first state, counts."""
    head = model.targets[name]
    assert isinstance(head, TargetHead)
    parts = []
    for batch in prepared.batches(windows, 512, model.device):
        _, h_TD, layout = model.states(batch)
        parts.append(head.features(batch, h_TD, layout)[0].double().cpu().numpy())
    return np.concatenate(parts)


def fit_kernel(
    model: Neuroformer, prepared: Prepared, windows: Windows, labels_VY: np.ndarray, name: str, samples: int
) -> KernelReadout:
    """Kernel ridge from what a target's head sees to encoded labels (NaN: missing), on ``CENTERS`` of the labelled moments
    evenly spaced (Nystroem: Williams and Seeger, NeurIPS 2000). The penalty by contiguous cross-validation.

    Raises
    ------
    ValueError
        Fewer than four labelled values.
    """
    known = np.flatnonzero(np.isfinite(labels_VY).all(1))
    if len(known) < 4:
        raise ValueError(f"{len(known)} values have a label; at least 4 are needed to fit a readout")
    known = known[np.unique(np.linspace(0, len(known) - 1, min(MOST, len(known))).round().astype(int))]
    at, shape = moments(windows, prepared.builder.shape, samples)
    x, y = seen_by_head(model, prepared, windows, name)[known], labels_VY[known]
    folds = contiguous_folds(at[known], prepared.index, shape.reach + shape.ahead, FOLDS)
    # each group of features has the same variance, whatever its size
    groups = np.array_split(np.arange(x.shape[1]), 3)
    offset, scale = x.mean(0), np.empty(x.shape[1])
    for group in groups:
        scale[group] = np.sqrt(3 * x[:, group].var(0).sum()) + 1e-9
    z = (x - offset) / scale
    center = z[np.unique(np.linspace(0, len(z) - 1, min(CENTERS, len(z))).round().astype(int))]
    values, vectors = np.linalg.eigh(_kernel(center, center))
    kept = values > 1e-9 * values[-1]
    root = vectors[:, kept] / np.sqrt(values[kept])
    features = _kernel(z, center) @ root
    penalty, score = clearly_best(features, y, folds)
    weights, bias = ridge_path(features, y, (penalty,))[0]
    return KernelReadout(offset, scale, center, root @ weights, bias, score, penalty)


def _kernel(x_VF: np.ndarray, center_KF: np.ndarray) -> np.ndarray:
    """(V, K) mean of Gaussians of :data:`WIDTHS`: one kernel of several widths, since choosing among kernels by a few seconds
    costs more than it gives."""
    square_VK = cdist(x_VF, center_KF, "sqeuclidean")
    return np.mean([np.exp(-square_VK / (2 * width**2)) for width in WIDTHS], 0)


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
    """Write a readout into a head: its linear paths are the ridge, and its network starts at zero."""
    gain, size = SHARPNESS.get(head.kind, 1.0), anchor.bias.shape[0]
    last = head.out[-1]
    assert isinstance(last, torch.nn.Linear)
    for p in (last.weight, last.bias, head.skip.weight, head.skip.bias, head.linear.weight):
        p.zero_()
    as_tensor = lambda a: torch.from_numpy(gain * a).to(head.skip.weight)
    head.skip.weight[:size] = as_tensor(anchor.state.T)
    head.skip.bias[:size] = as_tensor(anchor.bias)
    head.linear.weight[..., :size] = as_tensor(anchor.counts).view(*head.linear.weight.shape[:2], size)
    if head.kind == "regression" and head.noise != "squared":
        head.skip.bias[size:] = torch.from_numpy(np.log(anchor.spread + 1e-3)).to(head.skip.bias)
