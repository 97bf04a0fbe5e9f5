"""How a GLM chooses its features and penalties: bits/spike on validation windows, one option after another.

Shape suffixes: R rows (bins), F features, U units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from neuroformer.baselines.glm.design import MOST_PATTERNS, Choice, Design
from neuroformer.baselines.glm.model import Glm, none_hidden
from neuroformer.baselines.poisson_regression import PoissonProblem, offset_of
from neuroformer.data.windows import Windows
from neuroformer.metrics import bits_per_spike, poisson_log_likelihood

GRID: dict[str, tuple] = {
    "harmonics": (4, 8, 16, 48, 96, 144, 192),
    "components": (16, 32, 64, 96, 128, 192),
    "squares": (False, True),
    "clips": ("pixels", "energies"),
    "input_penalty": (1.0, 0.3, 0.1, 0.03, 0.01),
    "rank": (8, 16, 32, 64, MOST_PATTERNS),
    "num_basis": (2, 3, 4, 6, 10, 16),
    "history": ("counts", "sqrt"),
    "reach": (0.25, 0.5, 1.0),
    "same_bin_penalty": (3.0, 1.0, 0.3, 0.1, 0.03, 0.01),
}
STEP = 10**0.5  # between neighbouring penalties
MOST_FEATURES = 2500  # their products are decomposed
_HIGHEST, _LOWEST = 1e5, 1e-1
_TOLERANCE = 1e-3  # nats per spike from the optimum
_ASKED_GROUPS = 8  # of a large population, evenly spaced


class Search:
    """Bits/spike on validation windows for one setting after another."""

    def __init__(self, glm: Glm, train: Windows, valid: Windows):
        self.glm, self.train, self.valid = glm, train, valid
        self.groups = some_groups(glm.design)
        counts = lambda windows: [glm.design.counts(windows, g) for g in self.groups]
        self.counts, self.valid_counts = counts(train), counts(valid)
        hidden = lambda windows: [glm.design.hidden(windows, g) for g in self.groups]
        self.hidden, self.valid_hidden = hidden(train), hidden(valid)
        self.null = 0.0
        for g, counts_RU, hidden_RU in zip(self.groups, self.valid_counts, self.valid_hidden, strict=True):
            rates = none_hidden(glm.offset[slice(*glm.design.groups[g])].double().exp(), hidden_RU)
            self.null += poisson_log_likelihood(counts_RU.numpy(), rates.numpy())
        self.spikes = max(sum(float(k.sum()) for k in self.valid_counts), 1.0)

    def path(self, setting: Choice, penalties: Iterator[float]) -> tuple[float, float]:
        """Best (bits/spike, penalty) going down the penalties, each from the last fit, until it falls."""
        problems, held = self._problems(setting)
        best, starts = (-np.inf, 0.0), [None] * len(problems)
        for penalty in penalties:
            starts = [p.fit(penalty, s, _TOLERANCE).weight_FU for p, s in zip(problems, starts, strict=True)]
            bits = self._score(held, starts)
            if bits <= best[0]:
                break
            best = (bits, penalty)
        return best

    def _problems(self, setting: Choice) -> tuple[list[PoissonProblem], list[Tensor]]:
        """The regression of every group that is searched, and the features of its validation windows."""
        glm, problems, held = self.glm, [], []
        shared_RF = glm.standardise(self.train, setting)
        shared_valid_RF = glm.shared(self.valid)
        for g, counts_RU, hidden_RU in zip(self.groups, self.counts, self.hidden, strict=True):
            x_RF = glm.standardise_group(shared_RF, self.train, g)
            offset = offset_of(glm.offset[slice(*glm.design.groups[g])], hidden_RU)
            relative_F, allowed_FU = glm.relative(g)
            problems.append(PoissonProblem(x_RF, x_RF.T @ counts_RU, offset, relative_F, allowed_FU))
            held.append(glm.with_group(shared_valid_RF, self.valid, g))
        return problems, held

    def _score(self, held: Sequence[Tensor], weights: Sequence[Tensor]) -> float:
        total = 0.0
        for g, x_RF, weight_FU, counts_RU, hidden_RU in zip(
            self.groups, held, weights, self.valid_counts, self.valid_hidden, strict=True
        ):
            size = max(1, 2_000_000 // weight_FU.shape[1])
            for rows in (slice(i, i + size) for i in range(0, len(x_RF), size)):
                rates = self.glm.log_rates(x_RF[rows], weight_FU, g, None if hidden_RU is None else hidden_RU[rows])
                total += poisson_log_likelihood(counts_RU[rows].numpy(), rates.exp().numpy())
        return bits_per_spike(total, self.null, self.spikes)


def some_groups(design: Design) -> list[int]:
    """Groups of units that are asked what is best for all."""
    number = len(design.groups)
    return np.unique(np.linspace(0, number - 1, min(number, _ASKED_GROUPS)).astype(int)).tolist()


def options_of(design: Design) -> list[str]:
    """Options that this recording and configuration have, the weightiest first."""
    there = {
        "harmonics": design.has_fourier,
        "clips": design.energies is not None,
        "components": design.clips is not None,
        "squares": design.clips is not None or design.has_linear,
        "input_penalty": bool(design.inputs) or design.clips is not None,
        "rank": design.has_history and design.form == "patterns",
        "num_basis": design.has_history,
        "history": design.has_history,
        "reach": design.has_history and design.shape.past > 1,
        "same_bin_penalty": design.variant == "same_bin",
    }
    return [name for name in GRID if there[name]]


def tune(
    search: Search, options: list[str], setting: Choice, highest: float, directions: tuple[int, ...]
) -> tuple[Choice, list[tuple[str, Any, float]]]:
    """One pass of coordinate search: each option climbs its grid from where it is; the penalty follows."""
    best, penalty = search.path(setting, down(highest))
    setting = dataclasses.replace(setting, penalty=penalty)
    tried: list[tuple[str, Any, float]] = [("penalty", penalty, best)]
    for name in options:
        grid = GRID[name]
        for direction in directions:
            place, moved = grid.index(getattr(setting, name)) + direction, False
            # one more basis function may blur what two more resolve; on all data a look would take too long
            chances = 2 if name == "num_basis" and directions == (1, -1) and direction > 0 else 1
            while 0 <= place < len(grid) and chances:
                candidate = dataclasses.replace(setting, **{name: grid[place]})
                if num_features(search.glm, search.train, candidate) > MOST_FEATURES:
                    break
                # other features may want far more shrinkage
                bits, penalty = search.path(candidate, down(highest if name == "clips" else setting.penalty * STEP))
                tried.append((name, grid[place], bits))
                place += direction
                if bits > best:
                    best, setting, moved = bits, dataclasses.replace(candidate, penalty=penalty), True
                else:
                    chances -= 1
            if moved:
                break
    return setting, tried


def num_features(glm: Glm, windows: Windows, setting: Choice) -> int:
    """Features of a group of units."""
    one, design = windows[:1], glm.design
    blocks = [*design.shared(one, setting), *design.of_group(one, setting, len(design.groups) - 1)]
    return sum(b.x_RF.shape[1] for b in blocks)


def down(penalty: float) -> Iterator[float]:
    """Penalties from this one on, until hardly any is left."""
    penalty = min(penalty, _HIGHEST)
    while penalty >= _LOWEST:
        yield penalty
        penalty /= STEP
