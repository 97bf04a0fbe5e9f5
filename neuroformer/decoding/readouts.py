"""Decoders of their own, fitted on a trained network's states and on the spikes around each moment: kernel ridge, and a
recurrent network over count bins. Tables show them beside the network's own head, and the mean of all.

Shape suffixes: W windows, V values, U units, Q units or patterns of them, B count bins, F features, Y encoded columns, K kernel centers, D width,
R raw outputs of a value.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from neuroformer.baselines.networks import GruNetwork
from neuroformer.config import TargetConfig
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.decoding.closed_form import (
    SHARPNESS,
    encoded_labels,
    folds_of,
    held_out,
    labelled_rows,
    mean_r2,
    ridge_with_intercept,
)
from neuroformer.decoding.decode import target_head
from neuroformer.decoding.descent import Descent
from neuroformer.decoding.finetune import BATCH_SIZE
from neuroformer.model.counts import FilteredCounts
from neuroformer.model.network import Neuroformer
from neuroformer.model.streams import Encoded
from neuroformer.model.targets import TargetHead
from neuroformer.ops import Ragged

KERNEL, RECURRENT = "kernel_on_states", "gru_on_states"
READOUTS = (KERNEL, RECURRENT)
# of a kernel of height 1
KERNEL_PENALTIES = tuple(10.0 ** (k / 4) for k in range(-4, 7))
USUAL = KERNEL_PENALTIES[2]  # a third of the labels' variance as noise
KERNEL_WIDTHS = (0.7, 1.2, 2.2)  # of Gaussians, in units of the features' spread
CENTERS, MOST = 512, 8000  # of a kernel, and windows that a readout is fitted on
DROPOUT = 0.4  # of the recurrent network's counts and last states
LEAST_SPREAD = 0.2  # of the root mean square over units: of a unit that hardly fires, noise would count most


class Fitted(NamedTuple):
    """A readout of one target: what it says of windows, (V, R) as the head's raw outputs; how many models were fitted for
    it, how many seconds that took, and what it chose in words."""

    raw: Callable[[Windows], Tensor]
    fits: int
    seconds: float
    choice: str


def fit_readout(
    name: str, model: Neuroformer, prepared: Prepared, target: TargetConfig, windows: Windows, seed: int = 0
) -> Fitted:
    """One of :data:`READOUTS`, fitted on the labels of windows in time order; the network does not change.

    Raises
    ------
    ValueError
        Fewer than four labelled values.
    """
    began = time.perf_counter()
    model.eval()
    fit = {KERNEL: _fit_kernel, RECURRENT: _fit_recurrent}[name]
    return fit(model, prepared, target, windows, seed)._replace(seconds=time.perf_counter() - began)


def labelled(prepared: Prepared, windows: Windows, name: str, most: int = 0) -> Windows:
    """The windows that have a label; at most so many, evenly (0: all)."""
    pieces = (prepared.builder.labels(piece)[name] for piece in windows.pieces(4096))
    exists = torch.cat([torch.isfinite(values).all(-1).any(1) for values in pieces]).numpy()
    rows = np.flatnonzero(exists)
    if most and len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]
    return windows[rows]


# -- what readouts see ---------------------------------------------------------------------------------------


@torch.no_grad()
def states_at(model: Neuroformer, batch: Batch, ends: list[int]) -> tuple[Tensor, Tensor]:
    """(V, D) the first state of each value's window, and (V, D) the network's state at its moment: the first state of a
    window that would start there, of the inputs and frames of the value's own window."""
    encoded, first_WD = model.first_state(batch)
    later = [later_state(model, batch, encoded, end) for end in ends]
    return first_WD.repeat_interleave(len(ends), 0), torch.stack(later, 1).flatten(0, 1)


def later_state(model: Neuroformer, batch: Batch, encoded: dict[str, Encoded], end: int) -> Tensor:
    """(W, D) the first state that a window would have if it started ``end`` bins later: its past holds the spikes until then.

    Of traces, whose batches hold no sample of the window's past from there, it is the first state.
    """
    moved = moved_on(batch, end, model.past_bins)
    if "past" in encoded and batch.traces is None:
        encoded = encoded | {"past": model.streams["past"](moved, model.embedding)}
    alone = Ragged.from_lengths(torch.ones(batch.num_windows, dtype=torch.int64, device=model.device))
    return model.fuse(model.first_token(moved, encoded), alone, encoded)


