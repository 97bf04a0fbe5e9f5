"""Ridge from a network's first state and from the counts around each moment, in closed form.

A head that starts from the best linear readout has only to learn what that lacks; from a few labelled seconds, that is
often all there is to learn.

Shape suffixes: V values, F features, Y encoded columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from neuroformer.baselines.features import contiguous_folds
from neuroformer.baselines.ridge import RidgePath
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.decoding.decode import moments, target_head
from neuroformer.metrics import r2
from neuroformer.model.network import Neuroformer
from neuroformer.model.targets import TargetHead

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-2, 11))
FOLDS = 10
# of what a prediction in closed form is worth as concentration or logits
SHARPNESS = {"circular": 3.0, "classification": 5.0}


class Features(NamedTuple):
    """What a ridge sees, (V, F) float64 each, and the encoded labels (V, Y); NaN where missing."""

    counts: np.ndarray
    state: np.ndarray
    labels: np.ndarray


class Ridge(NamedTuple):
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
    """Features and labels of one target at every moment of windows, missing labels included."""
    head = target_head(model, name)
    was_training = model.training
    model.eval()
    parts = []
    for batch in prepared.batches(windows, batch_size, model.device):
        _, first_WD = model.first_state(batch)
        state = first_WD.repeat_interleave(len(head.ends), 0)
        parts.append((head.counted(batch).flatten(1), state, encoded_labels(head, batch.targets[name].flatten(0, 1))))
    model.train(was_training)
    return Features(*(torch.cat(p).double().cpu().numpy() for p in zip(*parts, strict=True)))


def encoded_labels(head: TargetHead, values_VC: torch.Tensor) -> torch.Tensor:
    """(V, Y) what a readout in closed form regresses on: normalised values, (cos, sin), or an indicator of each class."""
    if not head.classes:
        return head.normalized(values_VC)
    hit = (values_VC == values_VC.new_tensor(head.classes)).to(values_VC.dtype)
    return torch.where(torch.isfinite(values_VC), hit, torch.nan)


def labelled_rows(labels_VY: np.ndarray) -> np.ndarray:
    """Rows that have a label.

    Raises
    ------
    ValueError
        Fewer than four.
    """
    known = np.flatnonzero(np.isfinite(labels_VY).all(1))
    if len(known) < 4:
        raise ValueError(f"{len(known)} values have a label; at least 4 are needed to fit a readout")
    return known


def folds_of(prepared: Prepared, windows: Windows, samples: int, rows: np.ndarray) -> list:
    """Contiguous folds of some rows of the values of windows, with gaps."""
    at, shape = moments(windows, prepared.builder.shape, samples)
    return contiguous_folds(at[rows], prepared.index, shape.reach + shape.ahead, FOLDS)


def fit_ridge(features: Features, prepared: Prepared, windows: Windows, samples: int) -> Ridge:
    """Ridge from counts, state or both. Penalty, and which features, by contiguous cross-validation.

    Features keep their own spread, but each group has the same variance: a unit that hardly fired in training must not
    weigh as much as the others.

    Raises
    ------
    ValueError
        Fewer than four labelled values.
    """
    known = labelled_rows(features.labels)
    y, folds = features.labels[known], folds_of(prepared, windows, samples, known)
    out = {name: np.zeros((getattr(features, name).shape[1], y.shape[1])) for name in ("counts", "state")}
    groups = {"counts": features.counts[known], "state": features.state[known]}
    scale = {name: float(np.sqrt(x.var(0).mean())) + 1e-9 for name, x in groups.items()}
    best: tuple[float, tuple[str, ...], float] | None = None
    for uses in (("counts",), ("state",), ("counts", "state")):
        x = np.concatenate([groups[name] / scale[name] for name in uses], 1)
        scores = cross_validated(x, y, folds)
        place = int(np.argmax(scores))
        if best is None or scores[place] > best[0]:
            best = (float(scores[place]), uses, PENALTIES[place])
    assert best is not None
    score, uses, penalty = best
    x = np.concatenate([groups[name] / scale[name] for name in uses], 1)
    weights, bias = ridge_with_intercept(x, y, (penalty,))[0]
    start = 0
    for name in uses:
        size = groups[name].shape[1]
        out[name] = weights[start : start + size] / scale[name]
        start += size
    spread = held_out_spread(x, y, folds, penalty)
    return Ridge(out["counts"], out["state"], bias, score, "+".join(uses), penalty, spread)


def cross_validated(x: np.ndarray, y: np.ndarray, folds, penalties=PENALTIES) -> np.ndarray:
    """(penalties,) R2 of held-out predictions, all folds together, the mean over columns: stretches that a few seconds
    are cut into are too short for an R2 of their own."""
    rows = np.concatenate([held for _, held in folds])
    return np.array([mean_r2(y[rows], predicted) for predicted in held_out(x, y, folds, penalties)])


def held_out(x: np.ndarray, y: np.ndarray, folds, penalties) -> np.ndarray:
    """(penalties, V, Y) what each fold's readout says of the rows it did not see, fold after fold."""
    parts = []
    for train, held in folds:
        path = ridge_with_intercept(x[train], y[train], penalties)
        parts.append(np.stack([x[held] @ weights + bias for weights, bias in path]))
    return np.concatenate(parts, 1)


def held_out_spread(x: np.ndarray, y: np.ndarray, folds, penalty: float) -> np.ndarray:
    """(Y,) root mean square of held-out errors: a readout of many features hardly errs where it was fitted."""
    rows = np.concatenate([held for _, held in folds])
    return np.sqrt(((held_out(x, y, folds, (penalty,))[0] - y[rows]) ** 2).mean(0))


def mean_r2(true: np.ndarray, predicted: np.ndarray) -> float:
    """Over columns whose R2 is defined; 0 where none is."""
    each = r2(true, predicted)
    return float(np.mean(each[np.isfinite(each)])) if np.isfinite(each).any() else 0.0


def ridge_with_intercept(x: np.ndarray, y: np.ndarray, penalties) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weights of raw features, intercept) for every penalty."""
    mean, y_mean = x.mean(0), y.mean(0)
    found = RidgePath(x - mean).weights(y - y_mean, penalties)
    return [(weights, y_mean - mean @ weights) for weights in found]


@torch.no_grad()
def start_from(head: TargetHead, ridge: Ridge) -> None:
    """Write a ridge into a head: its linear paths are the ridge, and its network starts at zero."""
    gain, size = SHARPNESS.get(head.kind, 1.0), len(ridge.bias)
    last, linear = head.out[-1], head.linear.weight
    assert isinstance(last, torch.nn.Linear)
    for p in (last.weight, last.bias, head.skip.weight, head.skip.bias, linear):
        p.zero_()
    as_tensor = lambda a: torch.from_numpy(gain * a).to(linear)
    head.skip.weight[:size] = as_tensor(ridge.state.T)
    head.skip.bias[:size] = as_tensor(ridge.bias)
    linear[..., :size] = as_tensor(ridge.counts).view(*linear.shape[:2], size)
    if head.kind == "regression" and head.noise != "squared":
        head.skip.bias[size:] = torch.from_numpy(np.log(ridge.spread + 1e-3)).to(linear)
