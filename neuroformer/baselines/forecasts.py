"""Baselines of forecasting: what simple predictors expect some time ahead, given the true past up to now.

Every choice is made on training or validation moments. Spikes and traces alike; losses are Poisson or squared.

Shape suffixes: N moments, L bins of the past, K basis functions, F features, U units.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from scipy.special import xlogy
from torch import Tensor

from neuroformer.baselines.glm.design import FULL_UNITS, Choice, Design, raised_cosines
from neuroformer.baselines.glm.spikes import counts_around, patterns_around, spikes_around
from neuroformer.baselines.linear import ridge_path
from neuroformer.baselines.patterns import unit_patterns
from neuroformer.baselines.poisson_regression import INTERCEPT_PENALTY, PoissonProblem
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows

Span = tuple[int, int]
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)  # of what was just seen in a forecast; the rest is the mean
AVERAGED_S = (0.25, 0.5, 1.0, 2.0)  # seconds of a running mean, as far as the model's own past goes
PENALTIES = (1e6, 1e5, 1e4, 1e3, 1e2, 1e1)
RIDGE_PENALTIES = tuple(10.0**k for k in range(-4, 2))
NUM_BASIS = 5
_MOST_ROWS, _LEAST_ROWS, _CELLS = 12_000, 1_000, 12_000_000  # moments that choices and fits see, and moments x units
_PATTERNS = 64
_CHUNK = 20_000_000  # cells of the past that are counted at once


class Activity(Protocol):
    """What is forecast."""

    mean_U: np.ndarray  # of a bin

    def values(self, windows: Windows, start: int, stop: int) -> np.ndarray:
        """(N, U) of the bins ``[start, stop)`` from each window's start on: a sum of counts, or a mean of samples."""
        ...

    def expected(self, width: int) -> np.ndarray:
        """(U,) the training mean of a span of so many bins."""
        ...

    def loss(self, true_NU: np.ndarray, predicted_NU: np.ndarray) -> float: ...


class Counts:
    """Spike counts."""

    def __init__(self, prepared: Prepared):
        self.index, self.mean_U = prepared.index, np.asarray(prepared.normalization.unit_rate)

    def values(self, windows: Windows, start: int, stop: int) -> np.ndarray:
        row, place, unit = spikes_around(self.index, windows, max(-start, 0), max(stop, 0))
        place = place - max(-start, 0)
        inside = (place >= start) & (place < stop)
        flat = np.bincount(
            row[inside] * self.index.num_units + unit[inside], minlength=len(windows) * self.index.num_units
        )
        return flat.reshape(len(windows), -1).astype(np.float64)

    def expected(self, width: int) -> np.ndarray:
        return self.mean_U * width

    def loss(self, true_NU: np.ndarray, predicted_NU: np.ndarray) -> float:
        return float((predicted_NU - xlogy(true_NU, np.maximum(predicted_NU, 1e-9))).sum())


class MeanSamples:
    """Samples of traces."""

    def __init__(self, prepared: Prepared):
        traces, scale = prepared.builder.traces, prepared.normalization.traces
        assert traces is not None and scale is not None
        self.traces, self.mean_U = traces, np.asarray(scale.mean)

    def values(self, windows: Windows, start: int, stop: int) -> np.ndarray:
        at_NL = windows.bins(self.traces.index)[:, None] + np.arange(start, stop)
        known_NL = windows.tick[:, None] + np.arange(start, stop) >= 0
        x_NLU = np.where(known_NL[..., None], self.traces.values[np.maximum(at_NL, 0)], np.nan)
        known = np.isfinite(x_NLU)
        number = known.sum(1)
        return np.where(number > 0, np.where(known, x_NLU, 0.0).sum(1) / np.maximum(number, 1), np.nan)

    def expected(self, width: int) -> np.ndarray:
        return self.mean_U

    def loss(self, true_NU: np.ndarray, predicted_NU: np.ndarray) -> float:
        return float(np.nanmean((true_NU - predicted_NU) ** 2 / (np.nanvar(true_NU, axis=0) + 1e-12)))