def moved_on(batch: Batch, end: int, past_bins: int) -> Batch:
    """The batch whose past reaches up to bin ``end`` of each window."""
    before = batch.tick_S < end
    tick_P = torch.cat([batch.past_tick_P, batch.tick_S[before]]) - end
    unit_P = torch.cat([batch.past_unit_P, batch.unit_S[before]])
    row_P = torch.cat([batch.past.row_T, batch.current.row_T[before]])
    order = torch.argsort(row_P, stable=True)
    order = order[tick_P[order] >= -past_bins]
    return replace(
        batch,
        past=Ragged.from_lengths(torch.bincount(row_P[order], minlength=batch.num_windows)),
        past_tick_P=tick_P[order],
        past_unit_P=unit_P[order],
        available_W=(batch.available_W + end).clamp(max=past_bins),
    )


class CountsUnder(FilteredCounts):
    """Root counts around the moments of a head, of units or of its patterns, under another basis, (lags, filters); row 0 is the
    latest bin."""

    def __init__(self, head: TargetHead, basis: Tensor):
        super().__init__(head.counts.num_units, 1, len(basis) - head.ahead, head.ahead)
        self.pattern = head.counts.pattern
        self.ends = head.ends
        self.basis = basis.to(head.counts.basis.device)

    def of(self, batch: Batch) -> Tensor:
        """(V, Q, filters)."""
        assert batch.around is not None
        return self(batch.around.layout, batch.around.tick_S, batch.around.unit_S, self.ends)


def _before(head: TargetHead) -> int:
    return len(head.counts.basis) - head.ahead


