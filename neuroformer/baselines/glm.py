"""Poisson GLMs: what a linear model of the same inputs knows of held-out spikes.

Two baselines, the stronger of which counts: ``past`` sees the spikes of all units up to the window's start,
``every`` sees every bin before the predicted one. Inputs and frames are those of the model.

Shape suffixes: W windows, B bins a window, R = W * B rows, F features, U units.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroformer import metrics
from neuroformer.baselines.glm_design import Choice, Design, Variant
from neuroformer.baselines.poisson_regression import INTERCEPT_PENALTY, PoissonFit, PoissonProblem
from neuroformer.config import Config
from neuroformer.data.splits import Split
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape, tile
from neuroformer.recording import Recording

GRID: dict[str, tuple] = {
    "harmonics": (4, 8, 16, 48, 96, 144, 192),
    "components": (16, 32, 64, 96, 128, 192),
    "squares": (False, True),
    "input_penalty": (1.0, 0.3, 0.1, 0.03, 0.01),
    "num_basis": (2, 3, 4, 6, 10, 16),
    "history": ("counts", "sqrt"),
    "reach": (0.25, 0.5, 1.0),
}
_STEP = 10**0.5  # between neighbouring penalties
_HIGHEST, _START, _LOWEST = 1e5, 1e4, 1e-1
_TUNE_ROWS, _TUNE_COUNTS = 8_000, 600_000  # the search sees so many bins, or so many bins x units if more
_SEARCH_TOLERANCE, _TOLERANCE = 1e-3, 1e-5  # nats a spike from the optimum
_CAPACITY = ("harmonics", "components", "input_penalty", "num_basis")  # up their grids, a GLM can do more
_OF_INPUTS = ("harmonics", "components", "squares")  # what one variant's search tells the other
_CHUNK = 4096  # windows at once


class Glm:
    """A fitted GLM; :func:`fit_glm` makes it.

    Attributes
    ----------
    choice : dict
        Chosen hyperparameters (fields of :class:`Choice`); ``variant``; ``valid_bits_per_spike`` of the final
        fit; ``tried``, a list of (option, value, bits/spike on a part of the windows), and ``tried_on_all``,
        likewise on all of them; ``converged``, ``iterations``, ``num_features``.
    """

    def __init__(self, design: Design, offset_U: Tensor, ceiling_U: Tensor):
        self.design, self.offset, self.ceiling = design, offset_U, ceiling_U
        self.choice: dict[str, Any] = {}
        self.setting = Choice()
        self.weight_FU = torch.zeros(0, 0)
        self.mean_F = self.scale_F = self.relative_F = torch.zeros(0)

    def rates(self, windows: Windows, index: SpikeIndex | None = None) -> np.ndarray:
        """(W, B, U) float64 expected counts per bin.

        Parameters
        ----------
        windows : Windows
        index : SpikeIndex, optional
            Replaces the recording's spikes, on the same segments.
        """
        shape = (len(windows), self.design.shape.current, len(self.offset))
        parts = []
        for i in range(0, len(windows), _CHUNK):
            x_RF = self._standardised(windows[i : i + _CHUNK], index)
            parts.append(self._rates(x_RF, self.weight_FU).double().numpy())
        return np.concatenate(parts).reshape(shape) if parts else np.zeros(shape)

    def _rates(self, x_RF: Tensor, weight_FU: Tensor) -> Tensor:
        z = torch.addmm(self.offset.expand(len(x_RF), -1), x_RF, weight_FU)
        # an unseen burst must not be answered by a rate beyond anything that training held
        return torch.minimum(z, self.ceiling).exp()

    def _standardised(self, windows: Windows, index: SpikeIndex | None = None) -> Tensor:
        x = [block for _, block in self.design.blocks(windows, self.setting, index)]
        rows = len(windows) * self.design.shape.current
        x_RF = torch.cat([*x, torch.ones(rows, 1)], 1)
        return x_RF.sub_(self.mean_F).div_(self.scale_F)

    def _standardise(self, windows: Windows, setting: Choice) -> Tensor:
        """Features of training windows; their means and spreads are kept for later ones."""
        self.setting, relative, blocks = setting, [], []
        for share, block in self.design.blocks(windows, setting, None):
            blocks.append(block)
            relative.append(torch.full((block.shape[1],), share))
        x_RF = torch.cat([*blocks, torch.ones(len(windows) * self.design.shape.current, 1)], 1)
        self.relative_F = torch.cat([*relative, torch.tensor([INTERCEPT_PENALTY])])
        self.mean_F, spread = x_RF.mean(0), x_RF.std(0)
        # a feature that training never varied says nothing: held at zero
        self.scale_F = torch.where(spread > 1e-6, spread, torch.inf)
        self.mean_F[-1], self.scale_F[-1] = 0.0, 1.0
        return x_RF.sub_(self.mean_F).div_(self.scale_F)


class _Search:
    """Bits/spike on validation windows for one setting after another."""

    def __init__(self, glm: Glm, train: Windows, valid: Windows):
        self.glm, self.train, self.valid = glm, train, valid
        self.counts, self.valid_counts = glm.design.history.current(train), glm.design.history.current(valid)
        null_rates = np.broadcast_to(glm.offset.double().exp().numpy(), self.valid_counts.shape)
        self.null = metrics.poisson_log_likelihood(self.valid_counts, null_rates)
        self.spikes = max(float(self.valid_counts.sum()), 1.0)

    def path(self, setting: Choice, penalties: Iterator[float]) -> tuple[float, float]:
        """Best (bits/spike, penalty) going down the penalties, each from the last fit, until it falls."""
        problem = self._problem(setting)
        x_valid = self.glm._standardised(self.valid)
        best, start = (-np.inf, 0.0), None
        for penalty in penalties:
            start = problem.fit(penalty, start, _SEARCH_TOLERANCE).weight_FU
            bits = self._score(x_valid, start)
            if bits <= best[0]:
                break
            best = (bits, penalty)
        return best

    def fit(self, setting: Choice) -> tuple[float, PoissonFit]:
        """Bits/spike and the converged fit of one setting."""
        problem = self._problem(setting)
        rough = problem.fit(setting.penalty * _STEP**2, None, _SEARCH_TOLERANCE)
        fit = problem.fit(setting.penalty, rough.weight_FU, _TOLERANCE)
        return self._score(self.glm._standardised(self.valid), fit.weight_FU), fit

    def _problem(self, setting: Choice) -> PoissonProblem:
        x_RF = self.glm._standardise(self.train, setting)
        return PoissonProblem(x_RF, self.counts, self.glm.offset, self.glm.relative_F)

    def _score(self, x_RF: Tensor, weight_FU: Tensor) -> float:
        rates = self.glm._rates(x_RF, weight_FU)
        ll = metrics.poisson_log_likelihood(self.valid_counts, rates)
        return metrics.bits_per_spike(ll, self.null, self.spikes)


def fit_glm(
    rec: Recording,
    split: Split,
    index: SpikeIndex,
    config: Config,
    normalization: dict[str, Any],
    *,
    variant: Variant,
    seed: int = 0,
    like: Glm | None = None,
) -> Glm:
    """Tune on validation windows, fit on training windows.

    Log link, all units on one design matrix, L2 penalty on standardised features. Features of a bin: the
    spikes of every unit under log-spaced raised cosines of the distance to the bin (:class:`Choice`); linear
    inputs standardised, Fourier inputs by harmonics, both read at the bin's centre; principal components of
    the clip of frames up to the bin's end, and their squares; for ``past`` also the bin's place in the
    window. Options are chosen one after another on a part of the data, then those that add features again on
    all of it. Time before a segment's origin counts as silence.

    Parameters
    ----------
    rec, split, index, config, normalization : as for the model
    variant : "past" sees spikes before the window, "every" those of all bins before the predicted one
    seed : which training windows the search sees
    like : the other variant, fitted on the same data: the search starts from its choice and keeps its inputs'
        features, which saves half the time

    Raises
    ------
    ValueError
        An unknown variant, or no training window.
    """
    if variant not in ("past", "every"):
        raise ValueError(f"variant is {variant!r}; expected 'past' or 'every'")
    shape = WindowShape.from_config(config)
    train, valid = tile(split.blocks["train"], shape), tile(split.blocks["valid"], shape)
    if len(train) == 0 or len(valid) == 0:
        raise ValueError(f"{len(train)} training and {len(valid)} validation windows; the GLM needs some of both")
    design = Design(rec, split, index, config, normalization, variant, max(GRID["components"]))
    offset = torch.tensor(normalization["unit_rate"]).log()
    ceiling = (design.history.current(train).amax(0) + 1).log()
    glm = Glm(design, offset, ceiling)
    rng = np.random.default_rng(seed)
    rows = max(_TUNE_ROWS, _TUNE_COUNTS // index.num_units)
    few = lambda windows: windows[_sample(rng, len(windows), max(1, rows // shape.current))]
    search = _Search(glm, few(train), few(valid))
    options = [name for name in _options(design) if like is None or name not in _OF_INPUTS]
    setting, tried = _tune(search, options, Choice() if like is None else like.setting, _START, (1, -1))
    search = _Search(glm, train, valid)
    # few bins favour few features: with all of them, more may be better
    more = [name for name in options if name in _CAPACITY]
    setting, tried_on_all = _tune(search, more, setting, setting.penalty * _STEP, (1,))
    bits, fit = search.fit(setting)
    if not fit.converged:
        warnings.warn(
            f"the GLM ({variant}) stopped {fit.decrement:.2g} nats/spike from its optimum after "
            f"{fit.iterations} iterations",
            stacklevel=2,
        )
    glm.weight_FU = fit.weight_FU
    glm.choice = dataclasses.asdict(glm.setting) | {
        "variant": variant,
        "valid_bits_per_spike": bits,
        "tried": tried,
        "tried_on_all": tried_on_all,
        "converged": fit.converged,
        "iterations": fit.iterations,
        "num_features": len(fit.weight_FU) - 1,
    }
    return glm


def glm_bits_per_spike(
    glm: Glm, split: Split, index: SpikeIndex, normalization: dict[str, Any], part: str = "test"
) -> float:
    """Bits/spike of a GLM against the null, over windows that tile the held-out blocks, empty ones included.

    The GLM's binned Poisson likelihood carries ``log k!``, as the null does, so that the figure compares with
    that of the token model, which is a likelihood of the same counts.
    """
    windows = tile(split.blocks[part], glm.design.shape)
    counts = glm.design.history.current(windows).numpy()
    rates = glm.rates(windows).reshape(counts.shape)
    ll = metrics.poisson_log_likelihood(counts, rates)
    null = metrics.null_log_likelihood(counts, normalization["unit_rate"])
    return metrics.bits_per_spike(ll, null, float(counts.sum()))


def _options(design: Design) -> list[str]:
    """Options that this recording and configuration have, the weightiest first."""
    has_history = design.shape.past > 0 or (design.variant == "every" and design.shape.current > 1)
    there = {
        "harmonics": design.has_fourier,
        "components": design.clips is not None,
        "squares": design.clips is not None or design.has_linear,
        "input_penalty": bool(design.inputs) or design.clips is not None,
        "num_basis": has_history,
        "history": has_history,
        "reach": has_history and design.shape.past > 1,
    }
    return [name for name in GRID if there[name]]


def _tune(
    search: _Search, options: list[str], setting: Choice, highest: float, directions: tuple[int, ...]
) -> tuple[Choice, list[tuple[str, Any, float]]]:
    """One pass of coordinate search: each option climbs its grid from where it is; the penalty follows."""
    best, penalty = search.path(setting, _down(highest))
    setting = dataclasses.replace(setting, penalty=penalty)
    tried: list[tuple[str, Any, float]] = [("penalty", penalty, best)]
    for name in options:
        grid = GRID[name]
        for direction in directions:
            place, moved = grid.index(getattr(setting, name)) + direction, False
            # one more basis function may blur what two more resolve; on all data it is too dear to look
            chances = 2 if name == "num_basis" and directions == (1, -1) and direction > 0 else 1
            while 0 <= place < len(grid) and chances:
                candidate = dataclasses.replace(setting, **{name: grid[place]})
                bits, penalty = search.path(candidate, _down(setting.penalty * _STEP))
                tried.append((name, grid[place], bits))
                place += direction
                if bits > best:
                    best, setting, moved = bits, dataclasses.replace(candidate, penalty=penalty), True
                else:
                    chances -= 1
            if moved:
                break
    return setting, tried


def _down(penalty: float) -> Iterator[float]:
    penalty = min(penalty, _HIGHEST)
    while penalty >= _LOWEST:
        yield penalty
        penalty /= _STEP


def _sample(rng: np.random.Generator, size: int, most: int) -> np.ndarray:
    return np.sort(rng.permutation(size)[:most])
