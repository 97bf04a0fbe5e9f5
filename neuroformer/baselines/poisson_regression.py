"""Penalised Poisson regression with a log link, many units on one design matrix.

Shape suffixes: R rows (bins), F features, U units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

INTERCEPT_PENALTY = 1e-4  # relative to a feature's: too little to matter, enough to hold a silent unit finite
_MEMORY = 20  # pairs that L-BFGS remembers
_SHORTEN = 0.4  # of a step that did not descend


@dataclass
class PoissonFit:
    """Weights of every unit, and whether they are the optimum.

    Attributes
    ----------
    weight_FU : the last row is the intercept, relative to the offset
    decrement : estimated distance of the objective from its minimum, nats a spike
    iterations : int
    converged : bool
    """

    weight_FU: Tensor
    decrement: float
    iterations: int
    converged: bool


class PoissonProblem:
    """Minimise ``sum exp(z) - k z + penalty / 2 * sum relative * w^2`` over w, ``z = offset + x w``.

    The units are separate problems that share ``x``, so all of them take each step together: L-BFGS with a
    line search per unit, preconditioned by the Hessian that a constant rate would have,
    ``mean rate * x'x + penalty * relative``, whose one eigendecomposition serves all units and penalties.

    Parameters
    ----------
    x_RF : float32, standardised; its last column is all ones
    counts_RU : float32
    offset_U : log of a rate per bin
    relative_F : penalty of each feature relative to the others, above 0
    """

    def __init__(self, x_RF: Tensor, counts_RU: Tensor, offset_U: Tensor, relative_F: Tensor):
        self.x, self.counts, self.offset, self.relative = x_RF, counts_RU, offset_U, relative_F
        self.spikes = counts_RU.sum(0)
        self.mean_rate = (self.spikes + 0.5) / len(counts_RU)
        scale = relative_F.rsqrt()
        gram = scale[:, None].double() * (x_RF.T @ x_RF).double() * scale.double()
        values, vectors = torch.linalg.eigh(gram)
        self._curvature = values.clamp_min(0).to(x_RF.dtype)
        self._basis = scale[:, None] * vectors.to(x_RF.dtype)
        self._x_counts = x_RF.T @ counts_RU

    def fit(self, penalty: float, start: Tensor | None = None, tolerance: float = 1e-5, limit: int = 400):
        """The optimum at one penalty.

        Parameters
        ----------
        penalty : of squared weights, in nats: the inverse variance of a Gaussian prior
        start : (F, U) weights to start from, such as those of a neighbouring penalty
        tolerance : nats a spike that may be left to gain
        limit : iterations

        Returns
        -------
        PoissonFit
        """
        num_spikes = float(self.spikes.sum().clamp_min(1))
        weight = torch.zeros_like(self._x_counts) if start is None else start.clone()
        self._penalty = penalty * self.relative[:, None]
        self._inverse = 1 / (self.mean_rate * self._curvature[:, None] + penalty)
        z = torch.addmm(self.offset.expand(len(self.x), -1), self.x, weight)
        rate = z.exp()
        gradient = self._gradient(rate, weight)
        pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        decrement, iteration = float("inf"), 0
        for iteration in range(limit + 1):
            direction = -self._newton(gradient, pairs)
            slope = _dot(gradient, direction)
            decrement = -float(slope.sum()) / num_spikes
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
        return self.x.T @ rate_RU - self._x_counts + self._penalty * weight_FU

    def _newton(self, gradient: Tensor, pairs) -> Tensor:
        """Two-loop recursion (Nocedal and Wright, algorithm 7.4), every unit with its own coefficients."""
        q, stack = gradient.clone(), []
        for moved, change, inverse in reversed(pairs):
            a = inverse * _dot(moved, q)
            q -= a * change
            stack.append(a)
        q = self._basis @ (self._inverse * (self._basis.T @ q))
        for (moved, change, inverse), a in zip(pairs, reversed(stack), strict=True):
            q += moved * (a - inverse * _dot(change, q))
        return q

    def _search(self, weight, direction, slope, z, rate):
        """Shorten each unit's step until its objective descends; no matrix product but one."""
        dz = self.x @ direction
        linear = _dot(self._penalty * weight, direction) - _dot(direction, self._x_counts)
        quadratic = _dot(self._penalty * direction, direction)
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


def _dot(a_FU: Tensor, b_FU: Tensor) -> Tensor:
    return (a_FU * b_FU).sum(0)