def spans(before: int, after: int) -> Tensor:
    """(lags, 2 or 3) indicators of all bins before the moment, of the later half of them, and of those after it."""
    lag = torch.arange(after + before) - after
    every = [lag >= 0, (lag >= 0) & (lag < (before + 1) // 2)] + ([lag < 0] if after else [])
    return torch.stack(every, 1).float()


def boxes(before: int, after: int, width: int) -> Tensor:
    """(lags, B) indicators of equal bins, the earliest first; row 0 is the latest bin of the recording.

    Before the moment they count from it backwards, after it forwards, so that none holds spikes of both sides.
    """
    lag = torch.arange(after + before) - after  # 0: just before the moment; negative: after it
    place = torch.where(lag >= 0, -torch.div(lag, width, rounding_mode="floor"), -lag - 1)
    last_before = int(place[lag >= 0].min())
    ahead = torch.div(place, width, rounding_mode="floor") + 1
    place = torch.where(lag >= 0, place, ahead) - last_before
    return nn.functional.one_hot(place).float()


# -- kernel ridge --------------------------------------------------------------------------------------------


class Kernel(NamedTuple):
    """Weights (K, Y) of Gaussian kernels around ``center`` (K, F), which are (features - offset) / scale; intercept, the
    penalty that was chosen, and its R2 in cross-validation."""

    offset: np.ndarray
    scale: np.ndarray
    center: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    penalty: float
    score: float

    def predict(self, x_VF: np.ndarray) -> np.ndarray:
        """(V, Y) encoded values."""
        return gaussian_kernel((x_VF - self.offset) / self.scale, self.center) @ self.weights + self.bias


def _fit_kernel(model: Neuroformer, prepared: Prepared, target: TargetConfig, windows: Windows, seed: int) -> Fitted:
    head = target_head(model, target.name)
    windows = labelled(prepared, windows, target.name, max(1, MOST // target.samples))
    groups, labels_VY = kernel_features(model, prepared, windows, target.name)
    known = labelled_rows(labels_VY)
    folds = folds_of(prepared, windows, target.samples, known)
    found = kernel_ridge([x[known] for x in groups], labels_VY[known], folds)
    gain = SHARPNESS.get(head.kind, 1.0)

    def raw(some: Windows) -> Tensor:
        seen = (kernel_features(model, prepared, piece, target.name)[0] for piece in prepared.pieces(some, 512))
        return torch.cat([torch.from_numpy(gain * found.predict(np.concatenate(x, 1))).float() for x in seen])

    choice = f"penalty {found.penalty:.2g}; {len(found.center)} centers"
    return Fitted(raw, len(folds) * len(KERNEL_PENALTIES) + 1, 0.0, choice)


@torch.no_grad()
def kernel_features(
    model: Neuroformer, prepared: Prepared, windows: Windows, name: str
) -> tuple[list[np.ndarray], np.ndarray]:
    """Counts over long spans, the first state and the state at the moment, (V, F) each; the encoded labels (V, Y)."""
    head = target_head(model, name)
    counts = CountsUnder(head, spans(_before(head), head.ahead))
    parts = []
    for batch in prepared.batches(windows, 512, model.device):
        labels_VY = encoded_labels(head, batch.targets[name].flatten(0, 1))
        parts.append((counts.of(batch).flatten(1), *states_at(model, batch, head.ends), labels_VY))
    *groups, labels = (torch.cat(p).double().cpu().numpy() for p in zip(*parts, strict=True))
    return groups, labels


def kernel_ridge(groups: list[np.ndarray], y_VY: np.ndarray, folds, num_centers: int = CENTERS) -> Kernel:
    """One kernel over all features, each group of which has the same variance. It rests on every moment, or on
    ``num_centers`` of them evenly spaced (Nystroem: Williams and Seeger, NeurIPS 2000)."""
    each = [np.full(x.shape[1], np.sqrt(len(groups) * x.var(0).sum()) + 1e-9) for x in groups]
    offset, scale = np.concatenate([x.mean(0) for x in groups]), np.concatenate(each)
    x = (np.concatenate(groups, 1) - offset) / scale
    center = x[np.unique(np.linspace(0, len(x) - 1, min(num_centers, len(x))).round().astype(int))]
    values, vectors = np.linalg.eigh(gaussian_kernel(center, center))
    kept = values > 1e-9 * values[-1]
    root = vectors[:, kept] / np.sqrt(values[kept])
    features = gaussian_kernel(x, center) @ root
    penalty, score = clearly_best(features, y_VY, folds)
    weights, bias = ridge_with_intercept(features, y_VY, (penalty,))[0]
    return Kernel(offset, scale, center, root @ weights, bias, penalty, score)


def gaussian_kernel(x_VF: np.ndarray, center_KF: np.ndarray) -> np.ndarray:
    """(V, K) mean of Gaussians of :data:`KERNEL_WIDTHS`: one kernel of several widths, since choosing among kernels by a few
    seconds costs more than it gives."""
    square_VK = cdist(x_VF, center_KF, "sqeuclidean")
    return np.mean([np.exp(-square_VK / (2 * width**2)) for width in KERNEL_WIDTHS], 0)


def clearly_best(x: np.ndarray, y: np.ndarray, folds) -> tuple[float, float]:
    """:data:`USUAL` penalty, or another one where held-out errors say so beyond their standard error over folds: a few
    seconds prefer some penalty by chance. And its R2 over all held-out moments."""
    rows = np.concatenate([held for _, held in folds])
    predicted = held_out(x, y, folds, KERNEL_PENALTIES)
    spread = y[rows].var(0) + 1e-12
    error = ((predicted - y[rows]) ** 2 / spread).mean(2)
    ends = np.cumsum([len(held) for _, held in folds])[:-1]
    gain = np.stack([part.mean(1) for part in np.split(error[KERNEL_PENALTIES.index(USUAL)] - error, ends, axis=1)])
    sure = gain.mean(0) - gain.std(0, ddof=1) / np.sqrt(len(gain))
    place = int(np.argmax(sure)) if sure.max() > 0 else KERNEL_PENALTIES.index(USUAL)
    return KERNEL_PENALTIES[place], mean_r2(y[rows], predicted[place])


# -- recurrent network ---------------------------------------------------------------------------------------


class GruReadout(nn.Module):
    """The baselines' :class:`~neuroformer.baselines.networks.GruNetwork` over the root counts around a moment, read beside the
    trained network's state at the moment: what came in which order, which sums over filters lose.

    Parameters
    ----------
    mean_Q, spread_Q : Tensor
        Of the root counts in a bin, of units or patterns.
    width : int
        Of the network's states, and of the hidden state.
    outputs : int
    both_ways : bool
    """

    def __init__(self, mean_Q: Tensor, spread_Q: Tensor, width: int, outputs: int, both_ways: bool):
        super().__init__()
        self.register_buffer("mean", mean_Q[:, None])
        self.register_buffer("scale", floored(spread_Q)[:, None])
        self.mean: Tensor
        self.scale: Tensor
        self.network = GruNetwork(len(mean_Q), width, outputs, both_ways, DROPOUT, beside=width)

    def forward(self, bins_VQB: Tensor, state_VD: Tensor) -> Tensor:
        """(V, R)."""
        return self.network(((bins_VQB - self.mean) / self.scale).transpose(1, 2), state_VD)


def floored(spread_Q: Tensor) -> Tensor:
    return torch.maximum(spread_Q, LEAST_SPREAD * spread_Q.square().mean().sqrt() + 1e-9)


def _fit_recurrent(model: Neuroformer, prepared: Prepared, target: TargetConfig, windows: Windows, seed: int) -> Fitted:
    """AdamW for ``tune.steps`` steps, as heads are fitted on: its rate, batches, weight decay and average."""
    tune, head = prepared.config.tune, target_head(model, target.name)
    counts = CountsUnder(head, boxes(_before(head), head.ahead, model.num_bins))
    windows = labelled(prepared, windows, target.name, max(1, MOST // target.samples))
    labelled_rows(torch.cat([x.flatten(0, 1) for x in _labels(prepared, windows, target.name)]).numpy())

    def seen(batch: Batch) -> tuple[Tensor, Tensor]:
        return counts.of(batch).float(), states_at(model, batch, head.ends)[1].float()

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pieces = _pieces(prepared, windows, target.name, BATCH_SIZE, seed, model.device, seen)
        (bins_VQB, state_VD), _ = first = next(pieces)
        mean_Q, spread_Q = bins_VQB.mean((0, 2)), bins_VQB.std((0, 2), correction=0)
        outputs = head.skip.out_features
        net = GruReadout(mean_Q, spread_Q, state_VD.shape[1], outputs, head.ahead > 0).to(model.device)
        descent = Descent([{"params": list(net.parameters()), "lr": tune.lr}], tune.steps)
        for given, labels_WNC in itertools.islice(itertools.chain([first], pieces), tune.steps):
            descent.down(head.loss(net(*given).unflatten(0, labels_WNC.shape[:2]), labels_WNC))
        descent.swap()
    net.eval()

    @torch.no_grad()
    def raw(some: Windows) -> Tensor:
        return torch.cat([net(*seen(batch)).cpu() for batch in prepared.batches(some, 512, model.device)])

    seen_as = "" if counts.pattern is None else f" of {counts.num_channels} patterns"
    return Fitted(raw, 1, 0.0, f"{tune.steps} steps; {counts.num_filters} bins{seen_as}")


def _labels(prepared: Prepared, windows: Windows, name: str) -> Iterator[Tensor]:
    return (prepared.builder.labels(piece)[name] for piece in windows.pieces(4096))


def _pieces(prepared: Prepared, windows: Windows, name: str, size: int, seed: int, device, seen) -> Iterator[tuple]:
    """What the network sees of a batch of windows, and its labels, batch after batch without end; each is made once."""
    rng, made = np.random.default_rng(seed), {}
    every = np.array_split(rng.permutation(len(windows)), max(1, round(len(windows) / size)))
    while True:
        for i in rng.permutation(len(every)):
            if i not in made:
                batch = prepared.builder(windows[every[i]]).to(device)
                made[i] = seen(batch), batch.targets[name]
            yield made[i]