def activity(prepared: Prepared) -> Activity:
    return Counts(prepared) if prepared.builder.traces is None else MeanSamples(prepared)


def naive(prepared: Prepared, train: Windows, test: Windows, spans: Sequence[Span]) -> dict[str, np.ndarray]:
    """``last_value`` and ``running_mean``, (N, H, U): a share of what was just seen, the rest the training mean. Share, and
    seconds that are averaged, are those of least loss on training moments, a choice for each span."""
    of, dt, reach = activity(prepared), prepared.split.dt, max(1, prepared.builder.shape.reach)
    train = _some(train, prepared.index.num_units)
    averaged = sorted({min(reach, max(1, round(s / dt))) for s in AVERAGED_S})
    out = {"last_value": [], "running_mean": []}
    for start, stop in spans:
        width = stop - start
        wanted = of.values(train, start, stop)
        for name, pasts in (("last_value", [min(width, reach)]), ("running_mean", averaged)):
            found = []
            for past in pasts:
                seen = _recent(of, train, past, width)
                found += [(of.loss(wanted, _mixed(seen, of.expected(width), a)), past, a) for a in SHARES]
            _, past, share = min(found)
            out[name].append(_mixed(_recent(of, test, past, width), of.expected(width), share))
    return {name: np.stack(each, 1) for name, each in out.items()}


def _recent(of: Activity, windows: Windows, past: int, width: int) -> np.ndarray:
    """(N, U) what the latest ``past`` bins had, as of ``width`` bins; the training mean where there is no past."""
    x_NU = of.values(windows, -past, 0)
    if isinstance(of, Counts):
        there = np.minimum(windows.tick, past)[:, None]
        x_NU = np.where(there > 0, x_NU * width / np.maximum(there, 1), np.nan)
    return np.where(np.isfinite(x_NU), x_NU, of.expected(width))


def _mixed(seen_NU: np.ndarray, mean_U: np.ndarray, share: float) -> np.ndarray:
    return share * seen_NU + (1 - share) * mean_U


