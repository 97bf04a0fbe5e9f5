"""Penalised Poisson regression with a log link, many units on one design matrix.

Shape suffixes: R rows (bins), F features, U units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

INTERCEPT_PENALTY = 1e-4  # relative to a feature's: too little to matter, enough to hold a silent unit finite
CELLS = 3_000_000  # rows x units that are solved at once; five arrays of that size exist at a time
_MEMORY = 20  # pairs that L-BFGS remembers
_SHORTEN = 0.4  # of a step that did not descend


@dataclass
class PoissonFit:
    """Weights of every unit, and whether they are the optimum.

    Attributes
    ----------
    weight_FU : the last row is the intercept, relative to the offset
    decrement : estimated distance of the objective from its minimum, nats per spike
    iterations : int
    converged : bool
    """

    weight_FU: Tensor
    decrement: float
    iterations: int
    converged: bool


class PoissonProblem:
    """Minimise ``sum exp(z) - sum k z + penalty / 2 * sum relative * w^2`` over w, ``z = offset + x w``.

    The counts k enter through ``x'k`` alone. These may be sums over more bins than the rows of ``x``, if the offset
    holds the log of how many bins a row stands for: the expected counts of a long recording are then estimated from
    some of its bins, its spikes are all used.

    The units are separate problems that share ``x``, so all of them take each step together: L-BFGS with a
    line search per unit, preconditioned by the Hessian that a constant rate would have,
    ``mean rate * x'x + penalty * relative``, whose one eigendecomposition serves all units and penalties.

    Parameters
    ----------
    x_RF : float32, standardised; its last column is all ones
    x_counts_FU : ``x'k``, over all bins that count
    offset_U : log of a rate per row; (R, U) where it differs between rows, minus infinity where no count is expected
    relative_F : penalty of each feature relative to the others, above 0
    allowed_FU : 1 where a unit may use a feature, else 0; None: all may use all
    """

    def __init__(
        self,
        x_RF: Tensor,
        x_counts_FU: Tensor,
        offset_U: Tensor,
        relative_F: Tensor,
        allowed_FU: Tensor | None = None,
    ):
        self.x, self.offset, self.relative, self.allowed = x_RF, offset_U, relative_F, allowed_FU
        self.x_counts = x_counts_FU if allowed_FU is None else x_counts_FU * allowed_FU
        self.spikes = x_counts_FU[-1]
        self.mean_rate = (self.spikes + 0.5) / len(x_RF)
        scale = relative_F.rsqrt()
        gram = scale[:, None].double() * (x_RF.T @ x_RF).double() * scale.double()
        values, vectors = torch.linalg.eigh(gram)
        self._curvature = values.clamp_min(0).to(x_RF.dtype)
        self._basis = scale[:, None] * vectors.to(x_RF.dtype)

    def fit(self, penalty: float, start: Tensor | None = None, tolerance: float = 1e-5, limit: int = 400) -> PoissonFit:
        """The optimum at one penalty.

        Parameters
        ----------
        penalty : of squared weights, in nats: the inverse variance of a Gaussian prior
        start : (F, U) weights to start from, such as those of a neighbouring penalty
        tolerance : nats per spike that may be left to gain
        limit : iterations
        """
        start = torch.zeros_like(self.x_counts) if start is None else start
        size = max(8, CELLS // max(1, len(self.x)))
        parts = [
            _Units(self, slice(i, i + size), penalty).fit(start[:, i : i + size], tolerance, limit)
            for i in range(0, start.shape[1], size)
        ]
        return PoissonFit(
            torch.cat([p.weight_FU for p in parts], 1),
            max(p.decrement for p in parts),
            max(p.iterations for p in parts),
            all(p.converged for p in parts),
        )


class _Units:
    """Some units of a problem, at one penalty."""

    def __init__(self, problem: PoissonProblem, units: slice, penalty: float):
        self.x, self.basis = problem.x, problem._basis
        self.offset, self.x_counts = problem.offset[..., units], problem.x_counts[:, units]
        self.allowed = None if problem.allowed is None else problem.allowed[:, units]
        self.num_spikes = float(problem.spikes[units].sum().clamp_min(1))
        self.penalty = penalty * problem.relative[:, None]
        self.inverse = 1 / (problem.mean_rate[units] * problem._curvature[:, None] + penalty)

    def fit(self, start: Tensor, tolerance: float, limit: int) -> PoissonFit:
        weight = start.clone()
        z = torch.addmm(self.offset.expand(len(self.x), -1), self.x, weight)
        rate = z.exp()
        gradient = self._gradient(rate, weight)
        pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        decrement, iteration = float("inf"), 0
        for iteration in range(limit + 1):
            direction = -self._newton(gradient, pairs)
            slope = _dot(gradient, direction)
            decrement = -float(slope.sum()) / self.num_spikes
            if decrement < tolerance or iteration == limit:
                break
            step, z, rate = self._search(weight, direction, slope, z, rate)
            moved = direction * step
            weight = weight + moved
            new = self._gradient(rate, weight)
            change = new - gradient
            curvature = _dot(moved, change)
            inverse = torch.where(curvature > 1e-10, 1 / curvature.clamp_min(1e-10), 0.0)
            pairs = [*pairs[1 - _MEMORY :], (moved, change, inverse)]
            gradient = new
        return PoissonFit(weight, decrement, iteration, decrement < tolerance)

    def _gradient(self, rate_RU: Tensor, weight_FU: Tensor) -> Tensor:
        gradient = self.x.T @ rate_RU - self.x_counts + self.penalty * weight_FU
        return gradient if self.allowed is None else gradient * self.allowed

    def _newton(self, gradient: Tensor, pairs) -> Tensor:
        """Two-loop recursion (Nocedal and Wright, algorithm 7.4), every unit with its own coefficients."""
        q, stack = gradient.clone(), []
        for moved, change, inverse in reversed(pairs):
            a = inverse * _dot(moved, q)
            q -= a * change
            stack.append(a)
        q = self.basis @ (self.inverse * (self.basis.T @ q))
        if self.allowed is not None:
            q *= self.allowed  # still positive definite on the features that a unit has
        for (moved, change, inverse), a in zip(pairs, reversed(stack), strict=True):
            q += moved * (a - inverse * _dot(change, q))
        return q

    def _search(self, weight, direction, slope, z, rate):
        """Shorten each unit's step until its objective descends; no matrix product but one."""
        dz = self.x @ direction
        linear = _dot(self.penalty * weight, direction) - _dot(direction, self.x_counts)
        quadratic = _dot(self.penalty * direction, direction)
        before = rate.sum(0)
        slack = 1e-6 * before  # float32 cannot tell less
        step = torch.ones_like(slope)
        for _ in range(20):
            new_z = torch.addcmul(z, dz, step)
            new_rate = new_z.exp()
            gain = new_rate.sum(0) - before + step * linear + 0.5 * step**2 * quadratic
            worse = ~(gain <= 1e-4 * step * slope + slack)
            if not worse.any():
                return step, new_z, new_rate
            step = torch.where(worse, step * _SHORTEN, step)
        step = torch.where(worse, 0.0, step)
        new_z = torch.addcmul(z, dz, step)
        return step, new_z, new_z.exp()


def offset_of(offset_U: Tensor, hidden_RU: Tensor | None) -> Tensor:
    """The offset of units (U,), or of their rows (R, U) where some were not observed: minus infinity there, so that no count
    is expected of them."""
    return offset_U if hidden_RU is None else offset_U.masked_fill(hidden_RU, -torch.inf)


def _dot(a_FU: Tensor, b_FU: Tensor) -> Tensor:
    return (a_FU * b_FU).sum(0)