def _some(windows: Windows, units: int) -> Windows:
    most = int(np.clip(_CELLS // units, _LEAST_ROWS, _MOST_ROWS))
    return windows[:: max(1, -(-len(windows) // most))]


# -- autoregressions -------------------------------------------------------------------------------------------


def autoregressive_glm(
    prepared: Prepared, train: Windows, valid: Windows, test: Windows, spans: Sequence[Span]
) -> np.ndarray:
    """(N, H, U) a Poisson GLM fitted for every span directly: root counts of all units before the moment under raised cosines
    of the lag, and behavior inputs and frames of the span, as the model has them. The penalty is chosen on validation
    moments. Above 256 units the population enters through its leading patterns.
    """
    of, (train, valid) = Counts(prepared), (_some(windows, prepared.index.num_units) for windows in (train, valid))
    history = [_history(prepared, windows) for windows in (train, valid, test)]
    out = []
    for start, stop in spans:
        width = stop - start
        stimulus = _exogenous(prepared, width)
        x = [
            torch.cat([h, *stimulus(Windows(w.segment, w.tick + start))], 1)
            for h, w in zip(history, (train, valid, test), strict=True)
        ]
        mean, spread = x[0].mean(0), x[0].std(0)
        scaled = [torch.cat([(one - mean) / torch.where(spread > 1e-6, spread, torch.inf), _ones(one)], 1) for one in x]
        y, held = of.values(train, start, stop), of.values(valid, start, stop)
        offset = torch.from_numpy(np.log(of.expected(width))).float()
        top = torch.from_numpy(np.log(np.maximum(y.max(0), 1.0))).float()
        relative = torch.ones(scaled[0].shape[1])
        relative[-1] = INTERCEPT_PENALTY
        problem = PoissonProblem(scaled[0], scaled[0].T @ torch.from_numpy(y).float(), offset, relative)
        rates = lambda x, weight, offset=offset, top=top: torch.minimum(offset + x @ weight, top).exp().double().numpy()
        weight, best = None, (np.inf, torch.zeros(0))
        for penalty in PENALTIES:
            weight = problem.fit(penalty, weight).weight_FU
            best = min(best, (of.loss(held, rates(scaled[1], weight)), weight), key=lambda one: one[0])
        out.append(rates(scaled[2], best[1]))
    return np.stack(out, 1)


def _ones(x: Tensor) -> Tensor:
    return torch.ones(len(x), 1)


def _history(prepared: Prepared, windows: Windows) -> Tensor:
    """(N, F) root counts (or patterns of counts) before each window under raised cosines of the lag."""
    past, units = prepared.builder.shape.past, prepared.index.num_units
    if past == 0:
        return torch.zeros(len(windows), 0)
    basis_LK = torch.from_numpy(raised_cosines(past, NUM_BASIS)[::-1].astype(np.float32))
    pattern_UQ = None
    if units > FULL_UNITS:
        width = max(1, prepared.builder.shape.current)
        found = unit_patterns(prepared.index, prepared.split.blocks["train"], width, _PATTERNS)
        pattern_UQ = torch.from_numpy(found.astype(np.float32))
    parts, size = [], max(1, _CHUNK // (past * min(units, FULL_UNITS)))
    for i in range(0, max(1, len(windows)), size):
        some = windows[i : i + size]
        if pattern_UQ is None:
            seen = (
                torch.einsum("nlu,lk->nuk", counts_around(prepared.index, some, past, 0), basis_LK).clamp_min(0).sqrt()
            )
        else:
            seen = torch.einsum("nlq,lk->nqk", patterns_around(prepared.index, some, past, 0, pattern_UQ), basis_LK)
        parts.append(seen.flatten(1))
    return torch.cat(parts)


def _exogenous(prepared: Prepared, width: int):
    """A function from windows to (N, F) behavior inputs and frames of their first ``width`` bins, one tensor a kind."""
    if not prepared.config.inputs and prepared.config.window.frames <= 0:
        return lambda windows: []
    builder = copy.copy(prepared.builder)
    builder.shape = dataclasses.replace(builder.shape, current=width)
    choice = Choice()
    design = Design(dataclasses.replace(prepared, builder=builder), "every", choice.components)

    def blocks(windows: Windows) -> Iterator[Tensor]:
        for block in design.exogenous(windows, choice):
            yield block.x_RF.view(len(windows), width, -1).mean(1)

    return blocks


def autoregression(
    prepared: Prepared, train: Windows, valid: Windows, test: Windows, spans: Sequence[Span]
) -> np.ndarray:
    """(N, H, U) of traces: ridge on the past samples of all units, in bins that widen with the lag, fitted for every span
    directly; the penalty is chosen on validation moments."""
    of, past = MeanSamples(prepared), max(1, prepared.builder.shape.past)
    edges = np.unique(np.round(past * np.linspace(0, 1, 6) ** 2).astype(int))

    def features(windows: Windows) -> np.ndarray:
        parts = [of.values(windows, -int(hi), -int(lo)) for lo, hi in zip(edges[:-1], edges[1:], strict=True)]
        return np.nan_to_num(np.concatenate([p - of.mean_U for p in parts], 1))

    train, valid = (_some(windows, prepared.index.num_units) for windows in (train, valid))
    x = [features(windows) for windows in (train, valid, test)]
    scale = x[0].std(0) + 1e-9
    out = []
    for start, stop in spans:
        y, held = of.values(train, start, stop), of.values(valid, start, stop)
        known = np.isfinite(y).all(1)
        found = []
        for _, weights in ridge_path(x[0][known] / scale, y[known] - of.mean_U, RIDGE_PENALTIES):
            found.append((of.loss(held, x[1] / scale @ weights + of.mean_U), weights))
        out.append(x[2] / scale @ min(found, key=lambda one: one[0])[1] + of.mean_U)
    return np.stack(out, 1)
